// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// testRestricted: a pod without any right reads its files, and nobody else does.
func (e *env) testRestricted(t *testing.T) {
	ns := e.namespace(t, "restricted")
	ctx := t.Context()
	if err := e.servers.vault.WriteKV2(ctx, "secret", "e2e/restricted", map[string]any{"password": "before"}); err != nil {
		t.Fatal(err)
	}
	pod := e.start(t, ns, newPod("reader", busyboxImage,
		attributes("app", []string{file("password", "secret/data/e2e/restricted", "password")}, "refreshInterval", "1s"), idle()...))
	e.checkOwnFiles(t, pod, "before")
	e.checkMounts(t, pod)

	if err := e.servers.vault.WriteKV2(ctx, "secret", "e2e/restricted", map[string]any{"password": "after"}); err != nil {
		t.Fatal(err)
	}
	e.awaitValue(t, pod, "password", "after", 15*time.Second)
	e.checkOwnFiles(t, pod, "after")
	e.checkOthers(t, pod, "after")
}

// checkOwnFiles looks from inside of the container.
func (e *env) checkOwnFiles(t *testing.T, pod *corev1.Pod, value string) {
	t.Helper()
	sh := func(command string) (string, error) {
		return e.kube.exec(t.Context(), pod.Namespace, pod.Name, "/bin/busybox", "sh", "-c", command)
	}
	for command, want := range map[string]string{
		"id -u":                              fmt.Sprint(user),
		"cat /secrets/password":              value,
		"stat -Lc '%a %g' /secrets/password": fmt.Sprintf("440 %d", user),
		"stat -Lc '%a %g' /secrets":          fmt.Sprintf("2750 %d", user),
	} {
		if got, err := sh(command); err != nil || strings.TrimSpace(got) != want {
			t.Errorf("%s: %q, %v; want %q", command, got, err, want)
		}
	}
	for _, command := range []string{
		"echo x > /secrets/new", "echo x > /secrets/password", "rm /secrets/password", "mv /secrets/..data /secrets/x",
	} {
		if _, err := sh(command); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("%s: %v, want EROFS", command, err)
		}
	}
}

// checkMounts looks at the options, in the container and on the host.
func (e *env) checkMounts(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	table, err := e.kube.exec(t.Context(), pod.Namespace, pod.Name, "/bin/busybox", "grep", " /secrets ", "/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	wantOptions(t, "container", strings.TrimSpace(table), "ro", "noswap")
	host, err := e.node.mountsOf(t.Context(), string(pod.UID))
	if err != nil {
		t.Fatal(err)
	}
	if len(host) != 1 {
		t.Fatalf("the host has %d mounts of the pod: %q", len(host), host)
	}
	wantOptions(t, "host", host[0], "ro", "nosuid", "nodev", "noexec", "noswap")
}

// wantOptions checks a line of /proc/mounts.
func wantOptions(t *testing.T, where, line string, want ...string) {
	t.Helper()
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[2] != "tmpfs" {
		t.Fatalf("%s: not a tmpfs: %q", where, line)
	}
	t.Logf("%s: %s", where, line)
	for _, option := range want {
		if !strings.Contains(","+fields[3]+",", ","+option+",") {
			t.Errorf("%s: %s is missing in %s", where, option, fields[3])
		}
	}
}

// checkOthers reads the file on the host as other users. Root goes into the folder first, so that nothing above it
// decides: a user with the pod's group can read there, one without cannot.
func (e *env) checkOthers(t *testing.T, pod *corev1.Pod, value string) {
	t.Helper()
	folder := fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~csi/secrets/mount", pod.UID)
	readAs := func(uid, gid int64) (string, error) {
		return e.node.host(t.Context(), "sh", "-c", `cd "$1" && exec setpriv --reuid="$2" --regid="$3" --clear-groups cat password`,
			"sh", folder, fmt.Sprint(uid), fmt.Sprint(gid))
	}
	if got, err := readAs(4242, user); err != nil || got != value {
		t.Errorf("with the pod's group: %q, %v; want %q", got, err, value)
	}
	if got, err := readAs(4242, 4242); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("without the pod's group: %q, %v; want a refusal", got, err)
	}
	if got, err := readAs(user, 4242); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("the pod's user without its group: %q, %v; want a refusal", got, err)
	}
}

// change is a line of workload watch.
type change struct {
	Generation string
	Files      map[string]string
}

