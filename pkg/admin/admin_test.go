// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)

func oneVolume() List {
	next := now.Add(time.Minute)
	return List{APIVersion: APIVersion, Version: "v1", Time: now, Volumes: []Volume{{
		ID: "csi-1", Namespace: "shop", Pod: "web-0", Phase: "live", Files: []string{"db/password"}, Next: &next,
		Leases: []Lease{{Path: "database/creds/app", Kind: "renewable", Next: &next}},
	}}}
}

// serve runs s until the test ends, and returns when it answers or has given up.
func serve(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for range 500 {
		if c, err := net.Dial("unix", s.path); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("the socket did not appear")
}

func newServer(t *testing.T, list func() List) *Server {
	t.Helper()
	return NewServer(filepath.Join(t.TempDir(), "admin", "admin.sock"), list, slog.New(slog.DiscardHandler))
}

func TestClientReadsWhatTheServerLists(t *testing.T) {
	s := newServer(t, oneVolume)
	serve(t, s)
	got, err := Volumes(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(oneVolume(), got); diff != "" {
		t.Fatalf("(-sent +read):\n%s", diff)
	}
}

func TestSocketAndFolderAreClosedToOthers(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	s := newServer(t, oneVolume)
	serve(t, s)
	for path, want := range map[string]fs.FileMode{s.path: 0o600, filepath.Dir(s.path): 0o700} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", path, got, want)
		}
	}
}

// The kernel says who connects; here the rule is turned round so that the test's own user is the stranger.
func TestStrangerIsHungUpOn(t *testing.T) {
	var logs bytes.Buffer
	s := newServer(t, func() List { t.Error("a stranger was listed to"); return List{} })
	s.log = slog.New(slog.NewTextHandler(&logs, nil))
	var seen atomic.Uint32
	seen.Store(1 << 31)
	s.mayConnect = func(uid uint32) bool { seen.Store(uid); return false }
	serve(t, s)
	if _, err := Volumes(t.Context(), s.path); err == nil {
		t.Fatal("want an error")
	}
	if got := seen.Load(); got != uint32(os.Geteuid()) {
		t.Errorf("the peer's user id is %d, want %d", got, os.Geteuid())
	}
}

// The real thing: a thread of another user, with folder and socket opened to it by mistake, still gets nothing.
func TestAnotherUserGetsNothingEvenThroughAnOpenSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to become another user")
		}
		t.Skip("needs root to become another user")
	}
	s := newServer(t, oneVolume)
	serve(t, s)
	for path, mode := range map[string]fs.FileMode{s.path: 0o666, filepath.Dir(s.path): 0o755, filepath.Dir(filepath.Dir(s.path)): 0o755, filepath.Dir(filepath.Dir(filepath.Dir(s.path))): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	type answer struct {
		n   int
		err error
	}
	answers := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine, another user's to the last
		n, err := askAs(65534, s.path)
		answers <- answer{n, err}
	}()
	if got := <-answers; got.n > 0 {
		t.Fatalf("got %d bytes", got.n)
	} else if got.err != nil && !errors.Is(got.err, syscall.ECONNRESET) && !errors.Is(got.err, syscall.EPIPE) {
		t.Fatalf("want a connection that is hung up, got %v", got.err)
	}
}

// askAs makes the calling thread user uid, and returns how many bytes it gets from the socket at path.
func askAs(uid uintptr, path string) (int, error) {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return 0, errno
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return 0, fmt.Errorf("connecting: %w", err)
	}
	if err := syscall.Sendto(fd, []byte("GET /v1/volumes HTTP/1.0\r\n\r\n"), syscall.MSG_NOSIGNAL, nil); err != nil {
		return 0, err
	}
	return syscall.Read(fd, make([]byte, 1024))
}

func TestOnlyRootAndTheDaemonsUserMayConnect(t *testing.T) {
	s := NewServer("", nil, nil)
	own := uint32(os.Geteuid())
	for uid, want := range map[uint32]bool{0: true, own: true, own + 1000: false, 65534: false} {
		if got := s.mayConnect(uid); got != want {
			t.Errorf("user %d: %v, want %v", uid, got, want)
		}
	}
}

func TestOldSocketIsReplaced(t *testing.T) {
	s := newServer(t, oneVolume)
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	serve(t, s)
	if _, err := Volumes(t.Context(), s.path); err != nil {
		t.Fatal(err)
	}
}

