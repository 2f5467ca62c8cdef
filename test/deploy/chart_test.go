// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	storagev1 "k8s.io/api/storage/v1"
)

func TestEveryManifestDecodesStrictly(t *testing.T) {
	for name, values := range map[string]string{
		"with the least values":       least,
		"with everything":             all,
		"without Events":              least + "events: {enabled: false}",
		"on an older Kubernetes":      least + "defaults: {tokenTransport: volumeContext}",
		"with another kubelet folder": least + "kubeletDir: /var/lib/k0s/kubelet",
		"without a node budget":       least + "defaults: {nodeBudget: 0}",
	} {
		t.Run(name, func(t *testing.T) {
			m := render(t, values)
			for part, there := range map[string]bool{
				"DaemonSet": m.daemonSet != nil, "CSIDriver": m.driver != nil, "ConfigMap": m.config != nil, "ServiceAccount": m.account != nil,
			} {
				if !there {
					t.Errorf("there is no %s", part)
				}
			}
		})
	}
}

func TestEverythingThatIsOptionalIsOffByDefaultAndComesWhenAsked(t *testing.T) {
	optional := func(m manifests) map[string]bool {
		return map[string]bool{
			"Namespace": m.namespace != nil, "SecurityContextConstraints": m.scc != nil, "Role": m.role != nil, "RoleBinding": m.binding != nil,
			"PodMonitor": m.podMonitor != nil, "PrometheusRule": m.rule != nil, "dashboard": m.dashboard != nil, "NetworkPolicy": m.networkPolicy != nil,
		}
	}
	for part, there := range optional(render(t, least)) {
		if there {
			t.Errorf("%s is rendered though nobody asked", part)
		}
	}
	for part, there := range optional(render(t, all)) {
		if !there {
			t.Errorf("%s is not rendered", part)
		}
	}
}

func TestAnUnknownFieldIsAnErrorHere(t *testing.T) {
	const document = "apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nmetadata: {name: x}\nspec: {serviceAccountTokensInSecrets: true}\n"
	if _, err := decode(document); err == nil || !strings.Contains(err.Error(), "serviceAccountTokensInSecrets") {
		t.Errorf("a misspelt field gives %v", err)
	}
}

func TestHelmLintFindsNothing(t *testing.T) {
	look(t, chart)
	program, err := helm()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "lint", "--strict", "--values", "-", chart)
	cmd.Stdin = strings.NewReader(least)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Without these there is nothing that could work, and helm says what to write.
func TestWhatIsMissingIsSaid(t *testing.T) {
	for name, row := range map[string]struct {
		flags  []string
		values string
		want   string
	}{
		"no image":                        {nil, `connections: [{name: default, address: "https://v"}]`, "image.repository"},
		"no connection":                   {nil, `image: {repository: x}`, "connections: list at least one Vault"},
		"tokens in secrets before 1.35":   {[]string{"--kube-version", "1.34.2"}, least, "defaults.tokenTransport: volumeContext"},
		"Kubernetes without what we need": {[]string{"--kube-version", "1.25.0"}, least + "defaults: {tokenTransport: volumeContext}", "kubeVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, row.flags, row.values)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want it to say %q", err, row.want)
			}
		})
	}
	if _, err := template(t, []string{"--kube-version", "1.34.2"}, least+"defaults: {tokenTransport: volumeContext}"); err != nil {
		t.Errorf("tokens in the volume context before 1.35: %v", err)
	}
}

func TestCSIDriverAsksForWhatTheDaemonNeeds(t *testing.T) {
	spec := render(t, least).driver.Spec
	yes, no, none := true, false, storagev1.NoneFSGroupPolicy
	want := storagev1.CSIDriverSpec{
		VolumeLifecycleModes:         []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
		AttachRequired:               &no,
		StorageCapacity:              &no,
		PodInfoOnMount:               &yes,
		RequiresRepublish:            &yes,
		TokenRequests:                []storagev1.TokenRequest{{Audience: "vault"}},
		ServiceAccountTokenInSecrets: &yes,
		FSGroupPolicy:                &none,
		SELinuxMount:                 &no,
	}
	if d := cmp.Diff(want, spec); d != "" {
		t.Error(d)
	}
}

