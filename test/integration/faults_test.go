// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// kill -9 and a new daemon: the same token, the same leases, the same generation, and Vault notices nothing.
func TestVaultDoesNotNoticeARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	w.database(time.Hour, 24*time.Hour)
	v := volume("web-0", greeting, username, password)
	v.Attributes["refreshInterval"] = "1h"
	w.publish(v)
	user, data := w.file(v, "username"), w.link(v)
	accessors, err := w.vault.TokenAccessors(t.Context())
	ok(t, err)
	leases, err := w.vault.Leases(t.Context(), "database/creds/dyn")
	ok(t, err)

	mark := w.vault.Mark()
	for range 3 {
		ok(t, w.driver.Kill())
		ok(t, w.driver.Start(t.Context()))
		w.publish(v) // the kubelet's next round
	}
	requests, err := w.vault.Requests(mark)
	ok(t, err)
	if n := len(requests); n != 0 {
		t.Errorf("Vault saw %d requests because of three restarts: %v", n, requests.Paths())
	}
	if w.file(v, "username") != user || w.link(v) != data {
		t.Error("the files are of another generation")
	}
	afterwards, err := w.vault.TokenAccessors(t.Context())
	ok(t, err)
	now, err := w.vault.Leases(t.Context(), "database/creds/dyn")
	ok(t, err)
	if fmt.Sprint(afterwards) != fmt.Sprint(accessors) || fmt.Sprint(now) != fmt.Sprint(leases) {
		t.Errorf("tokens %v -> %v, leases %v -> %v", accessors, afterwards, leases, now)
	}
	w.unpublish(v)
	w.wantNothingLeft()
}

// The new daemon writes to the file system of the old one: a running container sees the rotation that it makes.
func TestFilesAreWritableByTheDaemonAgainAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	v := volume("web-0", greeting)
	w.publish(v)
	held, err := os.OpenRoot(w.target(v)) // as a container holds its mount
	ok(t, err)
	defer func() { _ = held.Close() }()
	ok(t, w.driver.Kill())
	ok(t, w.driver.Start(t.Context()))
	w.greet("hello again")
	w.eventually(soon, "the rotation in the file system that was open before", func() bool {
		data, err := held.ReadFile("greeting")
		return err == nil && string(data) == "hello again"
	})
}

func TestAGracefulStopLeavesVolumesAndTellsTheKubeletFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	v := volume("web-0", greeting)
	w.publish(v)
	ok(t, w.driver.Stop(t.Context()))
	if got := w.file(v, "greeting"); got != "hello" {
		t.Errorf("greeting = %q", got)
	}
	if _, err := os.Stat(w.driver.RegSocket); !os.IsNotExist(err) {
		t.Errorf("the registration socket is still there: %v", err)
	}
	ok(t, w.driver.Start(t.Context()))
	w.unpublish(v)
	w.wantNothingLeft()
}

// A hundred kills at random moments of publishes, rotations and unpublishes. In the end: no mount, no directory, no record, no
// lease; and no token but those that a kill in the one unavoidable window left to their TTL.
func TestAHundredKillsAndNotOneOrphan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{token: vaulttest.Role{TTL: 10 * time.Second, MaxTTL: time.Hour}})
	w.greet("hello")
	w.database(4*time.Second, 12*time.Second)
	volumes := make([]kubelettest.Volume, 4)
	for i := range volumes {
		volumes[i] = volume(fmt.Sprintf("web-%d", i), greeting, username, password)
	}
	kills := 100
	if testing.Short() {
		kills = 20
	}
	for i := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, v := range volumes { // errors are expected: the daemon dies in the middle
				if rand.IntN(3) == 0 {
					_ = w.kubelet.Unpublish(ctx, v)
				} else {
					_ = w.kubelet.Publish(ctx, v)
				}
			}
		}()
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		ok(t, w.driver.Kill())
		cancel()
		<-done
		ok(t, w.driver.Start(t.Context()))
		if i%10 == 9 { // in between, all is well: what is published is whole
			for _, v := range volumes {
				w.publish(v)
				if got := w.generation(v, "greeting", "username", "password"); got[0] != "hello" || got[1] == "" || got[2] == "" {
					t.Fatalf("after %d kills: %q", i+1, got)
				}
			}
		}
	}
	for _, v := range volumes {
		w.unpublish(v)
		if _, err := os.Stat(w.target(v)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", w.target(v), err)
		}
	}
	w.wantNothingLeft() // it waits longer than the TTL of a token that a kill in the window has left
}

// requestTimeout of the connections to a Vault that goes away: what takes less has not waited for it.
const requestTimeout = 4 * time.Second

