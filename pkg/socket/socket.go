// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package socket makes the unix sockets of the daemon, which only root and the daemon's own user can use. There are three
// locks, since a person can loosen two of them: the folder, the mode of the socket, and the kernel's word on who connected.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
)

const (
	socketMode  = 0o600
	maxPath     = 107 // sun_path of Linux, without the closing NUL
	dialTimeout = time.Second
)

// Folder says what the folder of a socket must be like.
type Folder struct {
	forbidden fs.FileMode // permission bits that it must not have
	make      bool
	cure      string
}

// The folders that a socket may lie in. Either belongs to root or to this process's user.
var (
	// Shared is a folder of somebody else's making, such as the kubelet's: it must be there, and nobody but its owner can
	// write in it. Whoever can could put a socket of his own in our place.
	Shared = Folder{forbidden: 0o022, cure: "others than its owner can write there; set it to 0755 or less"}
	// Private is a folder for the socket alone: it is made if it is not there, and nobody but its owner can enter it. One
	// that is there and open is refused, not changed: it may hold more than our socket.
	Private = Folder{forbidden: 0o077, make: true, cure: "it is open to others; set it to 0700, or choose a folder for the socket alone"}
)

// Socket is a unix socket that only root and the daemon's own user can use. It is a net.Listener.
type Socket struct {
	*net.UnixListener
	path string
	self fs.FileInfo // the file that was made, to tell it from a later one at the same path
	log  *slog.Logger
	// trusts decides by the peer's user id, as the kernel gives it; tests replace it.
	trusts func(uid uint32) bool
}

// Listen makes the socket at an absolute path:
//
//  1. its directory must be as the folder says, and no symbolic link;
//  2. a socket left by a killed daemon is removed; one on which somebody still listens is an error, as is any other file;
//  3. the new socket has mode 0600 from its first instant.
//
// Accept checks in addition that a caller is root or the same user (SO_PEERCRED), should the mode ever be loosened; it logs
// whom it refuses.
func Listen(ctx context.Context, path string, folder Folder, log *slog.Logger) (*Socket, error) {
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("listening on %q: %w", path, err)
	}
	if err := folder.ensure(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	config := net.ListenConfig{Control: ownerOnly}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	unix := listener.(*net.UnixListener)
	unix.SetUnlinkOnClose(false) // it would remove whatever lies at the path by then
	self, err := os.Lstat(path)
	if err != nil {
		_ = unix.Close()
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return &Socket{UnixListener: unix, path: path, self: self, log: log, trusts: trusted}, nil
}

// ownerOnly gives a socket its mode before it has a name: Linux makes the file with the mode of the socket's inode.
func ownerOnly(_, _ string, conn syscall.RawConn) error {
	var chmod error
	if err := conn.Control(func(fd uintptr) { chmod = syscall.Fchmod(int(fd), socketMode) }); err != nil {
		return err
	}
	return chmod
}

// checkPath checks the name alone.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return errors.New("the socket's path must be absolute and clean")
	}
	if len(path) > maxPath {
		return fmt.Errorf("the path has %d bytes; a unix socket's may have %d", len(path), maxPath)
	}
	return nil
}

// ensure makes the folder if that is asked for, and checks it.
func (f Folder) ensure(dir string) error {
	if f.make {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making its directory: %w", err)
		}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("its directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if info.Mode().Perm()&f.forbidden != 0 {
		return fmt.Errorf("%s has mode %04o: %s", dir, info.Mode().Perm(), f.cure)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; !trusted(owner) {
		return fmt.Errorf("%s belongs to user %d, neither root nor this process's user", dir, owner)
	}
	return nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is no socket; remove it")
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return errors.New("another process is listening there; stop it first")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finding out whether another process is listening there: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the socket that a former daemon left: %w", err)
	}
	return nil
}

// Accept implements net.Listener. Connections of other users are closed and logged.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		conn, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		err = s.checkPeer(conn)
		if err == nil {
			return conn, nil
		}
		_ = conn.Close()
		s.log.Warn("refused a connection", logkey.File, s.path, logkey.Error, err)
	}
}

// checkPeer asks the kernel who connected.
func (s *Socket) checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("asking for the peer's credentials: %w", failed)
	}
	if !s.trusts(peer.Uid) {
		return fmt.Errorf("process %d of user %d is neither root nor this process's user", peer.Pid, peer.Uid)
	}
	return nil
}

// trusted: root, or the user that this process runs as.
func trusted(uid uint32) bool { return uid == 0 || int64(uid) == int64(os.Geteuid()) }

// Present reports whether the path still leads to this socket.
func (s *Socket) Present() bool {
	now, err := os.Lstat(s.path)
	return err == nil && os.SameFile(now, s.self)
}

// Close implements net.Listener. It removes the socket's file, unless another has taken its place.
func (s *Socket) Close() error {
	var removed error
	if s.Present() {
		removed = os.Remove(s.path)
	}
	return errors.Join(removed, s.UnixListener.Close())
}
