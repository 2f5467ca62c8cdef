// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	mountutils "k8s.io/mount-utils"
)

// The ways to attach, best first; see Support.Attach.
const (
	// AttachCloneDetached (Linux 6.15): a volume is in no path until a read-only clone of it is moved to the target.
	AttachCloneDetached = "clone-detached"
	// AttachCloneAttached (Linux 5.12): the same, except that the writable handle is a clone taken after attaching.
	AttachCloneAttached = "clone-attached"
	// AttachBindStaged (any): mount(2) alone, through the staging directory; see bindWay.
	AttachBindStaged = "bind-staged"
)

// Support is what the kernel offers, as Probe found it.
type Support struct {
	Noswap bool     // pages of volumes are never written to swap (Linux 6.4, not in a user namespace)
	Attach string   // one of the Attach constants; with each the target is read-only from the first instant
	Kernel string   // release of the kernel
	Notes  []string // for an administrator: what is missing and what that means
}

// Usage is what a volume holds and has room for.
type Usage struct {
	TotalBytes, UsedBytes, AvailableBytes    int64
	TotalInodes, UsedInodes, AvailableInodes int64
}

// Shape is what a volume is made with. It does not change afterwards.
type Shape struct {
	// Size is in bytes and must be positive. Everything takes whole pages: each file of each generation, and each link to a name
	// of more than 120 bytes.
	Size int64
	// Inodes must be positive. Each file and directory of each generation takes one, each top-level link one, the volume itself
	// five: its root, the generations' directories, and the data link with its successor.
	Inodes int64
	UID    uint32  // owner of all files; 0 is root
	GID    *uint32 // group of all files, with directories 2750; nil: root's group and directories 0755
	// SELinuxContext labels all files, such as system_u:object_r:container_file_t:s0. Empty, or a kernel without SELinux: no label.
	SELinuxContext string
}

// way is one way to make and attach a volume.
type way interface {
	create([]option) (handle *os.File, err error)
	// attach puts a read-only mount at target and returns the handle to use from now on, on an error too.
	attach(handle *os.File, target string) (*os.File, error)
	adopt(target string) (handle *os.File, err error)
	release(handle *os.File) error
	private(dir string, options []option) error
}

// Mounter makes, finds and removes volumes. It is safe for concurrent use; what concerns one target must come one after the
// other.
type Mounter struct {
	staging string
	force   string // tests: an Attach constant instead of what the kernel offers

	mu     sync.Mutex
	probed *probed
}

// New returns a Mounter. staging is a directory of the daemon's own, for one daemon at a time; it is used, and made, only where the
// kernel offers nothing but AttachBindStaged. New itself does nothing.
func New(staging string) *Mounter { return &Mounter{staging: staging} }

// Probe finds out what the kernel offers. It runs once; later calls return what the first one found.
func (m *Mounter) Probe(ctx context.Context) (Support, error) {
	if err := ctx.Err(); err != nil {
		return Support{}, err
	}
	p, err := m.probe()
	if err != nil {
		return Support{}, err
	}
	return p.support, nil
}

// Prepare makes the directory target, whose parent must exist, unless it is there. Attach does so too; this is for who has time
// before it. Remove takes the directory away.
func (m *Mounter) Prepare(target string) error {
	err := checkTarget(target)
	if err == nil {
		_, err = makeDir(target)
	}
	if err != nil {
		return fmt.Errorf("preparing %s: %w", target, err)
	}
	return nil
}

// Create makes an empty volume that is in no path.
func (m *Mounter) Create(shape Shape) (*Volume, error) {
	p, err := m.probe()
	if err != nil {
		return nil, err
	}
	options, err := p.options(shape)
	if err != nil {
		return nil, fmt.Errorf("creating a volume: %w", err)
	}
	handle, err := p.way.create(options)
	if err != nil {
		return nil, fmt.Errorf("creating a volume: %w", err)
	}
	return newVolume(p.way, handle)
}

// Adopt takes the writable handle of the volume that is mounted at target, after a restart, and removes what a kill left in
// it: temporary links and every generation but the current one. The error matches ErrNotMounted when nothing is mounted at
// target and ErrForeign when it is not a volume of ours.
func (m *Mounter) Adopt(target string) (*Volume, error) {
	v, err := m.adopt(target)
	if err != nil {
		return nil, fmt.Errorf("adopting the volume at %s: %w", target, err)
	}
	return v, nil
}

