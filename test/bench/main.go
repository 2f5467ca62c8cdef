// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench prints what leasefs costs, beside what Vault itself costs in the same run. docs/performance.md says how to read
// the tables. It runs as root or inside `unshare -Urm`.
//
//	go run ./test/bench --driver bin/leasefs            all tables
//	go run ./test/bench --driver bin/leasefs --kills 1000   kill the daemon at random moments and count orphans
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

func main() {
	driver := flag.String("driver", "", "the leasefs `program` to measure (default: built from cmd/driver)")
	rounds := flag.Int("rounds", 300, "publishes measured one at a time, for each row")
	most := flag.Int("volumes", 4000, "volumes of the largest row on memory; half of them for the row on lateness")
	only := flag.String("only", "", "measure these tables alone: latency, throughput, republish, memory, lateness, restart; separated by commas")
	kills := flag.Int("kills", 0, "do nothing but kill the daemon this often, and count orphans")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if *kills > 0 {
		err = soak(ctx, *driver, *kills)
	} else {
		err = tables(ctx, *driver, *only, *rounds, *most)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// table is one measurement, and the node that it needs.
type table struct {
	name    string
	options options
	measure func(context.Context, *node) error
}

// tables measures everything, or what only names, one table after the other, each on a fresh node.
func tables(ctx context.Context, driver, only string, rounds, most int) error {
	oneByOne := func(ctx context.Context, n *node) error { return latency(ctx, n, rounds) }
	all := []table{
		{"latency", options{noAudit: true}, oneByOne},
		{"latency", options{noAudit: true, disk: true}, oneByOne},
		{"throughput", options{noAudit: true}, throughput},
		{"throughput", options{noAudit: true, disk: true}, throughput},
		{"republish", options{noAudit: true}, republish},
		{"memory", options{noAudit: true, refresh: "10h"}, func(ctx context.Context, n *node) error { return memory(ctx, n, most) }},
		{"lateness", options{noAudit: true, tokenTTL: 60}, func(ctx context.Context, n *node) error { return lateness(ctx, n, most/2) }},
		{"restart", options{refresh: "10h"}, func(ctx context.Context, n *node) error { return restart(ctx, n, 500) }},
	}
	for _, t := range all {
		if only != "" && !slices.Contains(strings.Split(only, ","), t.name) {
			continue
		}
		if err := onNode(ctx, driver, t.options, t.measure); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

// node is a driver with a Vault beside it.
type node struct {
	vault   *vaulttest.Server
	driver  *kubelettest.Driver
	kubelet *kubelettest.Kubelet
	calls   *kubelettest.Client // one connection, kept; the kubelet dials anew for each call
	serial  int
	refresh string
	folder  string // what the folder of the pods is on
}

type options struct {
	noAudit  bool   // Vault without an audit device, which is what slows it down most
	refresh  string // refreshInterval of the volumes; "": 5m
	tokenTTL int    // seconds; 0: an hour
	// disk: the folder of the pods is where temporary files are, usually on a disk, instead of on a tmpfs. A publish makes a folder
	// there and an unpublish removes it, hundreds of times a second here, which no kubelet does: after so many, ext4 searches long
	// for each new one.
	disk bool
}

// secrets is how many different secrets there are to read.
const secrets = 5

// onNode measures something on a fresh node.
func onNode(ctx context.Context, driver string, o options, measure func(context.Context, *node) error) (err error) {
	n := &node{refresh: o.refresh, folder: "a tmpfs"}
	if n.refresh == "" {
		n.refresh = "5m"
	}
	if n.vault, err = vaulttest.Run(ctx, vaulttest.Options{NoAudit: o.noAudit}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.vault.Close()) }()
	issuer, err := kubelettest.NewIssuer()
	if err != nil {
		return err
	}
	if err := n.prepareVault(ctx, issuer, o); err != nil {
		return err
	}
	dir, remove, err := folder(o.disk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if o.disk {
		n.folder = "disk"
	}
	n.driver, err = kubelettest.RunDriver(ctx, kubelettest.DriverOptions{
		Binary: driver, Dir: filepath.Join(dir, "node"),
		Config: "connections:\n- {name: default, address: " + n.vault.Addr + ", authMethod: jwt, role: app, requestRate: 0}\ndefaults: {nodeBudget: 0, credentialGrace: 5s}\n",
		Args:   []string{"--audit-log=off", "--log-level=warn"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.driver.Close()) }()
	n.kubelet = n.driver.Kubelet(issuer)
	if n.calls, err = kubelettest.Dial(n.driver.Socket); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.calls.Close()) }()
	return measure(ctx, n)
}

// folder makes a folder in which the driver may have its own.
func folder(disk bool) (dir string, remove func() error, err error) {
	if dir, err = os.MkdirTemp("", "bench-"); err != nil || disk {
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mounting a tmpfs at %s: %w", dir, err), os.Remove(dir))
	}
	return dir, func() error { return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)) }, nil
}

func (n *node) prepareVault(ctx context.Context, issuer *kubelettest.Issuer, o options) error {
	if err := n.vault.EnableJWT(ctx, "jwt", issuer.PublicPEM()); err != nil {
		return err
	}
	if err := n.vault.Policy(ctx, "app", `path "secret/*" { capabilities = ["read"] }`); err != nil {
		return err
	}
	role := vaulttest.Role{Policies: []string{"app"}, TTL: seconds(3600), MaxTTL: seconds(36000)}
	if o.tokenTTL > 0 {
		role.TTL = seconds(o.tokenTTL)
	}
	if err := n.vault.JWTRole(ctx, "jwt", "app", role); err != nil {
		return err
	}
	for i := range secrets {
		if err := n.vault.WriteKV2(ctx, "secret", fmt.Sprintf("s%d", i), map[string]any{"value": "some secret text"}); err != nil {
			return err
		}
	}
	return nil
}

// volume is the next pod's volume with the given number of secrets. Each pod has a service account of its own: no response is
// shared between two, as it would be within a deployment, so that the driver asks Vault as often as the floor does.
func (n *node) volume(count int) kubelettest.Volume {
	n.serial++
	objects := ""
	for i := range count {
		objects += fmt.Sprintf("- {objectName: f%d, secretPath: secret/data/s%d, secretKey: value}\n", i, i)
	}
	name := fmt.Sprintf("bench-%d", n.serial)
	return kubelettest.Volume{
		Pod: kubelettest.NewPod("bench", name, name), Name: "secrets", ReadOnly: true,
		Attributes: map[string]string{"objects": objects, "refreshInterval": n.refresh, "size": "64Ki"},
	}
}
