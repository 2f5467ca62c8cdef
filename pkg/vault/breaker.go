// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"sync"
	"time"
)

// Settings of a breaker.
const (
	breakerThreshold = 5                // failures in a row that open it
	breakerFirst     = time.Second      // the first cool-down
	breakerMax       = 30 * time.Second // the longest
)

// breaker keeps requests from a Vault that is known to be down: after breakerThreshold failures in a row it refuses,
// and after a cool-down, doubled each time up to breakerMax, one caller is told to find out whether Vault is back.
//
// A failure is an exchange without a complete answer, or an answer that says that nothing works (sealed, a gateway's
// 502 to 504). A plain 500 is not: one secrets engine whose database is down must not stop the others.
//
// It knows no clock: now is passed in. The zero breaker with a spread is ready.
type breaker struct {
	spread func() float64 // in [0,1), so that a fleet of nodes does not ask at the same instant

	mu       sync.Mutex
	failures int // in a row, while closed
	open     bool
	probing  bool
	cooldown time.Duration
	until    time.Time // end of the cool-down, while open
}

// verdict is what a breaker says to a caller.
type verdict int

const (
	pass   verdict = iota // go on
	probe                 // ask Vault whether it is back, then call probed
	refuse                // do not send
)

// admit decides about one request, and for a refused one says when to ask again.
func (b *breaker) admit(now time.Time) (verdict, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
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
	case b.open:
		b.cooldown = min(2*b.cooldown, breakerMax)
		b.rest(now)
	}
}

// succeeded tells of an answer. One that arrives while the breaker is open is as good as a probe.
func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close()
}

// failed tells of a failure. One that was sent before the breaker opened changes nothing.
func (b *breaker) failed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open {
		return
	}
	if b.failures++; b.failures >= breakerThreshold {
		b.open, b.cooldown = true, breakerFirst
		b.rest(now)
	}
}

func (b *breaker) close() { b.open, b.failures = false, 0 }

// rest starts a cool-down, up to a quarter longer than its length by the spread.
func (b *breaker) rest(now time.Time) {
	b.until = now.Add(b.cooldown + time.Duration(b.spread()*float64(b.cooldown)/4))
}
