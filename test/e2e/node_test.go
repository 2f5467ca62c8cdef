// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The machine's addresses, see tools/node/README.md.
const (
	nodeName = "leasefs-node"
	nodeIP   = "10.231.0.1"
	apiURL   = "https://" + nodeIP
)

// node is the machine below the pods.
type node struct {
	ctl string // tools/node/ctl, as run.sh built it
	run string // its run folder
}

func newNode() (node, error) {
	n := node{ctl: os.Getenv("LEASEFS_NODE_CTL"), run: os.Getenv("LEASEFS_NODE_RUN")}
	if n.ctl == "" || n.run == "" {
		return n, fmt.Errorf("LEASEFS_NODE_CTL and LEASEFS_NODE_RUN are not set: start the tests with test/e2e/run.sh")
	}
	return n, nil
}

// control runs a command of tools/node/ctl.
func (n node) control(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.ctl, args...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

func (n node) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := n.control(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// host runs a program on the node, outside of every container.
func (n node) host(ctx context.Context, args ...string) (string, error) {
	return n.control(ctx, append([]string{"exec", "-node", "--"}, args...)...)
}

// mountsOf are the lines of the host's table of mounts that belong to a pod's CSI volumes.
func (n node) mountsOf(ctx context.Context, podUID string) ([]string, error) {
	table, err := n.host(ctx, "cat", "/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(table) {
		if strings.Contains(line, "/pods/"+podUID+"/volumes/kubernetes.io~csi/") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out, nil
}

// podFolder tells whether the kubelet still has a folder for the pod.
func (n node) podFolder(podUID string) bool {
	_, err := os.Stat(filepath.Join(n.run, "var/lib/kubelet/pods", podUID))
	return err == nil
}

// pki reads one of the run's keys or certificates.
func (n node) pki(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(n.run, "pki", name))
	return string(data), err
}
