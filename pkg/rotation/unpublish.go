// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"

	"github.com/leasefs/leasefs/pkg/logkey"
)

// Unpublish takes the volume at target away: record, unmount, remove the directory. It never waits for Vault: what is
// under way on the volume is interrupted, and its session is revoked in the background.
//
// An unknown volume or an absent target is no error. Errors: ErrBusy when ctx ends before the operation under way has, *MountError.
func (m *Manager) Unpublish(ctx context.Context, volumeID, target string) error {
	v := m.close(volumeID, target)
	if v == nil {
		return m.remove(target)
	}
	if err := v.lock(ctx); err != nil {
		return err
	}
	defer v.unlock()
	if v.closed { // the publish that was under way has undone itself
		return m.remove(target)
	}
	r := v.record.Load().clone()
	r.Phase = PhaseReleasing
	if err := m.save(v, r); err != nil {
		m.logger(r).Error("Record of an unpublish not written", logkey.Error, err)
	}
	if err := v.closeHandle(); err != nil {
		m.logger(r).Warn("Closing the volume's file system", logkey.Error, err)
	}
	err := m.remove(target)
	m.Auditor.Audit(entry(r, AuditUnpublish, err))
	if err != nil {
		return err
	}
	m.forget(v)
	m.releaseLater(r)
	return nil
}

// close marks the volume at target as closing and interrupts what is under way on it. It returns nil for a volume that is
// not there.
func (m *Manager) close(volumeID, target string) *volume {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.volumes[volumeID]
	if !ok || v.record.Load().Target != target {
		return nil
	}
	v.closing = true
	if v.interrupt != nil {
		v.interrupt()
	}
	return v
}

func (m *Manager) remove(target string) error {
	if err := m.Mounts.Remove(target); err != nil {
		return &MountError{Step: "unmounting", Target: target, Err: err}
	}
	return nil
}
