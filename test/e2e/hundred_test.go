// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// testHundred: a hundred pods at once, beside the same pods with an emptyDir, and what of the time is leasefs's own.
func (e *env) testHundred(t *testing.T) {
	count := 100
	if testing.Short() {
		count = 20
	}
	e.crowd(t, "emptydir", count, func(pod *corev1.Pod) {
		pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}
	})
	measure := func() (calls, seconds float64) {
		t.Helper()
		calls, err := e.metric(t.Context(), durationMetric+"_count", published)
		if err != nil {
			t.Fatal(err)
		}
		if seconds, err = e.metric(t.Context(), durationMetric+"_sum", published); err != nil {
			t.Fatal(err)
		}
		return calls, seconds
	}
	callsBefore, secondsBefore := measure()
	median := e.crowd(t, "leasefs", count, func(*corev1.Pod) {})
	calls, seconds := measure()
	calls, seconds = calls-callsBefore, seconds-secondsBefore
	t.Logf("leasefs published %.0f volumes, %.1f ms each: %.2f %% of the median time to a container's start",
		calls, 1000*seconds/calls, 100*seconds/calls/median.Seconds())
	if int(calls) != count {
		t.Errorf("%.0f volumes were published for %d pods", calls, count)
	}
	eventually(t, 30*time.Second, "sessions are gone", func(ctx context.Context) error {
		left, err := e.accessors(ctx, "hundred-leasefs")
		if err == nil && len(left) != 0 {
			err = fmt.Errorf("%d are left", len(left))
		}
		return err
	})
}

// crowd creates so many pods at once, waits until all are ready, and removes them. It returns the median time from a
// pod's creation to the start of its container, as a client of the API server sees it.
func (e *env) crowd(t *testing.T, kind string, count int, change func(*corev1.Pod)) time.Duration {
	t.Helper()
	ns := e.namespace(t, "hundred-"+kind)
	created, started := map[string]time.Time{}, map[string]time.Duration{}
	watcher, err := e.kube.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	attrs := attributes("app", []string{file("password", "secret/data/e2e/app", "password")})
	began := time.Now()
	for n := range count {
		pod := newPod(fmt.Sprintf("pod-%03d", n), busyboxImage, attrs, idle()...)
		change(pod)
		created[pod.Name] = time.Now()
		e.create(t, ns, pod)
	}
	deadline := time.After(15 * time.Minute)
	ready := map[string]bool{}
	for len(ready) < count {
		select {
		case event, open := <-watcher.ResultChan():
			if !open {
				t.Fatalf("the watch has ended with %d of %d pods ready", len(ready), count)
			}
			pod, ok := event.Object.(*corev1.Pod)
			if !ok || event.Type == watch.Deleted {
				continue
			}
			if s := pod.Status.ContainerStatuses; len(s) == 1 && s[0].State.Running != nil && started[pod.Name] == 0 {
				started[pod.Name] = time.Since(created[pod.Name])
			}
			if slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				ready[pod.Name] = true
			}
		case <-deadline:
			t.Fatalf("%d of %d pods are ready", len(ready), count)
		}
	}
	times := slices.Sorted(maps.Values(started))
	median := times[len(times)/2]
	t.Logf("%d pods with %s: all ready after %.1f s; from creation to a container's start: median %.2f s, last %.2f s",
		count, kind, time.Since(began).Seconds(), median.Seconds(), times[len(times)-1].Seconds())

	if err := e.kube.CoreV1().Namespaces().Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Minute, "pods with "+kind+" are gone", func(ctx context.Context) error {
		list, err := e.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != 0 {
			err = fmt.Errorf("%d pods are left", len(list.Items))
		}
		return err
	})
	return median
}
