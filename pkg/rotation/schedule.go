// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/leasefs/leasefs/pkg/vault"
)

// Action is one step on one lease or session.
type Action string

// Actions. ActionFetch on a session is a new login.
const (
	ActionRenew Action = "renew"
	ActionFetch Action = "fetch"
	ActionCheck Action = "check"
)

// Step is what to do next, and when. The zero Step means nothing, ever.
type Step struct {
	Action Action
	At     time.Time
}

const (
	// floor is the least time between two steps on a lease that lasts long enough for it.
	floor = time.Second
	// checkFloor is the least time between two checks of a lease.
	checkFloor = 5 * time.Second
	// attempts is how many tries must fit between the first failure and the end of a term.
	attempts = 8
)

// Policy is what of a volume's plan and of the settings bears on its schedule.
type Policy struct {
	Refresh time.Duration // between two reads of a plain value; also the longest time between two checks of a lease
	Grace   time.Duration // how long before their end dynamic credentials are replaced at the latest, where that fits
	Spread  float64       // stable share in [0, 1) of this volume; see spreadOf
}

// Next is the next step on a lease. It is a pure function of its arguments: a restarted daemon comes to the same plan.
//
//  1. A renewable lease is renewed when 2/3 of its TTL have passed, up to a tenth of that earlier by the volume's spread.
//  2. A lease that cannot be renewed (any longer) is replaced at 0.9 of its TTL, up to a tenth of that earlier (2/3 of what
//     is left, for one at its maximum TTL), and early enough that applications have the grace to change over, if the lease
//     is long enough to spare it.
//  3. A certificate is replaced when 2/3 of the time between its issue and its notAfter have passed. The notBefore does not
//     count: Vault dates it back by 30 seconds, which are more than the whole life of a short certificate.
//  4. A static role is read again one second after its ttl has ended; Vault rotates within that second.
//  5. A plain value is read again when the refresh interval has passed.
//  6. Between these, a Vault lease is looked up each third of its TTL, and each refresh interval if that is less: somebody
//     may have revoked it.
//  7. After a failure, nothing is done before its Retry time (see Retry). A lookup that fails does not stand in the way of
//     the renewal or the replacement: when the time of that has come, it is what is tried.
//
// Bounds, for every lease: not before floor after the grant (half of the TTL, if that is less), not after its end.
func Next(l Lease, p Policy) Step {
	s := Step{Action: ActionFetch}
	switch l.Kind {
	case KindRenewable:
		if !l.Final {
			s = Step{ActionRenew, part(l.Term, 2.0/3, p)} // 1
		} else {
			s.At = beforeEnd(part(l.Term, 2.0/3, p), l.Term, p.Grace, 0) // 2
		}
	case KindFixed:
		s.At = beforeEnd(part(l.Term, 0.9, p), l.Term, p.Grace, l.TTL/2) // 2
	case KindCertificate:
		s.At = part(l.Term, 2.0/3, p) // 3
	case KindStaticRole:
		s.At = l.Granted.Add(l.TTL + floor) // 4
	default:
		s.At = l.Granted.Add(p.Refresh - time.Duration(p.Spread*float64(p.Refresh)/10)) // 5
	}
	s.At = notBefore(s.At, l.Granted.Add(min(floor, half(l.TTL))))
	check := Step{ActionCheck, later(l.Granted, l.Checked).Add(max(min(l.TTL/3, p.Refresh), checkFloor))}
	if l.Failures > 0 {
		check.At = l.Retry
	}
	switch {
	case l.ID != "" && check.At.Before(s.At): // 6
		return check
	case l.Failures > 0: // 7
		s.At = l.Retry
	}
	return s
}

// NextSession is the next step on a session: renewed like a lease, replaced like one. A session whose token never ends
// has no next step.
func NextSession(s Session, p Policy) Step {
	if s.TTL <= 0 {
		return Step{}
	}
	step := Step{ActionRenew, part(s.Term, 2.0/3, p)}
	if !s.Renewable || s.Final {
		step = Step{ActionFetch, beforeEnd(part(s.Term, 2.0/3, p), s.Term, p.Grace, 0)}
	}
	step.At = notBefore(step.At, s.Granted.Add(min(floor, half(s.TTL))))
	if s.Failures > 0 {
		step.At = s.Retry
	}
	return step
}

// Retry is when to try again after the failures-th failure in a row at now, on something that ends at expires (zero:
// never).
//
// The delay doubles from a second to a minute for trouble that passes by itself, from ten seconds to five minutes for
// trouble that somebody must mend. It is never more than an eighth of the time that is left, so that enough attempts
// fit in before the end, never less than what Vault asked for nor than the floor, and jittered by a fifth, by a stable
// hash of the volume and the attempt.
func Retry(now, expires time.Time, failures int, class vault.Class, asked time.Duration, spread float64) time.Time {
	base, limit := time.Second, time.Minute
	if class != vault.Transient && class != vault.InvalidToken && class != vault.LeaseGone {
		base, limit = 10*time.Second, 5*time.Minute
	}
	delay := limit
	if shift := failures - 1; shift < 10 {
		delay = min(limit, base<<max(shift, 0))
	}
	if left := expires.Sub(now); !expires.IsZero() && left > 0 {
		delay = min(delay, left/attempts)
	}
	jitter := frac(spread+0.618*float64(failures))*0.4 - 0.2
	delay += time.Duration(jitter * float64(delay))
	return now.Add(max(delay, asked, floor))
}

// spreadOf is a stable share in [0, 1) for a volume, so that volumes that start together do not act together.
func spreadOf(id string) float64 {
	h := sha256.Sum256([]byte(id))
	return float64(binary.BigEndian.Uint64(h[:8])>>11) / (1 << 53)
}

// part is the moment when the given part of the term has passed, up to a tenth of that earlier by the spread.
func part(t Term, share float64, p Policy) time.Time {
	return t.Granted.Add(time.Duration(share * (1 - p.Spread/10) * float64(t.TTL)))
}

// beforeEnd moves at forward so that grace fits between it and the term's end, but not before least after the grant.
func beforeEnd(at time.Time, t Term, grace, least time.Duration) time.Time {
	if latest := t.Expires.Add(-grace); latest.Before(at) {
		at = later(latest, t.Granted.Add(least))
	}
	return at
}

func half(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return floor
	}
	return ttl / 2
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func notBefore(at, least time.Time) time.Time { return later(at, least) }

func frac(x float64) float64 { return x - float64(int64(x)) }
