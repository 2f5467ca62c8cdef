// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Names of the layout. Each begins with ".." and is therefore no name of a file.
const (
	dataName    = "..data"     // the link to the current generation
	dataTmpName = "..data_tmp" // its successor, until the rename
	linkTmpName = "..link_tmp" // a top-level link that replaces something else, until the rename
	linkPrefix  = dataName + "/"
)

// generationName is what the kubelet's own volumes have, and nothing else is ever removed as a generation.
var generationName = regexp.MustCompile(`^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d{1,10}$`)

func isGeneration(name string) bool { return generationName.MatchString(name) }

func newGeneration() string {
	return fmt.Sprintf("..%s.%010d", time.Now().UTC().Format("2006_01_02_15_04_05"), rand.Uint32())
}

// layout works on an open volume. Every path goes through root, which refuses to leave the volume, whatever links stand in it.
type layout struct {
	root    *os.Root
	dirMode fs.FileMode // permissions of every directory, as the volume's root has them
}

// current returns the generation that the data link names. A link to anything but a generation's directory counts as none: it
// is never followed.
func (l *layout) current() (string, error) {
	gen, err := l.root.Readlink(dataName)
	if errors.Is(err, fs.ErrNotExist) || (err != nil && l.exists(dataName)) { // absent, or not a link
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the link %s: %w", dataName, err)
	}
	if !isGeneration(gen) || !l.isDir(gen) {
		return "", nil
	}
	return gen, nil
}

func (l *layout) exists(name string) bool {
	_, err := l.root.Lstat(name)
	return err == nil
}

func (l *layout) isDir(name string) bool {
	info, err := l.root.Lstat(name)
	return err == nil && info.IsDir()
}

// holds reports whether a generation is exactly what t would be: the same names, bytes and modes. Anything that cannot be read or
// is not a plain file or directory counts as a difference, and the caller writes anew.
func (l *layout) holds(gen string, t *tree) bool {
	files, dirs := 0, 0
	want := make(map[string]*File, len(t.files))
	for i := range t.files {
		want[t.files[i].Path] = &t.files[i]
	}
	errDiffers := errors.New("differs")
	root, err := l.root.OpenRoot(gen)
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }()
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Lstat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if _, known := slices.BinarySearch(t.dirs, path); info.Mode().Perm() != l.dirMode || (path != "." && !known) {
				return errDiffers
			}
			dirs++
			return nil
		}
		f := want[path]
		if f == nil || info.Mode() != f.Mode || info.Size() != int64(len(f.Data)) {
			return errDiffers
		}
		data, err := root.ReadFile(path)
		if err != nil || !bytes.Equal(data, f.Data) {
			return errDiffers
		}
		files++
		return nil
	})
	return err == nil && files == len(t.files) && dirs == len(t.dirs)+1
}

// write writes t as a new generation and returns its name. On an error it removes what it wrote.
func (l *layout) write(t *tree) (gen string, err error) {
	for range 3 {
		gen = newGeneration()
		if err = l.root.Mkdir(gen, l.dirMode); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("making a generation: %w", noSpace(err))
	}
	if err := l.fill(gen, t); err != nil {
		if removeErr := l.root.RemoveAll(gen); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("removing a partial generation: %w", removeErr))
		}
		return "", err
	}
	return gen, nil
}

// fill writes the directories and files of t below an empty generation. Owner and group come from the mount options and the
// set-group-id bit of the volume's root, so nothing is changed file by file. Modes are final at creation, except where the
// process's umask took bits away: those are put back, of directories last, since a process outside of the volume's group
// loses their set-group-id bit by that.
func (l *layout) fill(gen string, t *tree) error {
	root, err := l.root.OpenRoot(gen)
	if err != nil {
		return fmt.Errorf("opening a generation: %w", err)
	}
	defer func() { _ = root.Close() }()
	for _, dir := range t.dirs {
		if err := root.Mkdir(dir, l.dirMode); err != nil {
			return fmt.Errorf("making directory %q: %w", dir, noSpace(err))
		}
	}
	for _, f := range t.files {
		if err := writeFile(root, f); err != nil {
			return fmt.Errorf("writing %q: %w", f.Path, noSpace(err))
		}
	}
	for _, dir := range slices.Backward(append([]string{"."}, t.dirs...)) {
		if err := setMode(root, dir, l.dirMode); err != nil {
			return fmt.Errorf("setting the mode of directory %q: %w", dir, err)
		}
	}
	return nil
}

