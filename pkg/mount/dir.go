// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
)

// Dir writes the files of one volume through a directory descriptor. Its methods are safe for concurrent use and need no
// privileges, only write permission on the directory.
//
// The layout is the kubelet's, because that is what applications and reload tools watch:
//
//	..2026_01_02_15_04_05.1234567890/   a generation: one complete set of files, never modified once it is current
//	..data -> ..2026_01_02_15_04_05.1234567890
//	name -> ..data/name                 one link for each first path element
type Dir struct {
	mu     sync.Mutex
	handle *os.File // nil: closed
}

// NewDir returns a Dir that writes through the directory descriptor f, which it takes over.
func NewDir(f *os.File) *Dir { return &Dir{handle: f} }

// Close closes the descriptor. A second Close does nothing.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.handle == nil {
		return nil
	}
	err := d.handle.Close()
	d.handle = nil
	return err
}

// Current returns the name of the generation that readers see, "" when there is none.
func (d *Dir) Current() (string, error) {
	var gen string
	err := d.with(func(l *layout) (err error) {
		gen, err = l.current()
		return err
	})
	return gen, err
}

// ReadFile returns the content of a file of the current generation; errors.Is(err, fs.ErrNotExist) when it has no such file.
func (d *Dir) ReadFile(path string) ([]byte, error) {
	if err := validatePath(path); err != nil {
		return nil, err
	}
	var data []byte
	err := d.with(func(l *layout) error {
		gen, err := l.current()
		if err != nil {
			return err
		}
		if gen == "" {
			return fmt.Errorf("reading %q: no current generation: %w", path, fs.ErrNotExist)
		}
		data, err = l.root.ReadFile(gen + "/" + path)
		return err
	})
	return data, err
}

// Fill writes files as the first generation of an empty volume that is in no path yet. Nobody sees it and a kill takes it away whole,
// so there is no old state to look at and no order to keep. A volume that Fill has failed on is good for nothing but Close; one that
// is not empty is an error.
func (d *Dir) Fill(files []File) (gen string, err error) {
	t, err := newTree(files)
	if err != nil {
		return "", err
	}
	err = d.with(func(l *layout) error {
		if gen, err = l.write(t); err != nil {
			return err
		}
		if err := l.addLinks(t.tops, nil); err != nil {
			return err
		}
		if err := l.root.Symlink(gen, dataName); err != nil {
			return fmt.Errorf("making the link %q: %w", dataName, noSpace(err))
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("filling a volume with %d files: %w", len(files), err)
	}
	return gen, nil
}

// Stage writes files as a complete new generation, which nobody sees until Swap. When the current generation has exactly these
// names, bytes and modes, nothing is written and Stage returns the current generation and changed = false.
//
// A failed Stage leaves nothing behind. When the volume is full, older generations are removed and the write is tried once
// more; if it still does not fit, the error matches ErrNoSpace. An error that matches ErrInvalid says that the files cannot be
// written at all. A volume has at most one staged generation at a time.
func (d *Dir) Stage(files []File) (gen string, changed bool, err error) {
	t, err := newTree(files)
	if err != nil {
		return "", false, err
	}
	err = d.with(func(l *layout) error {
		current, err := l.current()
		if err != nil {
			return err
		}
		if current != "" && l.holds(current, t) {
			gen = current
			return nil
		}
		gen, err = l.write(t)
		if errors.Is(err, ErrNoSpace) {
			if removed, pruneErr := l.prune(current); removed > 0 && pruneErr == nil {
				gen, err = l.write(t)
			}
		}
		changed = err == nil
		return err
	})
	if err != nil {
		return "", false, fmt.Errorf("staging %d files: %w", len(files), err)
	}
	return gen, changed, nil
}

// Swap makes a staged generation the current one. Readers see the files of the old generation or of the new one. Swap can be
// repeated, also for the generation that is current already, which completes a Swap that was cut short. When it fails, the
// current generation stays current.
func (d *Dir) Swap(gen string) error {
	return d.with(func(l *layout) error {
		if err := l.swap(gen); err != nil {
			return fmt.Errorf("swapping to generation %q: %w", gen, err)
		}
		return nil
	})
}

// Discard removes a generation that was staged and is not the current one. An unknown generation is no error.
func (d *Dir) Discard(gen string) error {
	return d.with(func(l *layout) error {
		current, err := l.current()
		if err != nil {
			return err
		}
		if !isGeneration(gen) || gen == current {
			return fmt.Errorf("discarding generation %q: it is current or not a generation", gen)
		}
		return l.root.RemoveAll(gen)
	})
}

// Prune removes every generation but the current one, so also a staged one.
func (d *Dir) Prune() error {
	return d.with(func(l *layout) error {
		current, err := l.current()
		if err != nil {
			return err
		}
		_, err = l.prune(current)
		return err
	})
}

// repair brings the directory to a clean state, whatever was cut short in it: see layout.repair.
func (d *Dir) repair() error {
	return d.with(func(l *layout) error { return l.repair() })
}

// with opens the directory for one operation: d.handle is but a place (O_PATH), and the one descriptor that a volume costs.
func (d *Dir) with(do func(*layout) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.handle == nil {
		return fmt.Errorf("volume: %w", os.ErrClosed)
	}
	root, err := os.OpenRoot(descriptorPath(d.handle))
	if err != nil {
		return fmt.Errorf("opening the volume's directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("opening the volume's directory: %w", err)
	}
	return do(&layout{root: root, dirMode: info.Mode().Perm()})
}

// descriptorPath is a path to what the descriptor stands for. /proc is always there in a container.
func descriptorPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
