// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	driverName    = "csi.leasefs.io"
	busyboxImage  = "localhost/busybox:1"
	workloadImage = "localhost/workload:e2e"
	// user is one as OpenShift chooses them: in no image's list, and its group is the pod's fsGroup.
	user = int64(1000680000)
	dir  = "/secrets"
)

// env is what a scenario works with.
type env struct {
	kube    *kube
	node    node
	servers *servers
}

// namespace makes a namespace that enforces the restricted Pod Security Standard, which is the only kind these tests
// have, and removes it at the end of the test. When the test has failed, it shows what is in there first.
func (e *env) namespace(t *testing.T, name string) string {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if _, err := e.kube.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			e.show(ctx, t, name)
		}
		if err := e.kube.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			t.Error(err)
		}
		for ctx.Err() == nil {
			if _, err := e.kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("namespace %s does not go away", name)
	})
	eventually(t, 30*time.Second, "service account of "+name+" is there", func(ctx context.Context) error {
		_, err := e.kube.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return name
}

// show logs the pods, events and logs of a namespace.
func (e *env) show(ctx context.Context, t *testing.T, namespace string) {
	pods, err := e.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Log(err)
		return
	}
	for _, p := range pods.Items {
		events, _ := e.kube.events(ctx, namespace, p.Name)
		log, _ := e.kube.logs(ctx, namespace, p.Name)
		t.Logf("pod %s is %s %v\nevents:\n  %s\nlog:\n%s", p.Name, p.Status.Phase, waiting(&p), strings.Join(events, "\n  "), lastLines(log, 5))
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// attributes are a volume's; files are lines of its objects, see file.
func attributes(role string, files []string, more ...string) map[string]string {
	out := map[string]string{"roleName": role, "objects": strings.Join(files, "")}
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

// file is one element of objects: a file with one key of a secret. More are further lines of it.
func file(name, path, key string, more ...string) string {
	text := fmt.Sprintf("- objectName: %s\n  secretPath: %s\n  secretKey: %s\n", name, path, key)
	for _, line := range more {
		text += "  " + line + "\n"
	}
	return text
}

// credentials are the two files of a database user, from one lease.
func credentials(role string) []string {
	path := "database/creds/" + role
	return []string{file("username", path, "username"), file("password", path, "password")}
}

// newPod is a pod as the restricted standard wants it, which reads its volume at /secrets. It asks nothing of the volume:
// not even readOnly.
func newPod(name, image string, attributes map[string]string, command ...string) *corev1.Pod {
	yes, no, uid, grace := true, false, user, int64(1)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken:  &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &uid, FSGroup: &uid,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "main", Image: image, ImagePullPolicy: corev1.PullNever, Command: command,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "secrets", MountPath: dir}},
			}},
			Volumes: []corev1.Volume{{Name: "secrets", VolumeSource: corev1.VolumeSource{
				CSI: &corev1.CSIVolumeSource{Driver: driverName, VolumeAttributes: attributes},
			}}},
		},
	}
	return pod
}

// idle is the command of a pod that is looked into.
func idle() []string { return []string{"/bin/busybox", "sleep", "inf"} }

// create makes a pod and returns it as the API server has it, with its UID.
func (e *env) create(t *testing.T, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	made, err := e.kube.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// start makes a pod and waits until it runs.
func (e *env) start(t *testing.T, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	made := e.create(t, namespace, pod)
	e.awaitReady(t, made, time.Minute)
	return made
}

func (e *env) awaitReady(t *testing.T, pod *corev1.Pod, within time.Duration) {
	t.Helper()
	eventually(t, within, "pod "+pod.Name+" is ready", func(ctx context.Context) error {
		return e.kube.ready(ctx, pod.Namespace, pod.Name)
	})
}

// read is what cat says in the pod's container.
func (e *env) read(ctx context.Context, pod *corev1.Pod, name string) (string, error) {
	return e.kube.exec(ctx, pod.Namespace, pod.Name, "/bin/busybox", "cat", dir+"/"+name)
}

func (e *env) mustRead(t *testing.T, pod *corev1.Pod, name string) string {
	t.Helper()
	value, err := e.read(t.Context(), pod, name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// awaitValue waits until a file of the pod has a value.
func (e *env) awaitValue(t *testing.T, pod *corev1.Pod, name, want string, within time.Duration) {
	t.Helper()
	eventually(t, within, fmt.Sprintf("%s of %s is %q", name, pod.Name, want), func(ctx context.Context) error {
		got, err := e.read(ctx, pod, name)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// awaitEvent waits for an event on the pod with the reason, whose text has all of the words, and returns it.
func (e *env) awaitEvent(t *testing.T, pod *corev1.Pod, within time.Duration, reason string, words ...string) string {
	t.Helper()
	var found string
	eventually(t, within, fmt.Sprintf("event %s on %s", reason, pod.Name), func(ctx context.Context) error {
		events, err := e.kube.events(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return err
		}
		for _, event := range slices.Backward(events) {
			has := strings.HasPrefix(event, reason+":")
			for _, word := range words {
				has = has && strings.Contains(event, word)
			}
			if has {
				found = event
				return nil
			}
		}
		return fmt.Errorf("no %s with %q; there are:\n  %s", reason, words, strings.Join(events, "\n  "))
	})
	return found
}

// restarts says how often the pod's container was started anew.
func (e *env) restarts(t *testing.T, pod *corev1.Pod) int32 {
	t.Helper()
	now, err := e.kube.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return now.Status.ContainerStatuses[0].RestartCount
}

// accessors are the live Vault tokens of pods of a namespace.
func (e *env) accessors(ctx context.Context, namespace string) ([]string, error) {
	tokens, err := e.servers.vault.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, token := range tokens {
		if token.Meta["service_account_namespace"] == namespace {
			out = append(out, token.Accessor)
		}
	}
	slices.Sort(out)
	return out, nil
}

// unmounted checks that the host has no mount of a pod's volume.
func (e *env) unmounted(ctx context.Context, pod *corev1.Pod) error {
	mounts, err := e.node.mountsOf(ctx, string(pod.UID))
	if err == nil && len(mounts) != 0 {
		err = fmt.Errorf("mounts are left: %q", mounts)
	}
	return err
}

// nothingLeft checks that a pod has no mount and that its namespace has no session: of a volume that is gone, or of one
// that never came to be.
func (e *env) nothingLeft(ctx context.Context, pod *corev1.Pod) error {
	if err := e.unmounted(ctx, pod); err != nil {
		return err
	}
	sessions, err := e.accessors(ctx, pod.Namespace)
	if err == nil && len(sessions) != 0 {
		err = fmt.Errorf("%d Vault sessions are left", len(sessions))
	}
	return err
}

// entries reads a workload's log: one JSON object a line.
func entries[T any](ctx context.Context, e *env, pod *corev1.Pod) ([]T, error) {
	log, err := e.kube.logs(ctx, pod.Namespace, pod.Name)
	if err != nil {
		return nil, err
	}
	var out []T
	for line := range strings.Lines(log) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			if !strings.HasSuffix(line, "\n") {
				break // being written
			}
			return nil, fmt.Errorf("a line of %s: %q: %w", pod.Name, line, err)
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		return nil, errors.New("the workload has said nothing yet")
	}
	return out, nil
}
