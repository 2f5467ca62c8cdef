// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/mount"
)

// Clock is the time that leases are counted in. clock.Steady is one.
type Clock interface {
	Now() time.Time
	Boot() time.Time      // the moment of boot as this clock shows it
	Drift() time.Duration // what wall time is ahead of Now: for what others have stamped with theirs
}

// Options are a Manager's surroundings. All but Notifier are required.
type Options struct {
	Vaults   Vaults
	Mounts   Mounts
	Records  Records
	Observer Observer
	Auditor  Auditor
	Notifier Notifier // nil: nobody is told
	Clock    Clock
	Settings func() Settings // asked each time, so that a changed configuration takes effect
	Log      *slog.Logger
}

// Manager keeps the volumes of one node. Publish, Unpublish, Usage and Volumes may be called from any goroutine.
type Manager struct {
	Options

	mu       sync.Mutex
	queues   *queues             // nil unless Run runs
	volumes  map[string]*volume  // by volume id
	releases map[string]*release // by name of record
	reserved int64               // bytes of the node's budget in use
	stopped  bool
}

// volume is a volume in memory. Its record is a snapshot that the holder of the guard replaces and everybody reads.
type volume struct {
	id       string
	reserved int64
	record   atomic.Pointer[Record] // never nil
	token    atomic.Pointer[Token]  // the newest of the pod; nil after a restart until the next republish
	// tokenArrived: a republish brought a token while the session had trouble; the next rotation tries at once.
	tokenArrived atomic.Bool

	guard  chan struct{} // holds one element while an operation is under way
	closed bool          // under the guard: the volume is no longer the manager's

	handleMu sync.RWMutex // write: replace or close; read: use
	handle   Volume

	// Of the manager's mutex:
	interrupt context.CancelFunc // of the operation under way, or nil
	closing   bool               // an unpublish has begun; no rotation may start
}

// NewManager returns a Manager without volumes. Call Recover, then Run.
func NewManager(o Options) *Manager {
	if o.Notifier == nil {
		o.Notifier = silent{}
	}
	return &Manager{Options: o, volumes: map[string]*volume{}, releases: map[string]*release{}}
}

type silent struct{}

func (silent) Notify(Pod, Notice) {}

// claim finds the volume of a request, or makes it with its guard held. It fails where the volume is in between.
func (m *Manager) claim(req Request) (v *volume, created bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil, false, ErrStopped
	}
	if v, ok := m.volumes[req.VolumeID]; ok {
		if v.closing || v.record.Load().Phase != PhaseLive {
			return nil, false, ErrBusy
		}
		return v, false, nil
	}
	need, _ := req.Plan.room()
	if budget := m.Settings().NodeBudget; budget > 0 && m.reserved+need > budget {
		return nil, false, &BudgetError{Want: need, Used: m.reserved, Budget: budget}
	}
	v = &volume{id: req.VolumeID, guard: make(chan struct{}, 1)}
	v.guard <- struct{}{}
	m.add(v, newRecord(req))
	return v, true, nil
}

// add makes v the manager's, with m.mu held.
func (m *Manager) add(v *volume, r *Record) {
	v.record.Store(r)
	v.reserved, _ = r.Plan.room()
	m.reserved += v.reserved
	m.volumes[v.id] = v
}

// forget takes v out, with its guard held.
func (m *Manager) forget(v *volume) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v.closed = true
	if m.volumes[v.id] == v {
		delete(m.volumes, v.id)
		m.reserved -= v.reserved
	}
}

// hold takes the guard of a live volume that nobody works on and no unpublish waits for; nil: there is none of that id.
func (m *Manager) hold(id string) *volume {
	m.mu.Lock()
	v := m.volumes[id]
	closing := v == nil || v.closing
	m.mu.Unlock()
	if closing || !v.tryLock() {
		return nil
	}
	if v.closed || v.record.Load().Phase != PhaseLive {
		v.unlock()
		return nil
	}
	return v
}

// begin starts an operation on v, whose guard the caller holds. Unpublish cancels the context.
func (m *Manager) begin(ctx context.Context, v *volume) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	v.interrupt = cancel
	return ctx, func() {
		m.mu.Lock()
		v.interrupt = nil
		m.mu.Unlock()
		cancel()
	}
}

// save makes r the record of v, in memory and on the records' tmpfs.
func (m *Manager) save(v *volume, r *Record) error {
	r.Boot = m.Clock.Boot()
	v.record.Store(r.clone())
	data, err := r.Encode()
	if err != nil {
		return err
	}
	return m.Records.Put(r.Name, data)
}

// Usage is what the volume at target holds. An unknown volume is mount.ErrNotMounted.
func (m *Manager) Usage(_ context.Context, volumeID, target string) (mount.Usage, error) {
	m.mu.Lock()
	v, ok := m.volumes[volumeID]
	m.mu.Unlock()
	if !ok || v.record.Load().Target != target {
		return mount.Usage{}, ErrUnknownVolume
	}
	u, err := m.Mounts.Usage(target)
	if err != nil {
		return mount.Usage{}, &MountError{Step: "reading usage", Target: target, Err: err}
	}
	return u, nil
}

// policy is what bears on the schedule of r.
func (m *Manager) policy(r *Record) Policy {
	return Policy{Refresh: r.Plan.Refresh, Grace: m.Settings().CredentialGrace, Spread: spreadOf(r.VolumeID)}
}

// logger has the fields that every line on a volume has.
func (m *Manager) logger(r *Record) *slog.Logger {
	return m.Log.With(logkey.Volume, r.VolumeID, logkey.Pod, r.Pod.Namespace+"/"+r.Pod.Name,
		logkey.Connection, r.Plan.Connection)
}

// entry is an audit entry with the fields that every one on a volume has.
func entry(r *Record, e AuditEvent, err error) Entry {
	return Entry{Event: e, VolumeID: r.VolumeID, Pod: r.Pod, Connection: r.Plan.Connection, Role: r.Plan.Role, Err: err}
}

// tryLock takes the guard if it is free.
func (v *volume) tryLock() bool {
	select {
	case v.guard <- struct{}{}:
		return true
	default:
		return false
	}
}

// lock takes the guard, or gives up with the context.
func (v *volume) lock(ctx context.Context) error {
	select {
	case v.guard <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errors.Join(ErrBusy, ctx.Err())
	}
}

func (v *volume) unlock() { <-v.guard }

// closeHandle lets go of the tmpfs; without it a tmpfs lives on after its unmount.
func (v *volume) closeHandle() error {
	v.handleMu.Lock()
	defer v.handleMu.Unlock()
	if v.handle == nil {
		return nil
	}
	err := v.handle.Close()
	v.handle = nil
	return err
}
