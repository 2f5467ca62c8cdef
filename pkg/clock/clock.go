// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package clock is a clock for leases: it shows wall time, and passes like the time that Vault counts.
//
// The wall clock may be set, forward or back, and Go's monotonic clock stands still while the machine is suspended.
// Either would make a daemon renew too late or all at once. CLOCK_BOOTTIME does neither, so Steady shows the wall time at
// which it was made plus the boot time that has passed since.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Steady is a wall clock that nobody can set. Its readings carry no monotonic part, so that they compare by what they
// show, before and after a restart.
type Steady struct{ boot time.Time }

// NewSteady reads both clocks once.
func NewSteady() Steady {
	return Steady{boot: time.Now().Round(0).Add(-sinceBoot())}
}

// Now is the time.
func (s Steady) Now() time.Time { return s.boot.Add(sinceBoot()) }

// Boot is the moment of boot as this clock shows it. Two Steady of one boot differ by the difference of their Boot.
func (s Steady) Boot() time.Time { return s.boot }

// Drift is how far the wall clock has been set away from this one since it was made.
func (s Steady) Drift() time.Duration { return time.Now().Round(0).Sub(s.Now()) }

func sinceBoot() time.Duration {
	var ts unix.Timespec
	// CLOCK_BOOTTIME exists since Linux 2.6.39, and the call has no other way to fail.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("reading CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
