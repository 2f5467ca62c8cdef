// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// up makes a run and returns when the node takes pods. What it does to the machine outside of the run's namespaces is the
// run folder and a cgroup in each hierarchy; down removes both.
//  1. A run that is up is left as it is; one that is broken, or was killed, is removed first.
//  2. The machine's state is noted, so that down can say whether all is as it was.
//  3. Keys, configuration, images, cgroups: files only.
//  4. The machine starts; its steps are shown as they come. When one fails, or up is interrupted, all is removed.
func up(ctx context.Context, l layout) (err error) {
	if err := l.check(); err != nil {
		return err
	}
	if err := os.Mkdir(l.Run, 0o700); errors.Is(err, os.ErrExist) {
		var s status
		if ask(ctx, l.socket("machine"), http.MethodGet, "/status", &s) == nil && s.Ready {
			say("already up, in %s", l.Run)
			return nil
		}
		say("removing what is left of an earlier run")
		if err := down(l.Run); err != nil {
			return err
		}
		if err := os.Mkdir(l.Run, 0o700); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			say("taking it down again")
			err = errors.Join(err, down(l.Run))
		}
	}()
	if err := prepare(l); err != nil {
		return err
	}
	return startMachine(ctx, l)
}

// check refuses what could only fail later, and less clearly.
func (l layout) check() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root: namespaces, mounts and cgroups")
	}
	if _, err := os.Stat(l.busybox()); err != nil {
		return fmt.Errorf("%s does not hold the programs, run ensure.sh: %w", l.Programs, err)
	}
	if d, err := time.ParseDuration(l.Sync); err != nil || d < time.Second {
		return fmt.Errorf("-sync %q is not a duration of a second or more", l.Sync)
	}
	for _, dir := range []string{l.Run, l.Programs} {
		for _, hidden := range []string{"/var/lib/", "/var/log/", "/run/", "/proc/", "/sys/"} {
			if strings.HasPrefix(dir+"/", hidden) {
				return fmt.Errorf("%s is below %s, which the node has one of its own of; choose another folder", dir, hidden)
			}
		}
	}
	if longest := len(l.socket("machine")); longest > 100 {
		return fmt.Errorf("the run folder's name %s is too long for a socket in it", l.Run)
	}
	return nil
}

func prepare(l layout) error {
	for _, dir := range []string{"pki", "config/cni", "log", "images", "kernel", "etcd", "var/lib", "var/log"} {
		if err := os.MkdirAll(l.path(dir), 0o755); err != nil {
			return err
		}
	}
	before, err := observe()
	if err != nil {
		return err
	}
	if err := writeJSON(l.path("before.json"), before); err != nil {
		return err
	}
	if err := os.Chmod(l.path("etcd"), 0o700); err != nil {
		return err
	}
	for _, write := range []func(layout) error{layout.save, writePKI, writeConfigs, writeBaseImages, makeCgroups} {
		if err := write(l); err != nil {
			return err
		}
	}
	return nil
}

func writeBaseImages(l layout) error {
	if err := pauseOf(l).writeTo(l.path("images", "pause.tar")); err != nil {
		return err
	}
	busybox, err := busyboxOf(l)
	if err != nil {
		return err
	}
	return busybox.writeTo(l.path("images", "busybox.tar"))
}

// pauseOf is what holds a pod's namespaces. The runtime ends it with SIGKILL, so it needs no manners.
func pauseOf(l layout) image {
	return image{
		Ref:        pauseImage,
		Files:      []imageFile{{Path: "/bin/busybox", Source: l.busybox()}},
		Entrypoint: []string{"/bin/busybox", "sleep", "inf"},
	}
}

func busyboxOf(l layout) (image, error) {
	list, err := exec.Command(l.busybox(), "--list").Output()
	if err != nil {
		return image{}, fmt.Errorf("asking busybox for its applets: %w", err)
	}
	files := []imageFile{{Path: "/bin/busybox", Source: l.busybox()}}
	for _, name := range strings.Fields(string(list)) {
		if name != "busybox" {
			files = append(files, imageFile{Path: "/bin/" + name, Link: "busybox"})
		}
	}
	return image{Ref: busyboxImage, Files: files, Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}}, nil
}

// makeCgroups makes the parent of the pods' cgroups in every hierarchy. A cpuset starts empty and can hold no process
// until it is given what its parent has.
func makeCgroups(l layout) error {
	for _, root := range cgroupRoots() {
		dir := filepath.Join(root, l.cgroup())
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			own, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || strings.TrimSpace(string(own)) != "" {
				continue
			}
			value, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				continue // the newer hierarchy inherits by itself
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func startMachine(ctx context.Context, l layout) error {
	if err := keepSelf(l); err != nil {
		return err
	}
	log, err := os.Create(l.log("machine"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(l.self(), "machine", "-run", l.Run)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = append(l.environ(), partOf+"="+l.Run)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the machine: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	shown := 0
	for {
		var s status
		err := ask(ctx, l.socket("machine"), http.MethodGet, "/status", &s)
		for ; shown < len(s.Steps); shown++ {
			say("%s", s.Steps[shown])
		}
		if s.Error != "" {
			tail(l, s.Error)
			return errors.New(s.Error)
		}
		if err == nil && s.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			tail(l, l.log("machine"))
			return fmt.Errorf("the machine ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// keepSelf copies this program into the run folder: the machine starts it again long after, when the caller's may have
// been built anew.
func keepSelf(l layout) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return os.WriteFile(l.self(), data, 0o700)
}

// tail shows the end of the log that an error names, since down removes it.
func tail(l layout, text string) {
	for _, word := range strings.Fields(text) {
		if !strings.HasPrefix(word, l.Run) {
			continue
		}
		data, err := os.ReadFile(word)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		say("the end of %s:", word)
		for _, line := range lines[max(0, len(lines)-15):] {
			say("  %s", line)
		}
	}
}
