// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// The addresses exist only in the machine's own network namespace, all of them on its loopback device.
const (
	nodeName  = "leasefs-node"
	nodeIP    = "10.231.0.1" // the kubelet refuses a loopback address as the node's
	serviceIP = "10.96.0.1"  // the service "kubernetes": the API server itself listens there, so no kube-proxy is needed
	services  = "10.96.0.0/16"
	dnsIP     = "10.96.0.10" // nobody listens; named so that the kubelet does not warn about every pod
	pods      = "10.232.0.0/16"
	gateway   = "10.232.0.1" // the bridge's own address
	apiURL    = "https://" + nodeIP
	runEnv    = "LEASEFS_NODE_RUN" // marks every process of a run, and names its folder
)

// layout says where things are: below the run folder, which down removes, or below the folder of programs.
type layout struct {
	Run      string // the run folder
	Programs string // what ensure.sh printed
	Sync     string // the kubelet's syncFrequency, a Go duration: a republish comes after 1 to 1.5 of it
}

func (l layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.Run}, parts...)...)
}
func (l layout) pki(name string) string    { return l.path("pki", name) }
func (l layout) config(name string) string { return l.path("config", name) }
func (l layout) log(unit string) string    { return l.path("log", unit+".log") }
func (l layout) socket(name string) string { return l.path(name + ".sock") }
func (l layout) bin(name string) string    { return filepath.Join(l.Programs, "bin", name) }
func (l layout) debian(path string) string { return filepath.Join(l.Programs, "debian", path) }
func (l layout) busybox() string           { return l.debian("bin/busybox") }
func (l layout) self() string              { return l.path("onenode") } // a copy of this program
func (l layout) kubeconfig() string        { return l.config("admin.kubeconfig") }

// cgroup is the parent of the pods' cgroups in every hierarchy. It depends on the run folder, so that two runs do not
// meet and down knows it even when the run folder is gone.
func (l layout) cgroup() string {
	sum := sha256.Sum256([]byte(l.Run))
	return cgroupPrefix + hex.EncodeToString(sum[:4])
}

const cgroupPrefix = "leasefs-node-"

// searchPath has Debian's unpacked folders first: containerd finds its shim through it.
func (l layout) searchPath() string {
	return l.debian("usr/bin") + ":" + l.debian("usr/sbin") + ":" + l.debian("bin") + ":/usr/sbin:/usr/bin:/sbin:/bin"
}

func (l layout) environ() []string {
	return []string{"PATH=" + l.searchPath(), "HOME=/root", runEnv + "=" + l.Run}
}

// save and load keep the layout in the run folder, for the commands that come after up.
func (l layout) save() error { return writeJSON(l.path("layout.json"), l) }

func load(run string) (layout, error) {
	var l layout
	data, err := os.ReadFile(filepath.Join(run, "layout.json"))
	if err != nil {
		return l, fmt.Errorf("no node is up with the run folder %s: %w", run, err)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, fmt.Errorf("reading the layout of %s: %w", run, err)
	}
	return l, nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600)
}