// testInotify: a process that watches the folder from its start sees every change, in order, without a restart.
func (e *env) testInotify(t *testing.T) {
	ns := e.namespace(t, "inotify")
	write := func(value string) {
		t.Helper()
		if err := e.servers.vault.WriteKV2(t.Context(), "secret", "e2e/inotify", map[string]any{"value": value}); err != nil {
			t.Fatal(err)
		}
	}
	write("0")
	pod := e.start(t, ns, newPod("watcher", workloadImage,
		attributes("app", []string{file("value", "secret/data/e2e/inotify", "value")}, "refreshInterval", "1s"), "/workload", "watch", dir))
	const changes = 5
	for i := range changes + 1 {
		if i > 0 {
			write(fmt.Sprint(i))
		}
		eventually(t, 20*time.Second, fmt.Sprintf("change %d is seen", i), func(ctx context.Context) error {
			seen, err := entries[change](ctx, e, pod)
			if err == nil && len(seen) <= i {
				err = fmt.Errorf("%d changes are seen", len(seen)-1)
			}
			return err
		})
	}
	seen, err := entries[change](t.Context(), e, pod)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != changes+1 {
		t.Errorf("%d lines for %d changes: %+v", len(seen), changes, seen)
	}
	for i, c := range seen {
		if c.Files["value"] != fmt.Sprint(i) || i > 0 && c.Generation == seen[i-1].Generation {
			t.Errorf("line %d: %+v", i, c)
		}
	}
	if n := e.restarts(t, pod); n != 0 {
		t.Errorf("the container was started anew %d times", n)
	}
}

// summary is a line of the workloads pair and database.
type summary struct {
	Uses, Failed, Again int
	Failures, Seen      []string
}

// awaitSeen waits until a workload has used so many secrets, one after the other, and never failed.
func (e *env) awaitSeen(t *testing.T, pod *corev1.Pod, want int, within time.Duration) {
	t.Helper()
	var last summary
	eventually(t, within, fmt.Sprintf("%s has used %d secrets", pod.Name, want), func(ctx context.Context) error {
		all, err := entries[summary](ctx, e, pod)
		if err != nil {
			return err
		}
		last = all[len(all)-1]
		if last.Failed == 0 && len(last.Seen) < want {
			return fmt.Errorf("it has used %d, %d times", len(last.Seen), last.Uses)
		}
		return nil
	})
	t.Logf("%d uses of %d secrets, %d read again, %d failed", last.Uses, len(last.Seen), last.Again, last.Failed)
	if last.Failed != 0 {
		t.Errorf("%d of %d uses failed: %q", last.Failed, last.Uses+last.Failed, last.Failures)
	}
	if n := e.restarts(t, pod); n != 0 {
		t.Errorf("the container was started anew %d times", n)
	}
}

// testDatabase: users come and go over three max_ttl's, 30 s each, and every login on the way works.
func (e *env) testDatabase(t *testing.T) {
	ns := e.namespace(t, "database")
	pod := e.start(t, ns, newPod("client", workloadImage, attributes("app", credentials("app")), "/workload", "database", dir, databaseAddress))
	began := time.Now()
	e.awaitSeen(t, pod, 4, 3*time.Minute)
	if took := time.Since(began); took < 40*time.Second {
		t.Errorf("4 users in %s: they are replaced before their time", took)
	}
}

// testPair: a server that loads its certificate for each connection never gets one half of another pair.
func (e *env) testPair(t *testing.T) {
	ns := e.namespace(t, "pair")
	issue := func(name, key string) string {
		return file(name, "pki/issue/short", key, "method: PUT", "secretArgs: {common_name: app.example.com}")
	}
	pod := e.start(t, ns, newPod("server", workloadImage,
		attributes("app", []string{issue("tls.crt", "certificate"), issue("tls.key", "private_key")}), "/workload", "pair", dir))
	rotations := 100
	if testing.Short() {
		rotations = 10
	}
	e.awaitSeen(t, pod, rotations+1, 10*time.Minute)
}

// testJWT: the two other ways to log in, with the keys that the API server publishes and with a copied one.
func (e *env) testJWT(t *testing.T) {
	ns := e.namespace(t, "jwt")
	for _, mount := range []string{"jwt", "jwt-offline"} {
		pod := e.start(t, ns, newPod(mount, busyboxImage, attributes("app", []string{file("password", "secret/data/e2e/app", "password")},
			"authMethod", "jwt", "vaultAuthMountPath", mount), idle()...))
		if got := e.mustRead(t, pod, "password"); got != "first" {
			t.Errorf("%s: %q", mount, got)
		}
	}
}