func TestWhileVaultIsAwayFilesStayAndRepublishesAreAnswered(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]struct{ take, bring func(w *world) error }{
		"sealed":  {func(w *world) error { return w.vault.Seal(w.Context()) }, func(w *world) error { return w.vault.Unseal(w.Context()) }},
		"frozen":  {func(w *world) error { return w.vault.Pause() }, func(w *world) error { return w.vault.Resume() }},
		"stopped": {func(w *world) error { return w.vault.Stop(w.Context()) }, func(w *world) error { return w.vault.Restart(w.Context()) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{durable: true, extra: fmt.Sprintf("  requestTimeout: %v\n", requestTimeout)})
			w.greet("hello")
			v := volume("web-0", greeting)
			w.publish(v)
			ok(t, away.take(w))
			w.eventually(soon, "a refresh fails", func() bool {
				metrics, err := w.driver.Metrics(w.Context())
				return err == nil && strings.Contains(metrics, "\nleasefs_volumes_failing 1\n")
			})
			start := time.Now()
			w.publish(v)
			if d := time.Since(start); d >= requestTimeout {
				t.Errorf("a republish took %v while Vault was away", d)
			}
			if got := w.file(v, "greeting"); got != "hello" {
				t.Errorf("greeting = %q", got)
			}
			other := volume("web-1", greeting)
			if err := w.kubelet.Publish(t.Context(), other); !strings.Contains(errText(err), "Unavailable") {
				t.Errorf("a new volume's publish: %v, want Unavailable", err)
			}
			if _, err := os.Stat(w.target(other)); !os.IsNotExist(err) {
				t.Errorf("the failed publish left %s", w.target(other))
			}
			gone := volume("web-2", greeting)
			w.unpublish(gone)
			ok(t, away.bring(w))
			w.greet("back")
			w.eventually(2*soon, "the value that was written after the outage", func() bool { return w.file(v, "greeting") == "back" })
			w.unpublish(v)
			w.wantNothingLeft()
		})
	}
}

func TestAnUnpublishDoesNotWaitForVaultAndIsMadeGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{durable: true, extra: fmt.Sprintf("  requestTimeout: %v\n", requestTimeout)})
	w.database(time.Hour, time.Hour)
	v := volume("web-0", username, password)
	w.publish(v)
	ok(t, w.vault.Stop(t.Context()))
	start := time.Now()
	w.unpublish(v)
	if d := time.Since(start); d >= requestTimeout {
		t.Errorf("unpublish took %v", d)
	}
	if _, err := os.Stat(w.target(v)); !os.IsNotExist(err) {
		t.Errorf("%s is still there", w.target(v))
	}
	ok(t, w.driver.Kill()) // what is owed to Vault outlives the daemon
	ok(t, w.driver.Start(t.Context()))
	ok(t, w.vault.Restart(t.Context()))
	w.eventually(2*soon, "the lease is gone from Vault", func() bool {
		leases, err := w.vault.Leases(w.Context(), "database/creds/dyn")
		return err == nil && len(leases) == 0
	})
	w.wantNothingLeft()
}

func TestErrorsSayWhatToMendAndLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	for name, row := range map[string]struct {
		change func(v *kubelettest.Volume)
		want   []string
	}{
		"unknown attribute names the nearest": {func(v *kubelettest.Volume) { v.Attributes["rolename"] = "app" }, []string{"InvalidArgument", "rolename", "roleName"}},
		"all faults at once": {func(v *kubelettest.Volume) { v.Attributes["size"] = "huge"; v.Attributes["onExpiry"] = "explode" },
			[]string{"InvalidArgument", "size", "onExpiry"}},
		"path that climbs": {func(v *kubelettest.Volume) {
			v.Attributes["objects"] = "- {objectName: ../x, secretPath: secret/data/app}"
		}, []string{"InvalidArgument", "objects[0].objectName"}},
		"address not allowed":    {func(v *kubelettest.Volume) { v.Attributes["vaultAddress"] = "https://evil.example.com" }, []string{"InvalidArgument", "vaultAddress"}},
		"unknown connection":     {func(v *kubelettest.Volume) { v.Attributes["connection"] = "other" }, []string{"InvalidArgument", "connection"}},
		"role that is not there": {func(v *kubelettest.Volume) { v.Attributes["roleName"] = "nope" }, []string{"nope"}},
		"denied path":            {func(v *kubelettest.Volume) { v.Attributes["objects"] = "- {objectName: x, secretPath: sys/mounts}" }, []string{"PermissionDenied", "sys/mounts"}},
		"missing secret": {func(v *kubelettest.Volume) {
			v.Attributes["objects"] = "- {objectName: x, secretPath: secret/data/nope}"
		}, []string{"FailedPrecondition", "secret/data/nope"}},
		"missing key": {func(v *kubelettest.Volume) {
			v.Attributes["objects"] = "- {objectName: x, secretPath: secret/data/app, secretKey: nope}"
		}, []string{"FailedPrecondition", "nope", "greeting"}},
		"content over the size": {func(v *kubelettest.Volume) {
			ok(t, w.vault.WriteKV2(t.Context(), "secret", "big", map[string]any{"v": strings.Repeat("x", 200_000)}))
			v.Attributes["size"] = "64Ki"
			v.Attributes["objects"] = "- {objectName: x, secretPath: secret/data/big, secretKey: v}"
		}, []string{"ResourceExhausted", "size"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := volume("web-"+strings.ReplaceAll(name, " ", "-"), greeting)
			row.change(&v)
			err := w.kubelet.Publish(t.Context(), v)
			for _, want := range row.want {
				if !strings.Contains(errText(err), want) {
					t.Errorf("want %q in: %v", want, err)
				}
			}
			if _, err := os.Stat(w.target(v)); !os.IsNotExist(err) {
				t.Errorf("%s was left behind", w.target(v))
			}
		})
	}
	w.wantNothingLeft()
}

