// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// lookEvery is how often the path is compared with the open file, to follow a log rotation that renamed it.
const lookEvery = time.Second

// errNoFile: the path is of something that cannot be a log.
var errNoFile = errors.New("is a folder")

// destination is a file that may be moved away under our feet, or standard output. It is used by one goroutine.
type destination struct {
	path   string
	file   *os.File // nil: not open
	looked time.Time
	torn   bool // the last write ended in the middle of a line
}

func (d *destination) open() error {
	if d.path == Stdout {
		d.file = os.Stdout
		return nil
	}
	if info, err := os.Stat(d.path); err == nil && info.IsDir() {
		return fmt.Errorf("%s %w", d.path, errNoFile)
	}
	// O_NONBLOCK is for a named pipe: without it, open waits until somebody reads.
	f, err := os.OpenFile(d.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	d.file, d.looked = f, time.Now()
	return nil
}

func (d *destination) close() {
	if d.file != nil && d.path != Stdout {
		_ = d.file.Close()
	}
	d.file = nil
}

// write writes one whole line. After a failure the next call opens the file anew and begins on a line of its own.
func (d *destination) write(line []byte) error {
	d.follow()
	if d.file == nil {
		if err := d.open(); err != nil {
			return err
		}
	}
	if d.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := d.file.Write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	if err != nil {
		d.torn = d.torn || n > 0
		d.close()
		return err
	}
	d.torn = false
	return nil
}

// follow closes the file if the path is of another one by now, or of none.
func (d *destination) follow() {
	if d.file == nil || d.path == Stdout || time.Since(d.looked) < lookEvery {
		return
	}
	d.looked = time.Now()
	now, err := os.Stat(d.path)
	was, errWas := d.file.Stat()
	if err != nil || errWas != nil || !os.SameFile(now, was) {
		d.close()
	}
}
