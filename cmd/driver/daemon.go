// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/audit"
	"github.com/leasefs/leasefs/pkg/clock"
	"github.com/leasefs/leasefs/pkg/config"
	"github.com/leasefs/leasefs/pkg/csi"
	"github.com/leasefs/leasefs/pkg/events"
	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/metrics"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/record"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

const (
	// recordsSize bounds the tmpfs of the records: a record takes a few KiB.
	recordsSize = 64 << 20
	// lockWait is how long a new daemon waits for an old one to leave.
	lockWait = 35 * time.Second
)

// daemon is what leasefs run is made of.
type daemon struct {
	options      options
	log          *slog.Logger
	lock         *os.File
	registry     *prometheus.Registry
	metrics      *metrics.Metrics
	pulse        *pulse
	audit        *audit.Log
	source       *config.Source
	pool         *vault.Pool
	clock        clock.Steady
	mounter      *mount.Mounter
	manager      *rotation.Manager
	registration *csi.Registration // nil: off
	events       *events.Recorder  // nil: off
	ready        *readiness
}

// assemble makes the parts that follow from what people wrote. A fault is a usage error. Nothing on the node changes.
func assemble(o options, log *slog.Logger) (*daemon, error) {
	d := &daemon{options: o, log: log, registry: prometheus.NewRegistry(), clock: clock.NewSteady()}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.metrics = metrics.New(d.registry)
	d.metrics.Build(version, revision())
	d.pulse = newPulse(d.metrics, d.clock.Now)

	d.source = config.NewSource(o.config, log)
	cfg, err := d.source.Load()
	if err != nil {
		return nil, &usageError{err}
	}
	d.pool = vault.NewPool(d.metrics)
	if err := d.pool.Update(cfg.VaultConfigs()); err != nil {
		return nil, &usageError{fmt.Errorf("%s: %w", o.config, err)}
	}
	d.metrics.ConfigLoaded(time.Now(), connectionNames(cfg))
	d.audit = audit.New(o.auditLog, o.nodeID, d.metrics, log)
	if err := d.audit.Open(); err != nil {
		return nil, &usageError{err}
	}
	if o.registrationDir != "" {
		if _, err := os.Stat(o.registrationDir); errors.Is(err, fs.ErrNotExist) {
			return nil, usagef("--registration-dir %s does not exist: is --kubelet-dir the kubelet's root folder?", o.registrationDir)
		}
		d.registration = csi.NewRegistration(csi.RegistrationOptions{Dir: o.registrationDir, Endpoint: o.endpoint, Observer: d.metrics, Logger: log})
	}
	d.ready = newReadiness(d.registration)
	var notifier rotation.Notifier
	if o.events {
		api, err := rest.InClusterConfig()
		if err != nil {
			return nil, &usageError{fmt.Errorf("--events: there is no API server to write them to: %w", err)}
		}
		d.events = events.New(api, o.nodeID, log)
		notifier = d.events
	}

	mounter := mount.New(filepath.Join(o.pluginDir, "staging"))
	d.mounter = mounter
	d.manager = rotation.NewManager(rotation.Options{
		Vaults: vaults{d.pool}, Mounts: mounts{mounter}, Records: record.New(o.stateDir),
		Observer: d.pulse, Auditor: wallTime{d.audit, d.clock.Drift}, Notifier: notifier, Clock: d.clock, Settings: d.settings, Log: log,
	})
	d.metrics.SetVolumes(d.volumeFigures)
	return d, nil
}

// prepareNode makes the daemon's folder, locks it, finds out what the kernel offers and mounts the tmpfs of the records.
func (d *daemon) prepareNode(ctx context.Context) error {
	dir := d.options.pluginDir
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("making the plugin folder: %w", err)
	}
	var err error
	if d.lock, err = lockFolder(ctx, filepath.Join(dir, "lock"), lockWait, d.log); err != nil {
		return err
	}
	support, err := d.mounter.Probe(ctx)
	if err != nil {
		return fmt.Errorf("finding out what this kernel offers: %w", err)
	}
	d.metrics.Mount(support.Attach, support.Noswap)
	d.log.Info("found out what this kernel offers", logkey.Support, support)
	for _, note := range support.Notes {
		d.log.Warn("this kernel lacks something", logkey.Reason, note)
	}
	if err := d.mounter.Private(d.options.stateDir, recordsSize); err != nil {
		return fmt.Errorf("preparing the folder of the records: %w", err)
	}
	return nil
}

// close lets go of what assemble took, but of nothing that the next daemon finds and goes on with.
func (d *daemon) close() {
	d.pool.Close()
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

// Current implements csi.Configuration.
func (d *daemon) Current() csi.Settings {
	cfg := d.source.Current()
	tokens := csi.TokensInSecrets
	if cfg.Defaults.TokenTransport == config.TokenInVolumeContext {
		tokens = csi.TokensInContext
	}
	return csi.Settings{
		Tokens:         tokens,
		PodsDir:        filepath.Join(d.options.kubeletDir, "pods"),
		PublishTimeout: cfg.Defaults.PublishTimeout,
		Resolve: func(spec attributes.Spec) (rotation.Plan, error) {
			r, err := cfg.Resolve(spec)
			return rotation.Plan(r), err
		},
	}
}

// settings is what the administrator decides about rotation.
func (d *daemon) settings() rotation.Settings {
	c := d.source.Current().Defaults
	return rotation.Settings{
		NodeBudget: c.NodeBudget, CredentialGrace: c.CredentialGrace, GenerationGrace: c.GenerationGrace, SELinuxContext: c.SELinuxContext,
	}
}

// followConfig takes changes of the configuration file up, until ctx ends.
func (d *daemon) followConfig(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return d.source.Run(ctx, configInterval, func(cfg *config.Config) error {
			if err := d.pool.Update(cfg.VaultConfigs()); err != nil {
				return err
			}
			d.metrics.ConfigLoaded(time.Now(), connectionNames(cfg))
			return nil
		})
	})
	group.Go(func() error { return d.countRefusals(ctx) })
	return group.Wait()
}

// countRefusals tells metrics of each edit that the source refuses. The source logs them.
func (d *daemon) countRefusals(ctx context.Context) error {
	tick := time.NewTicker(configInterval)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		text := ""
		if err := d.source.Problem(); err != nil {
			text = err.Error()
		}
		if text != "" && text != last {
			d.metrics.ConfigRefused()
		}
		last = text
	}
}

func connectionNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Connections))
	for i, c := range cfg.Connections {
		names[i] = c.Name
	}
	return names
}

// vaults makes the pool what rotation asks for.
type vaults struct{ pool *vault.Pool }

func (v vaults) Client(name string) (rotation.Vault, error) {
	c, err := v.pool.Client(name)
	if err != nil { // not a nil client in an interface
		return nil, err
	}
	return c, nil
}

// mounts makes the mounter what rotation asks for.
type mounts struct{ *mount.Mounter }

func (m mounts) Create(s mount.Shape) (rotation.Volume, error) {
	v, err := m.Mounter.Create(s)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (m mounts) Adopt(target string) (rotation.Volume, error) {
	v, err := m.Mounter.Adopt(target)
	if err != nil {
		return nil, err
	}
	return v, nil
}
