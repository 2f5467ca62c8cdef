// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	chart     = "../../deploy/charts/leasefs"
	namespace = "leasefs-system"
)

// least are the values without which the chart says that something is missing.
const least = `
image: {repository: registry.example.com/leasefs}
connections:
- {name: default, address: "https://vault.example.com:8200"}
`

// all turns on everything that is off by default.
const all = least + `
namespace: {create: true}
caConfigMap: authorities
openshift: {enabled: true}
podMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true}
networkPolicy:
  enabled: true
  vaultPeers: [{ipBlock: {cidr: 192.0.2.0/24}}]
  metricsPeers: [{namespaceSelector: {matchLabels: {name: monitoring}}}]
  extraEgress: [{to: [{ipBlock: {cidr: 198.51.100.1/32}}], ports: [{protocol: TCP, port: 3128}]}]
imagePullSecrets: [{name: pull}]
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
podAnnotations: {a: b}
podLabels: {c: d}
serviceAccount: {annotations: {e: f}}
extraAudiences: [other]
tokenExpirationSeconds: 1200
`

// helm is the program, built once from tools/helm.
var helm = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "-modfile=../../tools/helm/go.mod", "helm").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
})

// look lists folders whose files are read by other programs: helm, the compiler, make. go test repeats an old result as
// long as what a test itself has opened is the same, and knows nothing of theirs.
func look(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			t.Fatal(err)
		}
	}
}

// template is `helm template` with values, which stand as YAML texts one over the other.
func template(t *testing.T, flags []string, values ...string) (string, error) {
	t.Helper()
	look(t, chart)
	program, err := helm()
	if err != nil {
		t.Fatalf("building helm: %v", err)
	}
	args := append([]string{"template", "leasefs", chart, "--namespace", namespace}, flags...)
	for i, v := range values {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("values-%d.yaml", i))
		if err := os.WriteFile(file, []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--values", file)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	home := t.TempDir() // nothing of the user's
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG=/dev/null")
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, problem.String())
	}
	return out.String(), nil
}

// manifests are what was rendered, by kind; each kind but the dashboard's ConfigMap is there at most once.
type manifests struct {
	daemonSet     *appsv1.DaemonSet
	driver        *storagev1.CSIDriver
	config        *corev1.ConfigMap
	dashboard     *corev1.ConfigMap
	account       *corev1.ServiceAccount
	clusterRole   *rbacv1.ClusterRole
	clusterBind   *rbacv1.ClusterRoleBinding
	role          *rbacv1.Role
	binding       *rbacv1.RoleBinding
	scc           *securityv1.SecurityContextConstraints
	namespace     *corev1.Namespace
	networkPolicy *networkingv1.NetworkPolicy
	podMonitor    *podMonitor
	rule          *prometheusRule
}

func render(t *testing.T, values ...string) manifests {
	t.Helper()
	text, err := template(t, nil, values...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// decode reads each document into the type of its kind, strictly: a field that the type does not have is an error.
func decode(text string) (manifests, error) {
	var m manifests
	into := map[string]func([]byte) error{
		"apps/v1 DaemonSet": strictly(&m.daemonSet), "storage.k8s.io/v1 CSIDriver": strictly(&m.driver),
		"v1 ServiceAccount": strictly(&m.account), "v1 Namespace": strictly(&m.namespace),
		"rbac.authorization.k8s.io/v1 ClusterRole": strictly(&m.clusterRole), "rbac.authorization.k8s.io/v1 ClusterRoleBinding": strictly(&m.clusterBind),
		"rbac.authorization.k8s.io/v1 Role": strictly(&m.role), "rbac.authorization.k8s.io/v1 RoleBinding": strictly(&m.binding),
		"security.openshift.io/v1 SecurityContextConstraints": strictly(&m.scc),
		"networking.k8s.io/v1 NetworkPolicy":                  strictly(&m.networkPolicy),
		"monitoring.coreos.com/v1 PodMonitor":                 strictly(&m.podMonitor),
		"monitoring.coreos.com/v1 PrometheusRule":             strictly(&m.rule),
	}
	for i, document := range strings.Split(text, "\n---\n") {
		var head metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			return m, fmt.Errorf("document %d: %w", i, err)
		}
		kind := head.APIVersion + " " + head.Kind
		read := into[kind]
		switch {
		case kind == " ": // comments only
			continue
		case kind == "v1 ConfigMap" && strings.HasSuffix(head.Name, "-dashboard"):
			read = strictly(&m.dashboard)
		case kind == "v1 ConfigMap":
			read = strictly(&m.config)
		case read == nil:
			return m, fmt.Errorf("document %d is a %s: of no kind that is known here", i, kind)
		}
		if err := read([]byte(document)); err != nil {
			return m, fmt.Errorf("%s %s: %w", kind, head.Name, err)
		}
	}
	return m, nil
}

func strictly[T any](into **T) func([]byte) error {
	return func(document []byte) error {
		if *into != nil {
			return errors.New("is there twice")
		}
		*into = new(T)
		return yaml.UnmarshalStrict(document, *into)
	}
}

// podMonitor and prometheusRule have the fields of the Prometheus Operator's types that the chart uses, named as there.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port        string `json:"port"`
			Path        string `json:"path"`
			Interval    string `json:"interval"`
			Relabelings []struct {
				SourceLabels []string `json:"sourceLabels"`
				TargetLabel  string   `json:"targetLabel"`
			} `json:"relabelings"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

type prometheusRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              ruleGroups `json:"spec"`
}

type ruleGroups struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// container is the daemon's.
func (m manifests) container() corev1.Container { return m.daemonSet.Spec.Template.Spec.Containers[0] }

// env is a variable of the daemon's container, "" if it is not set.
func (m manifests) env(name string) string {
	for _, e := range m.container().Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}
