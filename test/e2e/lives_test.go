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

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// restart is how long a pod may take after its fault is gone: the kubelet's own back-off has grown meanwhile.
const restart = 90 * time.Second

// testFaults: what an author has written wrong is told on the pod, leaves nothing behind, and heals once it is put right
// where it was wrong, without anybody touching the pod.
func (e *env) testFaults(t *testing.T) {
	v := e.servers.vault
	for _, fault := range []struct {
		name       string
		attributes map[string]string
		words      []string // of the event
		mend       func(context.Context) error
	}{
		{
			name:       "wrong-role",
			attributes: attributes("made-later", []string{file("password", "secret/data/e2e/app", "password")}),
			words:      []string{"made-later"},
			mend: func(ctx context.Context) error {
				return v.KubernetesRole(ctx, "kubernetes", "made-later", vaulttest.Role{Policies: []string{"e2e"}, TTL: time.Minute})
			},
		},
		{
			name:       "denied-path",
			attributes: attributes("app", []string{file("value", "secret/data/forbidden", "value")}),
			words:      []string{"secret/data/forbidden", "app"},
			mend: func(ctx context.Context) error {
				return v.Policy(ctx, "e2e", policy+`path "secret/data/forbidden" { capabilities = ["read"] }`)
			},
		},
		{
			name:       "missing-key",
			attributes: attributes("app", []string{file("token", "secret/data/e2e/missing", "token")}),
			words:      []string{"secret/data/e2e/missing", "token", "username"},
			mend: func(ctx context.Context) error {
				return v.WriteKV2(ctx, "secret", "e2e/missing", map[string]any{"token": "here"})
			},
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			ns := e.namespace(t, fault.name)
			if fault.name == "missing-key" {
				if err := v.WriteKV2(t.Context(), "secret", "e2e/missing", map[string]any{"username": "x"}); err != nil {
					t.Fatal(err)
				}
			}
			pod := e.create(t, ns, newPod("pod", busyboxImage, fault.attributes, idle()...))
			event := e.awaitEvent(t, pod, 30*time.Second, "FailedMount", fault.words...)
			t.Log(event)
			// The kubelet tries again and again, and each attempt that gets as far as a login has a session for its moment.
			eventually(t, 10*time.Second, "nothing of an attempt is left", func(ctx context.Context) error { return e.nothingLeft(ctx, pod) })
			if err := fault.mend(t.Context()); err != nil {
				t.Fatal(err)
			}
			e.awaitReady(t, pod, restart)
		})
	}
}

// testVaultDown: a Vault that is sealed, or not there, keeps new pods waiting and leaves the running ones their files.
func (e *env) testVaultDown(t *testing.T) {
	v := e.servers.vault
	for _, outage := range []struct {
		name      string
		begin     func(context.Context) error
		end       func(context.Context) error
		eventWord string
	}{
		{"sealed", v.Seal, v.Unseal, "sealed"},
		{"down", v.Stop, v.Restart, "vault"},
	} {
		t.Run(outage.name, func(t *testing.T) {
			ns := e.namespace(t, "vault-"+outage.name)
			files := []string{file("password", "secret/data/e2e/app", "password")}
			running := e.start(t, ns, newPod("running", busyboxImage, attributes("app", files, "refreshInterval", "1s"), idle()...))
			if err := outage.begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			over := false
			t.Cleanup(func() { // whatever happens here, the next scenario wants its Vault
				if !over {
					if err := outage.end(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
			waits := e.create(t, ns, newPod("waits", busyboxImage, attributes("app", files), idle()...))
			t.Log(e.awaitEvent(t, waits, 30*time.Second, "FailedMount", outage.eventWord))
			t.Log(e.awaitEvent(t, running, 30*time.Second, "RotationFailing"))
			if mounts, err := e.node.mountsOf(t.Context(), string(waits.UID)); err != nil || len(mounts) != 0 {
				t.Errorf("the waiting pod has mounts: %q, %v", mounts, err)
			}
			if got := e.mustRead(t, running, "password"); got != "first" {
				t.Errorf("the running pod reads %q", got)
			}
			if err := outage.end(t.Context()); err != nil {
				t.Fatal(err)
			}
			over = true
			e.awaitReady(t, waits, restart)
			if n := e.restarts(t, running); n != 0 {
				t.Errorf("the running pod was started anew %d times", n)
			}
		})
	}
}

// testEnds: however a pod ends, its mount goes at once, and its session and leases within seconds.
func (e *env) testEnds(t *testing.T) {
	v := e.servers.vault
	if err := v.DatabaseRole(t.Context(), "database", "ends", 10*time.Minute, time.Hour); err != nil {
		t.Fatal(err)
	}
	leases := func(ctx context.Context) ([]string, error) { return v.Leases(ctx, "database/creds/ends") }
	gone := func(t *testing.T, pod *corev1.Pod, podStays bool) {
		t.Helper()
		// The containers end first, in the kubelet's own time.
		eventually(t, time.Minute, "mount is gone", func(ctx context.Context) error { return e.unmounted(ctx, pod) })
		eventually(t, 10*time.Second, "session and leases are gone", func(ctx context.Context) error {
			if err := e.nothingLeft(ctx, pod); err != nil {
				return err
			}
			left, err := leases(ctx)
			if err == nil && len(left) != 0 {
				err = fmt.Errorf("leases: %q", left)
			}
			return err
		})
		if podStays {
			return
		}
		eventually(t, 30*time.Second, "pod's folder is gone", func(context.Context) error {
			if e.node.podFolder(string(pod.UID)) {
				return fmt.Errorf("the kubelet still has it")
			}
			return nil
		})
	}
	now := int64(0)
	for _, end := range []struct {
		name string
		do   func(ctx context.Context, ns, pod string) error
	}{
		{"pod-deleted", func(ctx context.Context, ns, pod string) error {
			return e.kube.CoreV1().Pods(ns).Delete(ctx, pod, metav1.DeleteOptions{})
		}},
		{"pod-force-deleted", func(ctx context.Context, ns, pod string) error {
			return e.kube.CoreV1().Pods(ns).Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: &now})
		}},
		{"namespace-deleted", func(ctx context.Context, ns, _ string) error {
			return e.kube.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{})
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			ns := e.namespace(t, end.name)
			pod := e.start(t, ns, newPod("pod", busyboxImage, attributes("app", credentials("ends")), idle()...))
			if held, err := leases(t.Context()); err != nil || len(held) != 1 {
				t.Fatalf("leases of a running pod: %q, %v", held, err)
			}
			if err := end.do(t.Context(), ns, pod.Name); err != nil {
				t.Fatal(err)
			}
			gone(t, pod, false)
		})
	}
	t.Run("job-finished", func(t *testing.T) {
		ns := e.namespace(t, "job-finished")
		template := newPod("job", busyboxImage, attributes("app", credentials("ends")), "/bin/busybox", "cat", dir+"/username")
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "job"},
			Spec:       batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: template.Spec}},
		}
		if _, err := e.kube.BatchV1().Jobs(ns).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		var pod corev1.Pod
		eventually(t, time.Minute, "job is finished", func(ctx context.Context) error {
			list, err := e.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
			if err != nil || len(list.Items) != 1 {
				return fmt.Errorf("%d pods, %v", len(list.Items), err)
			}
			pod = list.Items[0]
			if pod.Status.Phase != corev1.PodSucceeded {
				return fmt.Errorf("its pod is %s", pod.Status.Phase)
			}
			return nil
		})
		// The pod stays, as a Job's pods do; its volume does not.
		gone(t, &pod, true)
		if log, err := e.kube.logs(t.Context(), ns, pod.Name); err != nil || !strings.HasPrefix(log, "v-") {
			t.Errorf("the job has read %q, %v", log, err)
		}
	})
}

