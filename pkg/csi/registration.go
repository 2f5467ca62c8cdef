// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/socket"
)

// DefaultRegistrationInterval is how often the registration socket is looked for.
const DefaultRegistrationInterval = 5 * time.Second

// RegistrationOptions say how to make the driver known to the kubelet.
type RegistrationOptions struct {
	Dir      string        // the kubelet's plugins_registry directory
	Endpoint string        // absolute path of the CSI socket as the kubelet sees it
	Interval time.Duration // how often to look whether the socket is still there; 0: DefaultRegistrationInterval
	Observer Observer      // nil: nobody
	Logger   *slog.Logger
}

// Registration makes the driver known to the kubelet, after the kubelet's plugin registration protocol, version 1: the
// kubelet watches plugins_registry for sockets, asks each for its name and endpoint (GetInfo), calls NodeGetInfo at that
// endpoint and then says what came of it (NotifyRegistrationStatus). When the socket disappears it forgets the driver.
type Registration struct {
	registration.UnimplementedRegistrationServer

	options RegistrationOptions

	mu     sync.Mutex
	status error // nil: registered
}

// errNotAsked is the status before the kubelet's first word.
var errNotAsked = errors.New("the kubelet has not registered the driver yet")

// NewRegistration does no I/O.
func NewRegistration(o RegistrationOptions) *Registration {
	if o.Interval <= 0 {
		o.Interval = DefaultRegistrationInterval
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	return &Registration{options: o, status: errNotAsked}
}

// Path is where the registration socket is made.
func (r *Registration) Path() string {
	return filepath.Join(r.options.Dir, DriverName+"-reg.sock")
}

// Ready is nil once the kubelet has registered the driver, else it says what is amiss.
func (r *Registration) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run serves the registration socket until the context ends, and then removes it, upon which the kubelet sends no more
// calls. Start it when the CSI socket is listening: the kubelet calls back at once.
//
// A socket that disappears while the daemon runs (a kubelet that empties plugins_registry when it starts, a person) is
// made again, and the kubelet then registers anew. Failing to make it is an error at the first time only.
func (r *Registration) Run(ctx context.Context) error {
	log := r.options.Logger
	listener, err := socket.Listen(ctx, r.Path(), socket.Shared, log)
	if err != nil {
		return fmt.Errorf("registering with the kubelet: %w", err)
	}
	log.Info("waiting for the kubelet to register the driver", logkey.File, r.Path())
	for listener != nil {
		if err := r.serve(ctx, listener); err != nil {
			return fmt.Errorf("registering with the kubelet: %w", err)
		}
		listener = r.listenAgain(ctx)
	}
	return nil
}

// serve serves one socket until the context ends or the socket has disappeared.
func (r *Registration) serve(ctx context.Context, listener *socket.Socket) error {
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, r)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		defer server.Stop()
		ticker := time.NewTicker(r.options.Interval)
		defer ticker.Stop()
		for listener.Present() {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
		return nil
	})
	return group.Wait()
}

// listenAgain tries until it succeeds; nil: the context has ended before.
func (r *Registration) listenAgain(ctx context.Context) *socket.Socket {
	if ctx.Err() == nil {
		r.options.Logger.Warn("the registration socket has disappeared; making it again", logkey.File, r.Path())
	}
	ticker := time.NewTicker(r.options.Interval)
	defer ticker.Stop()
	said := "" // each reason is logged once, not at every attempt
	for ctx.Err() == nil {
		listener, err := socket.Listen(ctx, r.Path(), socket.Shared, r.options.Logger)
		if err == nil {
			return listener
		}
		if ctx.Err() != nil {
			break // it may have failed for that
		}
		r.set(fmt.Errorf("the driver cannot offer itself to the kubelet: %w", err))
		if said != err.Error() {
			said = err.Error()
			r.options.Logger.Error("cannot make the registration socket; the kubelet will know nothing of the driver until it can be made",
				logkey.File, r.Path(), logkey.Error, err)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return nil
}

func (r *Registration) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = err
	r.options.Observer.Registered(err == nil)
}

// GetInfo implements the kubelet's registration protocol.
func (r *Registration) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              DriverName,
		Endpoint:          r.options.Endpoint,
		SupportedVersions: []string{"1.0.0"}, // of CSI; the kubelet knows major version 1 and asks for no more
	}, nil
}

// NotifyRegistrationStatus implements the kubelet's registration protocol. The kubelet goes on trying after a failure.
func (r *Registration) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if s.GetPluginRegistered() {
		r.set(nil)
		r.options.Logger.Info("the kubelet has registered the driver")
		return &registration.RegistrationStatusResponse{}, nil
	}
	err := fmt.Errorf("the kubelet refused the driver: %s", clean(s.GetError()))
	r.set(err)
	r.options.Logger.Error("registration failed; the kubelet will try again. Check that it sees the CSI socket at the same path, "+
		"that the node's name is right, and that no other driver has the name", logkey.Error, err, logkey.Address, r.options.Endpoint)
	return &registration.RegistrationStatusResponse{}, nil
}
