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
	out, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unpolled, f.Mode)
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
	info, err := root.Lstat(dir)
	if err != nil || info.Mode().Perm() == mode {
		return err
	}
	return root.Chmod(dir, mode|info.Mode()&fs.ModeSetgid)
}

// fixMode sets the permission bits where they differ and keeps the others.
func fixMode(f *os.File, mode fs.FileMode) error {
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() == mode {
		return err
	}
	return f.Chmod(mode | info.Mode()&fs.ModeSetgid)
}

// prune removes every generation but keep and returns how many it removed. One that cannot be removed does not stop the others.
func (l *layout) prune(keep string) (removed int, err error) {
	all, err := l.list(".")
	if err != nil {
		return 0, err
	}
	for _, name := range all {
		if isGeneration(name) && name != keep {
			if removeErr := l.root.RemoveAll(name); removeErr != nil {
				err = errors.Join(err, fmt.Errorf("removing generation %q: %w", name, removeErr))
				continue
			}
			removed++
		}
	}
	return removed, err
}

// unpolled is a flag of open(2) that means nothing for regular files and directories. It tells package os not to try whether they can
// be polled, which would be four system calls more for each.
const unpolled = syscall.O_NONBLOCK

// list gives the names in a directory of the volume, in order.
func (l *layout) list(dir string) ([]string, error) {
	f, err := l.root.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|unpolled, 0)
	if err != nil {
		return nil, fmt.Errorf("listing %q of the volume: %w", dir, err)
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing %q of the volume: %w", dir, err)
	}
	slices.Sort(names)
	return names, nil
}
