// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/vault"
)

// task is a step that is due on one source.
type task struct {
	source source
	lease  Lease // zero for a source that has none
	action Action
}

// outcome is what became of a task.
type outcome struct {
	task
	lease    Lease           // as it is now
	response *vault.Response // of a fetch
	gone     bool            // the lease was revoked behind our back: fetch it
	err      error
}

// step does one task. It reads the record and does not change it.
func (c *reconcile) step(ctx context.Context, t task) outcome {
	switch t.action {
	case ActionRenew:
		return c.renew(ctx, t)
	case ActionCheck:
		return c.check(ctx, t)
	default:
		l, response, err := c.fetch(ctx, t.source, true)
		return outcome{task: t, lease: l, response: response, err: err}
	}
}

func (c *reconcile) renew(ctx context.Context, t task) outcome {
	o := outcome{task: t, lease: t.lease}
	g, err := c.vault.RenewLease(ctx, c.auth(c.rec.session(t.lease.Session)), t.lease.ID, 0)
	e := entry(c.rec, AuditRenewLease, err)
	e.Path, e.Files, e.LeaseID, e.Kind, e.Expires = t.lease.Path, t.source.fileNames(), t.lease.ID, t.lease.Kind, c.now().Add(g.TTL)
	c.m.Auditor.Audit(e)
	switch {
	case err == nil:
		o.lease.Term, o.lease.Trouble = t.lease.Renewed(g, c.now()), Trouble{}
	case vault.ClassOf(err) == vault.LeaseGone:
		o.gone = true
	case refused(err):
		o.lease.Final = true // its end stands; a new one is fetched before it
	default:
		o.err = err
	}
	return o
}

// refused reports whether asking for the renewal again would get the same answer.
func refused(err error) bool {
	switch vault.ClassOf(err) {
	case vault.NotRenewable, vault.Denied, vault.NotFound, vault.BadRequest, vault.BadResponse:
		return true
	}
	return false
}

// check asks Vault whether the lease is still there. Where the role may not look leases up, the session is looked up in
// its place: the lease dies with it. Where it may look up neither, a revocation is found by the next renewal.
func (c *reconcile) check(ctx context.Context, t task) outcome {
	o := outcome{task: t, lease: t.lease}
	auth := c.auth(c.rec.session(t.lease.Session))
	g, err := c.vault.LookupLease(ctx, auth, t.lease.ID)
	if err != nil && vault.ClassOf(err) == vault.Denied {
		if _, err = c.vault.LookupSession(ctx, auth); vault.ClassOf(err) == vault.Denied {
			err = nil
		}
		g.TTL = t.lease.Expires.Sub(c.now())
	}
	switch {
	case err == nil && g.TTL <= 0:
		o.gone = true
	case err == nil:
		o.lease.Checked, o.lease.Trouble = c.now(), Trouble{}
		if end := c.now().Add(g.TTL); end.Before(t.lease.Expires.Add(-2 * time.Second)) {
			o.lease.Term = grant(c.now(), g.TTL, t.lease.Renewable) // somebody shortened it
			o.lease.Final = t.lease.Final
		}
	case vault.ClassOf(err) == vault.LeaseGone:
		o.gone = true
	default:
		o.err = err
	}
	return o
}

// take puts an outcome into the record. What was read stays apart until it is swapped in.
func (c *reconcile) take(o outcome) {
	kind := o.task.lease.Kind
	if o.action == ActionFetch && o.err == nil {
		kind = o.lease.Kind
	}
	l := c.rec.lease(o.source.Key)
	switch {
	case o.gone:
		c.log.Warn("Lease was ended behind our back; fetching anew", logkey.Path, l.Path)
		c.m.Observer.Rotation(kind, o.action, ResultGone)
		l.gone(c.now())
	case o.err != nil:
		c.m.Observer.Rotation(kind, o.action, failed(o.err))
		if vault.ClassOf(o.err) == vault.InvalidToken {
			return // the login that follows makes it due again
		}
		c.failLease(o.source, o.err)
	case o.action == ActionFetch:
		c.fetched[o.source.Key] = fetch{o.source, o.lease, o.response}
	default:
		*l = o.lease
		c.m.Observer.Rotation(kind, o.action, renewed(o.lease.Term))
	}
}

// gone makes l due at once: Vault no longer knows it. It counts as expired from now on.
func (l *Lease) gone(now time.Time) {
	l.Kind, l.ID = KindFixed, ""
	l.Term = Term{Granted: now.Add(-floor), TTL: floor, Expires: now, Final: true}
	l.Trouble = Trouble{}
}
