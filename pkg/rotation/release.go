// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"slices"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/vault"
)

const (
	// releaseNow is how long a failed publish tries to revoke before the background takes over.
	releaseNow = 3 * time.Second
	// releaseTimeout bounds one try in the background.
	releaseTimeout = 30 * time.Second
)

// release is what is left of a volume that is gone: sessions to revoke, and with them their leases. Unmounting never
// waits for it, and it outlives restarts.
type release struct {
	record *Record
	Trouble
}

// release revokes the sessions of r, whose phase is releasing, and deletes its record. What cannot be revoked now is tried
// again in the background until it is done or has ended by itself.
func (m *Manager) release(ctx context.Context, r *Record) {
	job := &release{record: r}
	job.Retry = m.Clock.Now().Add(2 * releaseNow) // nobody else takes it up meanwhile
	m.mu.Lock()
	m.releases[r.Name] = job
	m.mu.Unlock()
	m.runRelease(ctx, job)
}

// releaseLater is release without a first try.
func (m *Manager) releaseLater(r *Record) {
	m.mu.Lock()
	m.releases[r.Name] = &release{record: r}
	m.mu.Unlock()
	m.wake(released, r.Name, m.Clock.Now())
}

// tryRelease tries a release again if its time has come.
func (m *Manager) tryRelease(ctx context.Context, name string) {
	m.mu.Lock()
	job := m.releases[name]
	var retry time.Time
	if job != nil {
		retry = job.Retry
	}
	m.mu.Unlock()
	switch {
	case job == nil: // done
	case m.Clock.Now().Before(retry):
		m.wake(released, name, retry)
	default:
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		m.runRelease(ctx, job)
	}
}

// runRelease is one try at a release. One release is worked on by one goroutine at a time.
func (m *Manager) runRelease(ctx context.Context, job *release) {
	r := job.record
	err := m.revokeAll(ctx, r)
	if err == nil {
		err = m.Records.Delete(r.Name)
	}
	if err != nil {
		m.mu.Lock()
		job.Failures++
		job.Problem = err.Error()
		job.Retry = Retry(m.Clock.Now(), time.Time{}, job.Failures, vault.ClassOf(err), retryAfter(err), spreadOf(r.Name))
		trouble := job.Trouble
		m.mu.Unlock()
		m.logger(r).Warn("Session of a volume that is gone not revoked yet", logkey.Error, err,
			logkey.Attempt, trouble.Failures, logkey.Next, trouble.Retry)
		m.wake(released, r.Name, trouble.Retry)
		return
	}
	m.mu.Lock()
	delete(m.releases, r.Name)
	m.mu.Unlock()
}

// revokeAll revokes every session of r. Those that have ended by themselves need no revocation. What is revoked leaves the record.
func (m *Manager) revokeAll(ctx context.Context, r *Record) error {
	now := m.Clock.Now()
	r.Sessions = slices.DeleteFunc(r.Sessions, func(s Session) bool { return s.expired(now) })
	if len(r.Sessions) == 0 {
		return nil
	}
	client, err := m.Vaults.Client(r.Plan.Connection)
	if err != nil {
		return err
	}
	for len(r.Sessions) > 0 {
		s := r.Sessions[0]
		if err := m.revokeSession(ctx, client, r, s); err != nil {
			return err
		}
		r.Sessions = r.Sessions[1:]
	}
	return nil
}

// revokeSession revokes a session and with it the leases under it. A batch token cannot be revoked; its leases can, where
// the role's policies allow it, and end with the token where they do not.
func (m *Manager) revokeSession(ctx context.Context, client Vault, r *Record, s Session) error {
	auth := vault.Auth{Namespace: r.Plan.Namespace, Token: s.Token, Identity: s.Identity}
	if !s.Batch {
		err := client.RevokeSession(ctx, auth)
		e := entry(r, AuditRevokeSession, err)
		e.Kind = KindSession
		m.Auditor.Audit(e)
		return ignoreGone(err)
	}
	for _, l := range r.held(s.Number) {
		if err := m.revokeLease(ctx, client, r, auth, l.ID, l.Path); err != nil {
			return err
		}
	}
	return nil
}

// held are the leases under a session: those of the files, those of files that were about to be, and those whose grace is not over.
func (r *Record) held(session int) []Retired {
	var held []Retired
	add := func(id, path string, number int) {
		if id != "" && number == session && !slices.ContainsFunc(held, func(h Retired) bool { return h.ID == id }) {
			held = append(held, Retired{ID: id, Path: path, Session: number})
		}
	}
	for _, l := range r.Leases {
		add(l.ID, l.Path, l.Session)
	}
	if r.Staged != nil {
		for _, l := range r.Staged.Leases {
			add(l.ID, l.Path, l.Session)
		}
	}
	for _, x := range r.Retired {
		add(x.ID, x.Path, x.Session)
	}
	return held
}

// revokeLease revokes one lease; a policy that does not allow it is no error.
func (m *Manager) revokeLease(ctx context.Context, client Vault, r *Record, auth vault.Auth, id, path string) error {
	err := client.RevokeLease(ctx, auth, id)
	e := entry(r, AuditRevokeLease, err)
	e.Path, e.LeaseID = path, id
	m.Auditor.Audit(e)
	if err != nil && vault.ClassOf(err) == vault.Denied {
		m.logger(r).Debug("Role may not revoke leases; this one ends by itself", logkey.Path, path)
		return nil
	}
	return ignoreGone(err)
}

// ignoreGone is nil for what Vault no longer knows.
func ignoreGone(err error) error {
	switch {
	case err == nil:
		return nil
	case vault.ClassOf(err) == vault.InvalidToken, vault.ClassOf(err) == vault.LeaseGone:
		return nil
	}
	return err
}
