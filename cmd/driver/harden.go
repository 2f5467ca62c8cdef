// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/leasefs/leasefs/pkg/logkey"
)

// harden keeps the memory of this process, which holds tokens and values, out of core files and from debuggers. It is
// the first thing that main does.
//
//  1. Not dumpable: no core file, whatever core_pattern says, and nobody but a process with CAP_SYS_PTRACE can attach.
//  2. No core size either: it is what people look for, and it holds for child processes, in which exec resets 1.
//  3. A crash prints the goroutine that crashed, not all of them, and never asks for a core.
//
// Root on the node can still read our memory. Nothing here changes that.
func harden() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)                   // 1
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: 0}) // 2
	_ = os.Setenv("GOTRACEBACK", "single")                             // 3, for children
	debug.SetTraceback("single")                                       // 3
}

// lockMemory keeps the daemon's memory out of swap, if there is any.
//
// ONFAULT is what makes that bearable for a Go program: without it, all of the address space that the runtime reserves
// is brought in and freed heap is never given back.
func lockMemory(want bool, log *slog.Logger) {
	swap, err := swapIsOn("/proc/swaps")
	switch {
	case err != nil:
		log.Warn("cannot tell whether this node has swap; memory is not locked", logkey.Error, err)
	case !swap:
		log.Debug("this node has no swap; memory needs no locking")
	case !want:
		log.Warn("this node has swap and --lock-memory is false: secrets in the daemon's memory may be written to disk")
	default:
		if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
			log.Warn("this node has swap and the daemon's memory cannot be locked (it takes CAP_IPC_LOCK): secrets in it may be written to disk", logkey.Error, err)
			return
		}
		log.Info("memory is locked, because this node has swap")
	}
}

// swapIsOn reads the kernel's list of swap areas: a line of headings, then one line for each.
func swapIsOn(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	return hasSwap(f)
}

func hasSwap(r io.Reader) (bool, error) {
	lines := bufio.NewScanner(r)
	n := 0
	for lines.Scan() {
		n++
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("reading the list of swap areas: %w", err)
	}
	return n > 1, nil
}
