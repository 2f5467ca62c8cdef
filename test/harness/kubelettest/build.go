// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"context"
	"crypto/sha256"
	"errors"
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

// prefix of the names in the cache folder.
func prefix() string {
	if raceEnabled {
		return "leasefs-race-"
	}
	return "leasefs-"
}

// build builds into dir and gives the file its name. It begins with a copy of the newest build: if nothing has changed
// since, go sees that and does not link again.
func build(ctx context.Context, root, dir string) (string, error) {
	stage, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("a folder for building leasefs: %w", err)
	}
	defer func() { _ = os.RemoveAll(stage) }()
	out := filepath.Join(stage, "leasefs")
	if newest := newestBuild(dir); newest != "" {
		if err := copyFile(newest, out); err != nil {
			return "", fmt.Errorf("copying the leasefs program built before: %w", err)
		}
	}
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
	path := filepath.Join(dir, prefix()+sum)
	now := time.Now()
	if os.Chtimes(path, now, now) == nil {
		return path, nil // the same was built before
	}
	if err := os.Rename(out, path); err != nil {
		return "", fmt.Errorf("naming the leasefs program: %w", err)
	}
	return path, nil
}

// newestBuild returns the build of this kind that was asked for last; "" if there is none.
func newestBuild(dir string) string {
	newest, at := "", time.Time{}
	builds, _ := filepath.Glob(filepath.Join(dir, prefix()+"????????????????")) // 16 digits, which "race-..." has not; the pattern is a good one
	for _, path := range builds {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(at) {
			newest, at = path, info.ModTime()
		}
	}
	return newest
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
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