func TestTokenRequestsAreTheConnectionsAudiencesEachOnce(t *testing.T) {
	const connections = `
image: {repository: x}
connections:
- {name: default, address: "https://a"}
- {name: second, address: "https://b", audience: vault}
- {name: third, address: "https://c", audience: "https://c"}
- {name: fourth, address: "https://d", audience: ""}
`
	seconds := int64(900)
	for name, row := range map[string]struct {
		values string
		want   []storagev1.TokenRequest
	}{
		"of connections": {"", []storagev1.TokenRequest{{Audience: ""}, {Audience: "https://c"}, {Audience: "vault"}}},
		"and more": {"extraAudiences: [other, vault]\ntokenExpirationSeconds: 900", []storagev1.TokenRequest{
			{Audience: "", ExpirationSeconds: &seconds}, {Audience: "https://c", ExpirationSeconds: &seconds},
			{Audience: "other", ExpirationSeconds: &seconds}, {Audience: "vault", ExpirationSeconds: &seconds},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(row.want, render(t, connections+row.values).driver.Spec.TokenRequests); d != "" {
				t.Error(d)
			}
		})
	}
}

// The CSIDriver and the daemon must agree on where the tokens are, or no pod starts.
func TestTokenTransportIsTheSameOnBothSides(t *testing.T) {
	for transport, inSecrets := range map[string]bool{"secrets": true, "volumeContext": false} {
		m := render(t, least+"defaults: {tokenTransport: "+transport+"}")
		if got := *m.driver.Spec.ServiceAccountTokenInSecrets; got != inSecrets {
			t.Errorf("%s: serviceAccountTokenInSecrets is %t", transport, got)
		}
		if got := parse(t, m).Defaults.TokenTransport; got != transport {
			t.Errorf("%s: the daemon's is %s", transport, got)
		}
	}
}

func TestOnlySettingsThatAreReadAtTheStartRollThePods(t *testing.T) {
	template := func(values string) string {
		m := render(t, least+values)
		return cmp.Diff(render(t, least).daemonSet.Spec.Template, m.daemonSet.Spec.Template)
	}
	for values, rolls := range map[string]bool{
		"defaults: {refreshInterval: 1m}":           false,
		"extraAudiences: [other]":                   false,
		"podMonitor: {enabled: true}":               false,
		"defaults: {tokenTransport: secrets}":       false, // as by default
		"defaults: {tokenTransport: volumeContext}": true,
		"defaults: {publishTimeout: 60s}":           true,
		"log: {level: debug}":                       true,
	} {
		if got := template(values) != ""; got != rolls {
			t.Errorf("%s: pods are rolled: %t, want %t", values, got, rolls)
		}
	}
}

func TestMemoryFollowsFromTheNodeBudget(t *testing.T) {
	for name, row := range map[string]struct{ values, request, limit, goLimit string }{
		"default":            {"", "128Mi", "512Mi", "214748364"},
		"a larger budget":    {"defaults: {nodeBudget: 1Gi}", "320Mi", "1280Mi", "214748364"},
		"in bytes":           {"defaults: {nodeBudget: 134217728}", "96Mi", "384Mi", "214748364"},
		"decimal":            {"defaults: {nodeBudget: 200M}", "111Mi", "447Mi", "214970777"},
		"no budget":          {"defaults: {nodeBudget: 0}", "64Mi", "", ""},
		"limit given":        {"resources: {limits: {memory: 1Gi}}", "128Mi", "1Gi", "644245094"},
		"limit below budget": {"resources: {limits: {memory: 100Mi}}", "128Mi", "100Mi", ""},
		"request given":      {"resources: {requests: {memory: 300Mi}}", "300Mi", "512Mi", "214748364"},
	} {
		t.Run(name, func(t *testing.T) {
			m := render(t, least+row.values)
			r := m.container().Resources
			limit := ""
			if q, ok := r.Limits["memory"]; ok {
				limit = q.String()
			}
			got := []string{r.Requests.Memory().String(), limit, m.env("GOMEMLIMIT")}
			if d := cmp.Diff([]string{row.request, row.limit, row.goLimit}, got); d != "" {
				t.Error(d)
			}
			if _, ok := r.Limits["cpu"]; ok {
				t.Error("there is a CPU limit: renewals would be late")
			}
		})
	}
}

func TestImageHasTagOrDigest(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for values, want := range map[string]string{
		"":                 "registry.example.com/leasefs:v0.1.0",
		"image: {tag: v9}": "registry.example.com/leasefs:v9",
		"image: {tag: v9, digest: " + digest + "}": "registry.example.com/leasefs@" + digest,
	} {
		m := render(t, least, values)
		if got := m.container().Image; got != want {
			t.Errorf("%q: image is %s, want %s", values, got, want)
		}
	}
}
