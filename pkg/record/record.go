// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package record keeps small named records in a directory, whole or not at all.
//
// The directory is on a tmpfs of the daemon's own (0700): it survives the daemon, not the node. A record is written to a
// temporary file and renamed, so that a reader, a restarted daemon above all, never finds half of one. Nothing is synced:
// what a power cut takes away is gone with the tmpfs anyway.
package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	suffix    = ".json"
	temporary = ".tmp"
	// maxSize is far above any real record; larger files are not ours.
	maxSize = 4 << 20
)

// Store is a directory of records. Its methods may be called concurrently for different names.
type Store struct{ dir string }

// New returns the store in dir, which must exist. It does no I/O.
func New(dir string) *Store { return &Store{dir: dir} }

// Put writes a record under a name (letters, digits, '-', '_' and '.', not beginning with '.').
func (s *Store) Put(name string, data []byte) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+temporary, data, 0o600); err != nil {
		_ = os.Remove(path + temporary)
		return fmt.Errorf("writing record %s: %w", name, err)
	}
	if err := os.Rename(path+temporary, path); err != nil {
		_ = os.Remove(path + temporary)
		return fmt.Errorf("replacing record %s: %w", name, err)
	}
	return nil
}

// Delete removes a record. An absent one is no error.
func (s *Store) Delete(name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting record %s: %w", name, err)
	}
	return nil
}

// List reads all records by name and removes what interrupted writes have left. A record that cannot be read is in the map with
// nil data, so that the caller can count it and go on.
func (s *Store) List() (map[string][]byte, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing records: %w", err)
	}
	records := make(map[string][]byte, len(entries))
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		switch name, isRecord := strings.CutSuffix(e.Name(), suffix); {
		case strings.HasSuffix(e.Name(), suffix+temporary):
			_ = os.Remove(path)
		case !isRecord || !e.Type().IsRegular():
			// not ours, left alone
		default:
			records[name] = read(path, e)
		}
	}
	return records, nil
}

func read(path string, e fs.DirEntry) []byte {
	if info, err := e.Info(); err != nil || info.Size() > maxSize {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return data
}

func (s *Store) path(name string) (string, error) {
	ok := name != "" && len(name) <= 200 && name[0] != '.' && strings.IndexFunc(name, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r)
	}) < 0
	if !ok {
		return "", fmt.Errorf("record name %q: use letters, digits, '-', '_' and '.', at most 200", name)
	}
	return filepath.Join(s.dir, name+suffix), nil
}
