// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// cloneWay attaches with the mount interface of Linux 5.12 and later, on which a mount exists before it is in any path.
type cloneWay struct {
	// detached: the kernel clones a mount that is in no path (6.15). Otherwise the clone is taken right after attaching.
	detached bool
}

func (w cloneWay) create(options []option) (*os.File, error) { return newTmpfs(source, options) }

func (w cloneWay) release(handle *os.File) error { return handle.Close() }

// attach puts a read-only mount of the handle's tmpfs at target and returns the handle to write through from now on.
//
// What is moved to the target is read-only before it gets there. In a mount namespace whose mounts propagate to the host, the host's
// copy has the attributes of that instant for ever: read-only afterwards would leave it writable.
func (w cloneWay) attach(handle *os.File, target string) (*os.File, error) {
	if w.detached {
		return handle, attachClone(handle, target)
	}
	return attachItself(handle, target)
}

// attachClone leaves the handle as it is and attaches a clone.
func attachClone(handle *os.File, target string) error {
	clone, err := cloneOf(handle)
	if err != nil {
		return err
	}
	defer func() { _ = clone.Close() }()
	if err := setReadOnly(clone, true); err != nil {
		return err
	}
	return moveTo(clone, target)
}

// attachItself is for kernels that clone only mounts that are in a path:
//
//  1. Make the handle's own mount read-only.
//  2. Move it to the target.
//  3. Clone it, through its descriptor and not by its path, and make the clone writable: the new handle.
//
// A kill after 2 leaves a complete read-only volume, of which Adopt takes a handle.
func attachItself(handle *os.File, target string) (*os.File, error) {
	// 1.
	if err := setReadOnly(handle, true); err != nil {
		return handle, err
	}
	// 2.
	if err := moveTo(handle, target); err != nil {
		return handle, errors.Join(err, setReadOnly(handle, false))
	}
	// 3.
	clone, err := cloneOf(handle)
	if err != nil {
		return handle, errors.Join(err, unmountTop(target))
	}
	if err := setReadOnly(clone, false); err != nil {
		return handle, errors.Join(err, clone.Close(), unmountTop(target))
	}
	return clone, handle.Close()
}

func (w cloneWay) adopt(target string) (*os.File, error) {
	handle, err := cloneAt(target)
	if err != nil {
		return nil, err
	}
	if err := setReadOnly(handle, false); err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return handle, nil
}

// private mounts the daemon's own tmpfs at dir.
func (w cloneWay) private(dir string, options []option) error {
	f, err := newTmpfs(privateSource, options)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return moveTo(f, dir)
}

// newTmpfs makes a tmpfs that is in no path. Each option is set by a call of its own, so that no value can smuggle in another.
func newTmpfs(source string, options []option) (*os.File, error) {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	context := os.NewFile(uintptr(fd), "tmpfs context")
	defer func() { _ = context.Close() }()

	for _, o := range append([]option{{key: "source", value: source}}, options...) {
		if o.flag {
			err = unix.FsconfigSetFlag(fd, o.key)
		} else {
			err = unix.FsconfigSetString(fd, o.key, o.value)
		}
		if err != nil {
			return nil, fmt.Errorf("setting the tmpfs option %q: %w", o.key, explained(context, err))
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fmt.Errorf("creating a tmpfs: %w", explained(context, err))
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return nil, fmt.Errorf("creating a mount: %w", explained(context, err))
	}
	return os.NewFile(uintptr(mount), "tmpfs"), nil
}

// explained adds what the kernel has to say about a refused file system context: one message for each read.
func explained(context *os.File, err error) error {
	buf := make([]byte, 1024)
	var messages []string
	for len(messages) < 8 {
		n, readErr := unix.Read(int(context.Fd()), buf)
		if readErr != nil || n <= 0 {
			break
		}
		_, message, _ := strings.Cut(string(buf[:n]), " ") // "e ", "w " or "i " comes first
		messages = append(messages, strings.TrimSpace(message))
	}
	if len(messages) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(messages, "; "))
}

// cloneOf makes another mount of the same tmpfs, in no path.
func cloneOf(f *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// cloneAt makes another mount of what is at path, in no path. A link at the end of path is not followed.
func cloneAt(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path,
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// setReadOnly changes one mount, not the tmpfs and not its other mounts. It also takes the mount out of its peer group, so that
// what someone mounts below the target never shows up below the handle.
func setReadOnly(f *os.File, on bool) error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if on {
		attr.Attr_set = unix.MOUNT_ATTR_RDONLY
	} else {
		attr.Attr_clr = unix.MOUNT_ATTR_RDONLY
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &attr))
}

// moveTo moves a mount that is in no path to target. A link at the end of target is not followed.
func moveTo(f *os.File, target string) error {
	return os.NewSyscallError("move_mount", unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
}
