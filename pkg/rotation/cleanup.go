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

// cleanUp does the housekeeping that is due on a live volume: the generation before the current one goes after its
// grace, retired leases are revoked after theirs, and a former session when nothing hangs on it any longer.
func (c *reconcile) cleanUp(ctx context.Context) {
	now := c.now()
	if !c.rec.Swapped.IsZero() && !now.Before(c.rec.Swapped.Add(c.m.Settings().GenerationGrace)) {
		if err := c.v.handle.Prune(); err != nil {
			c.log.Warn("Removing the generation before", logkey.Error, err)
		}
		c.rec.Swapped = time.Time{}
	}
	if c.vault == nil || ctx.Err() != nil {
		return
	}
	ctx, done := c.untilEnd(ctx)
	defer done()
	c.revokeRetired(ctx, now)
	c.revokeFormer(ctx, now)
}

func (c *reconcile) revokeRetired(ctx context.Context, now time.Time) {
	c.rec.Retired = slices.DeleteFunc(c.rec.Retired, func(r Retired) bool {
		s := c.rec.session(r.Session)
		if s == nil || (!r.Expires.IsZero() && !now.Before(r.Expires)) {
			return true // it has gone with its session, or by itself
		}
		if now.Before(later(r.At, r.Retry)) {
			return false
		}
		return c.m.revokeLease(ctx, c.vault, c.rec, c.auth(s), r.ID, r.Path) == nil
	})
	for i := range c.rec.Retired { // those whose time had come and that are still there have failed
		if r := &c.rec.Retired[i]; !now.Before(later(r.At, r.Retry)) {
			r.Failures++
			r.Retry = Retry(now, time.Time{}, r.Failures, vault.Transient, 0, spreadOf(c.rec.VolumeID))
		}
	}
}

func (c *reconcile) revokeFormer(ctx context.Context, now time.Time) {
	if len(c.rec.Sessions) < 2 {
		return
	}
	current, former := c.rec.Sessions[:1:1], c.rec.Sessions[1:]
	for _, s := range former {
		switch {
		case s.expired(now):
			continue
		case slices.ContainsFunc(c.rec.Leases, func(l Lease) bool { return l.ID != "" && l.Session == s.Number }):
			// Files still depend on it.
		case s.RevokeAt.IsZero():
			s.RevokeAt = now.Add(c.m.Settings().CredentialGrace)
		case now.Before(later(s.RevokeAt, s.Retry)):
		case s.Batch:
			continue // nothing to revoke it with; it ends by itself
		default:
			err := c.m.revokeSession(ctx, c.vault, c.rec, s)
			if err == nil {
				continue
			}
			s.Failures++
			s.Retry = Retry(now, time.Time{}, s.Failures, vault.ClassOf(err), retryAfter(err), spreadOf(c.rec.VolumeID))
		}
		current = append(current, s)
	}
	c.rec.Sessions = current
}

// nextAt is when a live volume is to be looked at again: at the earliest of its next steps and of its housekeeping. The zero time
// means never.
func (m *Manager) nextAt(r *Record) time.Time {
	var next time.Time
	consider := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	settings, policy := m.Settings(), m.policy(r)
	session := r.current()
	consider(NextSession(*session, policy).At)
	dead := session.expired(m.Clock.Now()) // then nothing but the login is due
	for i := range r.Leases {
		l := &r.Leases[i]
		switch {
		case dead:
		case l.ID != "" && l.Session != session.Number: // fetched anew as soon as its trouble allows
			consider(later(l.Retry, m.Clock.Now()))
		default:
			consider(Next(*l, policy).At)
		}
	}
	if !r.Swapped.IsZero() {
		consider(r.Swapped.Add(settings.GenerationGrace))
	}
	for _, x := range r.Retired {
		consider(later(x.At, x.Retry))
	}
	for _, s := range r.Sessions[1:] {
		if !s.RevokeAt.IsZero() {
			consider(later(s.RevokeAt, s.Retry))
		}
	}
	return next
}
