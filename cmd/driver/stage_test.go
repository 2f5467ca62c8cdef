// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tape records what happened in which order.
type tape struct {
	mu    sync.Mutex
	lines []string
}

func (t *tape) add(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, s)
}

// lasting is a service that takes a second to stop.
func (t *tape) lasting(name string) service {
	return service{name, func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(time.Second)
		t.add(name + " stopped")
		return nil
	}}
}

func TestLayersStopFromTheInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &tape{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- within(ctx, func(ctx context.Context) error {
				return within(ctx, func(ctx context.Context) error {
					return within(ctx, untilDone, rec.lasting("registration"))
				}, rec.lasting("csi"))
			}, rec.lasting("audit"))
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"registration stopped", "csi stopped", "audit stopped"}, rec.lines); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestFailureOfAnyLayerStopsAllInOrder(t *testing.T) {
	boom := errors.New("boom")
	failing := service{"failing", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Minute):
			return boom
		}
	}}
	cases := map[string][]service{ // services of the outer and of the inner layer
		"outer": {failing, {"", nil}},
		"inner": {{"", nil}, failing},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec := &tape{}
				layer := func(s service, lasting string) []service {
					if s.run == nil {
						return []service{rec.lasting(lasting)}
					}
					return []service{s, rec.lasting(lasting)}
				}
				err := within(t.Context(), func(ctx context.Context) error {
					return within(ctx, untilDone, layer(c[1], "csi")...)
				}, layer(c[0], "audit")...)
				if !errors.Is(err, boom) || !strings.Contains(err.Error(), "failing: boom") {
					t.Errorf("got %v", err)
				}
				if !slices.Equal(rec.lines, []string{"csi stopped", "audit stopped"}) {
					t.Errorf("order: %q", rec.lines)
				}
			})
		})
	}
}

func TestServiceThatEndsTooEarlyIsAFailure(t *testing.T) {
	err := within(t.Context(), untilDone, service{"quitter", func(context.Context) error { return nil }})
	if err == nil || err.Error() != "quitter ended by itself" {
		t.Fatalf("got %v", err)
	}
}

func TestContextErrorOfAStoppedServiceIsNoFailure(t *testing.T) {
	err := within(t.Context(), func(context.Context) error { return nil }, service{"s", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
}
