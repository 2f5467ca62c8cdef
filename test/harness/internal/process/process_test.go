// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(exec.Command("sh", "-c", script), filepath.Join(t.TempDir(), "log"), syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

func TestLogHasBothStreamsAndExitCodeIsTheChilds(t *testing.T) {
	p := start(t, "echo to stdout; echo to stderr >&2; exit 3")
	<-p.Done()
	if got, want := p.Log(), "to stdout\nto stderr\n"; got != want {
		t.Errorf("log = %q, want %q", got, want)
	}
	if got := p.Tail(1); got != "to stderr" {
		t.Errorf("tail = %q", got)
	}
	if p.ExitCode() != 3 {
		t.Errorf("exit code = %d, want 3", p.ExitCode())
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestKillEndsTheWholeGroup(t *testing.T) {
	p := start(t, "sleep 1000 & echo $!; wait")
	var child int
	err := p.Await(t.Context(), func(context.Context) (err error) {
		child, err = strconv.Atoi(strings.TrimSpace(p.Log()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, child)
	if err := p.Kill(); err != nil {
		t.Errorf("second kill: %v", err)
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	p := start(t, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	if err := p.Await(t.Context(), func(context.Context) error {
		if !strings.Contains(p.Log(), "ready") {
			return errors.New("not yet")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	err := p.Stop(t.Context(), syscall.SIGTERM, 100*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "did not stop") {
		t.Errorf("stop = %v", err)
	}
	if p.Running() {
		t.Error("still running")
	}
}

func TestAwaitSaysWhyWhenTheChildEndsFirst(t *testing.T) {
	p := start(t, "echo no such option >&2; exit 2")
	err := p.Await(t.Context(), func(context.Context) error { return errors.New("refused") })
	if err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("await = %v, want the child's own words", err)
	}
}

// The helper process below starts a child and is then killed: the child must go with it, even though the goroutine
// that asked for the child was on a thread that has ended since.
func TestChildDiesWithAKilledParent(t *testing.T) {
	if os.Getenv("PROCESS_TEST_PARENT") != "" {
		parent()
		return
	}
	log := filepath.Join(t.TempDir(), "parent")
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildDiesWithAKilledParent$")
	cmd.Env = append(os.Environ(), "PROCESS_TEST_PARENT="+filepath.Join(t.TempDir(), "child"))
	p, err := Start(cmd, log, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	var child int
	if err := p.Await(t.Context(), func(context.Context) (err error) {
		first, _, _ := strings.Cut(p.Log(), "\n")
		child, err = strconv.Atoi(first)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// Its threads' comings and goings must not have ended the child.
	time.Sleep(200 * time.Millisecond)
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child ended before its parent: %v", err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, child)
}

func parent() {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		p, err := Start(exec.Command("sleep", "1000"), os.Getenv("PROCESS_TEST_PARENT"), syscall.SIGKILL)
		if err != nil {
			panic(err)
		}
		println(p.PID())
		close(done)
	}()
	<-done
	select {}
}

func awaitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		// A zombie that nobody has reaped yet is gone too.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}
