// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// daemonPod is leasefs's own pod on the node; there is one, but for a moment during its replacement.
func (e *env) daemonPod(ctx context.Context) (*corev1.Pod, error) {
	list, err := e.kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: daemonLabel})
	if err != nil {
		return nil, err
	}
	live := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if len(live) != 1 {
		return nil, fmt.Errorf("%d pods of leasefs, want one", len(live))
	}
	return &live[0], nil
}

// daemonReady tells whether a pod of leasefs other than the one with the UID is ready.
func (e *env) daemonReady(other types.UID) func(context.Context) error {
	return func(ctx context.Context) error {
		pod, err := e.daemonPod(ctx)
		if err != nil {
			return err
		}
		if pod.UID == other {
			return errors.New("it is still the old one")
		}
		return e.kube.ready(ctx, pod.Namespace, pod.Name)
	}
}

// leasefs runs a sub-command in the daemon's container.
func (e *env) leasefs(t *testing.T, args ...string) string {
	t.Helper()
	pod, err := e.daemonPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.kube.exec(t.Context(), pod.Namespace, pod.Name, append([]string{daemonProgram}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (e *env) daemonLog(t *testing.T) string {
	t.Helper()
	pod, err := e.daemonPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log, err := e.kube.logs(t.Context(), pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func (e *env) daemonSet(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	list, err := e.kube.AppsV1().DaemonSets(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{LabelSelector: daemonLabel})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 {
		t.Fatalf("%d DaemonSets of leasefs, want one", len(list.Items))
	}
	return &list.Items[0]
}

// testDaemon: however the daemon goes and comes again, running pods keep their files, their sessions and their leases,
// and their files go on changing.
func (e *env) testDaemon(t *testing.T) {
	v := e.servers.vault
	ctx := t.Context()
	ns := e.namespace(t, "daemon")
	write := func(value string) {
		t.Helper()
		if err := v.WriteKV2(t.Context(), "secret", "e2e/daemon", map[string]any{"password": value}); err != nil {
			t.Fatal(err)
		}
	}
	write("start")
	if err := v.DatabaseRole(ctx, "database", "daemon", 30*time.Minute, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := v.KubernetesRole(ctx, "kubernetes", "daemon", vaulttest.Role{Policies: []string{"e2e"}, TTL: 30 * time.Minute, MaxTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	values := e.start(t, ns, newPod("values", busyboxImage,
		attributes("daemon", []string{file("password", "secret/data/e2e/daemon", "password")}, "refreshInterval", "1s"), idle()...))
	users := e.start(t, ns, newPod("users", busyboxImage, attributes("daemon", credentials("daemon")), idle()...))
	user := e.mustRead(t, users, "username")

	for _, change := range []struct {
		name string
		do   func(t *testing.T, old *corev1.Pod)
	}{
		{"pod-deleted", func(t *testing.T, old *corev1.Pod) {
			if err := e.kube.CoreV1().Pods(old.Namespace).Delete(t.Context(), old.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Minute, "new pod of leasefs is ready", e.daemonReady(old.UID))
		}},
		{"image-upgraded", func(t *testing.T, old *corev1.Pod) {
			set := e.daemonSet(t)
			patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":%q}]`, upgradedImage)
			if _, err := e.kube.AppsV1().DaemonSets(set.Namespace).Patch(t.Context(), set.Name, types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, 2*time.Minute, "new image is rolled out", e.rolledOut)
			eventually(t, time.Second, "it is a new pod", e.daemonReady(old.UID))
		}},
		{"killed", func(t *testing.T, old *corev1.Pod) {
			before := old.Status.ContainerStatuses[0].RestartCount
			if out, err := e.node.host(t.Context(), "sh", "-c", `for p in /proc/[0-9]*; do
				[ "$(cat $p/comm 2>/dev/null)" != leasefs ] || kill -9 "${p#/proc/}"; done`); err != nil {
				t.Fatal(out, err)
			}
			eventually(t, time.Minute, "leasefs runs again", func(ctx context.Context) error {
				pod, err := e.daemonPod(ctx)
				if err != nil {
					return err
				}
				if pod.Status.ContainerStatuses[0].RestartCount == before {
					return errors.New("its container was not started again")
				}
				return e.kube.ready(ctx, pod.Namespace, pod.Name)
			})
		}},
	} {
		t.Run(change.name, func(t *testing.T) {
			ctx := t.Context()
			sessions, err := e.accessors(ctx, ns)
			if err != nil || len(sessions) != 2 {
				t.Fatalf("sessions before: %q, %v", sessions, err)
			}
			leases, err := v.Leases(ctx, "database/creds/daemon")
			if err != nil || len(leases) != 1 {
				t.Fatalf("leases before: %q, %v", leases, err)
			}
			old, err := e.daemonPod(ctx)
			if err != nil {
				t.Fatal(err)
			}
			mark := v.Mark()
			change.do(t, old)

			for _, pod := range []*corev1.Pod{values, users} {
				if n := e.restarts(t, pod); n != 0 {
					t.Errorf("%s was started anew %d times", pod.Name, n)
				}
			}
			if got := e.mustRead(t, users, "username"); got != user {
				t.Errorf("another user: %s, was %s", got, user)
			}
			write(change.name)
			e.awaitValue(t, values, "password", change.name, 20*time.Second)
			if now, err := e.accessors(ctx, ns); err != nil || !slices.Equal(now, sessions) {
				t.Errorf("sessions are %q, %v; were %q", now, err, sessions)
			}
			if now, err := v.Leases(ctx, "database/creds/daemon"); err != nil || !slices.Equal(now, leases) {
				t.Errorf("leases are %q, %v; were %q", now, err, leases)
			}
			requests, err := v.Requests(mark)
			if err != nil {
				t.Fatal(err)
			}
			if n := requests.Count("auth/*/login") + requests.Count("database/creds/*"); n != 0 {
				t.Errorf("%d logins and new credentials: %v", n, requests.Paths())
			}
		})
	}
}

// testReboot: the kubelet's restart is felt by nobody. After the node's, every pod has new files of a new session, and
// what the old sessions held ends with its TTL at the latest.
func (e *env) testReboot(t *testing.T) {
	v := e.servers.vault
	ctx := t.Context()
	ns := e.namespace(t, "reboot")
	if err := v.DatabaseRole(ctx, "database", "reboot", 20*time.Second, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := v.KubernetesRole(ctx, "kubernetes", "reboot", vaulttest.Role{Policies: []string{"e2e"}, TTL: 30 * time.Second, MaxTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	pod := e.start(t, ns, newPod("pod", busyboxImage, attributes("reboot", credentials("reboot")), idle()...))
	user := e.mustRead(t, pod, "username")

	asked, err := e.metric(ctx, callsMetric, `method="NodeGetInfo"`)
	if err != nil {
		t.Fatal(err)
	}
	e.node.must(t, "stop", "-kill", "kubelet")
	e.node.must(t, "start", "kubelet")
	eventually(t, time.Minute, "new kubelet has asked the driver who it is", func(ctx context.Context) error {
		now, err := e.metric(ctx, callsMetric, `method="NodeGetInfo"`)
		if err == nil && now <= asked {
			err = errors.New("it has not")
		}
		return err
	})
	e.countRepublishes(t)
	e.awaitValue(t, pod, "username", user, 20*time.Second)
	if n := e.restarts(t, pod); n != 0 {
		t.Errorf("the kubelet's restart has started the container anew %d times", n)
	}

	leases, err := v.Leases(ctx, "database/creds/reboot")
	if err != nil || len(leases) != 1 {
		t.Fatalf("leases before: %q, %v", leases, err)
	}
	e.node.must(t, "reboot")
	eventually(t, 3*time.Minute, "pod has new files after the node's restart", func(ctx context.Context) error {
		now, err := e.read(ctx, pod, "username")
		if err == nil && now == user {
			err = errors.New("it still has the old ones")
		}
		return err
	})
	if err := e.servers.pg.Login(ctx, e.mustRead(t, pod, "username"), e.mustRead(t, pod, "password")); err != nil {
		t.Errorf("the new user: %v", err)
	}
	eventually(t, time.Minute, "old lease is gone", func(ctx context.Context) error {
		now, err := v.Leases(ctx, "database/creds/reboot")
		if err == nil && slices.Contains(now, leases[0]) {
			err = fmt.Errorf("Vault still holds %s", leases[0])
		}
		return err
	})
	if sessions, err := e.accessors(ctx, ns); err != nil || len(sessions) != 1 {
		t.Errorf("sessions: %q, %v; want the new one", sessions, err)
	}
	if err := e.kube.CoreV1().Pods(ns).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "nothing is left of the pod", func(ctx context.Context) error {
		if e.node.podFolder(string(pod.UID)) {
			return errors.New("the kubelet still has its folder")
		}
		return e.nothingLeft(ctx, pod)
	})
}

// registered tells whether the kubelet knows the driver.
func (e *env) registered(ctx context.Context) error {
	object, err := e.kube.StorageV1().CSINodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, d := range object.Spec.Drivers {
		if d.Name == driverName {
			return nil
		}
	}
	return fmt.Errorf("the node's drivers: %v", object.Spec.Drivers)
}

// scrape reads the daemon's metrics.
func (e *env) scrape(ctx context.Context) (string, error) {
	pod, err := e.daemonPod(ctx)
	if err != nil {
		return "", err
	}
	return e.kube.metrics(ctx, pod)
}

// metric adds up the values of one of the daemon's metrics whose labels have the text.
func (e *env) metric(ctx context.Context, name, label string) (float64, error) {
	text, err := e.scrape(ctx)
	return sumMetric(text, name, label), err
}

// Metrics of the daemon that are looked at.
const (
	callsMetric    = "leasefs_csi_calls_total"
	durationMetric = "leasefs_csi_call_duration_seconds"
	published      = `code="OK",method="NodePublishVolume"`
)

// sumMetric adds up the values of a metric whose labels have the text, in the Prometheus format.
func sumMetric(text, name, label string) float64 {
	var sum float64
	for line := range strings.Lines(text) {
		var value float64
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, label) {
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err == nil {
				sum += value
			}
		}
	}
	return sum
}
