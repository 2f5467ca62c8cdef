// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// block is the YAML of a page that has this in it.
func block(t *testing.T, page, has string) string {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(read(t, page), -1) {
		if strings.Contains(m[1], has) {
			return m[1]
		}
	}
	t.Fatalf("%s has no YAML with %q", page, has)
	return ""
}

func TestTheChartTakesTheValuesOfThePages(t *testing.T) {
	m := render(t, block(t, "../../docs/install.md", "image:\n  repository"))
	if got := m.container().Image; got != "registry.example.com/leasefs:v0.1.0" {
		t.Errorf("image is %s", got)
	}
	m = render(t, block(t, "../../docs/openshift.md", "openshift:\n  enabled"))
	if m.scc == nil || *m.driver.Spec.ServiceAccountTokenInSecrets {
		t.Error("there are no constraints, or the tokens are where older clusters do not put them")
	}
}

// kustomize builds a folder.
func kustomize(t *testing.T, dir string) manifests {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=../../tools/kustomize/go.mod", "kustomize", "build", dir)
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, problem.String())
	}
	m, err := decode(string(out))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestKustomizeBuildsTheBases(t *testing.T) {
	for _, variant := range []string{"kubernetes", "openshift"} {
		dir := filepath.Join("../../deploy/manifests", variant)
		applied, err := decode(read(t, filepath.Join(dir, "leasefs.yaml")))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(applied, kustomize(t, dir), cmp.AllowUnexported(manifests{})); d != "" {
			t.Errorf("%s: what kubectl apply -f (-) and kustomize (+) give differs:\n%s", variant, d)
		}
	}
}

func TestTheOverlayOfTheInstallPageChangesWhatItSays(t *testing.T) {
	work, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	copyAll(t, "../../deploy/manifests", filepath.Join(work, "leasefs/deploy/manifests"))
	overlay := block(t, "../../docs/install.md", "# kustomization.yaml")
	if err := os.WriteFile(filepath.Join(work, "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	m := kustomize(t, work)
	if got := m.container().Image; got != "registry.internal/leasefs:v0.1.0" {
		t.Errorf("image is %s", got)
	}
	if c := parse(t, m).Connections; len(c) != 1 || c[0].Address != "https://vault.internal:8200" {
		t.Errorf("connections are %+v", c)
	}
}

// docs/security.md has a row for each verb, and none that the chart does not give.
func TestTheSecurityPageListsEveryVerb(t *testing.T) {
	_, rest, _ := strings.Cut(read(t, "../../docs/security.md"), "| group, resource | verb | where | reason |\n")
	table, _, _ := strings.Cut(rest, "\n\n")
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| (?:core|`([^`]+)`), `(\\w+)`[^|]*\\| `(\\w+)` \\|[^|]+\\|[^|]+\\|$").FindAllStringSubmatch(table, -1) {
		listed = append(listed, strings.Join(m[1:], " "))
	}
	m := render(t, all)
	var given []string
	for _, rule := range slices.Concat(m.clusterRole.Rules, m.role.Rules) {
		given = append(given, verbs(rule)...)
	}
	slices.Sort(listed)
	slices.Sort(given)
	if d := cmp.Diff(given, listed); d != "" {
		t.Errorf("in the chart (-), on the page (+):\n%s", d)
	}
}

// verbs are the rule's verbs, one a line with its group and resource.
func verbs(r rbacv1.PolicyRule) []string {
	var all []string
	for _, group := range r.APIGroups {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				all = append(all, fmt.Sprintf("%s %s %s", group, resource, verb))
			}
		}
	}
	return all
}

func TestTheInstallPageHasTheChartsMemory(t *testing.T) {
	page := read(t, "../../docs/install.md")
	m := render(t, least)
	r := m.container().Resources
	for row, want := range map[string]string{"request": r.Requests.Memory().String(), "limit": r.Limits.Memory().String()} {
		if !regexp.MustCompile(`(?m)^\| ` + row + ` \|[^|]+\| ` + want + ` \|$`).MatchString(page) {
			t.Errorf("the chart's %s is %s, which the page does not say", row, want)
		}
	}
}

// kind.sh cannot be run without Docker. Which commands it runs can be seen, and whether the chart takes what it passes.
func TestKindInstallsWhatTheChartTakes(t *testing.T) {
	programs, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	for _, name := range []string{"docker", "kind", "kubectl", "go", "make"} {
		script := "#!/bin/sh\necho " + name + " \"$@\" >>" + log + "\n"
		if err := os.WriteFile(filepath.Join(programs, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	work := t.TempDir()
	values := filepath.Join(work, "mine.yaml")
	if err := os.WriteFile(values, []byte(least), 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("../../deploy/kind.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), script, "leasefs:1234567", "mine.yaml") // a commit may have digits only
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "TMPDIR="+work, "GO=go")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ran := read(t, log)
	for _, want := range []string{
		"make --no-print-directory image VERSION=1234567\n", "kind create cluster --name leasefs\n", "kind load docker-image --name leasefs leasefs:1234567\n",
		"kubectl label --overwrite namespace leasefs-system pod-security.kubernetes.io/enforce=privileged\n",
	} {
		if !strings.Contains(ran, want) {
			t.Errorf("it does not run %q:\n%s", want, ran)
		}
	}
	_, args, found := strings.Cut(ran, "helm upgrade --install leasefs deploy/charts/leasefs --namespace leasefs-system ")
	flags := strings.Fields(strings.TrimSpace(args))
	if !found || flags[len(flags)-1] != "--wait" {
		t.Fatalf("it installs no chart:\n%s", ran)
	}
	text, err := template(t, flags[:len(flags)-1])
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if c := m.container(); c.Image != "leasefs:1234567" || c.ImagePullPolicy != "Never" {
		t.Errorf("image is %s, pulled %s", c.Image, c.ImagePullPolicy)
	}
}
