// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"github.com/leasefs/leasefs/test/harness/kubelettest"
)

// call is a publish that is ready to be sent: its token is minted, its folder made.
type call struct {
	volume  kubelettest.Volume
	request *csi.NodePublishVolumeRequest
}

func (n *node) prepare(count int) (call, error) {
	v := n.volume(count)
	req, err := n.kubelet.PublishRequest(v)
	if err != nil {
		return call{}, err
	}
	return call{v, req}, os.MkdirAll(filepath.Dir(req.TargetPath), 0o750)
}

func (n *node) send(ctx context.Context, c call) error {
	_, err := n.calls.Node.NodePublishVolume(ctx, c.request)
	return err
}

// jwt is the token in a request.
func (c call) jwt() string {
	for _, s := range c.request.GetSecrets() {
		_, token, _ := strings.Cut(s, `"token":"`)
		token, _, _ = strings.Cut(token, `"`)
		return token
	}
	return ""
}

// latency publishes one volume at a time, and does the floor's requests in between.
func latency(ctx context.Context, n *node, rounds int) error {
	fmt.Printf("\nPublish, one at a time (the pods' folder on %s)\n", n.folder)
	t := newSheet("secrets", "floor p50", "floor p99", "leasefs p50", "leasefs p99", "ratio", "p50 less 1.15 × floor", "target")
	f := newFloor(n.vault.Addr)
	for _, count := range []int{1, 5} {
		var floors, ours []time.Duration
		for i := range rounds + 10 {
			a, err := n.prepare(count)
			if err != nil {
				return err
			}
			b, err := n.prepare(count)
			if err != nil {
				return err
			}
			bare, err := timed(func() error { return f.get(ctx, b.jwt(), count) })
			if err != nil {
				return err
			}
			full, err := timed(func() error { return n.send(ctx, a) })
			if err != nil {
				return err
			}
			if i >= 10 { // the first ones warm both pools
				floors, ours = append(floors, bare), append(ours, full)
			}
			if err := n.kubelet.Unpublish(ctx, a.volume); err != nil {
				return err
			}
		}
		low, own := quantile(floors, 0.5), quantile(ours, 0.5)
		over := own - time.Duration(1.15*float64(low))
		t.row(count, low, quantile(floors, 0.99), own, quantile(ours, 0.99), ratio(own, low), over, verdict(over <= time.Millisecond, "≤ 1 ms"))
	}
	t.print()
	return nil
}

const herd = 110 // pods on a node, by Kubernetes' default

// throughput publishes a node's worth of volumes at once, and does the floor's requests in between.
func throughput(ctx context.Context, n *node) error {
	fmt.Printf("\nPublish, %d at once (best of 5 rounds each, alternating; the pods' folder on %s)\n", herd, n.folder)
	t := newSheet("secrets", "floor", "floor/s", "leasefs", "leasefs/s", "share of the floor's throughput", "target", "CPU each, bare client", "CPU each, leasefs")
	f := newFloor(n.vault.Addr)
	for _, count := range []int{1, 5} {
		var floors, ours []time.Duration
		var bareCPU, ownCPU time.Duration
		for range 6 {
			a, b := make([]call, herd), make([]call, herd)
			for i := range herd {
				var err error
				if a[i], err = n.prepare(count); err != nil {
					return err
				}
				if b[i], err = n.prepare(count); err != nil {
					return err
				}
			}
			cpu, daemon := cpuOf("self"), cpuOf(n.driver.PID())
			bare, err := timed(func() error {
				return all(herd, func(i int) error { return f.get(ctx, b[i].jwt(), count) })
			})
			if err != nil {
				return err
			}
			bareCPU += cpuOf("self") - cpu
			full, err := timed(func() error { return all(herd, func(i int) error { return n.send(ctx, a[i]) }) })
			ownCPU += cpuOf(n.driver.PID()) - daemon
			if err != nil {
				return err
			}
			floors, ours = append(floors, bare), append(ours, full)
			if err := all(herd, func(i int) error { return n.kubelet.Unpublish(ctx, a[i].volume) }); err != nil {
				return err
			}
			time.Sleep(500 * time.Millisecond) // the revocations
		}
		low, own := quantile(floors[1:], 0), quantile(ours[1:], 0)
		share := float64(low) / float64(own)
		t.row(count, low, perSecond(herd, low), own, perSecond(herd, own), fmt.Sprintf("%.2f", share), verdict(share >= 0.85, "≥ 0.85"), bareCPU/(6*herd), ownCPU/(6*herd))
	}
	t.print()
	return nil
}

// republish repeats the kubelet's call for a live volume, beside a call that does nothing.
func republish(ctx context.Context, n *node) error {
	fmt.Println("\nRepublish of a live volume (the floor is a call over the same socket that does nothing)")
	c, err := n.prepare(5)
	if err != nil {
		return err
	}
	if err := n.send(ctx, c); err != nil {
		return err
	}
	before, err := n.metric(ctx, "leasefs_vault_requests_total")
	if err != nil {
		return err
	}
	var floors, ours []time.Duration
	for range 5000 {
		bare, err := timed(func() error {
			_, err := n.calls.Node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
			return err
		})
		if err != nil {
			return err
		}
		full, err := timed(func() error { return n.send(ctx, c) })
		if err != nil {
			return err
		}
		floors, ours = append(floors, bare), append(ours, full)
	}
	after, err := n.metric(ctx, "leasefs_vault_requests_total")
	if err != nil {
		return err
	}
	own := quantile(ours, 0.5)
	t := newSheet("floor p50", "leasefs p50", "leasefs p99", "requests to Vault by 5000 of them", "target")
	t.row(quantile(floors, 0.5), own, quantile(ours, 0.99), after-before, verdict(own <= 200*time.Microsecond && after == before, "≤ 0.2 ms, 0 requests"))
	t.print()
	return nil
}

// all does a job n times at once.
func all(n int, job func(i int) error) error {
	var group errgroup.Group
	for i := range n {
		group.Go(func() error { return job(i) })
	}
	return group.Wait()
}

func timed(job func() error) (time.Duration, error) {
	start := time.Now()
	err := job()
	return time.Since(start), err
}

// cpuOf is the CPU time that a process has used, in the kernel's ticks of 10 ms (proc_pid_stat(5), fields 14 and 15). It tells work
// from waiting on a machine that others use, too.
func cpuOf(process any) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%v/stat", process))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
