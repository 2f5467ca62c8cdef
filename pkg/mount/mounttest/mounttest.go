// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package mounttest runs the tests of a package where they can mount.
package mounttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// inside marks a process that Main started.
const inside = "LEASEFS_MOUNTTEST"

// Main runs the tests of a package in a mount namespace of their own, so that no mount of theirs is seen elsewhere or outlives them:
// as root directly, and otherwise as root of a user namespace of their own. It does so by running the test binary again. Call it
// from TestMain with its *testing.M, or a wrapper of it, as the last thing; it does not return.
//
// Where that is forbidden it says so and ends, with status 1 when CI=true.
func Main(m interface{ Run() int }) {
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	status, err := again(os.Getuid() != 0)
	if errors.Is(err, syscall.EPERM) && os.Getuid() == 0 { // root without CAP_SYS_ADMIN, as in most containers
		status, err = again(true)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "NOT RUN: these tests mount file systems; run them as root or allow user namespaces: %v\n", err)
		if os.Getenv("CI") == "true" {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(status)
}

// InUserNamespace reports whether the tests run as root of a user namespace only, where tmpfs has no noswap and where other
// users and groups may not exist.
func InUserNamespace() bool {
	everyone := []string{"0", "0", "4294967295"} // user_namespaces(7): the map of the initial one
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(users)), everyone)
}

// NeedRoot ends a test that must act as other users when the tests run in a user namespace: it fails when CI=true and is skipped,
// with the reason, otherwise.
func NeedRoot(t testing.TB) {
	t.Helper()
	switch {
	case !InUserNamespace():
	case os.Getenv("CI") == "true":
		t.Fatal("this test acts as other users: run it as root")
	default:
		t.Skip("NOT RUN: this test acts as other users: run it as root")
	}
}

// again runs the test binary in new namespaces and returns its exit status.
func again(userNamespace bool) (int, error) {
	// The child gets a signal when the thread that started it ends, so this thread must stay.
	runtime.LockOSThread()

	// Unshareflags and not Cloneflags: with it Go also makes every mount private, so that nothing propagates out.
	attributes := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if userNamespace {
		attributes.Cloneflags = syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = attributes

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting the tests in namespaces of their own (uid %d): %w", os.Getuid(), err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may be gone already
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// TempDir returns a directory for one test. At the test's end, whatever is mounted below it is taken away, and then the directory.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, target := range slices.Backward(Mounts(t, dir)) {
			if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
				t.Errorf("unmounting %s after the test: %v", target, err)
			}
		}
	})
	return dir
}

// Mounts lists the mount points at and below dir, oldest first; a stacked one as often as it is mounted.
func Mounts(t testing.TB, dir string) []string {
	t.Helper()
	var found []string
	for _, line := range Lines(t, dir) {
		found = append(found, strings.ReplaceAll(strings.Fields(line)[4], `\040`, " "))
	}
	return found
}

// Lines lists the lines of mountinfo (proc_pid_mountinfo(5)) of the mounts at and below dir, oldest first.
func Lines(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(list)) {
		if path := strings.Fields(line)[4]; path == dir || strings.HasPrefix(path, dir+"/") {
			found = append(found, line)
		}
	}
	return found
}
