// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/logkey"
)

// That a secret has ended is said at its end, whatever Vault does or does not answer:
//
//  1. A queue of its own, whose jobs ask Vault nothing, holds each live volume until its next end.
//  2. A rotation that is under way then holds the volume. So its requests wait no longer than that end, and it says it.
//
// An end that has passed unseen (the daemon was away, the machine slept, somebody revoked the lease) is said a floor later: by
// then the secret is usually replaced, which is worth more to the pod.

// errEnds is why a request was not waited for any longer.
var errEnds = errors.New("no answer before a secret of the volume ended")

// nextEnd is the earliest end that was not said yet; zero: there is none.
func (r *Record) nextEnd() time.Time {
	var next time.Time
	for i := range r.Leases {
		l := &r.Leases[i]
		if ends := r.ends(l); !l.Ended && !ends.IsZero() && (next.IsZero() || ends.Before(next)) {
			next = ends
		}
	}
	return next
}

// sayAt is when an end is to be said, as seen at now; zero for none.
func sayAt(ends, now time.Time) time.Time {
	if ends.IsZero() || now.Before(ends) {
		return ends
	}
	return now.Add(floor)
}

// untilEnd is ctx, but no longer than until an end is to be said.
func (c *reconcile) untilEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	now := c.now()
	at := sayAt(c.rec.nextEnd(), now)
	if at.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, at.Sub(now), errEnds)
}

// expire takes note of secrets that are no longer valid in Vault though their files say so, and says it loudly, once. It
// reports whether files have to go for it. What was read anew and is yet to be swapped in is looked at after the swap.
func (c *reconcile) expire() (removal bool) {
	now := c.now()
	for i := range c.rec.Leases {
		l := &c.rec.Leases[i]
		ends := c.rec.ends(l)
		if _, replaced := c.fetched[l.Key]; replaced || l.Ended || ends.IsZero() || now.Before(ends) {
			continue
		}
		l.Ended = true
		removed := c.rec.Plan.OnExpiry == attributes.Remove
		removal = removal || removed
		c.log.Error("Secret has expired and could not be replaced", logkey.Path, l.Path, logkey.Kind, l.Kind,
			logkey.Expires, ends, logkey.Error, l.Problem)
		e := entry(c.rec, AuditExpire, nil)
		e.Path, e.LeaseID, e.Kind, e.Expires = l.Path, l.ID, l.Kind, ends
		c.m.Auditor.Audit(e)
		what := "its files stay as they are (onExpiry: keep)"
		if removed {
			what = "its files are removed (onExpiry: remove)"
		}
		c.m.Notifier.Notify(c.rec.Pod, Notice{Reason: SecretsExpired, Warning: true, Message: fmt.Sprintf(
			"the secret from %s has expired and could not be replaced; %s", l.Path, what)})
	}
	return removal
}

// sayEnds says which secrets of a live volume have ended. Vault is not asked. Where the volume is busy, a rotation says it, or an
// unpublish ends it.
func (m *Manager) sayEnds(_ context.Context, id string) {
	v := m.hold(id)
	if v == nil {
		return
	}
	defer v.unlock()
	r := v.record.Load()
	if ends := r.nextEnd(); ends.IsZero() || m.Clock.Now().Before(ends) {
		m.wakeEnd(v.id, r)
		return
	}
	c := m.reconcile(v)
	c.swap(c.expire())
	c.logSaveError(c.save())
	m.wakeEnd(v.id, c.rec)
}
