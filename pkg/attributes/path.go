// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of a file's path in a volume. The longest path that the depth allows is the longest that Linux opens: PATH_MAX
// is 4096 with the NUL at its end, NAME_MAX is 255.
const (
	MaxPathBytes = 4095
	MaxNameBytes = 255
	MaxPathDepth = 16
)

// ValidatePath accepts the path of a file in a volume. It is relative, has names between single slashes, none of which
// is "." or begins with "..": those are the volume's own (..data and the generations), and ".." is the way out of it.
// Names are printable UTF-8. Names that differ only in case or in Unicode normalisation are different names, as they
// are to the file system. The error does not repeat the path.
func ValidatePath(path string) error {
	switch {
	case path == "":
		return errors.New("must be the path of a file, not empty")
	case len(path) > MaxPathBytes:
		return fmt.Errorf("is %d bytes long; at most %d are allowed", len(path), MaxPathBytes)
	case !printable(path):
		return errors.New("must be UTF-8 text without control or invisible characters")
	case path[0] == '/':
		return errors.New("must be relative to the volume: no slash at its beginning")
	case strings.HasSuffix(path, "/"):
		return errors.New("must be the path of a file: no slash at its end")
	case strings.Count(path, "/") >= MaxPathDepth:
		return fmt.Errorf("has %d levels; at most %d are allowed", strings.Count(path, "/")+1, MaxPathDepth)
	}
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case name == "":
			return errors.New("has two slashes in a row")
		case name == ".":
			return errors.New(`has a name that is "."`)
		case strings.HasPrefix(name, ".."):
			return errors.New(`has a name that begins with "..": those are the volume's own`)
		case len(name) > MaxNameBytes:
			return fmt.Errorf("has a name of %d bytes; at most %d are allowed", len(name), MaxNameBytes)
		}
	}
	return nil
}

// clashes finds what ValidatePath cannot: names given twice, and names that are a directory of another. It returns the
// problem by index.
func clashes(names []string) map[int]string {
	problems := map[int]string{}
	first := map[string]int{}  // name -> index of the object that has it first
	parent := map[string]int{} // directory -> index of the first object below it
	for i, name := range names {
		if j, twice := first[name]; twice {
			problems[i] = fmt.Sprintf("is the same as objects[%d].objectName", j)
			continue
		}
		first[name] = i
		for d := range len(name) {
			if _, known := parent[name[:d]]; !known && name[d] == '/' {
				parent[name[:d]] = i
			}
		}
	}
	for name, i := range first {
		if j, isDir := parent[name]; isDir {
			problems[i] = fmt.Sprintf("is a file here and a directory in objects[%d].objectName", j)
		}
	}
	return problems
}