func writeFile(root *os.Root, f File) error {
	out, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode)
	if err != nil {
		return err
	}
	_, err = out.Write(f.Data)
	if err == nil {
		err = fixMode(out, f.Mode)
	}
	return errors.Join(err, out.Close())
}

func setMode(root *os.Root, dir string, mode fs.FileMode) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return fixMode(f, mode)
}

// fixMode sets the permission bits where they differ and keeps the others.
func fixMode(f *os.File, mode fs.FileMode) error {
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() == mode {
		return err
	}
	return f.Chmod(mode | info.Mode()&fs.ModeSetgid)
}

// swap makes gen current. Each step is one system call, and a kill between any two of them leaves a volume that reads well and
// on which swap or repair can be run again:
//
//  1. Remove what an earlier swap left of its temporary links.
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
	if err := l.removeTemporary(); err != nil {
		return err
	}
	// 2.
	if err := l.addLinks(gen); err != nil {
		return errors.Join(err, l.dropLinks(current))
	}
	// 3.
	if gen != current {
		if err := l.replace(gen, dataName, dataTmpName); err != nil {
			return errors.Join(err, l.dropLinks(current))
		}
	}
	// 4.
	return l.dropLinks(gen)
}

// repair cleans up after a kill at any point of any operation: temporary links, generations that are not current (partial,
// staged, or old), and top-level links that the current generation needs or does not have. If someone has mounted something
// below an old generation, its directories stay, without our files; that is no reason to give up a volume that reads well.
func (l *layout) repair() error {
	current, err := l.current()
	if err != nil {
		return err
	}
	if err := l.removeTemporary(); err != nil {
		return err
	}
	if _, err := l.prune(current); err != nil && !errors.Is(err, syscall.EBUSY) {
		return err
	}
	if current != "" {
		if err := l.addLinks(current); err != nil {
			return err
		}
	}
	return l.dropLinks(current)
}

func (l *layout) removeTemporary() error {
	for _, name := range []string{dataTmpName, linkTmpName} {
		if err := l.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a stale %s: %w", name, err)
		}
	}
	return nil
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

// addLinks makes a link for each first path element of gen. What stands in its place, unless it is a directory, is replaced.
func (l *layout) addLinks(gen string) error {
	entries, err := names(l.root, gen)
	if err != nil {
		return fmt.Errorf("listing generation %q: %w", gen, err)
	}
	for _, entry := range entries {
		name := entry.Name()
		target, err := l.root.Readlink(name)
		switch {
		case err == nil && target == linkPrefix+name:
			continue
		case errors.Is(err, fs.ErrNotExist):
			if err := l.root.Symlink(linkPrefix+name, name); err != nil {
				return fmt.Errorf("making the link %q: %w", name, noSpace(err))
			}
		default:
			if err := l.replace(linkPrefix+name, name, linkTmpName); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropLinks removes the top-level links that lead through the data link to a name that gen does not have; all of them when gen
// is "". It leaves alone what this package did not make.
func (l *layout) dropLinks(gen string) error {
	entries, err := names(l.root, ".")
	if err != nil {
		return fmt.Errorf("listing the volume: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.Type()&fs.ModeSymlink == 0 || strings.HasPrefix(name, "..") {
			continue
		}
		target, err := l.root.Readlink(name)
		if err != nil || !strings.HasPrefix(target, linkPrefix) || (gen != "" && l.exists(gen+"/"+name)) {
			continue
		}
		if err := l.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the link %q: %w", name, err)
		}
	}
	return nil
}

// prune removes every generation but keep and returns how many it removed. One that cannot be removed does not stop the others.
func (l *layout) prune(keep string) (removed int, err error) {
	entries, err := names(l.root, ".")
	if err != nil {
		return 0, fmt.Errorf("listing the volume: %w", err)
	}
	for _, entry := range entries {
		if name := entry.Name(); isGeneration(name) && name != keep {
			if removeErr := l.root.RemoveAll(name); removeErr != nil {
				err = errors.Join(err, fmt.Errorf("removing generation %q: %w", name, removeErr))
				continue
			}
			removed++
		}
	}
	return removed, err
}
