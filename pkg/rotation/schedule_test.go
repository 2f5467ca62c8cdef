// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func term(ttl time.Duration) rotation.Term {
	return rotation.Term{Granted: epoch, TTL: ttl, Expires: epoch.Add(ttl), Renewable: true}
}

// The table that the documentation shows: what is done first on each kind of lease, and when.
func TestNextStepByKind(t *testing.T) {
	policy := rotation.Policy{Refresh: 5 * time.Minute, Grace: 30 * time.Second}
	hour := term(time.Hour)
	for name, row := range map[string]struct {
		lease  rotation.Lease
		action rotation.Action
		after  time.Duration
	}{
		"renewable lease, nothing to look up":        {rotation.Lease{Kind: rotation.KindRenewable, Term: hour}, rotation.ActionRenew, 40 * time.Minute},
		"renewable lease is looked up in between":    {rotation.Lease{Kind: rotation.KindRenewable, ID: "x", Term: hour}, rotation.ActionCheck, 5 * time.Minute},
		"short renewable lease":                      {rotation.Lease{Kind: rotation.KindRenewable, ID: "x", Term: term(6 * time.Second)}, rotation.ActionRenew, 4 * time.Second},
		"renewable lease at its maximum":             {rotation.Lease{Kind: rotation.KindRenewable, Term: final(hour)}, rotation.ActionFetch, 40 * time.Minute},
		"short lease at its maximum makes way early": {rotation.Lease{Kind: rotation.KindRenewable, Term: final(term(33 * time.Second))}, rotation.ActionFetch, 3 * time.Second},
		"fixed lease":                           {rotation.Lease{Kind: rotation.KindFixed, Term: hour}, rotation.ActionFetch, 54 * time.Minute},
		"fixed lease leaves the grace":          {rotation.Lease{Kind: rotation.KindFixed, Term: term(100 * time.Second)}, rotation.ActionFetch, 70 * time.Second},
		"short fixed lease lives half its time": {rotation.Lease{Kind: rotation.KindFixed, Term: term(20 * time.Second)}, rotation.ActionFetch, 10 * time.Second},
		"certificate":                           {rotation.Lease{Kind: rotation.KindCertificate, Term: hour}, rotation.ActionFetch, 40 * time.Minute},
		"static role":                           {rotation.Lease{Kind: rotation.KindStaticRole, Term: rotation.Term{Granted: epoch, TTL: time.Minute}}, rotation.ActionFetch, 61 * time.Second},
		"static role that is rotating":          {rotation.Lease{Kind: rotation.KindStaticRole, Term: rotation.Term{Granted: epoch}}, rotation.ActionFetch, time.Second},
		"plain value":                           {rotation.Lease{Kind: rotation.KindPlain, Term: rotation.Term{Granted: epoch}}, rotation.ActionFetch, 5 * time.Minute},
		"after a failure":                       {rotation.Lease{Kind: rotation.KindPlain, Term: rotation.Term{Granted: epoch}, Trouble: rotation.Trouble{Failures: 1, Retry: epoch.Add(7 * time.Second)}}, rotation.ActionFetch, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			step := rotation.Next(row.lease, policy)
			if got := step.At.Sub(epoch); step.Action != row.action || got != row.after {
				t.Fatalf("%s after %v, want %s after %v", step.Action, got, row.action, row.after)
			}
		})
	}
}

func final(t rotation.Term) rotation.Term { t.Final = true; return t }

func anyPolicy(t *rapid.T) rotation.Policy {
	return rotation.Policy{
		Refresh: time.Duration(rapid.Int64Range(int64(10*time.Second), int64(24*time.Hour)).Draw(t, "refresh")),
		Grace:   time.Duration(rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "grace")),
		Spread:  rapid.Float64Range(0, 0.999).Draw(t, "spread"),
	}
}

func anyLease(t *rapid.T) rotation.Lease {
	kind := rapid.SampledFrom([]rotation.Kind{rotation.KindRenewable, rotation.KindFixed, rotation.KindCertificate}).Draw(t, "kind")
	l := rotation.Lease{Kind: kind, Term: term(time.Duration(rapid.Int64Range(int64(time.Second), int64(1000*time.Hour)).Draw(t, "ttl")))}
	l.Final = kind != rotation.KindRenewable || rapid.Bool().Draw(t, "final")
	if kind != rotation.KindCertificate && rapid.Bool().Draw(t, "looked up") {
		l.ID = "lease"
	}
	return l
}

func TestNoStepIsPlannedAfterExpiryNorTighterThanTheFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, p := anyLease(t), anyPolicy(t)
		step := rotation.Next(l, p)
		if !step.At.Before(l.Expires) {
			t.Fatalf("%s is planned %v after the grant, the lease ends after %v", step.Action, step.At.Sub(epoch), l.TTL)
		}
		if least := epoch.Add(min(time.Second, l.TTL/2)); step.At.Before(least) {
			t.Fatalf("%s is planned %v after the grant of a lease of %v", step.Action, step.At.Sub(epoch), l.TTL)
		}
	})
}

func TestALaterGrantIsNeverActedOnEarlier(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, p := anyLease(t), anyPolicy(t)
		by := time.Duration(rapid.Int64Range(0, int64(100*time.Hour)).Draw(t, "later by"))
		moved := l
		moved.Granted, moved.Expires = l.Granted.Add(by), l.Expires.Add(by)
		if a, b := rotation.Next(l, p).At, rotation.Next(moved, p).At; b.Sub(a) != by {
			t.Fatalf("granted %v later, acted on %v later", by, b.Sub(a))
		}
		longer := l
		longer.TTL += by
		longer.Expires = longer.Expires.Add(by)
		if a, b := rotation.Next(l, p).At, rotation.Next(longer, p).At; b.Before(a) {
			t.Fatalf("a lease that is %v longer is acted on %v earlier", by, a.Sub(b))
		}
	})
}

