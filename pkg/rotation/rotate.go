// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leasefs/leasefs/pkg/vault"
)

// rounds bounds how often one rotation looks again for what is due, after a login or a renewal that turned out to be the last.
const rounds = 4

// rotate is the reconcile of a live volume.
//
//  1. Renew the session when its time has come. One that cannot be renewed, or that Vault no longer knows, is followed by a
//     new login; the leases under it are then due, too.
//  2. Do what is due on each secret, in parallel: renew, look up, or read again. Look for more that is due, since an
//     answer may have made it so.
//  3. Take note of what has expired in spite of all that.
//  4. Make the next generation from what was read and from the current files, and swap if anything differs.
//  5. Clean up: the generation before, leases and sessions that nothing needs any longer, each after its grace.
//
// No request is waited for longer than until the next end of a secret that is still to be said: see expiry.go.
//
// A rotation that is interrupted (the volume is unpublished, the daemon stops) shows nothing of what it has read; that is to be
// revoked.
//
// A failure of one secret keeps its files and its lease as they are and does not hold up the others.
func (c *reconcile) rotate(ctx context.Context) {
	c.fetched = map[string]fetch{}
	if err := c.connect(); err != nil {
		if s := c.rec.current(); !c.now().Before(s.Retry) {
			c.fail(s, err)
		}
	} else {
		for range rounds {
			if !c.round(ctx) { // 1, 2
				break
			}
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		for _, f := range c.fetched {
			c.retire(f.lease, c.now())
		}
		c.logSaveError(c.save())
		return
	}
	c.swap(c.expire()) // 3, 4
	clear(c.fetched)
	c.cleanUp(ctx)     // 5
	c.swap(c.expire()) // 3: what did not become files after all, and what has ended since
	c.logSaveError(c.save())
}

// round does once what is due, and reports whether to look again.
func (c *reconcile) round(ctx context.Context) (again bool) {
	ctx, done := c.untilEnd(ctx)
	defer done()
	c.keepSession(ctx) // 1
	due := c.due()
	if len(due) == 0 || ctx.Err() != nil {
		return false
	}
	c.work(ctx, due) // 2
	return ctx.Err() == nil
}

// fetch is a response that is to become files, and the lease that it came with.
type fetch struct {
	source   source
	lease    Lease
	response *vault.Response
}

// keepSession renews the session or follows it by a new one when its time has come.
func (c *reconcile) keepSession(ctx context.Context) {
	s := c.rec.current()
	step := NextSession(*s, c.m.policy(c.rec))
	now := c.now()
	if step.Action == "" || now.Before(step.At) {
		return
	}
	c.late(step.At, now, s.Trouble)
	if step.Action == ActionFetch || s.expired(now) {
		c.relogin(ctx)
		return
	}
	g, err := c.vault.RenewSession(ctx, c.auth(s))
	e := entry(c.rec, AuditRenewSession, err)
	e.Kind, e.Expires = KindSession, now.Add(g.TTL)
	c.m.Auditor.Audit(e)
	switch {
	case vault.ClassOf(err) == vault.InvalidToken:
		c.dead(s)
		c.relogin(ctx)
	case refused(err):
		s.Final = true // its end stands; a new login comes before it
	case err != nil:
		c.m.Observer.Rotation(KindSession, ActionRenew, failed(err))
		c.fail(s, err)
	default:
		s.Term, s.Trouble = s.Renewed(g, c.now()), Trouble{}
		c.m.Observer.Rotation(KindSession, ActionRenew, renewed(s.Term))
	}
}

// dead notes that Vault no longer knows a session: the leases under it are gone with it.
func (c *reconcile) dead(s *Session) {
	c.log.Warn("Session was ended behind our back; logging in again")
	c.m.Observer.Rotation(KindSession, ActionCheck, ResultGone)
	now := c.now()
	s.Term = Term{Granted: s.Granted, TTL: max(now.Sub(s.Granted), 1), Expires: now, Final: true}
}

// relogin makes a new session, at most one in a rotation. The old one stays for as long as files depend on it.
func (c *reconcile) relogin(ctx context.Context) {
	old := c.rec.current()
	if c.relogged || (old.Failures > 0 && c.now().Before(old.Retry)) {
		return
	}
	c.relogged = true
	ctx, done := c.untilEnd(ctx) // a session that was found dead has ended its leases just now
	defer done()
	err := c.login(ctx)
	switch {
	case errors.Is(err, ErrNoToken):
		c.m.Observer.Rotation(KindSession, ActionFetch, ResultNoToken)
	case err != nil:
		c.m.Observer.Rotation(KindSession, ActionFetch, failed(err))
	default:
		c.m.Observer.Rotation(KindSession, ActionFetch, ResultOK)
		return
	}
	c.fail(c.rec.current(), err)
}

// due lists the steps whose time has come. What hangs on a session that is not the current one is to be fetched anew.
func (c *reconcile) due() []task {
	now, policy, session := c.now(), c.m.policy(c.rec), c.rec.current()
	if session.expired(now) {
		return nil // nothing can be asked before the next login
	}
	var due []task
	for _, s := range c.sources {
		if f, ok := c.fetched[s.Key]; ok && (f.lease.ID == "" || f.lease.Session == session.Number) {
			continue
		}
		l := c.rec.lease(s.Key)
		if l == nil {
			due = append(due, task{source: s, action: ActionFetch})
			continue
		}
		step := Next(*l, policy)
		if l.ID != "" && l.Session != session.Number {
			step.Action = ActionFetch
			if l.Failures == 0 {
				step.At = now
			}
		}
		if now.Before(step.At) {
			continue
		}
		c.late(step.At, now, l.Trouble)
		due = append(due, task{source: s, lease: *l, action: step.Action})
	}
	return due
}

// late observes how late a step is. Attempts after a failure are not late, they wait on purpose.
func (c *reconcile) late(planned, now time.Time, t Trouble) {
	if t.Failures == 0 {
		c.m.Observer.Late(now.Sub(planned))
	}
}

// work does the tasks in parallel and takes their outcomes into the record.
func (c *reconcile) work(ctx context.Context, due []task) {
	outcomes := make([]outcome, len(due))
	group := new(errgroup.Group)
	group.SetLimit(parallelReads)
	for i, t := range due {
		group.Go(func() error {
			outcomes[i] = c.step(ctx, t)
			return nil
		})
	}
	_ = group.Wait()

	relogin := false
	for _, o := range outcomes {
		relogin = relogin || vault.ClassOf(o.err) == vault.InvalidToken
		c.take(o)
	}
	if relogin {
		c.dead(c.rec.current())
		c.relogin(ctx)
	}
}

// fail notes a failure on the current session. An interruption is none.
func (c *reconcile) fail(s *Session, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	ends := s.Expires
	for i := range c.rec.Leases {
		if l := &c.rec.Leases[i]; !l.Expires.IsZero() && (ends.IsZero() || l.Expires.Before(ends)) {
			ends = l.Expires
		}
	}
	c.trouble(&s.Trouble, ends, err)
	c.report(KindSession, "", s.Trouble, err)
}

// failLease notes a failure on the lease of a source; a source that never had one gets a place for it. An interruption is no
// failure.
func (c *reconcile) failLease(s source, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	l := c.rec.lease(s.Key)
	if l == nil {
		c.rec.Leases = append(c.rec.Leases, Lease{Key: s.Key, Path: s.Request.Path, Kind: KindPlain, Term: Term{Granted: c.now()}})
		l = &c.rec.Leases[len(c.rec.Leases)-1]
	}
	c.trouble(&l.Trouble, c.rec.ends(l), err)
	c.report(l.Kind, l.Path, l.Trouble, err)
}

func (c *reconcile) trouble(t *Trouble, ends time.Time, err error) {
	t.Failures++
	t.Problem = err.Error()
	t.Retry = Retry(c.now(), ends, t.Failures, vault.ClassOf(err), retryAfter(err), spreadOf(c.rec.VolumeID))
}

// retryAfter is what Vault asked for, or 0.
func retryAfter(err error) time.Duration {
	var v *vault.Error
	if errors.As(err, &v) {
		return v.RetryAfter
	}
	return 0
}

// failed is the result that counts an error.
func failed(err error) Result { return Result(vault.ClassOf(err).String()) }

func renewed(t Term) Result {
	if t.Final {
		return ResultCapped
	}
	return ResultOK
}
