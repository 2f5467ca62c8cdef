// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// probed is what a Mounter works with.
type probed struct {
	support Support
	way     way
	common  []option // what every tmpfs gets
	selinux bool
}

func (m *Mounter) probe() (*probed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.probed == nil {
		p, err := m.probeKernel()
		if err != nil {
			return nil, fmt.Errorf("finding a way to mount a tmpfs: %w", err)
		}
		m.probed = p
	}
	return m.probed, nil
}

// probeKernel tries each way for real, best first, and each wanted option on it. Versions are not compared: distributions port
// features back, and sandboxes forbid calls that the kernel has.
func (m *Mounter) probeKernel() (*probed, error) {
	kernel, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	p := &probed{support: Support{Kernel: kernel}, selinux: knowsSELinux()}
	attach, w, reasons := m.chooseWay()
	p.support.Attach, p.way = attach, w
	p.support.Notes = append(p.support.Notes, reasons...)

	if err := tryTmpfs(w); err != nil {
		return nil, errors.Join(err, errors.New("the daemon needs CAP_SYS_ADMIN and a kernel with tmpfs; reasons: "+strings.Join(reasons, "; ")))
	}
	noswap := option{key: "noswap", flag: true}
	if err := tryTmpfs(w, noswap); err == nil {
		p.support.Noswap = true
		p.common = append(p.common, noswap)
	} else {
		p.support.Notes = append(p.support.Notes, fmt.Sprintf(
			"secrets may be written to swap: tmpfs has no noswap here (Linux 6.4, not in a user namespace): %v", err))
	}
	// A huge page would charge 2 MiB for a secret of a few bytes. Kernels that have no huge pages do not know the option.
	if never := (option{key: "huge", value: "never"}); tryTmpfs(w, never) == nil {
		p.common = append(p.common, never)
	}
	return p, nil
}

// chooseWay returns the best way that the kernel offers, and why better ones were passed over.
func (m *Mounter) chooseWay() (attach string, w way, reasons []string) {
	if m.force == "" || m.force == AttachCloneDetached {
		err := tryClone(true)
		if err == nil {
			return AttachCloneDetached, cloneWay{detached: true}, reasons
		}
		reasons = append(reasons, fmt.Sprintf("this kernel cannot clone a mount that is in no path (Linux 6.15): %v", err))
	}
	if m.force == "" || m.force == AttachCloneAttached {
		err := tryClone(false)
		if err == nil {
			return AttachCloneAttached, cloneWay{}, reasons
		}
		reasons = append(reasons, fmt.Sprintf("this kernel cannot make a mount read-only before it is attached (Linux 5.12): %v", err))
	}
	return AttachBindStaged, &bindWay{staging: m.staging}, reasons
}

// tryClone runs the calls of a cloneWay where they leave no trace.
func tryClone(detached bool) error {
	f, err := newTmpfs(source, nil)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	clone := cloneOf
	if !detached { // any mount that is in a path; one below which nothing is mounted, because a user namespace forbids the others
		clone = func(*os.File) (*os.File, error) { return cloneAt("/proc/self/status") }
	}
	c, err := clone(f)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return setReadOnly(f, true)
}

// tryTmpfs makes a tmpfs with the given options and takes it away again.
func tryTmpfs(w way, options ...option) error {
	f, err := w.create(append([]option{{key: "size", value: "65536"}}, options...))
	if err != nil {
		return err
	}
	return w.release(f)
}

// knowsSELinux reports whether the kernel runs with SELinux; a kernel without it refuses a context.
func knowsSELinux() bool {
	list, err := os.ReadFile("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(string(list)), "selinuxfs")
}

// below reports whether path is dir or below it; both are clean.
func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
