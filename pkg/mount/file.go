// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a path in a volume: Linux's NAME_MAX and PATH_MAX, and a depth that keeps a walk short.
const (
	maxName  = 255  // bytes of one element
	maxPath  = 4095 // bytes of a whole path
	maxDepth = 16   // elements of a path
)

// allowedModes are the permission bits that a file may have: a secret is never executable.
const allowedModes fs.FileMode = 0o666

// File is one file of a generation. It prints without its data.
type File struct {
	Path string      // relative to the volume, elements separated by one slash
	Data []byte      // not modified, not kept
	Mode fs.FileMode // permission bits, not zero, none for execution
}

// String names the file without its data.
func (f File) String() string {
	return fmt.Sprintf("%s (%d bytes, %#o)", f.Path, len(f.Data), f.Mode.Perm())
}

// Format prints the file without its data, whatever the verb.
func (f File) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, f.String()) }

// LogValue logs the file without its data.
func (f File) LogValue() slog.Value { return slog.StringValue(f.String()) }

// MarshalText is what a JSON encoder prints: the file without its data.
func (f File) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// validatePath says why path cannot be a file of a volume. The elements "." and ".." are refused, and so is a first element that
// begins with "..": these names belong to the layout of generations.
func validatePath(path string) error {
	invalid := func(why string) error { return fmt.Errorf("%w: path %q %s", ErrInvalid, shorten(path), why) }
	switch {
	case path == "":
		return invalid("is empty")
	case len(path) > maxPath:
		return invalid(fmt.Sprintf("is longer than %d bytes", maxPath))
	case !utf8.ValidString(path):
		return invalid("is not valid UTF-8")
	case strings.ContainsFunc(path, unicode.IsControl):
		return invalid("has a control character")
	case strings.HasPrefix(path, "/"):
		return invalid("is not relative")
	case strings.HasPrefix(path, ".."):
		return invalid(`begins with ".."`)
	}
	elements := strings.Split(path, "/")
	if len(elements) > maxDepth {
		return invalid(fmt.Sprintf("has more than %d elements", maxDepth))
	}
	for _, element := range elements {
		switch {
		case element == "":
			return invalid("has an empty element")
		case element == "." || element == "..":
			return invalid(fmt.Sprintf("has the element %q", element))
		case len(element) > maxName:
			return invalid(fmt.Sprintf("has an element longer than %d bytes", maxName))
		}
	}
	return nil
}

// shorten keeps an error message readable when a path is absurdly long.
func shorten(path string) string {
	if len(path) <= 128 {
		return path
	}
	return path[:128] + "..."
}

// tree is a validated set of files: what one generation holds.
type tree struct {
	files []File   // by path
	dirs  []string // every directory that the files need, parents first
	tops  []string // the first elements, each once
}

// newTree validates files as a set. It refuses a path given twice and a path that is a file here and a directory there.
func newTree(files []File) (*tree, error) {
	t := &tree{files: slices.Clone(files)}
	slices.SortFunc(t.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })

	dirs, tops := map[string]bool{}, map[string]bool{}
	for i, f := range t.files {
		if err := validatePath(f.Path); err != nil {
			return nil, err
		}
		if f.Mode == 0 || f.Mode&^allowedModes != 0 {
			return nil, fmt.Errorf("%w: %q has mode %#o; only read and write bits are allowed, and at least one", ErrInvalid, f.Path, uint32(f.Mode))
		}
		if i > 0 && t.files[i-1].Path == f.Path {
			return nil, fmt.Errorf("%w: path %q is given twice", ErrInvalid, f.Path)
		}
		for at, c := range f.Path {
			if c == '/' {
				dirs[f.Path[:at]] = true
			}
		}
		top, _, _ := strings.Cut(f.Path, "/")
		tops[top] = true
	}
	for _, f := range t.files {
		if dirs[f.Path] {
			return nil, fmt.Errorf("%w: path %q is a file and also a directory of another file", ErrInvalid, f.Path)
		}
	}
	t.dirs, t.tops = sorted(dirs), sorted(tops)
	return t, nil
}

// sorted lists a set in order; a parent sorts before its children.
func sorted(set map[string]bool) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
