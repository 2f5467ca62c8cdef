// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// bindWay attaches with mount(2) alone, for kernels before 5.12 and for sandboxes that forbid the newer calls. A mount made so is
// always in a path, so a writable mount of each volume stands below a directory that only the daemon's user can enter, on a private
// mount that propagates nowhere. The target gets a bind of a read-only bind of it, and so is read-only from the first instant here
// too: a bind takes over the attributes of what it binds.
type bindWay struct {
	staging string // the daemon's own directory

	mu   sync.Mutex
	base string // the private mount below staging, once it is made
}

// open makes the private mount once. What an earlier process left of it is taken away first, with the writable mounts on it.
func (w *bindWay) open() (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.base != "" {
		return w.base, nil
	}
	if w.staging == "" {
		return "", errors.New("no staging directory: this kernel attaches only through one")
	}
	base := filepath.Join(w.staging, "attach")
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", fmt.Errorf("making the staging directory: %w", err)
	}
	for {
		s, err := lookAt(base)
		if err != nil {
			return "", err
		}
		if !s.isDir {
			return "", fmt.Errorf("staging directory %s: not a directory", base)
		}
		if !s.root {
			break
		}
		if err := unix.Unmount(base, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return "", fmt.Errorf("detaching the staging mount %s: %w", base, err)
		}
	}
	if err := unix.Mount(privateSource, base, "tmpfs", mountFlags, "mode=0700,size=64k"); err != nil {
		return "", fmt.Errorf("mounting the staging directory %s: %w", base, err)
	}
	if err := unix.Mount("", base, "", unix.MS_PRIVATE, ""); err != nil {
		return "", errors.Join(fmt.Errorf("making the staging mount %s private: %w", base, err), unmountTop(base))
	}
	w.base = base
	return base, nil
}

// place makes a fresh directory to mount on.
func (w *bindWay) place() (string, error) {
	base, err := w.open()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(base, "volume-")
}

// drop takes away a mount and its place. The mount may be in use: it ends with its last user.
func drop(place string) error {
	err := unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // not a mount, or gone
		err = nil
	}
	return errors.Join(err, removeDir(place))
}

func (w *bindWay) create(options []option) (*os.File, error) {
	place, err := w.place()
	if err != nil {
		return nil, err
	}
	if err := mountTmpfs(source, place, options); err != nil {
		return nil, errors.Join(err, drop(place))
	}
	return w.handle(place)
}

// handle opens a writable mount and remembers its place as the file's name.
func (w *bindWay) handle(place string) (*os.File, error) {
	f, err := openPath(place)
	if err != nil {
		return nil, errors.Join(err, drop(place))
	}
	return f, nil
}

func (w *bindWay) release(handle *os.File) error {
	return errors.Join(handle.Close(), drop(handle.Name()))
}

func (w *bindWay) attach(handle *os.File, target string) (*os.File, error) {
	place, err := w.place()
	if err != nil {
		return handle, err
	}
	err = bind(handle.Name(), place, true)
	if err == nil {
		err = bindOnto(place, target)
	}
	return handle, errors.Join(err, drop(place))
}

func (w *bindWay) adopt(target string) (*os.File, error) {
	place, err := w.place()
	if err != nil {
		return nil, err
	}
	if err := bind(target, place, false); err != nil {
		return nil, errors.Join(err, drop(place))
	}
	return w.handle(place)
}

func (w *bindWay) private(dir string, options []option) error {
	return mountTmpfs(privateSource, dir, options)
}

// bind binds from at place and makes that one mount private and read-only or writable.
func bind(from, place string, readOnly bool) error {
	if err := unix.Mount(from, place, "", unix.MS_BIND, ""); err != nil {
		return &fs.PathError{Op: "bind", Path: from, Err: err}
	}
	if err := unix.Mount("", place, "", unix.MS_PRIVATE, ""); err != nil {
		return &fs.PathError{Op: "make private", Path: place, Err: err}
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | mountFlags)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", place, "", flags, ""); err != nil {
		return &fs.PathError{Op: "remount", Path: place, Err: err}
	}
	return nil
}

// bindOnto binds from at target. mount(2) would follow a link at the end of target, so the target is opened first.
func bindOnto(from, target string) error {
	f, err := openPath(target)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Mount(from, descriptorPath(f), "", unix.MS_BIND, ""); err != nil {
		return &fs.PathError{Op: "bind", Path: target, Err: err}
	}
	return nil
}

// mountTmpfs mounts a tmpfs at dir. Here the options are one string, so a value that could end one option and begin another is
// refused, and one with a comma is quoted, as the kernel's parser of SELinux contexts expects.
func mountTmpfs(source, dir string, options []option) error {
	var parts []string
	for _, o := range options {
		switch {
		case o.flag:
			parts = append(parts, o.key)
		case strings.ContainsAny(o.value, "\"\\\n"):
			return fmt.Errorf("setting the tmpfs option %q: its value has a character that is not allowed", o.key)
		case strings.Contains(o.value, ","):
			parts = append(parts, o.key+`="`+o.value+`"`)
		default:
			parts = append(parts, o.key+"="+o.value)
		}
	}
	if err := unix.Mount(source, dir, "tmpfs", mountFlags, strings.Join(parts, ",")); err != nil {
		return &fs.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	return nil
}
