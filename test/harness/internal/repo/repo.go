// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package repo finds things of this repository from a test or a program that runs inside it.
package repo

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Root returns the folder of the module: the nearest one above the working directory (tests run in their package's
// folder, programs in the root) whose go.mod is leasefs's own.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the leasefs repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(data, []byte("module github.com/leasefs/leasefs\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("finding the leasefs repository: no folder above %s is it; run this inside a checkout", start)
		}
	}
}

// FreePort returns a TCP port of 127.0.0.1 that is free, and whose successor is too (Vault listens on both). Another
// process may take it before the caller does: who listens on it says so, and tries again with another.
func FreePort() (int, error) {
	var err error
	for range 20 {
		var first, second net.Listener
		if first, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			break
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		_ = first.Close()
		if err != nil {
			continue
		}
		_ = second.Close()
		return port, nil
	}
	return 0, fmt.Errorf("finding a free port: %w", err)
}
