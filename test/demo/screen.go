// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Who does something in the live view.
const (
	you     = "you"
	kubelet = "kubelet"
	daemon  = "leasefs"
	pod     = "pod"
	vault   = "Vault"
)

// screen writes for a person. It is safe for concurrent use.
type screen struct {
	mu    sync.Mutex
	w     io.Writer
	color bool
	zero  time.Time // what the live view counts from
}

// newScreen uses colours only on a terminal, and not with NO_COLOR (no-color.org).
func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{w: f, color: terminal && os.Getenv("NO_COLOR") == "", zero: time.Now()}
}

// paint wraps text in an SGR sequence.
func (s *screen) paint(sgr, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

func (s *screen) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintln(s.w, text) // nobody to tell when the terminal is gone
}

func (s *screen) title(text string) { s.line("\n" + s.paint("1", text)) }

func (s *screen) text(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		s.line("  " + strings.TrimRight(line, "\n"))
	}
}

// start begins the live view.
func (s *screen) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zero = time.Now()
}

// at writes a line of the live view about something that happened at t.
func (s *screen) at(t time.Time, who, format string, args ...any) {
	s.mu.Lock()
	elapsed := max(0, t.Sub(s.zero))
	s.mu.Unlock()
	sgr := map[string]string{you: "1;33", kubelet: "36", daemon: "32", pod: "35", vault: "34"}[who]
	s.line(fmt.Sprintf("  %5.1f s  %s  %s", elapsed.Seconds(), s.paint(sgr, fmt.Sprintf("%-7s", who)), fmt.Sprintf(format, args...)))
}

// now is at for what happens now.
func (s *screen) now(who, format string, args ...any) { s.at(time.Now(), who, format, args...) }

// check is one thing that was to happen.
type check struct {
	what string
	err  error
}

// verdict lists the checks and returns whether all are good.
func (s *screen) verdict(checks []check) bool {
	good := true
	s.title("What was checked")
	for _, c := range checks {
		if c.err == nil {
			s.line("  " + s.paint("32", "✓") + " " + c.what)
			continue
		}
		good = false
		s.line("  " + s.paint("31", "✗") + " " + c.what + ": " + s.paint("31", c.err.Error()))
	}
	return good
}
