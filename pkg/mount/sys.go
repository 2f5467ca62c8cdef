// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// source is what our volumes show as their source in mountinfo; privateSource is that of the daemon's own tmpfs.
const (
	source        = "leasefs"
	privateSource = "leasefs-private"
)

// attributes are those of every mount of ours: no set-id programs, no devices, no programs at all.
const attributes = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// mountFlags are the same attributes for mount(2).
const mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// option is one mount option of a tmpfs. A flag has no value.
type option struct {
	key, value string
	flag       bool
}

// status is what one statx tells of a path.
type status struct {
	exists bool
	isDir  bool
	root   bool   // the root of a mount
	dev    uint64 // of the file system
}

// lookAt asks the kernel about path without following a link at its end and without setting off an automount. A path that does
// not exist is no error.
func lookAt(path string) (status, error) {
	var stx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &stx)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return status{}, nil
	}
	if err != nil {
		return status{}, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	s := status{exists: true, isDir: stx.Mode&unix.S_IFMT == unix.S_IFDIR, dev: unix.Mkdev(stx.Dev_major, stx.Dev_minor)}
	if stx.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		s.root = stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
		return s, nil
	}
	// A kernel before 5.8 does not tell. A tmpfs is a file system of its own, so its root differs from its parent's device.
	parent, err := device(filepath.Dir(path))
	s.root = err == nil && parent != s.dev
	return s, err
}

// device returns the device of the file system that path is on, following links.
func device(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Dev, nil
}

// deviceOf returns the device of the file system that f is on.
func deviceOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return st.Dev, nil
}

// isTmpfs reports whether f is on a tmpfs.
func isTmpfs(f *os.File) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false, &fs.PathError{Op: "fstatfs", Path: f.Name(), Err: err}
	}
	return st.Type == unix.TMPFS_MAGIC, nil
}

// usageAt asks the file system at path for its usage.
func usageAt(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	size := uint64(st.Bsize)
	return Usage{
		TotalBytes:      scaled(st.Blocks, size),
		UsedBytes:       scaled(st.Blocks-st.Bfree, size),
		AvailableBytes:  scaled(st.Bavail, size),
		TotalInodes:     int64(st.Files),
		UsedInodes:      int64(st.Files - st.Ffree),
		AvailableInodes: int64(st.Ffree),
	}, nil
}

// scaled multiplies without overflow.
func scaled(blocks, size uint64) int64 {
	const most = 1<<63 - 1
	if hi, lo := bits.Mul64(blocks, size); hi == 0 && lo <= most {
		return int64(lo)
	}
	return most
}

// unmountTop takes away the topmost mount at target. When it is busy it is detached: it leaves every path now and ends when its
// last user does.
func unmountTop(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil {
		return &fs.PathError{Op: "umount", Path: target, Err: err}
	}
	return nil
}

// makeDir makes a directory whose parent exists, and reports whether it was not there before.
func makeDir(dir string) (made bool, err error) {
	err = os.Mkdir(dir, 0o750)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// removeDir removes an empty directory and nothing else. An absent one is no error.
func removeDir(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	} else if errors.Is(err, unix.ENOTDIR) {
		if s, lookErr := lookAt(dir); lookErr != nil || s.exists {
			return errors.Join(&fs.PathError{Op: "rmdir", Path: dir, Err: err}, lookErr)
		}
	}
	return nil
}

// openPath opens a directory as a place only: not to read it, and without permission to.
func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// kernelRelease is what uname -r prints.
func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}