func (m *Mounter) adopt(target string) (*Volume, error) {
	if err := checkTarget(target); err != nil {
		return nil, err
	}
	p, err := m.probe()
	if err != nil {
		return nil, err
	}
	s, err := lookAt(target)
	if err != nil {
		return nil, err
	}
	if !s.root {
		return nil, ErrNotMounted
	}
	handle, err := p.way.adopt(target)
	if err != nil {
		return nil, err
	}
	v, err := newVolume(p.way, handle)
	if err != nil {
		return nil, err
	}
	if err := v.checkOurs(s.dev); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	if err := v.repair(); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// Mounted reports whether target is the root of a mount. It is one statx. An absent path is false.
func (m *Mounter) Mounted(target string) (bool, error) {
	s, err := lookAt(target)
	return s.root, err
}

// Usage asks the file system at target. The error matches ErrNotMounted when nothing is mounted there.
func (m *Mounter) Usage(target string) (Usage, error) {
	s, err := lookAt(target)
	if err == nil && !s.root {
		err = ErrNotMounted
	}
	var u Usage
	if err == nil {
		u, err = usageAt(target)
	}
	if err != nil {
		return Usage{}, fmt.Errorf("reading the usage of %s: %w", target, err)
	}
	return u, nil
}

// maxStacked bounds how many mounts Remove takes from one target.
const maxStacked = 1000

// Remove takes away every mount at target and then the directory, if it is empty. It never removes a file. An absent target is
// no error, so Remove can be repeated.
func (m *Mounter) Remove(target string) error {
	if err := m.remove(target); err != nil {
		return fmt.Errorf("removing %s: %w", target, err)
	}
	return nil
}

func (m *Mounter) remove(target string) error {
	if err := checkTarget(target); err != nil {
		return err
	}
	for range maxStacked {
		s, err := lookAt(target)
		switch {
		case err != nil && !corrupted(err):
			return err
		case err == nil && !s.root:
			return removeDir(target)
		}
		if unmountErr := unmountTop(target); unmountErr != nil {
			return errors.Join(err, unmountErr)
		}
	}
	return fmt.Errorf("more than %d mounts are stacked there", maxStacked)
}

// corrupted reports whether an error of looking at a path means that a broken mount is there, which can be unmounted.
func corrupted(err error) bool {
	var path *os.PathError
	return errors.As(err, &path) && mountutils.IsCorruptedMnt(path)
}

// Private mounts the daemon's own tmpfs at dir, which it makes if need be: mode 0700, size bytes, noswap where the kernel
// offers it. If one is mounted there already, it stays as it is, with its files: they outlive a restart.
func (m *Mounter) Private(dir string, size int64) error {
	if err := m.private(dir, size); err != nil {
		return fmt.Errorf("mounting the private tmpfs at %s: %w", dir, err)
	}
	return nil
}

func (m *Mounter) private(dir string, size int64) error {
	if err := checkTarget(dir); err != nil {
		return err
	}
	p, err := m.probe()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := lookAt(dir)
	if err != nil {
		return err
	}
	if !s.isDir {
		return errors.New("not a directory")
	}
	if !s.root {
		return p.way.private(dir, p.privateOptions(size))
	}
	f, err := openPath(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if tmpfs, err := isTmpfs(f); err != nil || !tmpfs || info.Mode().Perm() != 0o700 {
		return errors.Join(ErrOccupied, err)
	}
	return nil
}

// checkTarget refuses a path that cannot be meant: a relative one, one with ".." in it, the root of everything.
func checkTarget(target string) error {
	if !filepath.IsAbs(target) || filepath.Clean(target) != strings.TrimSuffix(target, "/") {
		return fmt.Errorf("path %q is not absolute and clean", target)
	}
	return nil
}

// options are the mount options of a volume's tmpfs.
func (p *probed) options(s Shape) ([]option, error) {
	if s.Size <= 0 || s.Inodes <= 0 {
		return nil, fmt.Errorf("size %d and inodes %d must be positive", s.Size, s.Inodes)
	}
	options := []option{
		{key: "size", value: strconv.FormatInt(s.Size, 10)},
		{key: "nr_inodes", value: strconv.FormatInt(s.Inodes, 10)},
		{key: "uid", value: strconv.FormatUint(uint64(s.UID), 10)},
	}
	if s.GID != nil {
		options = append(options, option{key: "mode", value: "2750"}, option{key: "gid", value: strconv.FormatUint(uint64(*s.GID), 10)})
	} else {
		options = append(options, option{key: "mode", value: "0755"}, option{key: "gid", value: "0"})
	}
	if s.SELinuxContext != "" && p.selinux {
		options = append(options, option{key: "context", value: s.SELinuxContext})
	}
	return append(options, p.common...), nil
}

func (p *probed) privateOptions(size int64) []option {
	return append([]option{{key: "size", value: strconv.FormatInt(size, 10)}, {key: "mode", value: "0700"}}, p.common...)
}
