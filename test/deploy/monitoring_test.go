// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"github.com/leasefs/leasefs/pkg/metrics"
)

// known are the labels of each series that the daemon really has.
func known() map[string][]string {
	series := map[string][]string{"process_resident_memory_bytes": nil, "process_cpu_seconds_total": nil}
	for _, d := range metrics.New(prometheus.NewRegistry()).Definitions() {
		if d.Type != "histogram" {
			series[d.Name] = d.Labels
			continue
		}
		series[d.Name+"_bucket"] = append(slices.Clone(d.Labels), "le")
		series[d.Name+"_sum"], series[d.Name+"_count"] = d.Labels, d.Labels
	}
	return series
}

var (
	seriesName = regexp.MustCompile(`\b(leasefs|process|go)_[a-z_]+\b(\{[^}]*\})?`)
	matcher    = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"`)
	grouping   = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
)

// checkExpr says what is wrong with a PromQL expression: series or labels that the daemon does not have. It is no parser
// of PromQL: see TestPrometheusTakesTheAlertsAndTheDashboard.
func checkExpr(expr string) []string {
	var faults []string
	series := known()
	labels := []string{"instance"}
	found := seriesName.FindAllString(expr, -1)
	if len(found) == 0 {
		faults = append(faults, "it names no metric")
	}
	for _, s := range found {
		name, selector, _ := strings.Cut(s, "{")
		have, there := series[name]
		if !there {
			faults = append(faults, "there is no metric "+name)
		}
		labels = append(labels, have...)
		for _, m := range matcher.FindAllStringSubmatch(selector, -1) {
			if m[1] != "instance" && !slices.Contains(have, m[1]) {
				faults = append(faults, fmt.Sprintf("%s has no label %s", name, m[1]))
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			if l = strings.TrimSpace(l); !slices.Contains(labels, l) {
				faults = append(faults, "nothing in it has the label "+l)
			}
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			faults = append(faults, "its brackets do not match")
		}
	}
	return faults
}

func TestTheCheckOfExpressionsFindsFaults(t *testing.T) {
	for expr, want := range map[string]string{
		`sum(leasefs_volume_count)`:                   "no metric leasefs_volume_count",
		`rate(leasefs_csi_call_duration_seconds[5m])`: "no metric leasefs_csi_call_duration_seconds",
		`leasefs_volumes{pod="x"}`:                    "no label pod",
		`sum by (connection) (leasefs_volumes)`:       "the label connection",
		`sum(leasefs_volumes`:                         "brackets",
		`up == 0`:                                     "names no metric",
		`sum by (le) (rate(leasefs_csi_call_duration_seconds_sum[5m]))`: "the label le",
	} {
		if got := strings.Join(checkExpr(expr), "; "); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

func TestAlertsNameMetricsThatExist(t *testing.T) {
	groups := render(t, all).rule.Spec.Groups
	if len(groups) != 1 || len(groups[0].Rules) < 5 {
		t.Fatalf("groups: %+v", groups)
	}
	for _, r := range groups[0].Rules {
		for _, fault := range checkExpr(r.Expr) {
			t.Errorf("%s: %s", r.Alert, fault)
		}
		if r.For == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
			t.Errorf("%s: lacks a duration, a severity or a summary", r.Alert)
		}
	}
}

// Prometheus's own parser reads every expression and template, and its engine says when each alert fires: in tools/promql, a
// module of its own, for Prometheus is much to depend on.
func TestPrometheusTakesTheAlertsAndTheDashboard(t *testing.T) {
	look(t, "../../tools/promql", filepath.Join(chart, "files"))
	out, err := exec.CommandContext(t.Context(), "go", "-C", "../../tools/promql", "test", "-count=1", "./...").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAlertsAreThoseOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	var documented ruleGroups
	if err := yaml.UnmarshalStrict([]byte(text), &documented); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(documented, render(t, all).rule.Spec); d != "" {
		t.Errorf("docs/metrics.md (-) and the chart (+) differ:\n%s", d)
	}
}

func TestTheBoundOfSecretsThatEndSoonCanBeSet(t *testing.T) {
	const alert, bound = "LeasefsSecretExpiresSoon", "leasefs_next_expiry_timestamp_seconds - time() < "
	for values, want := range map[string]string{"": bound + "60", "prometheusRule: {expiresSoonSeconds: 5}": bound + "5"} {
		for _, r := range render(t, all, values).rule.Spec.Groups[0].Rules {
			if r.Alert == alert && r.Expr != want {
				t.Errorf("%q: %s, want %s", values, r.Expr, want)
			}
		}
	}
}

func TestPodMonitorScrapesTheDaemon(t *testing.T) {
	m := render(t, all)
	for label, value := range m.podMonitor.Spec.Selector.MatchLabels {
		if m.daemonSet.Spec.Template.Labels[label] != value {
			t.Errorf("the pods have no label %s: %s", label, value)
		}
	}
	endpoint := m.podMonitor.Spec.Endpoints[0]
	if port := m.container().Ports[0]; port.Name != endpoint.Port || port.ContainerPort != 9808 || endpoint.Path != "/metrics" {
		t.Errorf("it scrapes %s%s, the daemon has %s at %d", endpoint.Port, endpoint.Path, port.Name, port.ContainerPort)
	}
	if r := endpoint.Relabelings[0]; r.TargetLabel != "instance" || r.SourceLabels[0] != "__meta_kubernetes_pod_node_name" {
		t.Errorf("the alerts say instance and mean the node; it is relabelled by %+v", r)
	}
	if m.podMonitor.Labels["release"] != "prometheus" || m.rule.Labels["release"] != "prometheus" {
		t.Error("Prometheus would not find them: labels are missing")
	}
}

// dashboard has what Grafana must find in it.
type dashboard struct {
	Title, UID    string
	SchemaVersion int
	Panels        []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, RefID string }
	}
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func TestDashboardNamesMetricsThatExist(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chart, "files", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if d.Title != "leasefs" || d.UID == "" || d.SchemaVersion == 0 {
		t.Errorf("title %q, uid %q, schema version %d", d.Title, d.UID, d.SchemaVersion)
	}
	variables := []string{"__rate_interval"}
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" {
			for _, fault := range checkExpr(v.Definition) {
				t.Errorf("variable %s: %s", v.Name, fault)
			}
		}
	}
	ids := map[int]bool{}
	cells := map[[2]int]string{}
	shown := ""
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q has the id %d of another", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, taken := cells[[2]int{x, y}]; taken || x >= 24 {
					t.Fatalf("panel %q lies over %q or outside", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			shown += target.Expr
			for _, fault := range checkExpr(target.Expr) {
				t.Errorf("panel %q: %s", p.Title, fault)
			}
			for _, v := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !slices.Contains(variables, v[1]) {
					t.Errorf("panel %q: there is no variable %s", p.Title, v[1])
				}
			}
		}
	}
	for _, name := range []string{"leasefs_volumes_expired", "leasefs_volumes_failing", "leasefs_next_expiry_timestamp_seconds", "leasefs_kubelet_registered"} {
		if !strings.Contains(shown, name) {
			t.Errorf("%s is on no panel", name)
		}
	}
	if got := render(t, all).dashboard; got.Data["leasefs.json"] != string(data) && got.Data["leasefs.json"] != string(data)+"\n" {
		t.Error("the rendered dashboard is not the file")
	}
}
