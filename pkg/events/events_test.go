// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/leasefs/leasefs/pkg/events"
	"github.com/leasefs/leasefs/pkg/rotation"
)

var pod = rotation.Pod{Namespace: "shop", Name: "web-0", UID: "uid-1", ServiceAccount: "web"}

func TestANoticeBecomesAnEventOnThePod(t *testing.T) {
	api := newAPI(t)
	r := start(t, api)
	r.Notify(pod, rotation.Notice{Reason: rotation.RotationFailing, Warning: true, Message: "vault is sealed"})
	e := api.await(t, 1)[0]
	if e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Name != "web-0" || e.InvolvedObject.UID != "uid-1" || e.Namespace != "shop" {
		t.Errorf("event is about %+v in %s", e.InvolvedObject, e.Namespace)
	}
	if e.Type != corev1.EventTypeWarning || e.Reason != "RotationFailing" || e.Message != "vault is sealed" {
		t.Errorf("event says %s %s %q", e.Type, e.Reason, e.Message)
	}
	if e.Source.Component != events.Component || e.Source.Host != "node-1" {
		t.Errorf("event is from %+v", e.Source)
	}
}

func TestEqualNoticesAreOneEventThatCounts(t *testing.T) {
	api := newAPI(t)
	r := start(t, api)
	for range 3 {
		r.Notify(pod, rotation.Notice{Reason: rotation.SecretsRotated, Message: "2 files have new contents"})
	}
	api.await(t, 3)
	if created, patched := api.calls(http.MethodPost), api.calls(http.MethodPatch); created != 1 || patched != 2 {
		t.Errorf("%d events created and %d patched, want 1 and 2", created, patched)
	}
}

// A pod whose secret rotates each second does not flood the API server.
func TestNoticesOfOnePodAreRateLimited(t *testing.T) {
	api := newAPI(t)
	r := start(t, api)
	for i := range 200 {
		r.Notify(pod, rotation.Notice{Reason: rotation.SecretsRotated, Message: strings.Repeat("x", i)})
	}
	api.await(t, 25)
	time.Sleep(300 * time.Millisecond) // what would follow, would follow now
	if n := api.calls(http.MethodPost) + api.calls(http.MethodPatch); n > 30 {
		t.Errorf("%d requests for one pod", n)
	}
}

func TestNotifyNeverWaits(t *testing.T) {
	r := events.New(&rest.Config{Host: "http://127.0.0.1:1"}, "node-1", slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10_000 { // nobody takes them
			r.Notify(pod, rotation.Notice{Reason: rotation.SecretsMounted})
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Notify waits")
	}
}

func start(t *testing.T, api *apiServer) *events.Recorder {
	t.Helper()
	r := events.New(&rest.Config{Host: api.server.URL}, "node-1", slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// apiServer is the part of an API server that takes events.
type apiServer struct {
	server *httptest.Server
	mu     sync.Mutex
	seen   []corev1.Event
	by     map[string]int
}

func newAPI(t *testing.T) *apiServer {
	a := &apiServer{by: map[string]int{}}
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/shop/events") {
			http.Error(w, r.URL.Path, http.StatusNotFound)
			return
		}
		var e corev1.Event
		if err := json.Unmarshal(body, &e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e.APIVersion, e.Kind = "v1", "Event"
		a.mu.Lock()
		a.seen = append(a.seen, e)
		a.by[r.Method]++
		a.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e)
	}))
	t.Cleanup(a.server.Close)
	return a
}

func (a *apiServer) calls(method string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by[method]
}

// await waits for n requests.
func (a *apiServer) await(t *testing.T, n int) []corev1.Event {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		a.mu.Lock()
		seen := a.seen
		a.mu.Unlock()
		if len(seen) >= n {
			return seen
		}
	}
	t.Fatalf("no %d events came", n)
	return nil
}
