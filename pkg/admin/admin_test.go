// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
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

// What a socket must be like is tested in pkg/socket; here, that this one is such a socket.
func TestTheSocketIsInAFolderForItself(t *testing.T) {
	s := newServer(t, oneVolume)
	if err := os.Mkdir(filepath.Dir(s.path), 0o755); err != nil {
		t.Fatal(err)
	}
	err := s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--admin-socket") || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("got %v", err)
	}
	if err := os.Chmod(filepath.Dir(s.path), 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, s)
	info, err := os.Lstat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("the socket has mode %04o, want 0600", got)
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
