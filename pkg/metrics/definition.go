// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Definition is one metric as docs/metrics.md lists it.
type Definition struct {
	Name   string
	Type   string // counter | gauge | histogram
	Labels []string
	Help   string
}

// Definitions returns every metric, in the order of the documentation.
func (m *Metrics) Definitions() []Definition { return slices.Clone(m.defs) }

// Markdown returns the table of docs/metrics.md.
func (m *Metrics) Markdown() string {
	var s strings.Builder
	s.WriteString("| metric | type | labels | |\n| --- | --- | --- | --- |\n")
	for _, d := range m.defs {
		labels := ""
		if len(d.Labels) > 0 {
			labels = "`" + strings.Join(d.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&s, "| `%s` | %s | %s | %s |\n", d.Name, d.Type, labels, d.Help)
	}
	return s.String()
}

// builder makes metrics, registers them and keeps their definitions.
type builder struct {
	reg  prometheus.Registerer
	defs *[]Definition
}

func (b builder) define(kind, name, help string, labels []string) {
	*b.defs = append(*b.defs, Definition{Name: namespace + "_" + name, Type: kind, Labels: labels, Help: help})
}

func (b builder) counter(name, help string, labels ...string) *prometheus.CounterVec {
	b.define("counter", name, help, labels)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	b.reg.MustRegister(v)
	return v
}

func (b builder) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	b.define("gauge", name, help, labels)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	b.reg.MustRegister(v)
	return v
}

func (b builder) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	b.define("histogram", name, help, labels)
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	b.reg.MustRegister(v)
	return v
}

func (b builder) desc(kind, name, help string, labels ...string) *prometheus.Desc {
	b.define(kind, name, help, labels)
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}