// The renewals of one lease, as Vault grants them, go on until its maximum TTL and then become a fetch: never past the
// end, never more of them than the lease's life has room for.
func TestRenewalsEndInAFetchBeforeTheMaximumTTL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPolicy(t)
		ttl := time.Duration(rapid.Int64Range(2, 7200).Draw(t, "ttl")) * time.Second
		limit := epoch.Add(ttl * time.Duration(rapid.Int64Range(1, 50).Draw(t, "max in ttls")))
		l := rotation.Lease{Kind: rotation.KindRenewable, Term: term(ttl)}
		now := epoch
		for steps := 0; ; steps++ {
			step := rotation.Next(l, p)
			if step.At.After(now) { // else it is due at once
				now = step.At
			}
			if !now.Before(l.Expires) {
				t.Fatalf("%s at %v, the lease ends at %v", step.Action, now.Sub(epoch), l.Expires.Sub(epoch))
			}
			if step.Action == rotation.ActionFetch {
				return
			}
			if steps > 200 {
				t.Fatal("renewed for ever")
			}
			g := vault.Grant{TTL: ttl, Renewable: true}
			if left := limit.Sub(now).Truncate(time.Second); left < ttl {
				g.TTL, g.Capped = left, true
			}
			l.Term = l.Renewed(g, now)
		}
	})
}

// A lease that cannot be looked up, for whatever reason, is renewed or replaced in time like any other.
func TestFailedLookupsEndInARenewalOrAFetchBeforeTheEnd(t *testing.T) {
	classes := []vault.Class{vault.Transient, vault.Denied, vault.NotFound, vault.BadRequest, vault.Unknown}
	rapid.Check(t, func(t *rapid.T) {
		l, p := anyLease(t), anyPolicy(t)
		l.ID, l.Kind = "lease", rapid.SampledFrom([]rotation.Kind{rotation.KindRenewable, rotation.KindFixed}).Draw(t, "kind of lease")
		l.TTL = max(l.TTL, 10*time.Second)
		l.Expires = l.Granted.Add(l.TTL)
		class := rapid.SampledFrom(classes).Draw(t, "class")
		for step := rotation.Next(l, p); step.Action == rotation.ActionCheck; step = rotation.Next(l, p) {
			l.Failures++
			l.Retry = rotation.Retry(step.At, l.Expires, l.Failures, class, 0, p.Spread)
			if !l.Retry.Before(l.Expires) {
				t.Fatalf("after %d lookups the next step comes %v after the grant, the lease ends after %v", l.Failures, l.Retry.Sub(epoch), l.TTL)
			}
		}
	})
}

// A Vault that caps without saying so is recognised by an end that no longer moves.
func TestARenewalThatGainsNothingIsTheLast(t *testing.T) {
	l := term(time.Hour)
	if l.Renewed(vault.Grant{TTL: time.Hour, Renewable: true}, epoch.Add(40*time.Minute)).Final {
		t.Fatal("a renewal that gained 40 minutes is not the last")
	}
	if !l.Renewed(vault.Grant{TTL: 20 * time.Minute, Renewable: true}, epoch.Add(40*time.Minute)).Final {
		t.Fatal("a renewal that gained nothing is the last")
	}
}

func TestRetriesLeaveRoomForEightAttemptsAndRespectBounds(t *testing.T) {
	classes := []vault.Class{vault.Transient, vault.Denied, vault.NotFound, vault.BadRequest, vault.Unknown}
	rapid.Check(t, func(t *rapid.T) {
		class := rapid.SampledFrom(classes).Draw(t, "class")
		failures := rapid.IntRange(1, 60).Draw(t, "failures")
		left := time.Duration(rapid.Int64Range(0, int64(10*time.Hour)).Draw(t, "left"))
		asked := time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "asked"))
		spread := rapid.Float64Range(0, 0.999).Draw(t, "spread")
		d := rotation.Retry(epoch, epoch.Add(left), failures, class, asked, spread).Sub(epoch)
		switch {
		case d < time.Second || d < asked:
			t.Fatalf("delay %v: below the floor, or below the %v that Vault asked for", d, asked)
		case d > max(6*time.Minute, asked):
			t.Fatalf("delay %v is longer than any bound", d)
		case left > 0 && d > max(time.Second, asked, left*12/80):
			t.Fatalf("delay %v of the %v that are left: fewer than eight attempts fit in, jitter aside", d, left)
		}
	})
}

func TestRetriesOfManyVolumesDoNotMarchInStep(t *testing.T) {
	seen := map[time.Time]int{}
	for i := range 100 {
		seen[rotation.Retry(epoch, time.Time{}, 4, vault.Transient, 0, float64(i)/100)]++
	}
	if len(seen) < 90 {
		t.Fatalf("100 volumes retry at %d different times", len(seen))
	}
}

func TestASessionThatNeverEndsHasNoNextStep(t *testing.T) {
	if s := rotation.NextSession(rotation.Session{Term: rotation.Term{Granted: epoch}}, rotation.Policy{Refresh: time.Minute}); s != (rotation.Step{}) {
		t.Fatalf("got %v", s)
	}
}
