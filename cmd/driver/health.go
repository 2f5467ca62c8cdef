// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leasefs/leasefs/pkg/csi"
	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// readiness collects what must have happened before the node can take pods with volumes of ours.
type readiness struct {
	registration *csi.Registration // nil: off

	mu      sync.Mutex
	missing []string
	leaving bool
}

func newReadiness(r *csi.Registration) *readiness {
	return &readiness{registration: r, missing: []string{"volumes of an earlier daemon are taken over", "the CSI socket is served"}}
}

// set marks one thing as done.
func (r *readiness) set(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = slices.DeleteFunc(r.missing, func(s string) bool { return s == what })
}

func (r *readiness) stopping() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = true
}

// serving is nil when calls of the kubelet are welcome. Registration is no part of it: the kubelet probes before.
func (r *readiness) serving() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.leaving:
		return errors.New("the daemon is stopping")
	case len(r.missing) > 0:
		return fmt.Errorf("not yet: %s", strings.Join(r.missing, "; "))
	}
	return nil
}

// check is nil when the node is ready.
func (r *readiness) check() error {
	if err := r.serving(); err != nil {
		return err
	}
	if r.registration != nil {
		return r.registration.Ready()
	}
	return nil
}

// stuckAfter is how long a volume may be overdue, while nothing at all is being done, before the daemon is called stuck.
// The longest that a worker is held up by one volume is far below.
const stuckAfter = 10 * time.Minute

// pulse passes what rotation tells on to the metrics, and remembers when it last told anything.
type pulse struct {
	rotation.Observer
	now  func() time.Time
	last atomic.Pointer[time.Time]
}

func newPulse(o rotation.Observer, now func() time.Time) *pulse {
	p := &pulse{Observer: o, now: now}
	p.beat()
	return p
}

func (p *pulse) beat() {
	t := p.now()
	p.last.Store(&t)
}

// Rotation implements rotation.Observer.
func (p *pulse) Rotation(kind rotation.Kind, action rotation.Action, result rotation.Result) {
	p.beat()
	p.Observer.Rotation(kind, action, result)
}

// Late implements rotation.Observer.
func (p *pulse) Late(d time.Duration) {
	p.beat()
	p.Observer.Late(d)
}

// alive is nil unless the rotation loop is stuck: a volume is long overdue and no step on any volume was made for as
// long. A Vault that is down is no reason: attempts are made, and restarting the daemon would not help.
func alive(volumes []rotation.VolumeStatus, last, now time.Time) error {
	if now.Sub(last) < stuckAfter {
		return nil
	}
	for _, v := range volumes {
		if v.Phase == rotation.PhaseLive && !v.Next.IsZero() && now.Sub(v.Next) >= stuckAfter {
			return fmt.Errorf("the rotation loop is stuck: volume %s has been due for %s and nothing was done for %s",
				v.VolumeID, now.Sub(v.Next).Round(time.Second), now.Sub(last).Round(time.Second))
		}
	}
	return nil
}

// handler serves /healthz, /readyz and /metrics.
func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", answer(func() error {
		return alive(d.manager.Volumes(), *d.pulse.last.Load(), d.clock.Now())
	}))
	mux.HandleFunc("GET /readyz", answer(d.ready.check))
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{
		Registry: d.registry, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelError),
	}))
	return mux
}

// answer says ok, or 503 and why not.
func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, err.Error()+"\n")
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	}
}

// serveHTTP serves h at address until ctx ends.
func serveHTTP(ctx context.Context, address string, h http.Handler, log *slog.Logger) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	log.Info("serving health and metrics", logkey.Address, l.Addr().String())
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 15 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
