// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"sync"
	"time"
)

// Settings of a breaker.
const (
	breakerThreshold = 5                // failures in a row that raise the question
	breakerFirst     = time.Second      // the first cool-down
	breakerMax       = 30 * time.Second // the longest
)

// breaker keeps requests from a Vault that is known to be down. After breakerThreshold failures in a row one caller is
// told to ask Vault for its health, while the others go on. If Vault is alive, for instance because only one secrets
// engine hangs, nothing else happens. If not, the breaker is open: all requests are refused, and after a cool-down,
// doubled each time up to breakerMax, the next caller is told to ask again.
//
// A failure is an exchange without a complete answer, or an answer that says that nothing works (sealed, a gateway's
// 502 to 504). A plain 500 is not: one secrets engine whose database is down must not stop the others.
//
// It knows no clock: now is passed in. The zero breaker with a spread is ready.
type breaker struct {
	spread func() float64 // in [0,1), so that a fleet of nodes does not ask at the same instant

	mu       sync.Mutex
	failures int           // in a row, while closed
	suspect  bool          // not known to be alive: a probe decides
	probing  bool          // one caller asks
	cooldown time.Duration // 0 while suspect only; else the breaker is open
	until    time.Time     // end of the cool-down
	why      string        // the last failure
}

// verdict is what a breaker says to a caller.
type verdict int

const (
	pass   verdict = iota // go on
	probe                 // ask Vault whether it is back, then call probed or abandoned
	refuse                // do not send
)

// admit decides about one request, and for a refused one says when to ask again.
func (b *breaker) admit(now time.Time) (verdict, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.suspect, b.probing && b.cooldown == 0:
		return pass, 0
	case b.probing:
		return refuse, b.cooldown
	case now.Before(b.until):
		return refuse, b.until.Sub(now)
	}
	b.probing = true
	return probe, 0
}

// probed tells the result of a probe.
func (b *breaker) probed(alive bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch {
	case alive:
		b.close()
	case b.suspect:
		b.cooldown = min(max(2*b.cooldown, breakerFirst), breakerMax)
		// Up to a quarter longer by the spread.
		b.until = now.Add(b.cooldown + time.Duration(b.spread()*float64(b.cooldown)/4))
	}
}

// abandoned tells that the probe came to no result, because its caller gave up: the next one asks.
func (b *breaker) abandoned() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

// succeeded tells of an answer. One that arrives while the breaker is open is as good as a probe.
func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close()
}

// failed tells of a failure. One that was sent before the breaker opened changes nothing but the reason.
func (b *breaker) failed(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why = why
	if b.failures++; b.failures >= breakerThreshold {
		b.suspect = true
	}
}

// reason is the last failure, for who is refused.
func (b *breaker) reason() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why
}

func (b *breaker) close() { b.suspect, b.failures, b.cooldown = false, 0, 0 }
