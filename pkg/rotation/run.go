// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
)

const (
	// rotateTimeout bounds one rotation of one volume.
	rotateTimeout = 60 * time.Second
	// drainTimeout is how long a stopping Manager lets rotations that are under way finish.
	drainTimeout = 5 * time.Second
	// pause is the least time between two rotations of one volume.
	pause = 250 * time.Millisecond
	// unconnected is how long a volume waits whose connection is not configured any longer.
	unconnected = 30 * time.Second
	// sweepInterval is how often Run looks for volumes whose time has come without a wake-up: the queue's timers stand
	// still while the machine is suspended.
	sweepInterval = 15 * time.Second
)

// Run rotates volumes and carries releases out until ctx ends. Then it lets what is under way finish, takes no new
// volumes, and leaves mounts, sessions and leases as they are: the next daemon goes on with them.
func (m *Manager) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var jobs sync.WaitGroup
	m.open(work, &jobs)
	m.sweep(ctx)
	m.shut()
	stop := time.AfterFunc(drainTimeout, cancel)
	defer stop.Stop()
	jobs.Wait()
	return nil
}

// sweep puts everything that is due into the queues, now and again, until ctx ends.
func (m *Manager) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		m.schedule()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// schedule puts every live volume and every release into the queues.
func (m *Manager) schedule() {
	m.mu.Lock()
	live := slices.Collect(maps.Values(m.volumes))
	releases := make(map[string]time.Time, len(m.releases))
	for name, job := range m.releases {
		releases[name] = job.Retry
	}
	m.mu.Unlock()
	for name, at := range releases {
		m.wake(released, name, at)
	}
	for _, v := range live {
		if r := v.record.Load(); r.Phase == PhaseLive {
			m.wakeLive(v.id, r, m.Clock.Now())
		}
	}
}

// rotateVolume reconciles a live volume if its time has come, and plans its next one.
func (m *Manager) rotateVolume(ctx context.Context, id string) {
	v := m.hold(id)
	if v == nil {
		return // a publish plans the first rotation when it is done, a rotation the next, an unpublish ends them
	}
	defer v.unlock()
	r := v.record.Load()
	if v.tokenArrived.Swap(false) {
		r = r.clone()
		r.current().Retry = m.Clock.Now()
		v.record.Store(r)
	}
	if at := m.nextAt(r); at.IsZero() || m.Clock.Now().Before(at) {
		m.wakeLive(v.id, r, m.Clock.Now().Add(pause))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	ctx, end := m.begin(ctx, v)
	defer end()
	c := m.reconcile(v)
	c.rotate(ctx)
	if c.vault == nil { // nothing could be done, whatever is due
		m.wakeEnd(v.id, c.rec)
		m.wake(troubled, v.id, m.Clock.Now().Add(unconnected))
		return
	}
	m.wakeLive(v.id, c.rec, m.Clock.Now().Add(pause))
}

// CloseHandles lets go of every volume's file system, without unmounting any. A process that ends does the same.
func (m *Manager) CloseHandles() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.volumes {
		if err := v.closeHandle(); err != nil {
			m.Log.Warn("Closing a volume's file system", logkey.Volume, v.id, logkey.Error, err)
		}
	}
}
