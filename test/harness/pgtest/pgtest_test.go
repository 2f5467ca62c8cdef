// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPasswordsAreReallyChecked(t *testing.T) {
	t.Parallel()
	s := Start(t)
	ctx := t.Context()
	if err := s.Exec(ctx, "create role app login password 'right'", "create role gone login password 'right' valid until '2000-01-01'"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, user, password string
		ok                   bool
	}{
		{"the right password", "app", "right", true},
		{"a wrong password", "app", "wrong", false},
		{"an unknown user", "nobody", "right", false},
		{"an expired account", "gone", "right", false},
		{"the superuser", s.AdminUser, s.AdminPassword, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := s.Login(ctx, tc.user, tc.password); (err == nil) != tc.ok {
				t.Errorf("login: %v", err)
			}
		})
	}
	users, err := s.Users(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"app", "gone"}, users); diff != "" {
		t.Error(diff)
	}
}

func TestDataSurvivesARestartOnTheSamePort(t *testing.T) {
	t.Parallel()
	s := Start(t)
	ctx := t.Context()
	if err := s.Exec(ctx, "create role app login password 'right'"); err != nil {
		t.Fatal(err)
	}
	port := s.Port
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Login(ctx, "app", "right"); err == nil {
		t.Error("logged in to a stopped server")
	}
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if s.Port != port {
		t.Errorf("port %d, was %d", s.Port, port)
	}
	if err := s.Login(ctx, "app", "right"); err != nil {
		t.Error(err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	s, err := Run(t.Context())
	if errors.Is(err, ErrNotInstalled) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.proc.Running() {
		t.Error("the server runs")
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder: %v", err)
	}
}

// Users without root rights run all tests inside `unshare -Urm`, where uid 0 is the only one there is.
func TestWorksWithNoOtherUserThanRoot(t *testing.T) {
	t.Parallel()
	if _, err := binaries(); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if data, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Count(string(data), "\n") != 1 ||
		strings.Fields(string(data))[2] != "1" {
		inner := exec.Command("unshare", "-Urm", os.Args[0], "-test.run=^TestWorksWithNoOtherUserThanRoot$", "-test.v")
		out, err := inner.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestWorksWithNoOtherUserThanRoot") {
			t.Fatalf("inside unshare -Urm: %v\n%s", err, out)
		}
		return
	}
	s := Start(t)
	if s.run.mode != renumber {
		t.Errorf("mode = %d, want %d", s.run.mode, renumber)
	}
	if err := s.Login(t.Context(), s.AdminUser, s.AdminPassword); err != nil {
		t.Error(err)
	}
}

func TestMissingServerNamesThePackage(t *testing.T) {
	t.Setenv("PG_BIN", t.TempDir())
	_, err := Run(t.Context())
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Errorf("error = %v", err)
	}
}
