// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// memory fills a node with volumes and asks what the daemon has in memory for them.
func memory(ctx context.Context, n *node, most int) error {
	fmt.Println("\nMemory of the daemon (5 secrets a volume; heap in use after a collection; RSS without tmpfs pages)")
	t := newSheet("volumes", "heap in use", "RSS", "heap per volume beyond 100", "target")
	warm := 0.0 // heap with 100 volumes: connections, caches and buffers are there by then
	live := 0
	for _, want := range []int{0, 100, most / 4, most} {
		for live < want {
			batch := min(50, want-live)
			calls := make([]call, batch)
			for i := range calls {
				var err error
				if calls[i], err = n.prepare(5); err != nil {
					return err
				}
			}
			if err := all(batch, func(i int) error { return n.send(ctx, calls[i]) }); err != nil {
				return err
			}
			live += batch
		}
		heap, rss, err := n.settledMemory(ctx)
		if err != nil {
			return err
		}
		switch want {
		case 0:
			t.row(want, mib(heap), mib(rss), "", verdict(rss <= 40<<20, "idle RSS ≤ 40 MiB"))
			continue
		case 100:
			warm = heap
			t.row(want, mib(heap), mib(rss), "", "")
			continue
		}
		each := (heap - warm) / float64(want-100)
		t.row(want, mib(heap), mib(rss), fmt.Sprintf("%.1f KiB", each/1024), verdict(each <= 16<<10, "≤ 16 KiB"))
	}
	t.print()
	return nil
}

// settledMemory reads the heap in use when it is least: the collector runs by itself every two minutes at the latest, and between two
// reads of the metrics when there is garbage.
func (n *node) settledMemory(ctx context.Context) (heap, rss float64, err error) {
	for range 40 {
		h, err := n.metric(ctx, "go_memstats_heap_alloc_bytes")
		if err != nil {
			return 0, 0, err
		}
		if heap == 0 || h < heap {
			heap = h
		}
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	rss, err = n.rss()
	return heap, rss, err
}

// rss is the resident memory of the daemon's own: anonymous and of its program file.
func (n *node) rss() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.driver.PID()))
	if err != nil {
		return 0, err
	}
	total := 0.0
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "RssAnon:" || f[0] == "RssFile:") {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return 0, err
			}
			total += kib * 1024
		}
	}
	return total, nil
}

// lateness keeps many sessions of a minute alive at once, for two minutes, and asks how late the daemon was.
func lateness(ctx context.Context, n *node, volumes int) error {
	const watch = 2 * time.Minute
	fmt.Printf("\nRenewals: %d volumes on one daemon, each with a token of 60 s, watched for %v\n", volumes, watch)
	for made := 0; made < volumes; made += 50 {
		calls := make([]call, 50)
		for i := range calls {
			var err error
			if calls[i], err = n.prepare(1); err != nil {
				return err
			}
		}
		if err := all(len(calls), func(i int) error { return n.send(ctx, calls[i]) }); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(watch):
	}
	text, err := n.driver.Metrics(ctx)
	if err != nil {
		return err
	}
	late := bucketsOf(text, "leasefs_rotation_lateness_seconds")
	renewed := sum(text, `leasefs_rotations_total{action="renew",kind="session",result="ok"}`)
	failed := sum(text, "leasefs_rotations_total") - renewed - sum(text, `leasefs_rotations_total{action="fetch",kind="plain",result="unchanged"}`)
	logins := sum(text, `leasefs_vault_requests_total{code="200",connection="default",operation="login"}`)
	t := newSheet("renewals", "p50 late at most", "p99 late at most", "all late at most", "other results", "logins", "secrets expired", "target")
	t.row(renewed, late.at(0.5), late.at(0.99), late.at(1), failed, logins, sum(text, "leasefs_volumes_expired"),
		verdict(renewed > float64(volumes) && logins == float64(volumes) && failed == 0, "none too late"))
	t.print()
	return nil
}

// restart kills the daemon with volumes live, and asks Vault what it has noticed.
func restart(ctx context.Context, n *node, volumes int) error {
	fmt.Printf("\nRestart: kill -9 with %d volumes live\n", volumes)
	calls := make([]call, volumes)
	for i := range calls {
		var err error
		if calls[i], err = n.prepare(5); err != nil {
			return err
		}
		if err := n.send(ctx, calls[i]); err != nil {
			return err
		}
	}
	mark := n.vault.Mark()
	if err := n.driver.Kill(); err != nil {
		return err
	}
	took, err := timed(func() error { return n.driver.Start(ctx) })
	if err != nil {
		return err
	}
	recovered, err := n.metric(ctx, `leasefs_recovered_volumes_total{result="live"}`)
	if err != nil {
		return err
	}
	again, err := timed(func() error {
		for _, c := range calls { // over the kubelet's own connections: the daemon is another one now
			if err := n.kubelet.Publish(ctx, c.volume); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	requests, err := n.vault.Requests(mark)
	if err != nil {
		return err
	}
	t := newSheet("ready again after", "volumes taken over", "all republished in", "requests to Vault", "target")
	t.row(took, recovered, again, len(requests), verdict(len(requests) == 0 && recovered == float64(volumes), "0 requests"))
	t.print()
	return nil
}
