// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/vault"
)

func configs(names ...string) []vault.Config {
	var out []vault.Config
	for _, name := range names {
		out = append(out, vault.Config{Name: name, Address: "https://" + name + ":8200", CAPEM: nil, AllowedRedirects: []string{"https://leader:8200"}})
	}
	return out
}

func client(t *testing.T, p *vault.Pool, name string) *vault.Client {
	t.Helper()
	c, err := p.Client(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPoolKeepsWhatIsUnchangedAndReplacesWhatIsNot(t *testing.T) {
	p := vault.NewPool(nil)
	defer p.Close()
	if err := p.Update(configs("a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	a, b := client(t, p, "a"), client(t, p, "b")
	next := configs("b", "a", "d")
	next[0].RequestTimeout = time.Second
	if err := p.Update(next); err != nil {
		t.Fatal(err)
	}
	if client(t, p, "a") != a {
		t.Error("an unchanged connection has a new client")
	}
	if client(t, p, "b") == b {
		t.Error("a changed connection has its old client")
	}
	client(t, p, "d")
	_, err := p.Client("c")
	var unknown *vault.UnknownConnectionError
	if !errors.As(err, &unknown) || unknown.Name != "c" {
		t.Fatalf("a connection that was dropped: %v", err)
	}
	if d := cmp.Diff([]string{"a", "b", "d"}, unknown.Known); d != "" {
		t.Errorf("known (-want +got):\n%s", d)
	}
}

func TestPoolTakesAllOrNothing(t *testing.T) {
	p := vault.NewPool(nil)
	defer p.Close()
	if err := p.Update(configs("a")); err != nil {
		t.Fatal(err)
	}
	a := client(t, p, "a")
	bad := configs("a", "b", "b", "c")
	bad[0].Namespace = "changed"
	bad[3].Address = "nonsense"
	err := p.Update(bad)
	if err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), `"c"`) {
		t.Fatalf("got %v, want the faults of b and c", err)
	}
	if client(t, p, "a") != a {
		t.Error("the bad update has changed a")
	}
	if _, err := p.Client("b"); err == nil {
		t.Error("the bad update has added b")
	}
}

func TestRequestUnderWayFinishesWhenItsClientIsReplaced(t *testing.T) {
	g := newGate(answer(200, kv2))
	s := serve(t, g.HandlerFunc)
	p := vault.NewPool(nil)
	defer p.Close()
	cfg := vault.Config{Name: "main", Address: s.URL, CacheSize: 10, CacheTTL: time.Minute}
	if err := p.Update([]vault.Config{cfg}); err != nil {
		t.Fatal(err)
	}
	old := client(t, p, "main")
	done := make(chan error)
	go func() { _, err := old.Read(t.Context(), session, app, vault.ReadOptions{}); done <- err }()
	<-g.arrived
	cfg.Namespace = "changed"
	if err := p.Update([]vault.Config{cfg}); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	if err := <-done; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if _, err := old.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
		t.Errorf("a caller that still has the old client: %v", err)
	}
	if _, err := old.Login(t.Context(), login); err != nil && strings.Contains(err.Error(), "closed") {
		t.Errorf("a login by a caller that still has the old client: %v", err)
	}
	old.Close()
}

func TestPoolIsUsedAndUpdatedAtOnce(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { answer(200, kv2)(w, r) })
	p := vault.NewPool(nil)
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for n := range 50 {
				_ = p.Update([]vault.Config{{Name: "main", Address: s.URL, RequestTimeout: time.Duration(1+(i+n)%2) * time.Minute}})
			}
		})
		wait.Go(func() {
			for range 50 {
				if c, err := p.Client("main"); err == nil {
					if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wait.Wait()
	p.Close()
	if _, err := p.Client("main"); err == nil || !strings.Contains(err.Error(), "no connection is") {
		t.Errorf("a closed pool: %v", err)
	}
}
