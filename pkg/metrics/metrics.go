// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics holds every Prometheus metric of leasefs.
//
// Labels are bounded on purpose: kinds, results, codes and operations come from fixed sets in the code, connection names
// from the administrator's configuration. No label names a pod, a namespace, a path or a file; `leasefs volumes` and
// the audit log do that. docs/metrics.md lists them all, and a test keeps it true.
package metrics

import (
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leasefs/leasefs/pkg/audit"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

// namespace is the prefix of every metric.
const namespace = "leasefs"

// Buckets, in seconds. A publish takes a few milliseconds beside a warm Vault and 90 s at most; a lateness of more than
// minutes is an outage, whose length matters.
var (
	callBuckets     = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 90}
	vaultBuckets    = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	latenessBuckets = []float64{.01, .05, .1, .5, 1, 5, 15, 60, 300, 900, 3600}
)

// Metrics is told what happens by every part of the daemon. Make one with New.
type Metrics struct {
	defs []Definition

	csiCalls        *prometheus.CounterVec
	csiDuration     *prometheus.HistogramVec
	rotations       *prometheus.CounterVec
	lateness        prometheus.Observer
	swaps           prometheus.Counter
	recovered       *prometheus.CounterVec
	vaultRequests   *prometheus.CounterVec
	vaultDuration   *prometheus.HistogramVec
	cacheHits       *prometheus.CounterVec
	reloads         *prometheus.CounterVec
	reloadedAt      prometheus.Gauge
	refused         prometheus.Gauge
	registered      prometheus.Gauge
	auditLines      *prometheus.CounterVec
	buildInfo       *prometheus.GaugeVec
	mountInfo       *prometheus.GaugeVec
	volumes         *volumes
	connectionsLock sync.Mutex
	connections     []string
}

// New makes the metrics and registers them with reg.
func New(reg prometheus.Registerer) *Metrics {
	m := &Metrics{}
	b := builder{reg: reg, defs: &m.defs}

	m.buildInfo = b.gauge("build_info", "Always 1; the labels say which build is running.", "version", "revision", "goversion")
	m.mountInfo = b.gauge("mount_info", "Always 1; how this kernel lets the daemon attach a volume, and whether its pages are kept out of swap.", "attach", "noswap")
	m.registered = b.gauge("kubelet_registered", "1 while the kubelet has registered the driver, else 0. Stays 0 if registration is off.").WithLabelValues()

	m.csiCalls = b.counter("csi_calls_total", "Calls of the kubelet, by method and gRPC code. A publish of a volume that is there already is method Republish, and its code tells what is wrong even where the kubelet was told OK.", "method", "code")
	m.csiDuration = b.histogram("csi_call_duration_seconds", "How long calls of the kubelet took.", callBuckets, "method", "code")

	m.rotations = b.counter("rotations_total", "Steps on one lease or session of a live volume: kind of lease, what was done, how it ended.", "kind", "action", "result")
	m.lateness = b.histogram("rotation_lateness_seconds", "Time between the planned and the real start of a step.", latenessBuckets).WithLabelValues()
	m.swaps = b.counter("swaps_total", "Generations that became current in a live volume.").WithLabelValues()
	m.recovered = b.counter("recovered_volumes_total", "Records found at start, by what became of them. unreadable means that a record was damaged.", "result")

	m.volumes = b.volumes()

	m.vaultRequests = b.counter("vault_requests_total", "Requests to Vault, by connection, operation and HTTP status (error, timeout, canceled or breaker: there was none).", "connection", "operation", "code")
	m.vaultDuration = b.histogram("vault_request_duration_seconds", "How long requests to Vault took.", vaultBuckets, "connection", "operation")
	m.cacheHits = b.counter("vault_cache_hits_total", "Reads that took no request of their own: answered from the cache, or by a request already in flight.", "connection", "kind")

	m.reloads = b.counter("config_reloads_total", "Changes of the configuration file, by result. After an error the daemon goes on with the configuration before.", "result")
	m.reloadedAt = b.gauge("config_last_reload_success_timestamp_seconds", "When the configuration in use was read.").WithLabelValues()
	m.refused = b.gauge("config_refused", "1 while the configuration file has a fault and the one before is in use, else 0.").WithLabelValues()
	m.auditLines = b.counter("audit_lines_total", "Lines of the audit log, by what became of them: written, failed, or dropped because too many were waiting.", "result")

	m.zero()
	return m
}

