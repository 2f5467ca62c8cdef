// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package promql holds the chart's alerts and dashboard against Prometheus's own parser and engine. It is a module of its
// own so that the driver's does not know Prometheus's. test/deploy runs it.
package promql
