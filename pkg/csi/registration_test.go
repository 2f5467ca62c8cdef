// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const endpoint = "/var/lib/kubelet/plugins/csi.leasefs.io/csi.sock"

// registry is a plugins_registry with a driver that offers itself.
type registry struct {
	*Registration
	dir      string
	logs     *logs
	observed *observed
	stop     func() error
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{dir: tempDir(t), logs: newLogs(), observed: &observed{}}
	r.Registration = NewRegistration(RegistrationOptions{
		Dir: r.dir, Endpoint: endpoint, Interval: time.Millisecond, Observer: r.observed, Logger: r.logs.logger(0),
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stopped := false
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("registration ended with %v", err)
		}
	})
	r.logs.wait(t, "waiting for the kubelet")
	return r
}

// register does what the kubelet does when it sees the socket; failure is what it has against the driver.
func (r *registry) register(t *testing.T, failure string) *registration.PluginInfo {
	t.Helper()
	kubelet := registration.NewRegistrationClient(dial(t, r.Path()))
	info, err := kubelet.GetInfo(t.Context(), &registration.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	_, err = kubelet.NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{PluginRegistered: failure == "", Error: failure})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestRegistrationTellsTheKubeletWhatItNeeds(t *testing.T) {
	r := newRegistry(t)
	if got, want := r.Path(), r.dir+"/csi.leasefs.io-reg.sock"; got != want {
		t.Errorf("path %s, want %s", got, want)
	}
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "has not registered") {
		t.Errorf("before: %v", err)
	}
	info := r.register(t, "")
	want := &registration.PluginInfo{Type: "CSIPlugin", Name: "csi.leasefs.io", Endpoint: endpoint, SupportedVersions: []string{"1.0.0"}}
	if diff := cmp.Diff(want, info, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if err := r.Ready(); err != nil {
		t.Errorf("after: %v", err)
	}
}

func TestARefusalOfTheKubeletIsLoggedAndSeenInReadiness(t *testing.T) {
	r := newRegistry(t)
	r.register(t, "driver name\nis taken")
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "the kubelet refused the driver: driver name is taken") {
		t.Errorf("ready: %v", err)
	}
	for _, want := range []string{"registration failed", "Check that it sees the CSI socket", "driver name is taken"} {
		if !strings.Contains(r.logs.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, r.logs)
		}
	}
	r.register(t, "")
	if err := r.Ready(); err != nil {
		t.Errorf("after the kubelet's next attempt: %v", err)
	}
	if got := r.observed.registered; !slices.Equal(got, []bool{false, true}) {
		t.Errorf("observed %v", got)
	}
}

func TestARegistrationSocketThatDisappearsIsMadeAgain(t *testing.T) {
	r := newRegistry(t)
	r.register(t, "")
	for range 3 {
		if err := os.Remove(r.Path()); err != nil {
			t.Fatal(err)
		}
		r.register(t, "") // waits for the new socket
	}
	if n := strings.Count(r.logs.String(), "has disappeared"); n != 3 {
		t.Errorf("made again %d times, want 3", n)
	}
}

func TestARegistryThatIsAwayForAWhileIsWaitedFor(t *testing.T) {
	r := newRegistry(t)
	r.register(t, "")
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	r.logs.wait(t, "cannot make the registration socket")
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "cannot offer itself") {
		t.Errorf("ready: %v", err)
	}
	if err := os.Mkdir(r.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	r.register(t, "")
	if err := r.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
}

func TestStoppingTakesTheDriverBack(t *testing.T) {
	r := newRegistry(t)
	r.register(t, "")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(r.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket has stayed, and the kubelet would go on calling")
	}
}

func TestStoppingWhileTheRegistryIsAway(t *testing.T) {
	r := newRegistry(t)
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	r.logs.wait(t, "cannot make the registration socket")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestARegistryThatIsNotThereAtStartIsAnError(t *testing.T) {
	r := NewRegistration(RegistrationOptions{Dir: "/nowhere/plugins_registry", Endpoint: endpoint, Logger: newLogs().logger(0)})
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "/nowhere/plugins_registry") {
		t.Errorf("got %v", err)
	}
}

func TestARegistrationThatIsStoppedAtOnce(t *testing.T) {
	dir := tempDir(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := NewRegistration(RegistrationOptions{Dir: dir, Endpoint: endpoint, Logger: newLogs().logger(0)})
		if err := r.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := os.Lstat(r.Path()); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal("the socket has stayed")
		}
	}
}
