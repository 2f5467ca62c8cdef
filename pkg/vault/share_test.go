// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

func cached(cfg *vault.Config) { cfg.CacheTTL, cfg.CacheSize = time.Minute, 100 }

// gate is a handler that holds its requests until it is opened, and counts them.
type gate struct {
	http.HandlerFunc
	arrived chan struct{}
	open    chan struct{}
	gone    atomic.Int64 // requests whose client went away
	count   atomic.Int64
}

func newGate(h http.HandlerFunc) *gate {
	g := &gate{arrived: make(chan struct{}, 1000), open: make(chan struct{})}
	g.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		g.count.Add(1)
		g.arrived <- struct{}{}
		select {
		case <-g.open:
			h(w, r)
		case <-r.Context().Done():
			g.gone.Add(1)
		}
	}
	return g
}

// eventually waits for a state that another goroutine or the network brings about.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestIdenticalReadsUnderWayAreMadeOnce(t *testing.T) {
	g := newGate(answer(200, kv2))
	obs := &events{}
	c := observe(t, serve(t, g.HandlerFunc).URL, obs)
	const callers = 50
	var wait sync.WaitGroup
	first := make(chan struct{})
	for i := range callers {
		wait.Go(func() {
			if i > 0 {
				<-first
			}
			// Each session has a token of its own.
			auth := vault.Auth{Token: secret.New(fmt.Sprint(token, i)), Identity: "identity"}
			if r, err := c.Read(t.Context(), auth, app, vault.ReadOptions{}); err != nil || r.Data == nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	<-g.arrived
	close(first)
	eventually(t, "all wait", func() bool { return c.Waiting() == callers })
	close(g.open)
	wait.Wait()
	if n := g.count.Load(); n != 1 {
		t.Errorf("%d requests were made for %d identical reads", n, callers)
	}
	if n := obs.count("main hit inflight"); n != callers-1 {
		t.Errorf("%d hits were observed, want %d", n, callers-1)
	}
}

func TestReadsThatDifferInAnythingAreNotShared(t *testing.T) {
	g := newGate(answer(200, kv2))
	c := connect(t, serve(t, g.HandlerFunc).URL, cached)
	read := func(change func(*vault.Auth, *vault.Request)) func() {
		auth, r := session, app
		change(&auth, &r)
		return func() {
			if _, err := c.Read(t.Context(), auth, r, vault.ReadOptions{}); err != nil {
				t.Error(err)
			}
		}
	}
	different := []func(){
		read(func(*vault.Auth, *vault.Request) {}),
		read(func(a *vault.Auth, _ *vault.Request) { a.Identity = "other" }),
		read(func(a *vault.Auth, _ *vault.Request) { a.Namespace = "team" }),
		read(func(a *vault.Auth, _ *vault.Request) { a.Identity = "" }),
		read(func(a *vault.Auth, _ *vault.Request) { a.Identity = "" }), // nobody known shares with nobody, himself included
		read(func(_ *vault.Auth, r *vault.Request) { r.Path += "2" }),
		read(func(_ *vault.Auth, r *vault.Request) { r.Query = url.Values{"version": {"1"}} }),
		read(func(_ *vault.Auth, r *vault.Request) { r.Query = url.Values{"version": {"2"}} }),
		read(func(_ *vault.Auth, r *vault.Request) { r.Method = "PUT" }),
		read(func(_ *vault.Auth, r *vault.Request) { r.Method = "PUT" }), // a PUT makes something each time
		read(func(_ *vault.Auth, r *vault.Request) { r.Method, r.Args = "POST", map[string]any{"common_name": "a"} }),
		read(func(_ *vault.Auth, r *vault.Request) { r.Method, r.Args = "POST", map[string]any{"common_name": "b"} }),
	}
	var wait sync.WaitGroup
	for _, f := range different {
		wait.Go(f)
	}
	for range different {
		<-g.arrived // all are under way at once
	}
	close(g.open)
	wait.Wait()
	if n := g.count.Load(); n != int64(len(different)) {
		t.Errorf("%d requests for %d different reads", n, len(different))
	}
}

func TestCallerWhoLeavesDoesNotFailTheOthers(t *testing.T) {
	g := newGate(answer(200, kv2))
	c := connect(t, serve(t, g.HandlerFunc).URL)
	leading, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { _, err := c.Read(leading, session, app, vault.ReadOptions{}); left <- err }()
	<-g.arrived
	stayed := make(chan error)
	go func() { _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); stayed <- err }()
	eventually(t, "both wait", func() bool { return c.Waiting() == 2 })
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) || vault.ClassOf(err) != vault.Transient {
		t.Errorf("who left got %v", err)
	}
	<-g.arrived // who stayed asks for himself
	if n := c.Waiting(); n != 1 {
		t.Errorf("%d callers wait for the read after one of two has left", n)
	}
	close(g.open)
	if err := <-stayed; err != nil {
		t.Errorf("who stayed got %v", err)
	}
	if n := g.count.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestReadEndsWhenItsLastCallerLeaves(t *testing.T) {
	g := newGate(answer(200, kv2))
	c := connect(t, serve(t, g.HandlerFunc).URL, func(cfg *vault.Config) { cfg.RequestTimeout = time.Hour })
	ctx, leave := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			if _, err := c.Read(ctx, session, app, vault.ReadOptions{}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
	<-g.arrived
	leave()
	wait.Wait()
	eventually(t, "the server sees the request end", func() bool { return g.gone.Load() == g.count.Load() })
	close(g.open)
	if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
		t.Errorf("the next read: %v", err)
	}
}

// A lease dies with the session that fetched it: two pods must never stand on one.
func TestLeasesAreNeverShared(t *testing.T) {
	var n atomic.Int64
	g := newGate(func(w http.ResponseWriter, r *http.Request) {
		answer(200, fmt.Sprintf(`{"request_id":"r","lease_id":"database/creds/x/%d","lease_duration":20,"renewable":true,"data":{"username":%q}}`,
			n.Add(1), r.Header.Get("X-Vault-Token")))(w, r)
	})
	close(g.open)
	obs := &events{}
	c := observe(t, serve(t, g.HandlerFunc).URL, obs, cached)
	creds := vault.Request{Path: "database/creds/x"}
	var mu sync.Mutex
	leases := map[string]bool{}
	var wait sync.WaitGroup
	const callers = 40
	for i := range callers {
		wait.Go(func() {
			auth := vault.Auth{Token: secret.New(fmt.Sprint(token, i)), Identity: "identity"}
			for range 2 {
				r, err := c.Read(t.Context(), auth, creds, vault.ReadOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				if r.Data["username"] != fmt.Sprint(token, i) {
					t.Errorf("caller %d got the lease of another's session", i)
				}
				mu.Lock()
				if leases[r.LeaseID] {
					t.Errorf("lease %s was given twice", r.LeaseID)
				}
				leases[r.LeaseID] = true
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if len(leases) != 2*callers || g.count.Load() != 2*callers {
		t.Errorf("%d leases by %d requests, want %d of each: a lease was thrown away", len(leases), g.count.Load(), 2*callers)
	}
	if n := obs.count("main hit inflight") + obs.count("main hit cache"); n != 0 {
		t.Errorf("%d hits", n)
	}
}

// The session of one pod may be over while another's, of the same identity, is not.
func TestRefusalOfOneSessionIsNotAnothers(t *testing.T) {
	g := newGate(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") == token {
			answer(200, kv2)(w, r)
			return
		}
		answer(403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`)(w, r)
	})
	c := connect(t, serve(t, g.HandlerFunc).URL, cached)
	over := make(chan error)
	go func() {
		_, err := c.Read(t.Context(), vault.Auth{Token: secret.New("hvs.over"), Identity: session.Identity}, app, vault.ReadOptions{})
		over <- err
	}()
	<-g.arrived
	alive := make(chan error)
	go func() { _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); alive <- err }()
	eventually(t, "both wait", func() bool { return c.Waiting() == 2 })
	close(g.open)
	if err := <-over; vault.ClassOf(err) != vault.InvalidToken {
		t.Errorf("the session that is over got %v", err)
	}
	if err := <-alive; err != nil {
		t.Errorf("the session that is alive got %v", err)
	}
}

func TestCacheServesThePlainValueUntilFreshIsAskedFor(t *testing.T) {
	g := newGate(answer(200, kv2))
	close(g.open)
	obs := &events{}
	c := observe(t, serve(t, g.HandlerFunc).URL, obs, cached)
	for _, step := range []struct {
		fresh    bool
		requests int64
	}{{false, 1}, {false, 1}, {true, 2}, {false, 2}} {
		if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{Fresh: step.fresh}); err != nil {
			t.Fatal(err)
		}
		if n := g.count.Load(); n != step.requests {
			t.Fatalf("%d requests after a read with fresh=%v, want %d", n, step.fresh, step.requests)
		}
	}
	if n := obs.count("main hit cache"); n != 2 {
		t.Errorf("%d cache hits were observed, want 2", n)
	}
}

func TestWhatEndsByItselfOrIsLargeIsNotCached(t *testing.T) {
	for name, data := range map[string]string{
		"static role": `{"username":"x","password":"y","ttl":42,"rotation_period":60}`,
		"certificate": `{"certificate":"-----BEGIN CERTIFICATE-----"}`,
		"large":       `{"a":"` + strings.Repeat("x", 64<<10) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				answer(200, `{"request_id":"r","data":`+data+`}`)(w, r)
			})
			c := connect(t, s.URL, cached)
			for range 3 {
				if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if n.Load() != 3 {
				t.Errorf("%d requests for 3 reads", n.Load())
			}
		})
	}
}

func TestFailuresAreNotCached(t *testing.T) {
	var n atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			answer(404, `{"errors":[]}`)(w, r)
			return
		}
		answer(200, kv2)(w, r)
	})
	c := connect(t, s.URL, cached)
	_, err := c.Read(t.Context(), session, app, vault.ReadOptions{})
	wantClass(t, err, vault.NotFound)
	if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
		t.Error(err)
	}
}

