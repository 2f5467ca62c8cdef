// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"github.com/leasefs/leasefs/pkg/admin"
	"github.com/leasefs/leasefs/pkg/csi"
	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/socket"
)

const (
	// configInterval is how often the configuration file is looked at.
	configInterval = 5 * time.Second
	// stopTimeout bounds a graceful stop. It is less than Kubernetes' usual grace of 30 s, longer than calls and rotations
	// are given to finish.
	stopTimeout = 25 * time.Second
)

// runCommand is `leasefs run`.
func runCommand(args []string, stdout, stderr io.Writer) error {
	o, err := parseRun(args, stdout)
	if err != nil {
		return err
	}
	log := newLogger(o, stderr)
	slog.SetDefault(log)
	klog.SetSlogLogger(log) // client-go's queue and mount-utils speak through klog

	// A closed pipe of a log must not end the daemon, nor must a hang-up: the audit log finds out by itself that it was moved.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the daemon at once
		time.AfterFunc(stopTimeout, func() {
			log.Error("the daemon did not stop in time; leaving. Volumes and their leases stay as they are")
			os.Exit(exitFailure)
		})
	})
	err = run(ctx, o, log)
	var usage *usageError
	if err == nil || errors.As(err, &usage) {
		return err
	}
	log.Error("leasefs failed", logkey.Error, err) // where the rest of its log is, in the same form
	return errLogged
}

// run is the life of the daemon.
//
//  1. Put together what it is made of, and make the daemon's own folder and tmpfs.
//  2. Take over what an earlier daemon left. Vault is not asked.
//  3. Serve, in layers: an inner one starts after the outer ones and stops before them.
//
// When ctx ends, the kubelet is told first that there is no driver, calls under way are finished, then rotations; the audit
// log is the last to close. Mounts, sessions and leases stay: the next daemon goes on with them.
func run(ctx context.Context, o options, log *slog.Logger) error {
	d, err := assemble(o, log) // 1
	if err != nil {
		return err
	}
	defer d.close()
	log.Info("leasefs is starting", logkey.Version, version, logkey.File, o.config)
	lockMemory(o.lockMemory, log)
	if err := d.prepareNode(ctx); err != nil {
		return err
	}

	context.AfterFunc(ctx, func() {
		log.Info("leasefs is stopping; volumes and their leases stay as they are")
		d.ready.stopping()
	})
	outer := []service{{"audit log", d.audit.Run}}
	if o.httpAddress != "" {
		outer = append(outer, service{"http", func(ctx context.Context) error { return serveHTTP(ctx, o.httpAddress, d.handler(), log) }})
	}
	err = within(ctx, func(ctx context.Context) error {
		if err := d.manager.Recover(ctx); err != nil { // 2
			return err
		}
		d.ready.set("volumes of an earlier daemon are taken over")
		return within(ctx, d.serveCSI, d.workers()...) // 3
	}, outer...)
	if err == nil {
		log.Info("leasefs has stopped")
	}
	return err
}

// workers are what runs whether or not the kubelet can call.
func (d *daemon) workers() []service {
	all := []service{
		{"rotation", d.manager.Run},
		{"configuration", d.followConfig},
	}
	if d.events != nil {
		all = append(all, service{"events", d.events.Run})
	}
	if d.options.adminSocket != "" {
		all = append(all, service{"admin socket", admin.NewServer(d.options.adminSocket, d.adminList, d.log).Run})
	}
	return all
}

// serveCSI serves the kubelet until ctx ends: the CSI socket, and within its life the registration.
func (d *daemon) serveCSI(ctx context.Context) error {
	server, err := csi.NewServer(csi.Options{
		Version: version, NodeID: d.options.nodeID,
		Volumes:       d.manager,
		Configuration: d, Observer: d.metrics, Ready: d.ready.serving, Logger: d.log,
	})
	if err != nil {
		return &usageError{err}
	}
	listener, err := socket.Listen(ctx, d.options.endpoint, socket.Shared, d.log)
	if err != nil {
		return err
	}
	d.ready.set("the CSI socket is served")
	d.log.Info("serving the kubelet", logkey.File, d.options.endpoint)

	var around []service
	if d.registration != nil {
		around = append(around, service{"registration", d.registration.Run})
	}
	return within(ctx, func(ctx context.Context) error {
		return within(ctx, untilDone, around...)
	}, service{"CSI socket", func(ctx context.Context) error { return server.Serve(ctx, listener) }})
}

// lockFolder makes sure that one daemon at a time uses the plugin folder: two would renew, swap and revoke against each
// other. The lock ends with the process, whatever ends it. In a rolling update the old daemon may still be on its way out,
// so the new one waits a little.
func lockFolder(ctx context.Context, path string, wait time.Duration, log *slog.Logger) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the plugin folder: %w", err)
	}
	deadline := time.Now().Add(wait)
	for said := false; ; said = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != syscall.EWOULDBLOCK {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if !time.Now().Before(deadline) {
			_ = f.Close()
			return nil, fmt.Errorf("another leasefs uses the plugin folder (it holds %s): stop it, or give this one another --plugin-dir", path)
		}
		if !said {
			log.Info("waiting for another leasefs to leave the plugin folder", logkey.File, path)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
