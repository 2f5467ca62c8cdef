// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

const (
	// DefaultCallTimeout bounds a call: the kubelet gives up after two minutes, and must hear the reason before.
	DefaultCallTimeout = 90 * time.Second
	// DefaultDrain is how long calls under way may take when the server stops.
	DefaultDrain = 10 * time.Second

	maxNodeID = 192 // bytes; the CSI specification's bound of node_id is 256, Kubernetes' label-like one is 192
)

// Options make a Server. Version, NodeID, Volumes, Configuration and Logger are required.
type Options struct {
	Version string // of the driver
	NodeID  string // name of the Kubernetes node
	// MaxVolumes is how many volumes of the driver the scheduler may place on the node; 0: no limit.
	MaxVolumes    int64
	Volumes       Volumes
	Configuration Configuration
	Ready         func() error  // what Probe tells; nil: always ready
	Observer      Observer      // nil: nobody
	CallTimeout   time.Duration // 0: DefaultCallTimeout
	Drain         time.Duration // 0: DefaultDrain
	Logger        *slog.Logger
}

// Server serves the Identity and Node services.
type Server struct {
	grpc  *grpc.Server
	drain time.Duration
	log   *slog.Logger
}

// NewServer checks the options and does no I/O.
func NewServer(o Options) (*Server, error) {
	switch {
	case o.NodeID == "" || len(o.NodeID) > maxNodeID:
		return nil, fmt.Errorf("the node's name has %d bytes; it must have 1 to %d", len(o.NodeID), maxNodeID)
	case o.MaxVolumes < 0:
		return nil, fmt.Errorf("the greatest number of volumes is %d; it must be 0 (no limit) or more", o.MaxVolumes)
	case o.Version == "" || o.Volumes == nil || o.Configuration == nil || o.Logger == nil:
		return nil, errors.New("version, volumes, configuration and logger are required")
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = DefaultCallTimeout
	}
	if o.Drain <= 0 {
		o.Drain = DefaultDrain
	}
	each := &interceptor{timeout: o.CallTimeout, observer: o.Observer, log: o.Logger}
	server := grpc.NewServer(grpc.UnaryInterceptor(each.unary))
	spec.RegisterIdentityServer(server, &identity{version: o.Version, ready: o.Ready, log: o.Logger})
	spec.RegisterNodeServer(server, &node{
		id: o.NodeID, maxVolumes: o.MaxVolumes,
		volumes: o.Volumes, config: o.Configuration, specs: newSpecs(), log: o.Logger,
	})
	return &Server{grpc: server, drain: o.Drain, log: o.Logger}, nil
}

// Serve serves a listener, which socket.Listen made, until the context ends. Then it takes no new calls, waits for those under
// way, at most for the time to drain, and cuts off the rest. It closes the listener. A Server serves once.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := s.grpc.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serving CSI on %s: %w", listener.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		s.stop()
		return nil
	})
	return group.Wait()
}

// stop ends gracefully, or not. A handler that does not heed its context is left behind: it must not keep the process.
func (s *Server) stop() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	cutOff := time.NewTimer(s.drain)
	defer cutOff.Stop()
	select {
	case <-done:
	case <-cutOff.C:
		s.log.Warn("calls are still under way; cutting them off")
		s.grpc.Stop()
	}
}
