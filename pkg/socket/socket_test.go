// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func listen(t *testing.T, path string, folder Folder) (*Socket, error) {
	t.Helper()
	s, err := Listen(t.Context(), path, folder, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func TestTheSocketIsForItsOwnerOnly(t *testing.T) {
	old := syscall.Umask(0) // the loosest: the mode must not come from it
	defer syscall.Umask(old)
	path := filepath.Join(tempDir(t), "csi.sock")
	if _, err := listen(t, path, Shared); err != nil {
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
	s, err := listen(t, path, Shared)
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
			if _, err := listen(t, dir+"/a.sock", Shared); err != nil {
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
			_, err := listen(t, path, Shared)
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
	if _, err := listen(t, dir+"/a.sock", Shared); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
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
	path := filepath.Join(tempDir(t), "csi.sock")
	var logs bytes.Buffer
	s, err := Listen(t.Context(), path, Shared, slog.New(slog.NewTextHandler(&logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for path, mode := range map[string]fs.FileMode{path: 0o666, filepath.Dir(path): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	accepted := accept(s)
	refused := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread is another user's, and ends with the goroutine
		refused <- knockAs(65534, path)
	}()
	if err := <-refused; err != nil {
		t.Fatal(err)
	}
	owner, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close() }()
	if err := <-accepted; err != nil {
		t.Errorf("the owner's connection: %v", err)
	}
	if want := "of user 65534 is neither root nor this process's user"; !strings.Contains(logs.String(), want) {
		t.Errorf("%q is not in the log:\n%s", want, &logs)
	}
}

// The kernel says who connects; here the rule is turned round, so that the test's own user is the stranger.
func TestTheKernelSaysWhoConnects(t *testing.T) {
	s, err := listen(t, filepath.Join(tempDir(t), "csi.sock"), Shared)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan uint32, 1)
	s.trusts = func(uid uint32) bool { asked <- uid; return false }
	accepted := accept(s)
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a stranger reads %d bytes, %v", n, err)
	}
	if got := <-asked; got != uint32(os.Geteuid()) {
		t.Errorf("the peer's user id is %d, want %d", got, os.Geteuid())
	}
	_ = s.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted: %v", err)
	}
}

// accept says how the next Accept ends. It keeps the connection open, as a server does.
func accept(s *Socket) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := s.Accept()
		result <- err
	}()
	return result
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
	n, err := syscall.Read(fd, make([]byte, 64)) // one that is refused is closed at once
	if n > 0 {
		return fmt.Errorf("served %d bytes", n)
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

func TestAPrivateFolderIsMadeForItsOwnerOnly(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(tempDir(t), "admin", "admin.sock")
	if _, err := listen(t, path, Private); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", path, got, want)
		}
	}
}

func TestAPrivateFolderThatIsOpenIsRefusedAndLeftAsItIs(t *testing.T) {
	dir := tempDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, dir+"/admin.sock", Private); err == nil || !strings.Contains(err.Error(), "set it to 0700") {
		t.Errorf("got %v", err)
	}
	if info, err := os.Lstat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder is %v, %v", info.Mode(), err)
	}
}

func TestTrusted(t *testing.T) {
	own := uint32(os.Geteuid())
	for uid, want := range map[uint32]bool{0: true, own: true, own + 1000: false, 65534: false, 1<<32 - 1: false} {
		if got := trusted(uid); got != want {
			t.Errorf("user %d: %v", uid, got)
		}
	}
}

// A daemon that stops late must not take away the socket of the one that has replaced it.
func TestClosingLeavesAnothersSocketAlone(t *testing.T) {
	path := filepath.Join(tempDir(t), "csi.sock")
	first, err := listen(t, path, Shared)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := listen(t, path, Shared)
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

// tempDir is a folder with a name short enough for sockets, which t.TempDir's is not always.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
