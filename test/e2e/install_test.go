// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	daemonNamespace = "leasefs-system"
	daemonLabel     = "app.kubernetes.io/name=leasefs"
	daemonProgram   = "/leasefs"
	metricsPort     = 9808
	kubeVersion     = "1.37.2"

	daemonRepository = "localhost/leasefs"
	upgradedImage    = daemonRepository + ":upgraded"
)

// testServersAgree: before leasefs comes in, Vault and the API server understand each other about a token such as the
// kubelet passes on. When this fails, nothing is said about leasefs.
func (e *env) testServersAgree(t *testing.T) {
	ns := e.namespace(t, "servers")
	pod := newPod("pod", busyboxImage, nil, idle()...)
	pod.Spec.Volumes, pod.Spec.Containers[0].VolumeMounts = nil, nil
	made := e.start(t, ns, pod)
	request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		Audiences:      []string{"vault"},
		BoundObjectRef: &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: made.Name, UID: made.UID},
	}}
	answer, err := e.kube.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "default", request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range []string{"kubernetes", "jwt", "jwt-offline"} {
		session, err := e.servers.vault.Client("").Logical().WriteWithContext(t.Context(), "auth/"+mount+"/login",
			map[string]any{"role": "app", "jwt": answer.Status.Token})
		if err != nil {
			t.Errorf("auth/%s: %v", mount, err)
			continue
		}
		if got := session.Auth.Metadata["service_account_namespace"]; got != ns {
			t.Errorf("auth/%s: Vault takes the pod for one of namespace %q, not %q", mount, got, ns)
		}
		if err := e.servers.vault.Root().Auth().Token().RevokeAccessorWithContext(t.Context(), session.Auth.Accessor); err != nil {
			t.Error(err)
		}
	}
	uid, err := e.kube.exec(t.Context(), ns, made.Name, "/bin/busybox", "id", "-u")
	if err != nil || strings.TrimSpace(uid) != fmt.Sprint(user) {
		t.Errorf("id -u in the pod: %q, %v", uid, err)
	}
}

// testInstall installs leasefs as a user does: the chart with a few values, and nothing by hand.
func (e *env) testInstall(t *testing.T) {
	began := time.Now()
	if _, err := e.kube.CoreV1().Namespaces().Create(t.Context(), daemonNamespaceObject(), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	e.install(t, true)
	t.Logf("installed and registered in %.1f s", time.Since(began).Seconds())
}

// daemonNamespaceObject is where the chart is installed; the daemon mounts, so it is allowed to.
func daemonNamespaceObject() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: daemonNamespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"},
	}}
}

// install applies the rendered chart and waits until its DaemonSet is rolled out and the kubelet has registered the driver.
func (e *env) install(t *testing.T, tokensInSecrets bool) {
	t.Helper()
	ca, err := e.node.pki("ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	text, err := values(ca, tokensInSecrets)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := render(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.kube.apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Minute, "leasefs is rolled out", e.rolledOut)
	eventually(t, 30*time.Second, "driver is registered", e.registered)
}

// rolledOut tells whether the daemon's pod is of the DaemonSet's newest template, and ready.
func (e *env) rolledOut(ctx context.Context) error {
	list, err := e.kube.AppsV1().DaemonSets(daemonNamespace).List(ctx, metav1.ListOptions{LabelSelector: daemonLabel})
	if err != nil {
		return err
	}
	if len(list.Items) != 1 {
		return fmt.Errorf("%d DaemonSets of leasefs, want one", len(list.Items))
	}
	set := list.Items[0]
	if s := set.Status; s.ObservedGeneration != set.Generation || s.UpdatedNumberScheduled != 1 || s.NumberAvailable != 1 {
		return fmt.Errorf("generation %d is seen of %d, %d pods are updated, %d are available", s.ObservedGeneration, set.Generation,
			s.UpdatedNumberScheduled, s.NumberAvailable)
	}
	return e.daemonReady("")(ctx)
}

// render is helm template.
func render(ctx context.Context, values string, flags ...string) ([]byte, error) {
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Getenv("LEASEFS_E2E_HELM"), append([]string{"template", "leasefs", os.Getenv("LEASEFS_E2E_CHART"),
		"--namespace", daemonNamespace, "--kube-version", kubeVersion, "--values", "-"}, flags...)...)
	cmd.Stdin = strings.NewReader(values)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("rendering the chart: %w: %s", err, problem.String())
	}
	return out.Bytes(), nil
}

// testAccepted: the API server takes every object of every variant of the chart, with strict validation. Kinds of others,
// such as a PodMonitor or an SCC, it does not know; they are counted.
func (e *env) testAccepted(t *testing.T) {
	ca, err := e.node.pki("ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	text, err := values(ca, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{
		"default":   nil,
		"openshift": {"--set", "openshift.enabled=true"},
		"everything": {
			"--set", "networkPolicy.enabled=true,podMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true," +
				"namespace.create=true,tokenExpirationSeconds=600,auditLog=stdout,caConfigMap=authorities,podLabels.a=b,podAnnotations.c=d," +
				"serviceAccount.annotations.e=f",
			"--set-json", `imagePullSecrets=[{"name":"pull"}]`,
			"--set-json", `extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy.example.com:3128"}]`,
			"--set-json", `networkPolicy.vaultPeers=[{"ipBlock":{"cidr":"192.0.2.0/24"}}]`,
			"--set-json", `networkPolicy.metricsPeers=[{"namespaceSelector":{"matchLabels":{"name":"monitoring"}}}]`,
			"--set-json", `extraAudiences=["other"]`,
			"--set-json", `affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":` +
				`{"nodeSelectorTerms":[{"matchExpressions":[{"key":"a","operator":"Exists"}]}]}}}`,
		},
		"no-events": {"--set", "events.enabled=false"},
	} {
		manifest, err := render(t.Context(), text, flags...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		taken, unknown, err := e.kube.dryRun(t.Context(), manifest)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if t.Logf("%s: %d objects accepted, unknown here: %v", name, taken, unknown); taken == 0 {
			t.Errorf("%s: no object was accepted", name)
		}
	}
}

// metrics reads the daemon's, through the API server as a proxy.
func (k *kube) metrics(ctx context.Context, pod *corev1.Pod) (string, error) {
	data, err := k.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, fmt.Sprint(metricsPort), "metrics", nil).DoRaw(ctx)
	return string(data), err
}
