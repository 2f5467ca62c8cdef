// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

// purpose is what a volume or a release waits for. Each has a queue of its own, and a bound of how many of it may be under way: most of
// that time is waiting for Vault, and those who wait for one that does not answer must not hold up the others.
type purpose int

const (
	due      purpose = iota // a volume's next rotation, by the volume's id
	troubled                // the same, of a volume whose last one failed
	released                // the next try at a release, by the name of its record
	ends                    // the next end of a volume's secrets, by the volume's id
	purposes
)

const (
	// rotationsAtOnce: when a secrets engine hangs, each of its volumes waits once before it counts as troubled. So many may, and
	// all others are still in time; each costs a goroutine and a connection for as long.
	rotationsAtOnce = 256
	triesAtOnce     = 64
)

// duty is how the names in one queue are worked on.
type duty struct {
	atOnce int
	do     func(ctx context.Context, name string)
}

func (m *Manager) duties() [purposes]duty {
	return [purposes]duty{
		due:      {rotationsAtOnce, m.rotateVolume},
		troubled: {triesAtOnce, m.rotateVolume},
		released: {triesAtOnce, m.tryRelease},
		ends:     {1, m.sayEnds}, // asks Vault nothing
	}
}

// queues are those that are served while Run runs.
type queues [purposes]workqueue.TypedDelayingInterface[string]

// open makes the queues and serves them until shut, each job with ctx. All goroutines of it are in jobs.
func (m *Manager) open(ctx context.Context, jobs *sync.WaitGroup) {
	var q queues
	for p, duty := range m.duties() {
		q[p] = workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{Clock: clock.RealClock{}})
		jobs.Go(func() { serve(ctx, q[p], duty, jobs) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queues = &q
}

// serve does what the queue holds until the queue is shut down. The queue does not give a name a second time before the first job on
// it is done.
func serve(ctx context.Context, queue workqueue.TypedDelayingInterface[string], d duty, jobs *sync.WaitGroup) {
	slots := make(chan struct{}, d.atOnce)
	for {
		name, shutdown := queue.Get()
		if shutdown {
			return
		}
		slots <- struct{}{}
		jobs.Go(func() {
			defer func() { <-slots }()
			defer queue.Done(name)
			d.do(ctx, name)
		})
	}
}

// shut takes no new volumes from now on, and begins no job but those whose time has come already.
func (m *Manager) shut() {
	m.mu.Lock()
	q := m.queues
	m.queues, m.stopped = nil, true
	m.mu.Unlock()
	for _, queue := range q {
		queue.ShutDown()
	}
}

// wake has somebody look at a name at the given time. Before Run there are no queues; Run looks at everything.
func (m *Manager) wake(p purpose, name string, at time.Time) {
	m.mu.Lock()
	q := m.queues
	m.mu.Unlock()
	if q != nil {
		q[p].AddAfter(name, at.Sub(m.Clock.Now()))
	}
}

// wakeLive plans the next look at a live volume, and the next end. A look is not before least: whatever Vault answers, no volume
// is rotated in a tight loop.
func (m *Manager) wakeLive(id string, r *Record, least time.Time) {
	m.wakeEnd(id, r)
	if at := m.nextAt(r); !at.IsZero() {
		m.wake(r.purpose(), id, later(at, least))
	}
}

// wakeEnd plans the next end of a live volume.
func (m *Manager) wakeEnd(id string, r *Record) {
	if at := sayAt(r.nextEnd(), m.Clock.Now()); !at.IsZero() {
		m.wake(ends, id, at)
	}
}

// purpose tells in which queue a live volume is to wait for its next rotation.
func (r *Record) purpose() purpose {
	if r.failing() {
		return troubled
	}
	return due
}
