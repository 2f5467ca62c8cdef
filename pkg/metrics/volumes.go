// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Phases of a volume, all of them: each has a series, at 0 when no volume is in it.
var phases = []string{"publishing", "live", "releasing"}

// Volumes is what the volumes of the node look like at one moment.
type Volumes struct {
	Phases     map[string]int // count by phase
	Expired    int            // volumes with a secret that has ended
	Failing    int            // volumes with a failure that is not mended yet
	NextExpiry time.Time      // when the first secret that is still valid ends; zero: none does
	Used       int64          // bytes of the node's budget that volumes take up
	Budget     int64          // bytes; 0: no limit
}

// volumes is a collector: it asks at each scrape, so that no gauge can be forgotten on some path through the code.
type volumes struct {
	source     atomic.Pointer[func() Volumes]
	phase      *prometheus.Desc
	expired    *prometheus.Desc
	failing    *prometheus.Desc
	nextExpiry *prometheus.Desc
	used       *prometheus.Desc
	budget     *prometheus.Desc
}

// SetVolumes names the function that each scrape asks. Before that there are no such series.
func (m *Metrics) SetVolumes(source func() Volumes) { m.volumes.source.Store(&source) }

func (b builder) volumes() *volumes {
	c := &volumes{
		phase:      b.desc("gauge", "volumes", "Volumes of this node, by phase.", "phase"),
		expired:    b.desc("gauge", "volumes_expired", "Volumes with a secret that has ended and could not be replaced."),
		failing:    b.desc("gauge", "volumes_failing", "Volumes of which something could not be renewed or read at the last attempt."),
		nextExpiry: b.desc("gauge", "next_expiry_timestamp_seconds", "When the first of all valid secrets of this node ends unless it is renewed. Absent while nothing ends."),
		used:       b.desc("gauge", "node_budget_used_bytes", "Bytes of the node's budget that volumes take up."),
		budget:     b.desc("gauge", "node_budget_bytes", "Size of the node's budget; 0: no limit."),
	}
	b.reg.MustRegister(c)
	return c
}

// Describe implements prometheus.Collector.
func (c *volumes) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.phase, c.expired, c.failing, c.nextExpiry, c.used, c.budget} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *volumes) Collect(ch chan<- prometheus.Metric) {
	source := c.source.Load()
	if source == nil {
		return
	}
	v := (*source)()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, p := range phases {
		gauge(c.phase, float64(v.Phases[p]), p)
	}
	gauge(c.expired, float64(v.Expired))
	gauge(c.failing, float64(v.Failing))
	gauge(c.used, float64(v.Used))
	gauge(c.budget, float64(v.Budget))
	if !v.NextExpiry.IsZero() {
		gauge(c.nextExpiry, float64(v.NextExpiry.UnixMilli())/1000)
	}
}
