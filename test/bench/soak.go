// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/leasefs/leasefs/test/harness/kubelettest"
)

// soakVolumes is how many volumes come and go while the daemon is killed.
const soakVolumes = 6

// soakTTL is the TTL in seconds of the sessions, so that a token left by a kill in the one unavoidable window (between Vault's answer to a login and the
// record of it) is gone soon, and can be told from one that is kept alive.
const soakTTL = 20

// soak kills the daemon at random moments of publishes, unpublishes and rotations, and counts what is left in the end.
func soak(ctx context.Context, driver string, kills int) error {
	return onNode(ctx, driver, options{refresh: "10s", tokenTTL: soakTTL}, func(ctx context.Context, n *node) error {
		fmt.Printf("Killing the daemon %d times, with %d volumes that come and go\n", kills, soakVolumes)
		volumes := make([]kubelettest.Volume, soakVolumes)
		for i := range volumes {
			volumes[i] = n.volume(3)
		}
		torn, start := 0, time.Now()
		for i := range kills {
			if err := killOnce(ctx, n, volumes); err != nil {
				return err
			}
			for _, v := range volumes {
				torn += tornFiles(v.Target(n.driver.KubeletDir))
			}
			if (i+1)%100 == 0 {
				fmt.Printf("  %d kills after %v\n", i+1, time.Since(start).Round(time.Second))
			}
		}
		return count(ctx, n, volumes, kills, torn)
	})
}

// killOnce has the kubelet publish and unpublish, kills the daemon in the middle, and starts it again.
func killOnce(ctx context.Context, n *node, volumes []kubelettest.Volume) error {
	calls, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = all(len(volumes), func(i int) error { // errors are expected: the daemon dies
			if rand.IntN(2) == 0 {
				return n.kubelet.Publish(calls, volumes[i])
			}
			return n.kubelet.Unpublish(calls, volumes[i])
		})
	}()
	time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
	err := n.driver.Kill()
	cancel()
	<-done
	if err != nil {
		return err
	}
	return n.driver.Start(ctx)
}

// tornFiles counts files of a mounted volume that are not what Vault has.
func tornFiles(target string) int {
	if _, err := os.Lstat(filepath.Join(target, "..data")); err != nil {
		return 0 // not mounted
	}
	torn := 0
	for i := range 3 {
		if data, err := os.ReadFile(filepath.Join(target, fmt.Sprintf("f%d", i))); err != nil || string(data) != "some secret text" {
			torn++
		}
	}
	return torn
}

// count unpublishes everything and counts what is left, on the node at once and in Vault after the TTL of a session.
func count(ctx context.Context, n *node, volumes []kubelettest.Volume, kills, torn int) error {
	dirs := 0
	for _, v := range volumes {
		if err := n.kubelet.Unpublish(ctx, v); err != nil {
			return err
		}
		if _, err := os.Lstat(v.Target(n.driver.KubeletDir)); !os.IsNotExist(err) {
			dirs++
		}
	}
	mounts, err := n.driver.Volumes()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * time.Second):
	}
	now, err := n.vault.TokenAccessors(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After((soakTTL + 5) * time.Second):
	}
	later, err := n.vault.TokenAccessors(ctx)
	if err != nil {
		return err
	}
	records, err := filepath.Glob(filepath.Join(n.driver.PluginDir, "state", "*"))
	if err != nil {
		return err
	}
	t := newSheet("kills", "torn files", "mounts", "directories", "records", "tokens after 2 s", "tokens after their TTL", "target")
	good := torn+len(mounts)+dirs+len(records)+len(later) == 0
	t.row(kills, torn, len(mounts), dirs, len(records), len(now), len(later), verdict(good, "not one orphan"))
	t.print()
	if !good {
		return fmt.Errorf("something was left behind: %v %v %v", mounts, records, later)
	}
	return nil
}
