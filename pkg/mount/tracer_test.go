// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracer runs a program and stops it at each system call that changes something, before the call is made.
//
// It begins where the program calls mark: from there on a seccomp filter of the program's stops it, at these calls alone. To
// stop it at all calls from its start would take a hundred times as many stops, each of them two changes of process.
type tracer struct {
	cmd *exec.Cmd
	// at is called at the n-th such call, counted from 0, with its name. When it returns true the program is killed there with
	// SIGKILL, and the call is not made.
	at func(n int, call string) (kill bool)
}

// tracedKey is in the environment of a traced program: not traced, a call that is to stop would fail.
const tracedKey = "LEASEFS_MOUNT_TRACED"

// mark tells the tracer to begin. Not traced, it does nothing.
func mark() error {
	if os.Getenv(tracedKey) == "" {
		return nil
	}
	return filter(slices.Collect(maps.Keys(changing)), unix.SECCOMP_RET_TRACE)
}

// changing names the system calls at which the tracer stops: those that change a mount, a directory or a file. A close is none:
// it can do no more than the kill itself, which closes everything.
var changing = map[uint32]string{
	unix.SYS_FSOPEN: "fsopen", unix.SYS_FSCONFIG: "fsconfig", unix.SYS_FSMOUNT: "fsmount", unix.SYS_OPEN_TREE: "open_tree",
	unix.SYS_MOUNT_SETATTR: "mount_setattr", unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount2",
	unix.SYS_MKDIRAT: "mkdirat", unix.SYS_OPENAT: "openat", unix.SYS_WRITE: "write", unix.SYS_FCHMOD: "fchmod",
	unix.SYS_FCHMODAT: "fchmodat", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2",
	unix.SYS_UNLINKAT: "unlinkat",
}

// syscallInfo is struct ptrace_syscall_info of ptrace(2) for a stop by seccomp; it is the same on every architecture.
type syscallInfo struct {
	op    uint8
	_     [3]uint8
	arch  uint32
	_, _  uint64
	nr    uint64
	args  [6]uint64
	spare [8]uint64
}

const (
	ptraceGetSyscallInfo = 0x420e
	stopBySeccomp        = 3
)

// run runs the program to its end and reports whether it was killed here.
func (tr *tracer) run(t *testing.T) (killed bool) {
	t.Helper()
	type result struct {
		killed bool
		status unix.WaitStatus
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // a tracee knows the thread that traces it; the thread ends with this goroutine
		var r result
		r.killed, r.status, r.err = tr.trace()
		done <- r
	}()
	r := <-done
	switch {
	case r.err != nil:
		t.Fatalf("tracing: %v", r.err)
	case r.killed && r.status.Signal() != unix.SIGKILL, !r.killed && (!r.status.Exited() || r.status.ExitStatus() != 0):
		t.Fatalf("the traced program ended with %#x, killed %v", uint32(r.status), r.killed)
	}
	return r.killed
}

func (tr *tracer) trace() (killed bool, status unix.WaitStatus, err error) {
	tr.cmd.Stderr = os.Stderr
	if tr.cmd.SysProcAttr == nil {
		tr.cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	tr.cmd.SysProcAttr.Ptrace = true
	tr.cmd.Env = append(tr.cmd.Environ(), tracedKey+"=1")
	if err := tr.cmd.Start(); err != nil {
		return false, 0, err
	}
	leader := tr.cmd.Process.Pid
	defer func() { _ = tr.cmd.Process.Release() }()

	// Only children of this thread are waited for: other tests have theirs.
	if _, err := unix.Wait4(leader, &status, unix.WALL|unix.WNOTHREAD, nil); err != nil {
		return false, status, err
	}
	const options = unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(leader, options); err != nil {
		return false, status, err
	}
	thread, signal, known := leader, 0, map[int]bool{leader: true}
	n := 0
	for {
		if err := unix.PtraceCont(thread, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return killed, status, err
		}
		thread, err = unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		if err != nil {
			return killed, status, err
		}
		signal = 0
		switch {
		case status.Exited() || status.Signaled():
			if thread == leader {
				return killed, status, nil
			}
		case status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
			call := stoppedAt(thread)
			if call == "" || killed {
				continue
			}
			if tr.at(n, call) {
				killed = true
				if err := unix.Kill(leader, unix.SIGKILL); err != nil {
					return killed, status, err
				}
			}
			n++
		case status.StopSignal() == unix.SIGTRAP: // another event of ptrace
		case status.StopSignal() == unix.SIGSTOP && !known[thread]: // a new thread's first stop
		default:
			signal = int(status.StopSignal())
		}
		known[thread] = true
	}
}

// stoppedAt returns the name of the changing call that a thread is about to make, "" when it is none.
func stoppedAt(thread int) string {
	var info syscallInfo
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(thread), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != stopBySeccomp {
		return ""
	}
	name := changing[uint32(info.nr)]
	switch {
	case name == "openat" && info.args[2]&unix.O_CREAT == 0, name == "write" && info.args[0] <= 2:
		name = ""
	}
	return name
}
