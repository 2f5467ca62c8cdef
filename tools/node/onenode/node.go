// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	pauseImage   = "localhost/pause:1"
	busyboxImage = "localhost/busybox:1"
)

// kernelSettings are what the kubelet writes at its start; they belong to the whole kernel, not to a namespace. In the
// node's mounts an ordinary file with the value that the kubelet wants lies over each of them, so that it finds what it
// wants and the machine's own settings are left alone.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// runNode is the first process of the node's namespaces: containerd, the kubelet and all pods are below it.
func runNode(l layout) error {
	if err := mountNode(l); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return err
	}
	s := newSupervisor(l)
	return s.serve(l.socket("node"), func(ctx context.Context) error { return startRuntime(ctx, s) }, nil)
}

// mountNode gives the node the folders that it takes for its own:
//  1. mounts and processes of its own, with the kernel's settings covered;
//  2. /var/lib and /var/log on the run folder's disk; /run on a tmpfs, gone with a reboot;
//  3. everything shared, as systemd leaves a host: a container may then propagate its mounts to it.
func mountNode(l layout) error {
	if err := isolateMounts(); err != nil {
		return err
	}
	for name, value := range kernelSettings {
		file := l.path("kernel", filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		target := filepath.Join("/proc/sys", name)
		if err := syscall.Mount(file, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("covering %s: %w", target, err)
		}
	}
	for dir, target := range map[string]string{"lib": "/var/lib", "log": "/var/log"} {
		if err := syscall.Mount(l.path("var", dir), target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making mounts shared: %w", err)
	}
	return nil
}

// startRuntime starts containerd and brings in the images that every pod needs, unless they are there from before a
// reboot. The kubelet waits for the machine's order: it needs the API server.
func startRuntime(ctx context.Context, s *supervisor) error {
	if err := s.startNamed("containerd"); err != nil {
		return err
	}
	ctr := s.layout.debian("usr/bin/ctr")
	if err := s.waitFor(ctx, "containerd", "containerd", func(context.Context) error {
		return s.run("ctr", ctr, "version")
	}); err != nil {
		return err
	}
	done := s.layout.path("images", "imported")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	for _, name := range []string{"pause", "busybox"} {
		if err := s.run("ctr", ctr, "-n", "k8s.io", "images", "import", s.layout.path("images", name+".tar")); err != nil {
			return err
		}
	}
	return os.WriteFile(done, nil, 0o600)
}
