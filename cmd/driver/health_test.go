// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/csi"
	"github.com/leasefs/leasefs/pkg/rotation"
)

func TestAliveUnlessOverdueAndNothingIsDone(t *testing.T) {
	live := func(next time.Duration) []rotation.VolumeStatus {
		return []rotation.VolumeStatus{{VolumeID: "csi-1", Phase: rotation.PhaseLive, Next: in(next)}}
	}
	cases := map[string]struct {
		volumes []rotation.VolumeStatus
		last    time.Duration // when anything was done
		alive   bool
	}{
		"no volumes, idle for a day":                   {nil, -24 * time.Hour, true},
		"nothing due, idle for a day":                  {live(time.Hour), -24 * time.Hour, true},
		"a volume that is never due, idle for a day":   {[]rotation.VolumeStatus{{Phase: rotation.PhaseLive}}, -24 * time.Hour, true},
		"due, idle for a day":                          {live(-time.Minute), -24 * time.Hour, true},
		"overdue, but others are worked on":            {live(-time.Hour), -time.Minute, true},
		"overdue, and nothing is done":                 {live(-time.Hour), -11 * time.Minute, false},
		"a release that waits for Vault, nothing done": {[]rotation.VolumeStatus{{Phase: rotation.PhaseReleasing, Next: in(-time.Hour)}}, -time.Hour, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if err := alive(c.volumes, in(c.last), now); (err == nil) != c.alive {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestReadyWhenEverythingHasHappened(t *testing.T) {
	registration := csi.NewRegistration(csi.RegistrationOptions{})
	r := newReadiness(registration)
	for _, what := range []string{"volumes of an earlier daemon are taken over", "the CSI socket is served"} {
		if err := r.serving(); err == nil || !strings.Contains(err.Error(), what) {
			t.Fatalf("got %v, want an error that names: %s", err, what)
		}
		r.set(what)
	}
	if err := r.serving(); err != nil {
		t.Fatalf("serving: %v", err)
	}
	if err := r.check(); err == nil {
		t.Fatal("ready before the kubelet has registered the driver")
	}
	r.registration = nil
	if err := r.check(); err != nil {
		t.Fatalf("ready without registration: %v", err)
	}
	r.stopping()
	if r.check() == nil || r.serving() == nil {
		t.Fatal("ready while stopping")
	}
}

func TestHealthIsOkOr503WithTheReason(t *testing.T) {
	for err, want := range map[error]struct {
		status int
		body   string
	}{nil: {200, "ok\n"}, errors.New("not yet"): {503, "not yet\n"}} {
		w := httptest.NewRecorder()
		answer(func() error { return err })(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if w.Code != want.status || w.Body.String() != want.body {
			t.Errorf("%v: %d %q", err, w.Code, w.Body.String())
		}
	}
}

type steps struct{ rotation.Observer }

func (steps) Late(time.Duration)                                       {}
func (steps) Rotation(rotation.Kind, rotation.Action, rotation.Result) {}

func TestEveryStepIsAHeartbeat(t *testing.T) {
	clock := now
	p := newPulse(steps{}, func() time.Time { return clock })
	for name, step := range map[string]func(){
		"late":     func() { p.Late(0) },
		"rotation": func() { p.Rotation("", "", "") },
	} {
		clock = clock.Add(time.Minute)
		step()
		if !p.last.Load().Equal(clock) {
			t.Errorf("%s: the last beat is of %s, want %s", name, p.last.Load(), clock)
		}
	}
}

func TestSwapIsOnIfTheListHasMoreThanHeadings(t *testing.T) {
	const headings = "Filename\tType\tSize\tUsed\tPriority\n"
	for text, want := range map[string]bool{"": false, headings: false, headings + "/dev/sda2 partition 1 0 -2\n": true} {
		got, err := hasSwap(strings.NewReader(text))
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
