// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// partOf is in the environment of every process of a run but those in pods; its value is the run folder. It is how down
// finds them, whatever became of the run folder and whoever was killed.
const partOf = "LEASEFS_NODE_PART_OF"

// down removes a run. It needs nothing to work but the run folder's name, so that it also ends a run that was killed in
// part, or whose folder is gone.
//  1. Kill. With the machine's first process die all others of its namespaces, and with the namespaces the mounts, the
//     interfaces and the addresses. The pods' cgroups are looked at too, should only they be left.
//  2. Remove the cgroups, which are empty now.
//  3. Compare the machine with what up saw, then remove the run folder.
func down(run string) error {
	l := layout{Run: run}
	if err := killAll(l); err != nil {
		return err
	}
	if err := removeCgroups(l); err != nil {
		return err
	}
	if left := mountsBelow(run); len(left) != 0 {
		return fmt.Errorf("mounts are left below %s, which is not removed: %s", run, strings.Join(left, ", "))
	}
	changed := compare(l)
	if err := os.RemoveAll(run); err != nil {
		return err
	}
	if len(changed) != 0 {
		return fmt.Errorf("not as it was before up: %s", strings.Join(changed, "; "))
	}
	return nil
}

func killAll(l layout) error {
	spare := ancestors()
	deadline := time.Now().Add(30 * time.Second)
	for {
		victims := slices.DeleteFunc(append(marked(l.Run), inCgroups(l.cgroup())...), func(pid int) bool { return spare[pid] })
		if len(victims) == 0 {
			return nil
		}
		for _, pid := range victims {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes that do not end: %v", victims)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ancestors are this process and those that called it: down may be called from a test that is part of the run.
func ancestors() map[int]bool {
	out := map[int]bool{}
	for pid := os.Getpid(); pid > 0; {
		out[pid] = true
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			break
		}
		// After the program's name, which may hold anything but ends with the last parenthesis: state, parent.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			break
		}
	}
	return out
}

// marked are the processes that belong to a run, or with "" to any run. A dead one has no environment.
func marked(run string) []int {
	want := []byte(partOf + "=" + run)
	var pids []int
	for _, pid := range processes() {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.Equal(v, want) || run == "" && bytes.HasPrefix(v, want) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// supervisorPID is the process of this machine that is the first one of a run's "machine" or "node", or 0.
func supervisorPID(l layout, role string) int {
	for _, pid := range marked(l.Run) {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		if args := strings.Split(string(cmdline), "\x00"); len(args) > 1 && args[0] == l.self() && args[1] == role {
			return pid
		}
	}
	return 0
}

// cgroupRoots are the mount points of all cgroup hierarchies.
func cgroupRoots() []string {
	var roots []string
	for _, m := range mounts() {
		if m.kind == "cgroup" || m.kind == "cgroup2" {
			roots = append(roots, m.point)
		}
	}
	return roots
}

func inCgroups(name string) []int {
	var pids []int
	for _, root := range cgroupRoots() {
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			for line := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// removeCgroups removes the run's cgroups, the innermost first. A cgroup is busy for a moment after its last process.
func removeCgroups(l layout) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		var last error
		for _, root := range cgroupRoots() {
			last = errors.Join(last, removeCgroup(filepath.Join(root, l.cgroup())))
		}
		if last == nil || time.Now().After(deadline) {
			return last
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func removeCgroup(dir string) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	var last error
	for _, d := range slices.Backward(dirs) {
		// Not os.Remove, whose second try, to unlink, hides why the first failed.
		if err := syscall.Rmdir(d); err != nil && !errors.Is(err, syscall.ENOENT) {
			last = fmt.Errorf("removing the cgroup %s: %w", d, err)
		}
	}
	return last
}

type mount struct{ point, kind string }

// mounts are this process's mounts, from /proc/self/mountinfo (see proc(5)).
func mounts() []mount {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []mount
	for line := range strings.Lines(string(data)) {
		head, tail, ok := strings.Cut(line, " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if ok && len(fields) > 4 && len(rest) > 0 {
			out = append(out, mount{point: fields[4], kind: rest[0]})
		}
	}
	return out
}

func mountsBelow(dir string) []string {
	var out []string
	for _, m := range mounts() {
		if m.point == dir || strings.HasPrefix(m.point, dir+"/") {
			out = append(out, m.point)
		}
	}
	return out
}

// scene is what of the machine a run could change if it were not well kept apart.
type scene struct {
	Kernel  map[string]string // settings
	Links   []string          // network interfaces with their addresses
	Folders []string          // folders that nodes have, as far as they exist
}

// nodeFolders are those that a kubelet and its runtime make on a machine that they have for themselves.
var nodeFolders = []string{
	"/etc/cni", "/opt/cni", "/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/containerd", "/var/lib/kubelet",
	"/var/log/containers", "/var/log/pods",
}

func observe() (scene, error) {
	s := scene{Kernel: map[string]string{}}
	names := []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "kernel/hostname"}
	for name := range kernelSettings {
		names = append(names, name)
	}
	for _, name := range names {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
		s.Kernel[name] = strings.TrimSpace(string(value))
	}
	links, err := net.Interfaces()
	if err != nil {
		return s, err
	}
	for _, link := range links {
		addresses, err := link.Addrs()
		if err != nil {
			return s, err
		}
		s.Links = append(s.Links, fmt.Sprint(link.Name, " ", addresses))
	}
	for _, dir := range nodeFolders {
		if _, err := os.Stat(dir); err == nil {
			s.Folders = append(s.Folders, dir)
		}
	}
	return s, nil
}

// compare says what is different from what up saw. A run that was ended before it noted that has changed nothing.
func compare(l layout) []string {
	data, err := os.ReadFile(l.path("before.json"))
	if err != nil {
		return nil
	}
	var before scene
	if json.Unmarshal(data, &before) != nil {
		return nil
	}
	now, err := observe()
	if err != nil {
		return []string{err.Error()}
	}
	var changed []string
	for name, value := range before.Kernel {
		if now.Kernel[name] != value {
			changed = append(changed, fmt.Sprintf("%s was %q, is %q", name, value, now.Kernel[name]))
		}
	}
	for _, link := range now.Links {
		if !slices.Contains(before.Links, link) {
			changed = append(changed, "new or other interface "+link)
		}
	}
	for _, dir := range now.Folders {
		if !slices.Contains(before.Folders, dir) {
			changed = append(changed, "new folder "+dir)
		}
	}
	return changed
}

// leftovers looks for anything of any run on this machine, without knowing of one.
func leftovers(run string) []string {
	var left []string
	spare := ancestors()
	for _, pid := range marked("") {
		if !spare[pid] {
			left = append(left, fmt.Sprintf("process %d", pid))
		}
	}
	for _, root := range cgroupRoots() {
		found, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
		for _, dir := range found {
			left = append(left, "cgroup "+dir)
		}
	}
	for _, point := range mountsBelow(run) {
		left = append(left, "mount "+point)
	}
	for _, m := range mounts() {
		if strings.HasPrefix(m.point, "/var/lib/kubelet/") {
			left = append(left, "mount "+m.point)
		}
	}
	links, _ := net.Interfaces()
	for _, link := range links {
		addresses, _ := link.Addrs()
		if text := fmt.Sprint(addresses); link.Name == "cni0" || strings.Contains(text, nodeIP+"/") || strings.Contains(text, serviceIP+"/") {
			left = append(left, "interface "+link.Name+" "+text)
		}
	}
	if _, err := os.Stat(run); err == nil {
		left = append(left, "folder "+run)
	}
	return left
}