// zero makes the series exist that an alert needs to see at 0 before it can see them rise.
func (m *Metrics) zero() {
	for _, r := range []string{reloadOK, reloadError} {
		m.reloads.WithLabelValues(r)
	}
	for _, r := range []audit.Result{audit.Written, audit.Failed, audit.Dropped} {
		m.auditLines.WithLabelValues(string(r))
	}
	for _, r := range []rotation.Recovery{rotation.RecoveredLive, rotation.RecoveredPublish, rotation.RecoveredRelease, rotation.RecoveredLost, rotation.RecoveredUnreadable} {
		m.recovered.WithLabelValues(string(r))
	}
}

const (
	reloadOK    = "ok"
	reloadError = "error"
)

// Build says which build is running.
func (m *Metrics) Build(version, revision string) {
	m.buildInfo.WithLabelValues(version, revision, runtime.Version()).Set(1)
}

// Mount says what the kernel offers: attach is one of pkg/mount's three ways.
func (m *Metrics) Mount(attach string, noswap bool) {
	m.mountInfo.Reset()
	m.mountInfo.WithLabelValues(attach, strconv.FormatBool(noswap)).Set(1)
}

// Registered says whether the kubelet knows the driver.
func (m *Metrics) Registered(yes bool) {
	if yes {
		m.registered.Set(1)
		return
	}
	m.registered.Set(0)
}

// Call counts one call of the kubelet that took d. code is the name of a gRPC code.
func (m *Metrics) Call(method, code string, d time.Duration) {
	m.csiCalls.WithLabelValues(method, code).Inc()
	m.csiDuration.WithLabelValues(method, code).Observe(d.Seconds())
}

// Rotation implements rotation.Observer.
func (m *Metrics) Rotation(kind rotation.Kind, action rotation.Action, result rotation.Result) {
	m.rotations.WithLabelValues(string(kind), string(action), string(result)).Inc()
}

// Late implements rotation.Observer.
func (m *Metrics) Late(d time.Duration) { m.lateness.Observe(d.Seconds()) }

// Swapped implements rotation.Observer.
func (m *Metrics) Swapped() { m.swaps.Inc() }

// Recovered implements rotation.Observer.
func (m *Metrics) Recovered(r rotation.Recovery) { m.recovered.WithLabelValues(string(r)).Inc() }

// VaultRequest implements vault.Observer.
func (m *Metrics) VaultRequest(connection string, op vault.Op, code string, d time.Duration) {
	m.vaultRequests.WithLabelValues(connection, string(op), code).Inc()
	m.vaultDuration.WithLabelValues(connection, string(op)).Observe(d.Seconds())
}

// CacheHit implements vault.Observer.
func (m *Metrics) CacheHit(connection, kind string) {
	m.cacheHits.WithLabelValues(connection, kind).Inc()
}

// AuditLine implements audit.Observer.
func (m *Metrics) AuditLine(r audit.Result) { m.auditLines.WithLabelValues(string(r)).Inc() }

// ConfigLoaded counts a configuration that was read and taken up at now, with these connections. The series of
// connections that are gone end.
func (m *Metrics) ConfigLoaded(now time.Time, connections []string) {
	m.reloads.WithLabelValues(reloadOK).Inc()
	m.reloadedAt.Set(float64(now.Unix()))
	m.refused.Set(0)

	m.connectionsLock.Lock()
	defer m.connectionsLock.Unlock()
	for _, c := range m.connections {
		if slices.Contains(connections, c) {
			continue
		}
		l := prometheus.Labels{"connection": c}
		m.vaultRequests.DeletePartialMatch(l)
		m.vaultDuration.DeletePartialMatch(l)
		m.cacheHits.DeletePartialMatch(l)
	}
	m.connections = slices.Clone(connections)
}

// ConfigRefused counts an edit of the configuration that was not taken up.
func (m *Metrics) ConfigRefused() {
	m.reloads.WithLabelValues(reloadError).Inc()
	m.refused.Set(1)
}
