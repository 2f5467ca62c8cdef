// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"fmt"
	"slices"

	"github.com/leasefs/leasefs/pkg/logkey"
)

// Recover takes over what an earlier daemon left, before any call is served. It asks Vault nothing: sessions and leases go
// on as they were planned.
//
//   - publishing: the kubelet never heard of success; undo it.
//   - releasing: unmount if that was not done, revoke in the background.
//   - live and mounted: take the writable handle back; what the volume's ..data names tells whether a swap that was
//     under way has happened.
//   - live and not mounted: the kubelet publishes anew; the old session is revoked.
//   - unreadable: counted and dropped. The volume is taken over at its next publish; its session lasts until its TTL.
func (m *Manager) Recover(context.Context) error {
	records, err := m.Records.List()
	if err != nil {
		return fmt.Errorf("recovering volumes: %w", err)
	}
	for name, data := range records {
		r, err := DecodeRecord(data)
		if err == nil && r.Name != name {
			err = fmt.Errorf("record is of %s", r.Name)
		}
		if err != nil {
			m.Log.Error("Record is unreadable and dropped; a session of its volume may live until its TTL",
				logkey.File, name, logkey.Error, err)
			m.Observer.Recovered(RecoveredUnreadable)
			if err := m.Records.Delete(name); err != nil {
				m.Log.Error("Deleting an unreadable record", logkey.Error, err)
			}
			continue
		}
		r.shift(m.Clock.Boot().Sub(r.Boot))
		how := m.recoverOne(r)
		m.Observer.Recovered(how)
		m.Auditor.Audit(entry(r, AuditRecover, nil))
		m.logger(r).Info("Volume recovered", logkey.Phase, r.Phase, logkey.Reason, how)
	}
	return nil
}

func (m *Manager) recoverOne(r *Record) Recovery {
	how := RecoveredRelease
	switch r.Phase {
	case PhaseLive:
		if m.resume(r) {
			return RecoveredLive
		}
		how = RecoveredLost
	case PhasePublishing:
		how = RecoveredPublish
	}
	if !r.Adopted {
		if err := m.Mounts.Remove(r.Target); err != nil {
			m.logger(r).Error("Unmounting what an earlier daemon left", logkey.Target, r.Target, logkey.Error, err)
		}
	}
	r.Phase = PhaseReleasing
	m.releases[r.Name] = &release{record: r}
	return how
}

// resume makes a live volume ours again. It reports false where its file system is gone.
func (m *Manager) resume(r *Record) bool {
	mounted, err := m.Mounts.Mounted(r.Target)
	if err != nil || !mounted {
		m.logger(r).Warn("Volume is no longer mounted", logkey.Target, r.Target, logkey.Error, err)
		return false
	}
	handle, err := m.Mounts.Adopt(r.Target)
	if err != nil {
		m.logger(r).Error("Taking the volume's file system back", logkey.Target, r.Target, logkey.Error, err)
		return false
	}
	current, err := handle.Current()
	if err != nil || current == "" {
		m.logger(r).Error("Volume has no current generation", logkey.Target, r.Target, logkey.Error, err)
		_ = handle.Close()
		return false
	}
	m.settle(r, current)
	v := &volume{id: r.VolumeID, guard: make(chan struct{}, 1), handle: handle}
	m.mu.Lock()
	m.add(v, r)
	m.mu.Unlock()
	if err := m.save(v, r); err != nil {
		m.logger(r).Error("Record not written", logkey.Error, err)
	}
	return true
}

// settle decides what became of a swap that was under way. The leases of the generation that is not current are retired:
// at once if the pod never saw it, after the grace if it did.
func (m *Manager) settle(r *Record, current string) {
	staged := r.Staged
	r.Staged = nil
	if staged == nil {
		r.Generation = current
		return
	}
	c := &reconcile{m: m, rec: r}
	if staged.Generation == current {
		c.adoptLeases(staged.Leases)
		r.Generation, r.Rotated = current, m.Clock.Now()
		return
	}
	for _, l := range staged.Leases {
		if !slices.ContainsFunc(r.Leases, func(k Lease) bool { return k.ID == l.ID }) {
			c.retire(l, m.Clock.Now())
		}
	}
}
