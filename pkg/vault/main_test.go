// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

// Every test must give back its goroutines: the package starts some for logins and shared reads.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	token = "hvs.canary-of-the-session-token"
	jwt   = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary-signature"

	kv2      = `{"request_id":"r","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"password":"x"},"metadata":{"version":1,"deletion_time":"","destroyed":false}},"wrap_info":null,"warnings":null,"auth":null}`
	loggedIn = `{"request_id":"r","data":null,"auth":{"client_token":"` + token + `","accessor":"a","policies":["default"],"token_policies":["default"],"lease_duration":20,"renewable":true,"entity_id":"e","token_type":"service","metadata":{"role":"app"}}}`
)

var (
	session = vault.Auth{Token: secret.New(token), Identity: "identity"}
	login   = vault.Login{Method: "kubernetes", Role: "app", JWT: secret.New(jwt), ServiceAccountUID: "uid"}
	app     = vault.Request{Path: "secret/data/app"}
)

// serve runs a server for the test.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// answer is a handler that always gives the same.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// connect makes a client of a server, its configuration changed by the given functions.
func connect(t testing.TB, address string, change ...func(*vault.Config)) *vault.Client {
	t.Helper()
	return observe(t, address, nil, change...)
}

func observe(t testing.TB, address string, obs vault.Observer, change ...func(*vault.Config)) *vault.Client {
	t.Helper()
	cfg := vault.Config{Name: "main", Address: address, RequestTimeout: 5 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	c, err := vault.NewClient(cfg, obs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// failure is the *vault.Error of an error, which must be one.
func failure(t testing.TB, err error) *vault.Error {
	t.Helper()
	var e *vault.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *vault.Error", err)
	}
	return e
}

// wantClass checks the class of an error and that its text says where it happened.
func wantClass(t testing.TB, err error, want vault.Class) *vault.Error {
	t.Helper()
	e := failure(t, err)
	if e.Class != want {
		t.Fatalf("class %v, want %v: %v", e.Class, want, err)
	}
	if !strings.Contains(e.Error(), `"main"`) || !strings.Contains(e.Error(), e.Path) {
		t.Errorf("the text names neither connection nor path: %v", err)
	}
	return e
}

// events is an observer that keeps all it is told.
type events struct {
	mu   sync.Mutex
	seen []string
}

func (e *events) VaultRequest(connection string, op vault.Op, code string, d time.Duration) {
	e.add(fmt.Sprintf("%s %s %s", connection, op, code))
	if d < 0 {
		e.add("negative duration")
	}
}

func (e *events) CacheHit(connection, kind string) { e.add(fmt.Sprintf("%s hit %s", connection, kind)) }

func (e *events) add(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, s)
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.seen)
}

func (e *events) count(what string) int {
	n := 0
	for _, s := range e.all() {
		if s == what {
			n++
		}
	}
	return n
}
