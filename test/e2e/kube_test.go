// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/remotecommand"
)

// kube is the API server, as its administrator sees it.
type kube struct {
	*kubernetes.Clientset
	config  *rest.Config
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

func newKube(n node) (*kube, error) {
	pki := filepath.Join(n.run, "pki")
	config := &rest.Config{
		Host: apiURL,
		TLSClientConfig: rest.TLSClientConfig{
			CAFile: filepath.Join(pki, "ca.crt"), CertFile: filepath.Join(pki, "admin.crt"), KeyFile: filepath.Join(pki, "admin.key"),
		},
		QPS: 200, Burst: 400,
		WarningHandler: rest.NoWarnings{},
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &kube{
		Clientset: clients, config: config, dynamic: dyn,
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco)),
	}, nil
}

// apply is kubectl apply --server-side --validate=strict: every object of a manifest, in its order.
func (k *kube) apply(ctx context.Context, manifest []byte) error {
	return k.each(manifest, func(resource dynamic.ResourceInterface, object *unstructured.Unstructured) error {
		data, err := json.Marshal(object)
		if err != nil {
			return err
		}
		force := true
		_, err = resource.Patch(ctx, object.GetName(), "application/apply-patch+yaml", data, metav1.PatchOptions{
			FieldManager: "e2e", Force: &force, FieldValidation: metav1.FieldValidationStrict,
		})
		return err
	})
}

// dryRun has the API server check every object of a manifest as if it were created, and returns how many it took and which
// kinds it does not know.
func (k *kube) dryRun(ctx context.Context, manifest []byte) (taken int, unknown []string, err error) {
	err = k.each(manifest, func(resource dynamic.ResourceInterface, object *unstructured.Unstructured) error {
		object.SetName(object.GetName() + "-dry") // so that it is checked as a new one
		_, err := resource.Create(ctx, object, metav1.CreateOptions{
			DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
		})
		if err == nil {
			taken++
		}
		return err
	}, func(object *unstructured.Unstructured) { unknown = append(unknown, object.GetKind()) })
	return taken, unknown, err
}

// each does something with every object of a manifest, and other with one whose kind the API server does not know. Without
// other that is an error.
func (k *kube) each(
	manifest []byte, do func(dynamic.ResourceInterface, *unstructured.Unstructured) error, other ...func(*unstructured.Unstructured),
) error {
	documents := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := documents.Decode(object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a manifest: %w", err)
		}
		if len(object.Object) == 0 {
			continue
		}
		resource, err := k.resource(object.GroupVersionKind(), object.GetNamespace())
		if meta.IsNoMatchError(err) && len(other) > 0 {
			other[0](object)
			continue
		}
		if err == nil {
			err = do(resource, object)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

func (k *kube) resource(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == "root" {
		return k.dynamic.Resource(mapping.Resource), nil
	}
	return k.dynamic.Resource(mapping.Resource).Namespace(namespace), nil
}

// exec runs a program in a container, as kubectl exec does. Its error holds what the program wrote to standard error.
func (k *kube) exec(ctx context.Context, namespace, pod string, command ...string) (string, error) {
	request := k.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(k.config, "GET", request.URL().String())
	if err != nil {
		return "", err
	}
	var out, problem bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &problem})
	if err != nil {
		return out.String(), fmt.Errorf("%s in %s/%s: %w: %s", strings.Join(command, " "), namespace, pod, err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

// logs are all that a pod's container has written so far.
func (k *kube) logs(ctx context.Context, namespace, pod string) (string, error) {
	data, err := k.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(ctx)
	return string(data), err
}

// events are those on one object, the oldest first, each as "Reason: message (how often)".
func (k *kube) events(ctx context.Context, namespace, object string) ([]string, error) {
	list, err := k.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + object})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range list.Items {
		count := e.Count
		if e.Series != nil {
			count = e.Series.Count
		}
		out = append(out, fmt.Sprintf("%s: %s (%d)", e.Reason, e.Message, max(1, count)))
	}
	return out, nil
}

// ready tells whether a pod's containers all are; the error says what it waits for.
func (k *kube) ready(ctx context.Context, namespace, name string) error {
	pod, err := k.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("pod %s/%s is %s: %v", namespace, name, pod.Status.Phase, waiting(pod))
}

func waiting(pod *corev1.Pod) []string {
	var out []string
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			out = append(out, c.Name+": "+w.Reason+" "+w.Message)
		}
		if e := c.State.Terminated; e != nil {
			out = append(out, fmt.Sprintf("%s: ended with %d %s", c.Name, e.ExitCode, e.Message))
		}
	}
	return out
}

// eventually asks until the answer is nil, and fails the test with the last answer when that takes too long.
func eventually(t *testing.T, within time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	began := time.Now()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			t.Logf("%s after %.1f s", what, time.Since(began).Seconds())
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, within, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
