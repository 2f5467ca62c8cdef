// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A scenario is what a daemon does, run in a process of its own: the test binary, started again. Its name and arguments are in
// the environment.
const (
	scenarioKey  = "LEASEFS_MOUNT_SCENARIO"
	argumentsKey = "LEASEFS_MOUNT_ARGUMENTS"
)

type arguments struct {
	Attach string // a forced way; "": what the kernel offers
	Dir    string // staging is below it
	Target string
}

// scenarios get arguments and return an error, which ends the process with status 1.
var scenarios = map[string]func(arguments) error{
	// publish makes a volume with the old files and attaches it.
	"publish": func(a arguments) error {
		m, err := a.mounter()
		if err != nil {
			return err
		}
		old, _ := few()
		if err := mark(); err != nil {
			return err
		}
		v, err := m.Create(roomy)
		if err != nil {
			return err
		}
		_, err = v.Fill(old)
		return errors.Join(err, v.Attach(a.Target), v.Close())
	},
	// rotate adopts a volume and swaps to the new files.
	"rotate": func(a arguments) error {
		m, err := a.mounter()
		if err != nil {
			return err
		}
		_, new := few()
		if err := mark(); err != nil {
			return err
		}
		v, err := m.Adopt(a.Target)
		if err != nil {
			return err
		}
		gen, _, err := v.Stage(new)
		return errors.Join(err, v.Swap(gen), v.Prune(), v.Close())
	},
	// discard stages the new files and thinks better of it.
	"discard": func(a arguments) error {
		m, err := a.mounter()
		if err != nil {
			return err
		}
		_, new := few()
		if err := mark(); err != nil {
			return err
		}
		v, err := m.Adopt(a.Target)
		if err != nil {
			return err
		}
		gen, _, err := v.Stage(new)
		return errors.Join(err, v.Discard(gen), v.Close())
	},
	// reattach brings back a volume that was unmounted from outside.
	"reattach": func(a arguments) error {
		m, err := a.mounter()
		if err != nil {
			return err
		}
		v, err := m.Adopt(a.Target)
		if err != nil {
			return err
		}
		if err := mark(); err != nil {
			return err
		}
		return errors.Join(unix.Unmount(a.Target, 0), v.Attach(a.Target), v.Close())
	},
	"remove": func(a arguments) error {
		m, err := a.mounter()
		if err != nil {
			return err
		}
		if err := mark(); err != nil {
			return err
		}
		return m.Remove(a.Target)
	},
	"private": func(a arguments) error {
		m, err := a.mounter()
		if err != nil {
			return err
		}
		if err := mark(); err != nil {
			return err
		}
		return m.Private(a.Target, 1<<20)
	},
	// "write" is an unprivileged process that got a volume's descriptor as number 3; it writes the old files and then the new.
	"write": func(arguments) error {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil || !strings.Contains(string(status), "\nCapEff:\t0000000000000000\n") {
			return fmt.Errorf("this process has capabilities: %w", err)
		}
		old, new := few()
		d := NewDir(os.NewFile(3, "volume"))
		for _, files := range [][]File{old, new} {
			gen, _, err := d.Stage(files)
			if err := errors.Join(err, d.Swap(gen), d.Prune()); err != nil {
				return err
			}
		}
		return d.Close()
	},
	// "late read-only" makes the mistake that the package avoids.
	"late read-only": func(a arguments) error {
		f, err := newTmpfs(source, nil)
		if err != nil {
			return err
		}
		if err := moveTo(f, a.Target); err != nil {
			return err
		}
		if err := setReadOnly(f, true); err != nil {
			return err
		}
		if err := os.WriteFile(a.Target+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("in its own namespace: %w", err)
		}
		return f.Close()
	},
	// "old kernel" answers ENOSYS to the calls that Dir names, separated by commas, and then does all that a daemon does.
	"old kernel": func(a arguments) error {
		if err := forbid(strings.Split(a.Dir, ",")); err != nil {
			return err
		}
		m := New(a.Target + "-staging")
		support, err := m.Probe(context.Background())
		if err != nil {
			return err
		}
		if support.Attach != a.Attach || len(support.Notes) == 0 {
			return fmt.Errorf("support: %+v", support)
		}
		old, new := few()
		v, err := m.Create(roomy)
		if err != nil {
			return err
		}
		_, err = v.Fill(old)
		if err := errors.Join(err, v.Attach(a.Target), v.Close()); err != nil {
			return err
		}
		if err := os.WriteFile(a.Target+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("the target can be written: %w", err)
		}
		w, err := m.Adopt(a.Target)
		if err != nil {
			return err
		}
		gen, _, err := w.Stage(new)
		if err := errors.Join(err, w.Swap(gen), w.Prune()); err != nil {
			return err
		}
		got, err := read(a.Target)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want(new)) {
			return fmt.Errorf("files: %v, %w", got, err)
		}
		return errors.Join(w.Close(), m.Remove(a.Target), m.Private(a.Target, 1<<20))
	},
}

func (a arguments) mounter() (*Mounter, error) {
	m := New(a.Dir + "/staging")
	m.force = a.Attach
	_, err := m.Probe(context.Background())
	return m, err
}

// scenario is a command that runs a scenario.
func scenario(t *testing.T, name string, a arguments) *exec.Cmd {
	t.Helper()
	encoded, err := json.Marshal(a)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), scenarioKey+"="+name, argumentsKey+"="+string(encoded))
	return cmd
}

// runScenario is the main function of a scenario's process.
func runScenario(name string) int {
	var a arguments
	err := json.Unmarshal([]byte(os.Getenv(argumentsKey)), &a)
	if err == nil {
		err = scenarios[name](a)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "scenario %q: %v\n", name, err)
		return 1
	}
	return 0
}

// runToEnd runs a scenario that must end well.
func runToEnd(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// numbers of the system calls that a test forbids.
var numbers = map[string]uint32{
	"fsopen": unix.SYS_FSOPEN, "mount_setattr": unix.SYS_MOUNT_SETATTR, "open_tree": unix.SYS_OPEN_TREE, "move_mount": unix.SYS_MOVE_MOUNT,
}

// forbid makes the kernel answer ENOSYS to some calls of this process for the rest of its life, as an older kernel does.
func forbid(calls []string) error {
	var list []uint32
	for _, call := range calls {
		list = append(list, numbers[call])
	}
	return filter(list, unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS))
}

// filter has the kernel do something else at some calls of this process, for the rest of its life: seccomp(2).
func filter(calls []uint32, action uint32) error {
	const number = 0 // offset of the call's number in struct seccomp_data
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number}}
	for _, call := range calls {
		code = append(code,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action})
	}
	code = append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
