// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package scratch

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

// maker is set in the process that makes a folder, mounts something in it, and waits to be killed.
const maker = "SCRATCH_TEST_MAKER"

func TestMain(m *testing.M) {
	if os.Getenv(maker) == "" {
		mounttest.Main(m)
	}
	dir, err := Dir("leasefs-test-")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "mount"), 0o700)
	}
	if err == nil {
		err = syscall.Mount("tmpfs", filepath.Join(dir, "mount"), "tmpfs", 0, "")
	}
	fmt.Println(dir, err)
	select {}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestFolderOfAKilledProcessIsRemovedByTheNextWithItsMounts(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	foreign := filepath.Join(os.TempDir(), "leasefs-test-without-a-lock")
	ok(t, os.Mkdir(foreign, 0o700))
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), maker+"=1")
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	ok(t, err)
	left, problem, _ := strings.Cut(strings.TrimSpace(line), " ")
	if problem != "<nil>" {
		t.Fatal(problem)
	}

	first, err := Dir("leasefs-test-")
	ok(t, err)
	if !there(filepath.Join(left, "file")) {
		t.Error("the folder of a process that lives was removed")
	}
	ok(t, cmd.Process.Kill())
	_ = cmd.Wait() // "signal: killed"
	second, err := Dir("leasefs-test-")
	ok(t, err)
	if there(left) {
		t.Error("the folder of a process that was killed is still there")
	}
	for _, dir := range []string{first, second, foreign} {
		if !there(dir) {
			t.Errorf("%s was removed", dir)
		}
	}
	for _, dir := range []string{first, second} {
		ok(t, Remove(dir))
		if there(dir) {
			t.Errorf("%s was not removed", dir)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) != 1 {
		t.Errorf("left: %q, want only %q", left, foreign)
	}
}