func TestListenRefuses(t *testing.T) {
	cases := map[string]struct {
		prepare func(t *testing.T, path string)
		want    string
	}{
		"a file in the socket's place": {func(t *testing.T, path string) { write(t, path) }, "is no socket"},
		"a symlink in the socket's place": {func(t *testing.T, path string) {
			write(t, path+".victim")
			if err := os.Symlink(path+".victim", path); err != nil {
				t.Fatal(err)
			}
		}, "is no socket"},
		"a folder that is open to others": {func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "open to others"},
		"a folder that is a symlink": {func(t *testing.T, path string) {
			dir := filepath.Dir(path)
			if err := os.Rename(dir, dir+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir+".real", dir); err != nil {
				t.Fatal(err)
			}
		}, "is no folder"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, oneVolume)
			if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, s.path)
			err := s.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error about %q", err, c.want)
			}
		})
	}
}

func TestSocketIsGoneAfterRun(t *testing.T) {
	s := newServer(t, oneVolume)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for range 500 {
		if _, err := Volumes(t.Context(), s.path); err == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the socket is still there: %v", err)
	}
}

func TestNothingElseIsServed(t *testing.T) {
	s := newServer(t, oneVolume)
	serve(t, s)
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", s.path)
	}}}
	defer client.CloseIdleConnections()
	for request, want := range map[string]int{"GET /": 404, "GET /v1/volumes/csi-1": 404, "POST /v1/volumes": 405, "GET /debug/pprof/": 404} {
		method, path, _ := strings.Cut(request, " ")
		req, _ := http.NewRequest(method, "http://x"+path, nil)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", request, res.StatusCode, want)
		}
	}
}

func TestClientRefusesAnotherVersion(t *testing.T) {
	s := newServer(t, func() List { return List{APIVersion: "leasefs.io/admin/v2"} })
	serve(t, s)
	if _, err := Volumes(t.Context(), s.path); err == nil || !strings.Contains(err.Error(), "same release") {
		t.Fatalf("got %v", err)
	}
}

func TestClientSaysThatNobodyAnswers(t *testing.T) {
	_, err := Volumes(t.Context(), filepath.Join(t.TempDir(), "no.sock"))
	if err == nil || !strings.Contains(err.Error(), "is it running, and are you root?") {
		t.Fatalf("got %v", err)
	}
}

func TestListIsBounded(t *testing.T) {
	big := Volume{Files: make([]string, MaxItems+1), Leases: make([]Lease, MaxItems+1), LastError: strings.Repeat("x", MaxText+1)}
	in := List{Volumes: make([]Volume, MaxVolumes+1)}
	in.Volumes[0] = big
	out := bounded(in)
	v := out.Volumes[0]
	if len(out.Volumes) != MaxVolumes || !out.Truncated || len(v.Files) != MaxItems || len(v.Leases) != MaxItems || !v.Truncated || len(v.LastError) > MaxText+3 {
		t.Fatalf("%d volumes (truncated %v); first: %d files, %d leases, %d bytes of error (truncated %v)",
			len(out.Volumes), out.Truncated, len(v.Files), len(v.Leases), len(v.LastError), v.Truncated)
	}
	if len(in.Volumes[0].Files) != MaxItems+1 {
		t.Fatal("bounded changed what it was given")
	}
}

// Readers of the JSON count on lists to be lists.
func TestEmptyListsAreNotNull(t *testing.T) {
	for name, l := range map[string]List{"no volumes": {}, "an empty volume": {Volumes: []Volume{{}}}} {
		text, err := json.Marshal(bounded(l))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "null") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The example in the documentation has every field, and no other.
func TestDocumentationShowsTheWholeList(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "<!-- list -->\n```json\n")
	example, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("the documentation has lost its example")
	}
	var l List
	d := json.NewDecoder(strings.NewReader(example))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		t.Fatal(err)
	}
	if l.APIVersion != APIVersion || len(l.Volumes) != 1 || len(l.Volumes[0].Leases) != 1 {
		t.Fatalf("%+v", l)
	}
	for _, v := range []any{l, l.Volumes[0], l.Volumes[0].Leases[0]} {
		value := reflect.ValueOf(v)
		for i := range value.NumField() {
			if value.Field(i).IsZero() {
				t.Errorf("%s.%s is not in the example", value.Type(), value.Type().Field(i).Name)
			}
		}
	}
}
