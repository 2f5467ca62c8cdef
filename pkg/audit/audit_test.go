// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

var _ rotation.Auditor = (*Log)(nil)

// counter is an Observer that counts.
type counter struct {
	mu sync.Mutex
	n  map[Result]int
}

func (c *counter) AuditLine(r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[Result]int{}
	}
	c.n[r]++
}

func (c *counter) of(r Result) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[r]
}

func entry() rotation.Entry {
	return rotation.Entry{
		Event: rotation.AuditRead, VolumeID: "csi-1",
		Pod:        rotation.Pod{Namespace: "shop", Name: "web-0", UID: "1234", ServiceAccount: "web", ServiceAccountUID: "5678"},
		Connection: "default", Role: "app", Path: "database/creds/app", Files: []string{"db/user", "db/password"},
		LeaseID: "database/creds/app/hL8sFQ2bNQtnwvYyGXo0Xd6W", Kind: rotation.KindRenewable,
		Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// session runs a log while body runs, and returns when all lines are written.
func session(t *testing.T, l *Log, body func()) {
	t.Helper()
	if err := l.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	body()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// lines reads a log; an empty line, which ends a torn one, is no line.
func lines(t *testing.T, path string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestLineSaysWhoWhatAndHowItWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		obs := &counter{}
		failed := entry()
		failed.Event, failed.LeaseID, failed.Files = rotation.AuditLogin, "", nil
		failed.Err = fmt.Errorf("publishing: %w", &vault.Error{Op: vault.OpLogin, Class: vault.Denied, Messages: []string{"hvs.CANARY"}})
		l := New(path, "node-1", obs, quiet())
		session(t, l, func() { l.Audit(entry()); l.Audit(failed) })

		want := []map[string]any{{
			"time": "2000-01-01T00:00:00Z", "event": "read", "outcome": "ok", "node": "node-1",
			"namespace": "shop", "pod": "web-0", "podUID": "1234", "serviceAccount": "web", "volume": "csi-1",
			"connection": "default", "role": "app", "path": "database/creds/app", "files": []any{"db/user", "db/password"},
			"kind": "renewable", "leaseHash": "33ef9aacad1d716a", "expires": "2026-01-02T03:04:05Z",
		}, {
			"time": "2000-01-01T00:00:00Z", "event": "login", "outcome": "error", "errorClass": "denied", "node": "node-1",
			"namespace": "shop", "pod": "web-0", "podUID": "1234", "serviceAccount": "web", "volume": "csi-1",
			"connection": "default", "role": "app", "path": "database/creds/app", "kind": "renewable", "expires": "2026-01-02T03:04:05Z",
		}}
		if diff := cmp.Diff(want, lines(t, path)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if obs.of(Written) != 2 {
			t.Errorf("%d lines counted, want 2", obs.of(Written))
		}
	})
}

// A lease id is a capability to whoever may revoke; an error's text repeats what others said. Neither is in a line.
func TestNeitherLeaseIDNorErrorTextIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := New(path, "", &counter{}, quiet())
	session(t, l, func() {
		for _, err := range []error{
			errors.New("password hvs.CANARY"),
			&vault.Error{Class: vault.BadRequest, Messages: []string{"hvs.CANARY"}, Err: errors.New("hvs.CANARY")},
			&rotation.MountError{Step: "hvs.CANARY", Err: errors.New("hvs.CANARY")},
		} {
			e := entry()
			e.Err = err
			l.Audit(e)
		}
	})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, canary := range []string{"CANARY", entry().LeaseID, "hL8sFQ2bNQtnwvYyGXo0Xd6W"} {
		if bytes.Contains(text, []byte(canary)) {
			t.Errorf("%s is in the log:\n%s", canary, text)
		}
	}
}

func TestErrorClassesAreAFixedFew(t *testing.T) {
	cases := map[string]error{
		"denied":      &vault.Error{Class: vault.Denied},
		"transient":   fmt.Errorf("reading: %w", &vault.Error{Class: vault.Transient, Err: context.DeadlineExceeded}),
		"canceled":    fmt.Errorf("x: %w", context.Canceled),
		"timeout":     context.DeadlineExceeded,
		"no-token":    rotation.ErrNoToken,
		"no-space":    fmt.Errorf("staging: %w", mount.ErrNoSpace),
		"budget":      &rotation.BudgetError{},
		"mount":       &rotation.MountError{Err: syscall.EIO},
		"other":       errors.New("something else"),
		"lease-gone":  &vault.Error{Class: vault.LeaseGone},
		"bad-request": &vault.Error{Class: vault.BadRequest},
	}
	for want, err := range cases {
		if got := errorClass(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestFileIsClosedToOthers(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "audit.log")
	session(t, New(path, "", &counter{}, quiet()), func() {})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %04o, want 0600", info.Mode().Perm())
	}
}

func TestLogIsAppendedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for range 2 {
		l := New(path, "", &counter{}, quiet())
		session(t, l, func() { l.Audit(entry()) })
	}
	if n := len(lines(t, path)); n != 2 {
		t.Fatalf("%d lines, want 2", n)
	}
}

func TestRotatedFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		l := New(path, "", &counter{}, quiet())
		session(t, l, func() {
			l.Audit(entry())
			synctest.Wait()
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * lookEvery)
			l.Audit(entry())
			l.Audit(entry())
		})
		if old, now := len(lines(t, path+".1")), len(lines(t, path)); old != 1 || now != 2 {
			t.Fatalf("%d lines in the old file and %d in the new one, want 1 and 2", old, now)
		}
	})
}

