// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func still() float64 { return 0 }

// opened is a breaker that has failed often enough and whose first probe found Vault dead, at epoch.
func opened(t *testing.T) *breaker {
	t.Helper()
	b := &breaker{spread: still}
	for range breakerThreshold {
		b.failed("no answer")
	}
	if v, _ := b.admit(epoch); v != probe {
		t.Fatalf("after %d failures the verdict is %v, want a probe", breakerThreshold, v)
	}
	b.probed(false, epoch)
	return b
}

func TestBreakerLetsPassUntilItHasFailedOftenInARow(t *testing.T) {
	b := &breaker{spread: still}
	for range 10 * breakerThreshold {
		for range breakerThreshold - 1 {
			b.failed("no answer")
		}
		if v, _ := b.admit(epoch); v != pass {
			t.Fatalf("verdict %v after %d failures, want pass", v, breakerThreshold-1)
		}
		b.succeeded()
	}
}

func TestBreakerRefusesNobodyWhileItOnlySuspects(t *testing.T) {
	b := &breaker{spread: still}
	for range breakerThreshold {
		b.failed("no answer")
	}
	if v, _ := b.admit(epoch); v != probe {
		t.Fatalf("the first caller's verdict is %v, want probe", v)
	}
	if v, _ := b.admit(epoch); v != pass {
		t.Fatalf("verdict %v during the first probe, want pass: Vault may be alive", v)
	}
	b.probed(true, epoch)
	if v, _ := b.admit(epoch); v != pass {
		t.Fatalf("verdict %v after Vault was found alive, want pass", v)
	}
}

func TestBreakerCoolsDownTwiceAsLongAfterEachProbe(t *testing.T) {
	b, now := opened(t), epoch
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		want *= time.Second
		if v, after := b.admit(now); v != refuse || after != want {
			t.Fatalf("verdict %v, ask again after %v, want refuse and %v", v, after, want)
		}
		if v, _ := b.admit(now.Add(want - 1)); v != refuse {
			t.Fatalf("verdict %v just before the cool-down of %v ends, want refuse", v, want)
		}
		now = now.Add(want)
		if v, _ := b.admit(now); v != probe {
			t.Fatalf("verdict %v after the cool-down of %v, want probe", v, want)
		}
		if v, _ := b.admit(now); v != refuse {
			t.Fatalf("a second caller's verdict during a probe is %v, want refuse", v)
		}
		b.probed(false, now)
	}
	b.succeeded() // an answer to what was sent before is as good as a probe
	if v, _ := b.admit(now); v != pass {
		t.Fatalf("verdict %v after an answer, want pass", v)
	}
}

func TestBreakerSpreadsTheEndOfItsCoolDown(t *testing.T) {
	b := opened(t)
	b.spread = func() float64 { return 0.999 }
	now := epoch.Add(time.Second)
	b.admit(now)
	b.probed(false, now)
	if _, after := b.admit(now); after <= 2*time.Second || after > 2500*time.Millisecond {
		t.Fatalf("a spread cool-down of 2s lasts %v, want up to a quarter more", after)
	}
}

// Whatever happens in whatever order: never two probes at once, no refusal longer than the maximum, and a probe that
// finds Vault alive closes it.
func TestBreakerProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now, probes := &breaker{spread: still}, epoch, 0
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 40_000).Draw(t, "ms")) * time.Millisecond)
			},
			"failed":    func(*rapid.T) { b.failed("no answer") },
			"succeeded": func(*rapid.T) { b.succeeded() },
			"admit": func(t *rapid.T) {
				v, after := b.admit(now)
				if v == probe {
					probes++
				}
				if v == refuse && (after <= 0 || after > breakerMax*5/4) {
					t.Fatalf("refused for %v", after)
				}
			},
			"probed": func(t *rapid.T) {
				if probes == 0 {
					t.Skip("no probe is under way")
				}
				probes--
				if rapid.Bool().Draw(t, "gave up") {
					b.abandoned()
					return
				}
				alive := rapid.Bool().Draw(t, "alive")
				b.probed(alive, now)
				if v, _ := b.admit(now); alive && v != pass {
					t.Fatalf("verdict %v after Vault was found alive", v)
				}
			},
			"": func(t *rapid.T) {
				if probes > 1 {
					t.Fatalf("%d probes at once", probes)
				}
			},
		})
	})
}
