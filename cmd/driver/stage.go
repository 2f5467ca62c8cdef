// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// service is a part of the daemon that runs until its context ends.
type service struct {
	name string
	run  func(context.Context) error
}

// within runs inner, with services around it: they are stopped only when inner has returned, whatever ends it. That is
// how the daemon stops in order, from the inside out, while whatever an inner part still has to say finds the outer ones
// at work. A service that ends before its time ends inner too, and its error is the one returned.
func within(ctx context.Context, inner func(context.Context) error, services ...service) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, innerCtx := errgroup.WithContext(ctx)
	for _, s := range services {
		group.Go(func() error {
			err := s.run(serving)
			if serving.Err() != nil && err == context.Canceled { //nolint:errorlint // the bare one: it was we who said so
				return nil
			}
			if err == nil && serving.Err() == nil {
				return fmt.Errorf("%s ended by itself", s.name)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer stop()
		return inner(innerCtx)
	})
	return group.Wait()
}

// untilDone is the innermost part: it waits for the signal to stop.
func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
