// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/leasefs/leasefs/pkg/rotation"
)

func TestStoppingWaitsForCallsUnderWayAndRemovesTheSocket(t *testing.T) {
	e := newEdge(t, nil)
	began, finish := make(chan struct{}), make(chan struct{})
	e.volumes.publish = func(context.Context, rotation.Request) error { close(began); <-finish; return nil }
	answer := make(chan error, 1)
	go func() { _, err := e.node.NodePublishVolume(context.Background(), publishRequest(t)); answer <- err }()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- e.stop() }()
	for { // until the listener is closed
		if _, err := os.Lstat(e.path); errors.Is(err, fs.ErrNotExist) {
			break
		}
		runtime.Gosched()
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped (%v) while a call was under way", err)
	default:
	}
	close(finish)
	if err := <-answer; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStoppingCutsOffCallsThatTakeTooLong(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Drain = 20 * time.Millisecond })
	began := make(chan struct{})
	e.volumes.publish = func(ctx context.Context, _ rotation.Request) error { close(began); <-ctx.Done(); return ctx.Err() }
	answer := make(chan error, 1)
	go func() { _, err := e.node.NodePublishVolume(context.Background(), publishRequest(t)); answer <- err }()
	<-began
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	if err := <-answer; status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled {
		t.Errorf("the call that was cut off: %v", err)
	}
	if !strings.Contains(e.logs.String(), "cutting them off") {
		t.Error("the log does not say so")
	}
}
