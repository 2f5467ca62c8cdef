// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/leasefs/leasefs/test/harness/internal/repo"
)

// keepBuilds is how long a build that is not asked for any more stays in the cache folder.
const keepBuilds = 24 * time.Hour

// built remembers the path, so that a test binary builds once.
var built struct {
	sync.Mutex
	path string
}

// BuildDriver returns the path of the leasefs program, built from cmd/driver of this checkout once per process, with the
// race detector when the caller has it too. LEASEFS_BIN names a program to use instead.
//
// The file is in the user's cache folder under a name made from its content: test binaries that run at the same time
// share it, and a build never changes a program that another one is running.
func BuildDriver(ctx context.Context) (string, error) {
	if path := os.Getenv("LEASEFS_BIN"); path != "" {
		return filepath.Abs(path)
	}
	built.Lock()
	defer built.Unlock()
	if built.path != "" {
		return built.path, nil
	}
	root, err := repo.Root()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("a folder for the leasefs program: %w", err)
	}
	dir := filepath.Join(cache, "leasefs", "driver")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("a folder for the leasefs program: %w", err)
	}
	path, err := build(ctx, root, dir)
	if err != nil {
		return "", err
	}
	removeOld(dir, path)
	built.path = path
	return path, nil
}

// build builds into dir and gives the file its name.
func build(ctx context.Context, root, dir string) (string, error) {
	stage, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("a folder for building leasefs: %w", err)
	}
	defer os.RemoveAll(stage)
	out := filepath.Join(stage, "leasefs")
	args := []string{"build", "-buildvcs=false", "-o", out}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/driver")...)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building leasefs: %w\n%s", err, text)
	}
	sum, err := sumFile(out)
	if err != nil {
		return "", fmt.Errorf("reading the leasefs program: %w", err)
	}
	path := filepath.Join(dir, "leasefs-"+sum)
	now := time.Now()
	if os.Chtimes(path, now, now) == nil {
		return path, nil // the same was built before
	}
	if err := os.Rename(out, path); err != nil {
		return "", fmt.Errorf("naming the leasefs program: %w", err)
	}
	return path, nil
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// removeOld removes what was last asked for long ago. What cannot be removed stays: it is a cache.
func removeOld(dir, keep string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if info, err := e.Info(); err == nil && path != keep && time.Since(info.ModTime()) > keepBuilds {
			_ = os.RemoveAll(path)
		}
	}
}
