// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/admin"
	"github.com/leasefs/leasefs/pkg/rotation"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Fatalf("go test ./cmd/driver -update writes %s (-want +got):\n%s", path, diff)
	}
}

var now = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)

func in(d time.Duration) time.Time { return now.Add(d) }

// node is a node with a volume of each sort.
func node() []rotation.VolumeStatus {
	pod := func(name string) rotation.Pod {
		return rotation.Pod{Namespace: "shop", Name: name, UID: "uid-" + name, ServiceAccount: "web"}
	}
	return []rotation.VolumeStatus{{
		VolumeID: "csi-1", Target: "/pods/1", Pod: pod("web-0"), Phase: rotation.PhaseLive, Connection: "default", Role: "web",
		Generation: "..2026", Rotated: in(-time.Minute), Files: []string{"db/user", "db/password", "tls/cert", "tls/key"},
		Session: &rotation.TermStatus{Expires: in(time.Hour), NextAction: rotation.ActionRenew, NextAt: in(40 * time.Minute)},
		Leases: []rotation.LeaseStatus{
			{Path: "database/creds/web", Files: []string{"db/user", "db/password"}, Kind: rotation.KindRenewable,
				TermStatus: rotation.TermStatus{Expires: in(90 * time.Second), NextAction: rotation.ActionRenew, NextAt: in(45 * time.Second)}},
			{Path: "pki/issue/web", Files: []string{"tls/cert", "tls/key"}, Kind: rotation.KindCertificate,
				TermStatus: rotation.TermStatus{Expires: in(72 * time.Hour), NextAction: rotation.ActionFetch, NextAt: in(48 * time.Hour)}},
		},
		Next: in(45 * time.Second), Expires: in(90 * time.Second),
	}, {
		VolumeID: "csi-2", Pod: pod("web-1"), Phase: rotation.PhaseLive, Connection: "default", Role: "web", Files: []string{"a", "b"},
		Leases: []rotation.LeaseStatus{{Kind: rotation.KindPlain}, {Kind: rotation.KindPlain}},
		Next:   in(5 * time.Minute),
	}, {
		VolumeID: "csi-3", Pod: pod("worker-7d9f"), Phase: rotation.PhaseLive, Connection: "lab", Role: "worker", Files: []string{"token"},
		Leases: []rotation.LeaseStatus{{Kind: rotation.KindFixed, TermStatus: rotation.TermStatus{Expires: in(-3 * time.Minute), Problem: "denied"}}},
		Next:   in(-2 * time.Second), Expires: in(-3 * time.Minute), Expired: true,
		Problem: "reading kv/data/worker of vault connection \"lab\": status 403:\t1 error\noccurred:\x1b[31m permission denied",
	}, {
		VolumeID: "csi-4", Pod: pod("new"), Phase: rotation.PhasePublishing, Connection: "default", Role: "web", Files: []string{"a"},
	}, {
		VolumeID: "csi-5", Pod: pod("old"), Phase: rotation.PhaseReleasing, Connection: "default", Role: "web", Files: []string{"a"},
		Next: in(30 * time.Second), Problem: "revoking the session: vault is sealed",
	}}
}

func TestTableForAPerson(t *testing.T) {
	var s strings.Builder
	if err := writeTable(&s, adminList(node(), now, 0)); err != nil {
		t.Fatal(err)
	}
	golden(t, "volumes.golden", s.String())
}

func TestTableOfNothingSaysSo(t *testing.T) {
	var s strings.Builder
	if err := writeTable(&s, admin.List{}); err != nil {
		t.Fatal(err)
	}
	if s.String() != "no volumes on this node\n" {
		t.Fatalf("%q", s.String())
	}
}

// An error repeats what a server said. It must not move the cursor of who looks at it, nor break the table.
func TestTableHoldsNoControlCharacters(t *testing.T) {
	var s strings.Builder
	if err := writeTable(&s, adminList(node(), now, 0)); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(s.String(), "\x1b\t\r") || strings.Count(s.String(), "\n") != 1+len(node()) {
		t.Fatalf("%q", s.String())
	}
}

func TestLongErrorsAreCut(t *testing.T) {
	if got := cell(strings.Repeat("ü", 500)); len([]rune(got)) != maxCell+3 {
		t.Fatalf("%d characters", len([]rune(got)))
	}
}

// The steady clock may be behind the wall's; what is shown is wall time.
func TestTimesOfTheListAreWallTime(t *testing.T) {
	l := adminList(node(), now, time.Hour)
	if want := in(time.Hour); !l.Time.Equal(want) {
		t.Errorf("time is %s, want %s", l.Time, want)
	}
	if want := in(time.Hour + 45*time.Second); !l.Volumes[0].Next.Equal(want) {
		t.Errorf("next is %s, want %s", l.Volumes[0].Next, want)
	}
	if want := in(2 * time.Hour); !l.Volumes[0].Session.Expires.Equal(want) {
		t.Errorf("session ends %s, want %s", l.Volumes[0].Session.Expires, want)
	}
}

func TestTimesOfTheAuditLogAreWallTime(t *testing.T) {
	var lines lastEntry
	audit := wallTime{&lines, func() time.Duration { return time.Hour }}
	audit.Audit(rotation.Entry{Event: rotation.AuditRead, Expires: now})
	if want := in(time.Hour); !lines.Expires.Equal(want) || lines.Event != rotation.AuditRead {
		t.Errorf("%+v, want an end at %s", lines, want)
	}
	audit.Audit(rotation.Entry{})
	if !lines.Expires.IsZero() {
		t.Errorf("what never ends, ends %s", lines.Expires)
	}
}

type lastEntry struct{ rotation.Entry }

func (l *lastEntry) Audit(e rotation.Entry) { l.Entry = e }

func TestListSaysEverythingOfAVolume(t *testing.T) {
	at := func(d time.Duration) *time.Time { u := in(d); return &u }
	want := admin.Volume{
		ID: "csi-1", Target: "/pods/1", Namespace: "shop", Pod: "web-0", PodUID: "uid-web-0", ServiceAccount: "web",
		Connection: "default", Role: "web", Phase: "live", Generation: "..2026", Rotated: at(-time.Minute),
		Files:   []string{"db/user", "db/password", "tls/cert", "tls/key"},
		Session: &admin.Lease{Kind: "session", NextAction: "renew", Next: at(40 * time.Minute), Expires: at(time.Hour)},
		Leases: []admin.Lease{
			{Path: "database/creds/web", Files: []string{"db/user", "db/password"}, Kind: "renewable", NextAction: "renew", Next: at(45 * time.Second), Expires: at(90 * time.Second)},
			{Path: "pki/issue/web", Files: []string{"tls/cert", "tls/key"}, Kind: "certificate", NextAction: "fetch", Next: at(48 * time.Hour), Expires: at(72 * time.Hour)},
		},
		Next: at(45 * time.Second), Expires: at(90 * time.Second),
	}
	if diff := cmp.Diff(want, adminList(node(), now, 0).Volumes[0]); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}
