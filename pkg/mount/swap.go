// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// swap makes gen current. Each step is one system call, and a kill between any two of them leaves a volume that reads well and
// on which swap or repair can be run again:
//
//  1. Look at what is there, and remove what an earlier swap left of its temporary links.
//  2. Make the top-level links that gen needs and that are not there. They come first, so that a volume that has no inode left
//     for them fails here, with the old generation whole, and so that an application that wakes up on the rename finds them.
//  3. Make the new data link beside the old one and rename it over: the one instant at which readers change over.
//  4. Remove the top-level links that gen does not have.
func (l *layout) swap(gen string) error {
	if !isGeneration(gen) || !l.isDir(gen) {
		return fmt.Errorf("no such generation: %w", fs.ErrNotExist)
	}
	current, err := l.current()
	if err != nil {
		return err
	}
	// 1.
	all, err := l.tidy()
	if err != nil {
		return err
	}
	tops, err := l.tops(gen)
	if err != nil {
		return err
	}
	// 2, 3.
	err = l.addLinks(tops, all)
	if err == nil && gen != current {
		err = l.replace(gen, dataName, dataTmpName)
	}
	if err != nil {
		return errors.Join(err, l.undoLinks(current))
	}
	// 4.
	return l.dropLinks(all, tops)
}

// undoLinks takes back the links that a failed swap has made for its generation.
func (l *layout) undoLinks(current string) error {
	tops, err := l.tops(current)
	if err != nil {
		return err
	}
	all, err := l.list(".")
	if err != nil {
		return err
	}
	return l.dropLinks(all, tops)
}

// repair cleans up after a kill at any point of any operation: temporary links, generations that are not current (partial,
// staged, or old), and top-level links that the current generation needs or does not have. If someone has mounted something
// below an old generation, its directories stay, without our files; that is no reason to give up a volume that reads well.
func (l *layout) repair() error {
	current, err := l.current()
	if err != nil {
		return err
	}
	all, err := l.tidy()
	if err != nil {
		return err
	}
	if _, err := l.prune(current); err != nil && !errors.Is(err, syscall.EBUSY) {
		return err
	}
	tops, err := l.tops(current)
	if err != nil {
		return err
	}
	if err := l.addLinks(tops, all); err != nil {
		return err
	}
	return l.dropLinks(all, tops)
}

// tops are the first path elements of a generation, in order; none of the generation "".
func (l *layout) tops(gen string) ([]string, error) {
	if gen == "" {
		return nil, nil
	}
	return l.list(gen)
}

// tidy removes temporary links and returns the other names in the volume, in order.
func (l *layout) tidy() ([]string, error) {
	all, err := l.list(".")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{dataTmpName, linkTmpName} {
		at, found := slices.BinarySearch(all, name)
		if !found {
			continue
		}
		if err := l.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("removing a stale %s: %w", name, err)
		}
		all = slices.Delete(all, at, at+1)
	}
	return all, nil
}

// replace makes name a link to target with one rename, whatever link or file name was before.
func (l *layout) replace(target, name, tmp string) error {
	if err := l.root.Symlink(target, tmp); err != nil {
		return fmt.Errorf("making the link %q: %w", name, noSpace(err))
	}
	if err := l.root.Rename(tmp, name); err != nil {
		return errors.Join(fmt.Errorf("making the link %q: %w", name, err), l.root.Remove(tmp))
	}
	return nil
}

// addLinks makes a link for each of tops, the first path elements of a generation, where all names what is in the volume. What
// stands in its place, unless it is a directory, is replaced.
func (l *layout) addLinks(tops, all []string) error {
	for _, name := range tops {
		if _, there := slices.BinarySearch(all, name); !there {
			if err := l.root.Symlink(linkPrefix+name, name); err != nil {
				return fmt.Errorf("making the link %q: %w", name, noSpace(err))
			}
			continue
		}
		if target, err := l.root.Readlink(name); err == nil && target == linkPrefix+name {
			continue
		}
		if err := l.replace(linkPrefix+name, name, linkTmpName); err != nil {
			return err
		}
	}
	return nil
}

// dropLinks removes those of all that are top-level links through the data link and not among tops. It leaves alone what this
// package did not make.
func (l *layout) dropLinks(all, tops []string) error {
	for _, name := range all {
		if _, wanted := slices.BinarySearch(tops, name); wanted || strings.HasPrefix(name, "..") {
			continue
		}
		target, err := l.root.Readlink(name) // an error: not a link
		if err != nil || !strings.HasPrefix(target, linkPrefix) {
			continue
		}
		if err := l.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the link %q: %w", name, err)
		}
	}
	return nil
}
