// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/leasefs/leasefs/pkg/audit"
	"github.com/leasefs/leasefs/pkg/metrics"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md anew")

var (
	_ rotation.Observer = (*metrics.Metrics)(nil)
	_ vault.Observer    = (*metrics.Metrics)(nil)
	_ audit.Observer    = (*metrics.Metrics)(nil)
)

// used returns metrics of which every one has at least one series.
func used(t *testing.T) (*prometheus.Registry, *metrics.Metrics) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	m := metrics.New(reg)
	m.Build("v1.2.3", "abcdef")
	m.Mount("clone-detached", true)
	m.Registered(true)
	m.Call("Publish", "OK", 5*time.Millisecond)
	m.Rotation(rotation.KindRenewable, rotation.ActionRenew, rotation.ResultOK)
	m.Late(time.Second)
	m.Swapped()
	m.Recovered(rotation.RecoveredLive)
	m.VaultRequest("default", vault.OpRead, "200", time.Millisecond)
	m.CacheHit("default", "inflight")
	m.AuditLine(audit.Written)
	m.ConfigLoaded(time.Unix(1_800_000_000, 0), []string{"default"})
	m.ConfigRefused()
	m.SetVolumes(func() metrics.Volumes {
		return metrics.Volumes{Phases: map[string]int{"live": 3}, Expired: 1, NextExpiry: time.Unix(1_900_000_000, 0), Used: 4096, Budget: 8192}
	})
	return reg, m
}

func gather(t *testing.T, reg prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

func TestPrometheusLinterHasNothingToSay(t *testing.T) {
	reg, _ := used(t)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestDefinitionsAreWhatTheRegistryHolds(t *testing.T) {
	reg, m := used(t)
	families := gather(t, reg)
	for _, d := range m.Definitions() {
		f, ok := families[d.Name]
		if !ok {
			t.Errorf("%s is defined and was not gathered", d.Name)
			continue
		}
		delete(families, d.Name)
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		want := slices.Sorted(slices.Values(d.Labels))
		got := metrics.Definition{Name: f.GetName(), Type: strings.ToLower(f.GetType().String()), Help: f.GetHelp(), Labels: labels}
		d.Labels = want
		if diff := cmp.Diff(d, got); diff != "" {
			t.Errorf("%s (-defined +gathered):\n%s", d.Name, diff)
		}
	}
	for name := range families {
		t.Errorf("%s was gathered and has no definition", name)
	}
}

// The table between the two marks of docs/metrics.md is the one that Markdown returns; -update writes it.
func TestDocumentationListsEveryMetric(t *testing.T) {
	const file, begin, end = "../../docs/metrics.md", "<!-- begin: go test ./pkg/metrics -update -->\n", "<!-- end -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost its marks", file)
	}
	want := metrics.New(prometheus.NewRegistry()).Markdown()
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Fatalf("%s is out of date; go test ./pkg/metrics -update writes it (-want +documented):\n%s", file, diff)
	}
}

func TestAlertsOfTheDocumentationNameExistingMetrics(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	reg, _ := used(t)
	families := gather(t, reg)
	words := strings.FieldsFunc(string(text), func(r rune) bool { return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') })
	for _, w := range words {
		if !strings.HasPrefix(w, "leasefs_") {
			continue
		}
		name := w
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if families[name] == nil {
			t.Errorf("the documentation speaks of %s, which does not exist", w)
		}
	}
}

// No label may have as many values as there are pods, paths or files.
func TestLabelsAreFromAFixedList(t *testing.T) {
	allowed := []string{"version", "revision", "goversion", "attach", "noswap", "method", "code", "kind", "action", "result", "phase", "connection", "operation"}
	_, m := used(t)
	for _, d := range m.Definitions() {
		for _, l := range d.Labels {
			if !slices.Contains(allowed, l) {
				t.Errorf("%s has label %s: is it bounded? Then add it to the list", d.Name, l)
			}
		}
	}
}

func TestSeriesThatAlertsWatchStartAtZero(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics.New(reg)
	families := gather(t, reg)
	for _, name := range []string{"leasefs_config_reloads_total", "leasefs_recovered_volumes_total", "leasefs_audit_lines_total", "leasefs_kubelet_registered", "leasefs_swaps_total"} {
		f := families[name]
		if f == nil {
			t.Errorf("%s has no series at start", name)
			continue
		}
		for _, s := range f.GetMetric() {
			if s.GetCounter().GetValue() != 0 || s.GetGauge().GetValue() != 0 {
				t.Errorf("%s starts at %v", name, s)
			}
		}
	}
}

func TestVolumesAreAskedAtEachScrape(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := metrics.New(reg)
	live := 1
	m.SetVolumes(func() metrics.Volumes { return metrics.Volumes{Phases: map[string]int{"live": live}, Used: 10} })

	expect := func(want string) {
		t.Helper()
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "leasefs_volumes", "leasefs_next_expiry_timestamp_seconds"); err != nil {
			t.Fatal(err)
		}
	}
	const head = "# HELP leasefs_volumes Volumes of this node, by phase.\n# TYPE leasefs_volumes gauge\n"
	expect(head + "leasefs_volumes{phase=\"live\"} 1\nleasefs_volumes{phase=\"publishing\"} 0\nleasefs_volumes{phase=\"releasing\"} 0\n")
	live = 2
	expect(head + "leasefs_volumes{phase=\"live\"} 2\nleasefs_volumes{phase=\"publishing\"} 0\nleasefs_volumes{phase=\"releasing\"} 0\n")
}

func TestSeriesOfARemovedConnectionEnd(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	m.ConfigLoaded(time.Now(), []string{"a", "b"})
	for _, c := range []string{"a", "b"} {
		m.VaultRequest(c, vault.OpLogin, "200", time.Millisecond)
		m.CacheHit(c, "cache")
	}
	m.ConfigLoaded(time.Now(), []string{"b"})
	for _, name := range []string{"leasefs_vault_requests_total", "leasefs_vault_request_duration_seconds", "leasefs_vault_cache_hits_total"} {
		f := gather(t, reg)[name]
		if len(f.GetMetric()) != 1 {
			t.Errorf("%s has %d series, want only connection b's", name, len(f.GetMetric()))
		}
	}
}
