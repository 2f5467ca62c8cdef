// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
)

// Source follows a configuration file: whoever asks gets the newest sound content.
//
// It looks at the content, not at the time of a change: a mounted ConfigMap changes by a swapped symlink, and a CA file
// that the configuration names changes without it. A look goes like this:
//
//  1. read the file and its CA files;
//  2. nothing new since the last decision: done;
//  3. seen for the first time: wait for the next look, for someone may be in the middle of writing it;
//  4. seen twice in a row: take it up, or say once what is wrong with it and keep the old one.
type Source struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	current *Config // nil before Load
	problem error   // why the newest content is not in use; nil: it is

	decided fingerprint // content that was taken up or refused
	pending fingerprint // content that was seen once
}

// fingerprint stands for the content of the file and its CA files, or for the error of reading them.
type fingerprint [sha256.Size]byte

// NewSource makes the source of the file at path; it reads nothing yet.
func NewSource(path string, log *slog.Logger) *Source {
	return &Source{path: path, log: log.With(logkey.File, path)}
}

// Load reads the file for the first time. The error is Load's.
func (s *Source) Load() (*Config, error) {
	c, sum, err := s.read()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.decided, s.problem = c, sum, nil
	return c, nil
}

// Current returns the configuration in use; nil before Load. Never modify it. Settings that can change only when the
// daemon starts have the value that they had at Load.
func (s *Source) Current() *Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Problem says why the file's newest content is not in use; nil: it is.
func (s *Source) Problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

// Run looks at the file every interval until ctx ends, which is no error. onChange is called with each new
// configuration, before Current returns it; if it fails the old one stays. A change is taken up within two intervals.
func (s *Source) Run(ctx context.Context, interval time.Duration, onChange func(*Config) error) error {
	if s.Current() == nil {
		return fmt.Errorf("following %s: it must be loaded first", s.path)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.look(ctx, onChange)
		}
	}
}

func (s *Source) look(ctx context.Context, onChange func(*Config) error) {
	next, sum, err := s.read() // 1
	switch {
	case sum == s.decided: // 2
		s.pending = sum
		return
	case sum != s.pending: // 3
		s.pending = sum
		return
	}
	s.decided = sum // 4
	old := s.Current()
	var waiting []string
	if err == nil {
		next, waiting = pinStartOnly(old, next)
		err = onChange(next)
	}
	s.mu.Lock()
	if s.problem = err; err == nil {
		s.current = next
	}
	s.mu.Unlock()
	if err != nil {
		s.log.ErrorContext(ctx, "the changed configuration is not usable; the one before stays in use", logkey.Error, err)
		return
	}
	s.log.InfoContext(ctx, "the changed configuration is in use", logkey.Count, len(next.Connections))
	if len(waiting) > 0 {
		s.log.WarnContext(ctx, "some changed settings take effect only when the daemon starts again", logkey.Setting, waiting)
	}
}

// read reads the file and says what its content is, also when it is not sound.
func (s *Source) read() (*Config, fingerprint, error) {
	c, err := Load(s.path)
	if err != nil {
		return nil, sha256.Sum256(fmt.Appendf(nil, "error %v", err)), err
	}
	content := fmt.Appendf(nil, "%#v", c.Defaults)
	for _, connection := range c.Connections {
		content = fmt.Appendf(content, "\x00%#v", connection)
	}
	return c, sha256.Sum256(content), nil
}

// pinStartOnly returns next with the values that old has for what can change only at the daemon's start, and the keys
// whose values differ.
func pinStartOnly(old, next *Config) (*Config, []string) {
	var keys []string
	was, pinned := *old, *next
	for _, s := range defaultSettings() {
		if s.pin != nil && s.pin(&was.Defaults, &pinned.Defaults) {
			keys = append(keys, "defaults."+s.Key)
		}
	}
	return &pinned, keys
}