// The server answers with what it was asked, and as whom. Whatever is read in whatever order, through the cache or
// beside others: each gets the answer to its own request for its own identity. None of another's.
func TestNobodyIsServedAnothersSecret(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		identity, _, _ := strings.Cut(r.Header.Get("X-Vault-Token"), ".")
		echo, _ := json.Marshal(map[string]any{"data": map[string]any{
			"identity": identity, "namespace": r.Header.Get("X-Vault-Namespace"), "method": r.Method, "uri": r.URL.RequestURI(), "body": string(body),
		}})
		answer(200, string(echo))(w, r)
	})
	rapid.Check(t, func(rt *rapid.T) {
		c := connect(t, s.URL, cached)
		defer c.Close()
		oneOf := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, name) }
		type read struct {
			auth    vault.Auth
			request vault.Request
			fresh   bool
		}
		draw := func() read {
			identity := oneOf("identity", "a", "b", "ab")
			r := read{
				auth: vault.Auth{Namespace: oneOf("namespace", "", "a", "b"), Identity: identity,
					Token: secret.New(identity + "." + oneOf("session", "1", "2"))},
				request: vault.Request{Path: oneOf("path", "a", "a/b", "b", "a?b=1"), Method: oneOf("method", "", "GET", "PUT")},
				fresh:   rapid.Bool().Draw(rt, "fresh"),
			}
			if v := oneOf("version", "", "1", "2"); v != "" {
				r.request.Query = url.Values{"b": {v}}
			}
			if cn := oneOf("common name", "", "x", "y"); cn != "" && r.request.Method == "PUT" {
				r.request.Args = map[string]any{"common_name": cn}
			}
			return r
		}
		var wait sync.WaitGroup
		for range rapid.IntRange(1, 20).Draw(rt, "reads") {
			r := draw()
			run := func() {
				got, err := c.Read(t.Context(), r.auth, r.request, vault.ReadOptions{Fresh: r.fresh})
				if err != nil {
					t.Error(err)
					return
				}
				uri := (&url.URL{Path: "/v1/" + r.request.Path, RawQuery: r.request.Query.Encode()}).RequestURI()
				method, body := "GET", ""
				if r.request.Method == "PUT" {
					method, body = "PUT", "{}"
					if cn, ok := r.request.Args["common_name"]; ok {
						body = fmt.Sprintf(`{"common_name":%q}`, cn)
					}
				}
				for key, want := range map[string]string{"identity": r.auth.Identity, "namespace": r.auth.Namespace, "method": method, "uri": uri, "body": body} {
					if got.Data[key] != want {
						t.Errorf("%+v was served %s %q, want %q", r, key, got.Data[key], want)
					}
				}
			}
			if rapid.Bool().Draw(rt, "beside the others") {
				wait.Go(run)
			} else {
				run()
			}
		}
		wait.Wait()
	})
}
