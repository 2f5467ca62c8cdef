// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
)

// Volume is one tmpfs: the directory to write through and the privilege to attach it. Its methods are safe for concurrent use.
type Volume struct {
	*Dir
	way way
	dev uint64 // of the tmpfs; no other file system has it while the handle is open
}

func newVolume(w way, handle *os.File) (*Volume, error) {
	dev, err := deviceOf(handle)
	if err != nil {
		return nil, errors.Join(err, w.release(handle))
	}
	return &Volume{Dir: NewDir(handle), way: w, dev: dev}, nil
}

// checkOurs refuses a mount that is not the one that was looked at, or not a tmpfs with a generation in it.
func (v *Volume) checkOurs(dev uint64) error {
	tmpfs, err := isTmpfs(v.handle)
	if err != nil {
		return err
	}
	current, err := v.Current()
	if err != nil {
		return err
	}
	if !tmpfs || v.dev != dev || current == "" {
		return ErrForeign
	}
	return nil
}

// Attach makes the directory target, whose parent must exist, and mounts the volume there, read-only from the first instant for
// every mount namespace that sees it. If this volume is mounted there already, Attach does nothing; if something else is, the
// error matches ErrOccupied. A failed Attach leaves no mount, and no directory that it made.
func (v *Volume) Attach(target string) error {
	if err := v.attach(target); err != nil {
		return fmt.Errorf("attaching a volume at %s: %w", target, err)
	}
	return nil
}

func (v *Volume) attach(target string) error {
	if err := checkTarget(target); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.handle == nil {
		return os.ErrClosed
	}
	made, err := makeDir(target)
	if err != nil {
		return err
	}
	s, err := lookAt(target)
	switch {
	case err != nil:
		return err
	case !s.isDir:
		return errors.New("not a directory")
	case s.root && s.dev == v.dev:
		return nil
	case s.root:
		return ErrOccupied
	}
	handle, err := v.way.attach(v.handle, target)
	v.handle = handle
	if err != nil && made {
		err = errors.Join(err, removeDir(target))
	}
	return err
}

// At reports whether this volume, which must be open, is what is mounted, topmost, at target. It is one statx. An absent path is
// false.
func (v *Volume) At(target string) (bool, error) {
	s, err := lookAt(target)
	return s.root && s.dev == v.dev, err
}

// Close gives up the handle. The files live on as long as the volume is mounted somewhere.
func (v *Volume) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.handle == nil {
		return nil
	}
	err := v.way.release(v.handle)
	v.handle = nil
	return err
}
