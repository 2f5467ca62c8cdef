// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/clock"
)

func TestSteadyShowsWallTimeAndPasses(t *testing.T) {
	c := clock.NewSteady()
	before := c.Now()
	if d := time.Since(before.Add(0)); d < -time.Second || d > time.Second {
		t.Fatalf("Now() is %v away from the wall clock", d)
	}
	for !c.Now().After(before) { // a reading later is a time later; no sleep needed
	}
	if d := c.Drift(); d < -time.Second || d > time.Second {
		t.Fatalf("Drift() = %v with a wall clock that nobody set", d)
	}
}

// A record written by one daemon is read by the next: the shift between their clocks is the difference of their boots.
func TestTwoClocksOfOneBootDifferByTheirBoots(t *testing.T) {
	a, b := clock.NewSteady(), clock.NewSteady()
	shift := b.Boot().Sub(a.Boot())
	if d := b.Now().Sub(a.Now().Add(shift)); d < -time.Second || d > time.Second {
		t.Fatalf("translated reading is off by %v", d)
	}
}