// testEvents: the pod's own events tell its volume's life, and the daemon lists its volumes; neither holds a value.
func (e *env) testEvents(t *testing.T) {
	ns := e.namespace(t, "events")
	ctx := t.Context()
	write := func(value string) {
		t.Helper()
		if err := e.servers.vault.WriteKV2(ctx, "secret", "e2e/events", map[string]any{"password": value}); err != nil {
			t.Fatal(err)
		}
	}
	write("never-in-an-event-1")
	pod := e.start(t, ns, newPod("pod", busyboxImage,
		attributes("app", []string{file("password", "secret/data/e2e/events", "password")}, "refreshInterval", "1s"), idle()...))
	t.Log(e.awaitEvent(t, pod, 15*time.Second, "SecretsMounted"))
	write("never-in-an-event-2")
	e.awaitValue(t, pod, "password", "never-in-an-event-2", 15*time.Second)
	t.Log(e.awaitEvent(t, pod, 15*time.Second, "SecretsRotated"))

	volumes := e.leasefs(t, "volumes")
	t.Logf("leasefs volumes:\n%s", volumes)
	if !strings.Contains(volumes, ns+"/"+pod.Name) {
		t.Errorf("leasefs volumes does not show %s/%s", ns, pod.Name)
	}

	// A secret that is gone from Vault cannot be read again.
	if _, err := e.servers.vault.Root().Logical().DeleteWithContext(ctx, "secret/metadata/e2e/events"); err != nil {
		t.Fatal(err)
	}
	t.Log(e.awaitEvent(t, pod, 30*time.Second, "RotationFailing"))
	events, err := e.kube.events(ctx, ns, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(events, "\n") + volumes + e.daemonLog(t); strings.Contains(all, "never-in-an-event") {
		t.Errorf("a value was told:\n%s", all)
	}
	if got := e.mustRead(t, pod, "password"); got != "never-in-an-event-2" {
		t.Errorf("the file holds %q", got)
	}
	e.checkExpiry(t, ns)
}

// checkExpiry: when the database's administrator takes a role away, its users end with their leases, and the pods that
// have one are told so.
func (e *env) checkExpiry(t *testing.T, ns string) {
	t.Helper()
	if err := e.servers.vault.DatabaseRole(t.Context(), "database", "expires", 12*time.Second, 12*time.Second); err != nil {
		t.Fatal(err)
	}
	pod := e.start(t, ns, newPod("expires", busyboxImage, attributes("app", credentials("expires")), idle()...))
	if _, err := e.servers.vault.Root().Logical().DeleteWithContext(t.Context(), "database/roles/expires"); err != nil {
		t.Fatal(err)
	}
	t.Log(e.awaitEvent(t, pod, 45*time.Second, "SecretsExpired"))
}