func TestOpenRefusesAPathThatCannotBeRight(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"in no folder": filepath.Join(dir, "no", "audit.log"), "a folder": dir} {
		if err := New(path, "", &counter{}, quiet()).Open(); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

// /dev/full says ENOSPC to every write.
func TestFullDiskIsLoggedOnceAndCounted(t *testing.T) {
	var logs bytes.Buffer
	obs := &counter{}
	l := New("/dev/full", "", obs, slog.New(slog.NewTextHandler(&logs, nil)))
	session(t, l, func() {
		for range 100 {
			l.Audit(entry())
		}
	})
	if obs.of(Failed) != 100 {
		t.Errorf("%d failures counted, want 100", obs.of(Failed))
	}
	if n := strings.Count(logs.String(), "\n"); n != 1 {
		t.Errorf("%d log lines, want 1:\n%s", n, logs.String())
	}
}

func TestLogGoesOnWhenTheDiskIsBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	var logs bytes.Buffer
	obs := &counter{}
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	l := New(path, "", obs, slog.New(slog.NewTextHandler(&logs, nil)))
	session(t, l, func() {
		l.Audit(entry())
		for obs.of(Failed) == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		l.Audit(entry())
	})
	if n := len(lines(t, path)); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
	if !strings.Contains(logs.String(), "can be written again") {
		t.Errorf("the log does not say that it is over:\n%s", logs.String())
	}
}

// A pipe that nobody reads from blocks Run. It must not block who audits.
func TestStuckDestinationDropsLinesAndBlocksNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	obs := &counter{}
	l := New(path, "", obs, quiet())
	if err := l.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	start := time.Now()
	for range 2 * queueLength {
		l.Audit(entry())
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("auditing took %s", took)
	}
	if obs.of(Dropped) == 0 {
		t.Error("no line was counted as dropped")
	}
	cancel()
	_ = reader.Close() // whoever was stuck gets EPIPE
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Run is still stuck")
	}
}

func TestOffWritesNothing(t *testing.T) {
	obs := &counter{}
	l := New(Off, "", obs, quiet())
	session(t, l, func() { l.Audit(entry()) })
	if len(obs.n) != 0 {
		t.Fatalf("counted %v", obs.n)
	}
	if _, err := os.Stat(Off); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a file called off was made")
	}
}

// What an operator types to find a lease's lines must be what is written.
func TestLeaseHashIsWhatTheShellComputes(t *testing.T) {
	if got, want := leaseHash("abc"), "ba7816bf8f01cfea"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	if leaseHash("") != "" {
		t.Fatal("no lease has no hash")
	}
}

func TestDocumentationNamesEveryFieldAndEvent(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## The audit log\n")
	if !ok {
		t.Fatal("the documentation has lost its section")
	}
	var words []string
	for f := range reflect.TypeFor[Line]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		words = append(words, name)
	}
	for _, e := range []rotation.AuditEvent{
		rotation.AuditLogin, rotation.AuditRead, rotation.AuditRenewSession, rotation.AuditRenewLease, rotation.AuditRevokeSession,
		rotation.AuditRevokeLease, rotation.AuditPublish, rotation.AuditSwap, rotation.AuditExpire, rotation.AuditUnpublish, rotation.AuditRecover,
	} {
		words = append(words, string(e))
	}
	for c := vault.Transient; c <= vault.BadResponse; c++ {
		words = append(words, c.String())
	}
	for _, w := range words {
		if !strings.Contains(section, "`"+w+"`") {
			t.Errorf("%s is not documented", w)
		}
	}
}
