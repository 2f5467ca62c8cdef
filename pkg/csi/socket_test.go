// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/leasefs/leasefs/pkg/rotation"
)

func listen(t *testing.T, path string) (*Socket, error) {
	t.Helper()
	s, err := Listen(t.Context(), path, newLogs().logger(0))
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func TestTheSocketIsForItsOwnerOnly(t *testing.T) {
	old := syscall.Umask(0) // the loosest: the mode must not come from it
	defer syscall.Umask(old)
	path := filepath.Join(tempDir(t), "csi.sock")
	if _, err := listen(t, path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %s, want a socket of 0600", info.Mode())
	}
}

func TestASocketOfAKilledDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(tempDir(t), "csi.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := listen(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Present() {
		t.Error("the socket is not at its path")
	}
}

func TestListenRefuses(t *testing.T) {
	tests := map[string]struct {
		prepare func(t *testing.T, dir string) (path string)
		want    string
	}{
		"a socket that somebody serves": {func(t *testing.T, dir string) string {
			if _, err := listen(t, dir+"/a.sock"); err != nil {
				t.Fatal(err)
			}
			return dir + "/a.sock"
		}, "another process is listening"},
		"a file": {func(t *testing.T, dir string) string {
			if err := os.WriteFile(dir+"/a.sock", []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			return dir + "/a.sock"
		}, "a file that is no socket"},
		"a symbolic link to elsewhere": {func(t *testing.T, dir string) string {
			if err := os.Symlink("/etc/passwd", dir+"/a.sock"); err != nil {
				t.Fatal(err)
			}
			return dir + "/a.sock"
		}, "a file that is no socket"},
		"a directory that is not there": {func(_ *testing.T, dir string) string { return dir + "/x/a.sock" }, "its directory"},
		"a directory that is a link": {func(t *testing.T, dir string) string {
			if err := os.Symlink(dir, dir+"/link"); err != nil {
				t.Fatal(err)
			}
			return dir + "/link/a.sock"
		}, "is not a directory"},
		"a directory that others can write": {func(t *testing.T, dir string) string {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			return dir + "/a.sock"
		}, "others than its owner can write there"},
		"a relative path":  {func(*testing.T, string) string { return "a.sock" }, "absolute"},
		"an abstract name": {func(*testing.T, string) string { return "@leasefs" }, "absolute"},
		"a path too long":  {func(_ *testing.T, dir string) string { return dir + "/" + strings.Repeat("x", 108) }, "may have 107"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := tt.prepare(t, tempDir(t))
			before, _ := os.Lstat(path)
			_, err := listen(t, path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if after, _ := os.Lstat(path); before != nil && (after == nil || !os.SameFile(before, after)) {
				t.Error("what was there is gone")
			}
		})
	}
}

func TestADirectoryOfAnotherUserIsRefused(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, dir+"/a.sock"); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("got %v", err)
	}
}

// needRoot: becoming another user takes root, and a user namespace in which there are others.
func needRoot(t *testing.T) {
	t.Helper()
	var inside, outside, count int
	if ids, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		_, _ = fmt.Sscan(string(ids), &inside, &outside, &count)
	}
	if os.Geteuid() == 0 && inside+count > 65534 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root, and not only root of a user namespace, to become another user")
	}
	t.Skip("needs root, and not only root of a user namespace, to become another user")
}

// The mode of the file keeps others out; this is what is left should somebody loosen it.
func TestAnotherUserIsRefusedEvenThroughAnOpenSocket(t *testing.T) {
	needRoot(t)
	e := newEdge(t, nil)
	for path, mode := range map[string]fs.FileMode{e.path: 0o666, filepath.Dir(e.path): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	refused := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread is another user's, and ends with the goroutine
		refused <- knockAs(65534, e.path)
	}()
	if err := <-refused; err != nil {
		t.Fatal(err)
	}
	e.logs.wait(t, "of user 65534 is neither root nor this process's user")
	if _, err := e.node.NodePublishVolume(t.Context(), publishRequest(t)); err != nil {
		t.Errorf("the owner's next call: %v", err)
	}
}

// knockAs makes the calling thread user uid and connects: nil when the other side hung up without a word.
func knockAs(uid uintptr, path string) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("becoming user %d: %w", uid, errno)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	n, err := syscall.Read(fd, make([]byte, 64)) // a gRPC server would speak first: its SETTINGS
	if n > 0 {
		return fmt.Errorf("served %d bytes", n)
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

func TestTrusted(t *testing.T) {
	own := uint32(os.Geteuid())
	for uid, want := range map[uint32]bool{0: true, own: true, own + 1000: false, 65534: false, 1<<32 - 1: false} {
		if got := trusted(uid); got != want {
			t.Errorf("user %d: %v", uid, got)
		}
	}
}

func TestStoppingWaitsForCallsUnderWayAndRemovesTheSocket(t *testing.T) {
	e := newEdge(t, nil)
	began, finish := make(chan struct{}), make(chan struct{})
	e.volumes.publish = func(context.Context, rotation.Request) error { close(began); <-finish; return nil }
	answer := make(chan error, 1)
	go func() { _, err := e.node.NodePublishVolume(context.Background(), publishRequest(t)); answer <- err }()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- e.stop() }()
	for { // until the listener is closed
		if _, err := os.Lstat(e.path); errors.Is(err, fs.ErrNotExist) {
			break
		}
		runtime.Gosched()
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped (%v) while a call was under way", err)
	default:
	}
	close(finish)
	if err := <-answer; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStoppingCutsOffCallsThatTakeTooLong(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Drain = 20 * time.Millisecond })
	began := make(chan struct{})
	e.volumes.publish = func(ctx context.Context, _ rotation.Request) error { close(began); <-ctx.Done(); return ctx.Err() }
	answer := make(chan error, 1)
	go func() { _, err := e.node.NodePublishVolume(context.Background(), publishRequest(t)); answer <- err }()
	<-began
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	if err := <-answer; status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled {
		t.Errorf("the call that was cut off: %v", err)
	}
	if !strings.Contains(e.logs.String(), "cutting them off") {
		t.Error("the log does not say so")
	}
}

// A daemon that stops late must not take away the socket of the one that has replaced it.
func TestClosingLeavesAnothersSocketAlone(t *testing.T) {
	path := filepath.Join(tempDir(t), "csi.sock")
	first, err := listen(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := listen(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if first.Present() || !second.Present() {
		t.Errorf("present: %v, %v", first.Present(), second.Present())
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if !second.Present() {
		t.Error("the second socket is gone")
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the second socket has stayed")
	}
}
