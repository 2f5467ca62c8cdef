// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// change is a line of watch: ..data was given a new meaning.
type change struct {
	Time       string            `json:"time"`
	Generation string            `json:"generation"`
	Files      map[string]string `json:"files"` // the volume's files, as they are after the change
}

// watch holds one inotify watch on the volume's folder for all of its life, as applications and reload tools do, and
// writes a line for each time that something named ..data is moved into it. The first line tells of what was there.
func watch(ctx context.Context, dir string) error {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("starting inotify: %w", err)
	}
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MOVED_TO|syscall.IN_CREATE); err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	if err := report(dir); err != nil {
		return err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	context.AfterFunc(ctx, func() { os.Exit(0) }) // a read of inotify waits for nothing else
	buffer := make([]byte, 64<<10)
	for {
		n, err := events.Read(buffer)
		if err != nil {
			return fmt.Errorf("reading inotify: %w", err)
		}
		for _, name := range names(buffer[:n]) {
			if name == "..data" {
				if err := report(dir); err != nil {
					return err
				}
			}
		}
	}
}

// names are those of a batch of inotify events, see inotify(7): a header of 16 bytes whose last word is the length of the
// name, padded with zero bytes.
func names(data []byte) []string {
	var out []string
	for len(data) >= syscall.SizeofInotifyEvent {
		size := int(binary.NativeEndian.Uint32(data[12:16]))
		end := syscall.SizeofInotifyEvent + size
		out = append(out, string(bytes.TrimRight(data[syscall.SizeofInotifyEvent:end], "\x00")))
		data = data[end:]
	}
	return out
}

func report(dir string) error {
	generation, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	c := change{Time: now(), Generation: generation, Files: map[string]string{}}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "..") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		c.Files[f.Name()] = string(data)
	}
	line(c)
	return nil
}
