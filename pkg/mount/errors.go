// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

var (
	// ErrNoSpace says that a volume is too small for the files or has too few inodes for them. What stood in the volume
	// before is untouched.
	ErrNoSpace = errors.New("volume too small")

	// ErrNotMounted says that nothing is mounted at a target. It matches fs.ErrNotExist too.
	ErrNotMounted = fmt.Errorf("nothing is mounted there: %w", fs.ErrNotExist)

	// ErrForeign says that what is mounted at a target was not put there by this package. Remove takes it away.
	ErrForeign = errors.New("not a volume of leasefs")

	// ErrOccupied says that something else is already mounted at the target of an Attach. Remove takes it away.
	ErrOccupied = errors.New("something else is mounted here")

	// ErrInvalid says that a set of files cannot be written as it is: a bad path, a clash of two paths, a mode that is not
	// allowed. Nothing was written.
	ErrInvalid = errors.New("invalid file")
)

// noSpace marks err with ErrNoSpace when it says that a tmpfs is full, of bytes or of inodes.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
