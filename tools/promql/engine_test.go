// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package promql

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// step is the time between two samples, now the time at which expressions are evaluated: the tenth sample's.
const step = time.Minute

var now = time.Unix(0, 0).Add(10 * step)

func language() parser.Parser { return parser.NewParser(parser.Options{}) }

// alerts are the chart's, by name, as Prometheus reads them: it refuses unknown fields, expressions that it cannot parse,
// and templates that it cannot.
func alerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, faults := rulefmt.ParseFile(files+"rules.yaml", false, model.UTF8Validation, language(), slog.New(slog.DiscardHandler))
	for _, fault := range faults {
		t.Error(fault)
	}
	if len(faults) > 0 {
		t.FailNow()
	}
	all := map[string]rulefmt.Rule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			all[rule.Alert] = rule
		}
	}
	return all
}

// series reads lines such as `up{instance="a"} 0+1x10`, in the notation of promtool's tests: one sample a step, from zero.
func series(t *testing.T, lines string) []storage.Series {
	t.Helper()
	var all []storage.Series
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, values, err := language().ParseSeriesDesc(line)
		if err != nil {
			t.Fatal(err)
		}
		samples := chunkenc.NewXORChunk()
		appender, err := samples.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			if !v.Omitted {
				appender.Append(0, int64(i)*step.Milliseconds(), v.Value)
			}
		}
		all = append(all, &storage.SeriesEntry{Lset: name, SampleIteratorFn: samples.Iterator})
	}
	return all
}

// among answers queries from a list of series.
func among(all []storage.Series) storage.Queryable {
	matches := func(s storage.Series, matchers []*labels.Matcher) bool {
		for _, m := range matchers {
			if !m.Matches(s.Labels().Get(m.Name)) {
				return false
			}
		}
		return true
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			found := &set{}
			for _, s := range all {
				if matches(s, matchers) {
					found.left = append(found.left, s)
				}
			}
			return found
		},
	}}
}

// evaluate is what an expression gives now.
func evaluate(t *testing.T, expr string, all []storage.Series) promql.Vector {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000, Timeout: time.Minute, Parser: language()})
	t.Cleanup(func() { _ = engine.Close() })
	query, err := engine.NewInstantQuery(t.Context(), among(all), nil, expr, now)
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	found, err := query.Exec(t.Context()).Vector()
	if err != nil {
		t.Fatal(err)
	}
	return append(promql.Vector(nil), found...)
}

// expand fills an annotation's template in for one element of an alert.
func expand(t *testing.T, text string, of promql.Sample) string {
	t.Helper()
	const head = "{{$labels := .Labels}}{{$value := .Value}}"
	query := func(context.Context, string, time.Time) (promql.Vector, error) { return nil, nil }
	got, err := template.NewTemplateExpander(t.Context(), head+text, "annotation", template.AlertTemplateData(of.Metric.Map(), nil, "", of),
		model.TimeFromUnixNano(now.UnixNano()), query, nil, []string{"missingkey=error"}).Expand()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// set is a storage.SeriesSet of what is left.
type set struct {
	left []storage.Series
	at   storage.Series
}

func (s *set) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[0], s.left[1:]
	return true
}

func (s *set) At() storage.Series                { return s.at }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }
