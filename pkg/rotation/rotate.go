// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leasefs/leasefs/pkg/logkey"
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
