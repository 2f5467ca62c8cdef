// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package scratch makes the temporary folders of the harness's servers and nodes, and removes those of processes that
// were killed: nobody cleans up after a SIGKILL, but the next one who needs a folder can.
package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/moby/sys/mountinfo"
)

// lockName is a file in each folder. The process that made the folder holds a lock on it until it ends, however it ends.
const lockName = ".lock"

// held keeps the locks' files, or the garbage collector would close them.
var held struct {
	sync.Mutex
	files map[string]*os.File
}

// Dir makes a folder for this process, named prefix and some digits, in the system's folder for temporary files. [Remove]
// removes it. Names are short: unix sockets are made below.
//
//  1. Folders of the same prefix whose maker has ended are removed, with what is mounted in them. Those in which there is
//     no lock are not ours: they stay.
//  2. The new folder is made under another name and gets its own only with the lock in it, taken: so it is at no time one
//     of those of step 1.
func Dir(prefix string) (string, error) {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*", lockName)) // the pattern is a good one
	for _, lock := range left {
		if file, err := take(lock); err == nil {
			_ = wipe(filepath.Dir(lock)) // it is another's, perhaps another user's: what cannot be removed stays
			_ = file.Close()
		}
	}
	made, err := os.MkdirTemp("", "new-"+prefix)
	if err == nil {
		made, err = filepath.EvalSymlinks(made) // as the kernel's list of mounts has it
	}
	if err != nil {
		return "", fmt.Errorf("making a temporary folder: %w", err)
	}
	dir := filepath.Join(filepath.Dir(made), filepath.Base(made)[len("new-"):])
	file, err := os.OpenFile(filepath.Join(made, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(made, dir)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("making a temporary folder: %w", err), os.RemoveAll(made))
	}
	held.Lock()
	defer held.Unlock()
	if held.files == nil {
		held.files = map[string]*os.File{}
	}
	held.files[dir] = file
	return dir, nil
}

// Remove unmounts all that is mounted below dir in this mount namespace, and removes dir. It need not come from [Dir].
func Remove(dir string) error {
	err := wipe(dir)
	held.Lock()
	defer held.Unlock()
	if file := held.files[dir]; file != nil {
		_ = file.Close() // the folder is gone, or its lock is free for whoever removes it next
		delete(held.files, dir)
	}
	return err
}

// take opens a lock file and locks it; an error if another process has it.
func take(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// wipe removes a folder only after the last mount below it is gone: what was mounted is not to be emptied.
func wipe(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("listing the mounts below %s: %w", dir, err)
	}
	for _, m := range slices.Backward(mounts) {
		if err := syscall.Unmount(m.Mountpoint, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", m.Mountpoint, err)
		}
	}
	return os.RemoveAll(dir)
}
