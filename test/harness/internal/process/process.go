// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process runs the real servers and the real driver that the harness starts, so that nothing is left behind:
// not after a test, and not after a test binary that was killed.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is a running child. All its output is in one log file.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// Start runs cmd with its output appended to the file log. The child is the leader of a process group of its own (a
// Ctrl-C at a terminal reaches only us, who stop it in order) and gets the signal death when this process dies.
//
// The kernel ties the death signal to the thread that made the child, not to the process, and Go ends threads: so one
// goroutine keeps its thread from the child's start to its end.
func Start(cmd *exec.Cmd, log string, death syscall.Signal) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", cmd.Path, err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = death

	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = out.Close() // the child has its own descriptor
		started <- err
		if err == nil {
			_ = cmd.Wait() // ProcessState says how it ended
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return p, nil
}

// PID returns the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running tells whether the child has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode returns the child's exit status once it has ended: -1 while it runs and when a signal ended it.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends sig to the child alone.
func (p *Process) Signal(sig syscall.Signal) error {
	if !p.Running() {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(sig)
}

// Kill ends the child and its process group with SIGKILL and waits until it is gone. Killing what has ended is no error.
func (p *Process) Kill() error {
	if !p.Running() {
		return nil
	}
	if err := syscall.Kill(-p.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing %s: %w", p.cmd.Path, err)
	}
	<-p.done
	return nil
}

// Stop sends sig and waits for the end; after patience, or when ctx ends, it kills.
func (p *Process) Stop(ctx context.Context, sig syscall.Signal, patience time.Duration) error {
	if err := p.Signal(sig); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return fmt.Errorf("stopping %s: %w", p.cmd.Path, err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s did not stop within %s of %s and was killed", p.cmd.Path, patience, sig)
}

// Log returns all that the child has written so far. A file that cannot be read is the text of its error: this is for
// people who look into a failure.
func (p *Process) Log() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Tail returns the last n lines of the log.
func (p *Process) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(p.Log(), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// Await calls ready about every 20 ms until it returns nil. It gives up when the child ends, or when ctx does, with
// ready's last error and the last lines of the log.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%s) before it was ready; its last lines:\n%s", p.cmd.Path, p.cmd.ProcessState, p.Tail(15))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (last: %w); its last lines:\n%s", p.cmd.Path, ctx.Err(), err, p.Tail(15))
		case <-tick.C:
		}
	}
}
