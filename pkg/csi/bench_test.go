// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"log/slog"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
)

// BenchmarkReadPublish is what validation costs when the attributes are known: above all reading the token's claims.
func BenchmarkReadPublish(b *testing.B) {
	req := publishRequest(b)
	settings := Settings{Tokens: TokensInSecrets, PodsDir: podsDir, Resolve: resolve}
	specs, now := newSpecs(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readPublish(req, settings, specs, now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRepublish is a whole call over the socket, without what the domain does.
func BenchmarkRepublish(b *testing.B) {
	e := newEdge(b, func(o *Options) { o.Logger = newLogs().logger(slog.LevelInfo) })
	req := publishRequest(b)
	if _, err := e.node.NodePublishVolume(b.Context(), req); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.node.NodePublishVolume(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEmptyCall is the floor of BenchmarkRepublish: gRPC over the socket and nothing else.
func BenchmarkEmptyCall(b *testing.B) {
	e := newEdge(b, func(o *Options) { o.Logger = newLogs().logger(slog.LevelInfo) })
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.node.NodeGetInfo(b.Context(), &spec.NodeGetInfoRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
