// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

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
	queue := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[item]{Clock: clock.RealClock{}})
	m.mu.Lock()
	m.queue = queue
	m.mu.Unlock()

	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var workers sync.WaitGroup
	for range m.Workers {
		workers.Go(func() { m.worker(work, queue) })
	}
	m.sweep(ctx)

	m.mu.Lock()
	m.stopped = true
	m.queue = nil
	m.mu.Unlock()
	queue.ShutDown()
	stop := time.AfterFunc(drainTimeout, cancel)
	defer stop.Stop()
	workers.Wait()
	return nil
}

// sweep puts everything that is due into the queue, now and again, until ctx ends.
func (m *Manager) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		for _, i := range m.scheduled() {
			m.wake(i.item, i.at)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

type scheduledItem struct {
	item item
	at   time.Time
}

// scheduled lists every live volume and every release with its next time.
func (m *Manager) scheduled() []scheduledItem {
	m.mu.Lock()
	live := make([]*volume, 0, len(m.volumes))
	for _, v := range m.volumes {
		live = append(live, v)
	}
	all := make([]scheduledItem, 0, len(live)+len(m.releases))
	for name, job := range m.releases {
		all = append(all, scheduledItem{item{release: true, name: name}, job.Retry})
	}
	m.mu.Unlock()
	for _, v := range live {
		if r := v.record.Load(); r.Phase == PhaseLive {
			if at := m.nextAt(r); !at.IsZero() {
				all = append(all, scheduledItem{item{name: v.id}, at})
			}
		}
	}
	return all
}

func (m *Manager) worker(ctx context.Context, queue workqueue.TypedDelayingInterface[item]) {
	for {
		i, shutdown := queue.Get()
		if shutdown {
			return
		}
		m.do(ctx, i)
		queue.Done(i)
	}
}

// do works on one item. The queue hands one item to one worker at a time.
func (m *Manager) do(ctx context.Context, i item) {
	m.mu.Lock()
	v, job := m.volumes[i.name], m.releases[i.name]
	closing := v != nil && v.closing
	var retry time.Time
	if job != nil {
		retry = job.Retry
	}
	m.mu.Unlock()
	switch {
	case i.release && job != nil:
		if m.Clock.Now().Before(retry) {
			m.wake(i, retry)
			return
		}
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		m.runRelease(ctx, job)
	case !i.release && v != nil && !closing:
		m.rotateVolume(ctx, v)
	}
}

// rotateVolume reconciles a live volume if its time has come, and plans its next one.
func (m *Manager) rotateVolume(ctx context.Context, v *volume) {
	if !v.tryLock() {
		return // a publish plans the first rotation when it is done, an unpublish ends them
	}
	defer v.unlock()
	r := v.record.Load()
	if v.closed || r.Phase != PhaseLive {
		return
	}
	if v.tokenArrived.Swap(false) {
		r = r.clone()
		r.current().Retry = m.Clock.Now()
		v.record.Store(r)
	}
	if at := m.nextAt(r); at.IsZero() || m.Clock.Now().Before(at) {
		m.wakeLive(v, r)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	ctx, end := m.begin(ctx, v)
	defer end()
	c := m.reconcile(v)
	c.rotate(ctx)
	if c.vault == nil { // nothing could be done, whatever is due
		m.wake(item{name: v.id}, m.Clock.Now().Add(unconnected))
		return
	}
	m.wakeLive(v, c.rec)
}

// wakeLive plans the next look at a live volume, not at once: whatever Vault answers, no volume keeps a worker busy.
func (m *Manager) wakeLive(v *volume, r *Record) {
	if at := m.nextAt(r); !at.IsZero() {
		m.wake(item{name: v.id}, later(at, m.Clock.Now().Add(pause)))
	}
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