func TestAnUnmountBehindOurBackIsMendedWithTheSameFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	v := volume("web-0", greeting)
	w.publish(v)
	held, err := os.OpenRoot(w.target(v))
	ok(t, err)
	defer func() { _ = held.Close() }()
	ok(t, syscall.Unmount(w.target(v), syscall.MNT_DETACH))
	mark := w.vault.Mark()
	w.publish(v)
	requests, err := w.vault.Requests(mark)
	ok(t, err)
	if n := requests.Count("auth/jwt/login"); n != 0 {
		t.Errorf("%d logins", n)
	}
	w.greet("seen by both")
	w.eventually(soon, "the rotation is seen through the new mount and the old one", func() bool {
		data, err := held.ReadFile("greeting")
		return err == nil && string(data) == "seen by both" && w.file(v, "greeting") == "seen by both"
	})
}

// A canary in every place where a secret comes in; then everything that the daemon has written or shows of itself is searched for it.
func TestNoSecretLeavesTheVolume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{args: []string{"--log-level=debug"}})
	w.greet("canary-in-a-value")
	v := volume("web-0", greeting)
	w.publish(v)
	bad := volume("web-1", greeting, "{objectName: x, secretPath: secret/data/app, secretKey: greeting, encoding: base64}")
	publishErr := w.kubelet.Publish(t.Context(), bad)
	if publishErr == nil {
		t.Fatal("a value that is no base64 was accepted as base64")
	}
	request, err := w.kubelet.PublishRequest(v)
	ok(t, err)
	var canaries = []string{"canary-in-a-value", "hvs."}
	for _, s := range request.GetSecrets() {
		_, token, _ := strings.Cut(s, `"token":"`)
		token, _, _ = strings.Cut(token, `"`)
		if parts := strings.Split(token, "."); len(parts) == 3 {
			canaries = append(canaries, parts[2]) // the signature: what makes it a token
		}
	}
	if len(canaries) < 3 {
		t.Fatal("found no token in the request")
	}
	metrics, err := w.driver.Metrics(t.Context())
	ok(t, err)
	listing, err := w.driver.Command(t.Context(), "volumes", "-o", "json", "--admin-socket", w.driver.AdminSocket).CombinedOutput()
	ok(t, err)
	auditLog, err := os.ReadFile(w.driver.AuditFile)
	ok(t, err)
	pid := w.driver.PID()
	places := map[string]string{
		"log": w.driver.Log(), "audit log": string(auditLog), "metrics": metrics, "volumes": string(listing), "error": errText(publishErr),
		"cmdline": procFile(t, pid, "cmdline"), "environment": procFile(t, pid, "environ"),
	}
	for place, text := range places {
		if text == "" && place != "environment" {
			t.Errorf("%s is empty: the test looks at the wrong place", place)
		}
		for _, canary := range canaries {
			if strings.Contains(text, canary) {
				t.Errorf("%s holds %q", place, canary)
			}
		}
	}
	records, err := filepath.Glob(filepath.Join(w.driver.PluginDir, "state", "*.json"))
	ok(t, err)
	if len(records) == 0 {
		t.Fatal("no record")
	}
	for _, path := range records {
		info, err := os.Stat(path)
		ok(t, err)
		data, err := os.ReadFile(path)
		ok(t, err)
		if info.Mode() != 0o600 || strings.Contains(string(data), canaries[0]) || strings.Contains(string(data), canaries[2]) {
			t.Errorf("record %s: mode %v; it may hold the Vault token, never a value or the pod's token", path, info.Mode())
		}
	}
	if limits := procFile(t, pid, "limits"); !strings.Contains(limits, "Max core file size        0 ") {
		t.Errorf("core files are possible:\n%s", limits)
	}
}

func procFile(t *testing.T, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if os.IsPermission(err) {
		return "" // it is not dumpable: not even its own user reads that
	}
	ok(t, err)
	return string(data)
}

// link is what ..data names.
func (w *world) link(v kubelettest.Volume) string {
	w.Helper()
	name, err := os.Readlink(filepath.Join(w.target(v), "..data"))
	ok(w, err)
	return name
}
