// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/leasefs/leasefs/pkg/logkey"
)

// connections is how many the server holds open at once: it is there for a person or two.
const connections = 8

// Server answers on a socket. Make one with NewServer.
type Server struct {
	path string
	list func() List
	log  *slog.Logger
	// mayConnect decides by the peer's user id, as the kernel gives it; tests replace it.
	mayConnect func(uid uint32) bool
}

// NewServer returns a server for the socket at path, which answers with what list returns. It does no I/O.
func NewServer(path string, list func() List, log *slog.Logger) *Server {
	own := uint32(os.Geteuid())
	return &Server{path: path, list: list, log: log, mayConnect: func(uid uint32) bool { return uid == 0 || uid == own }}
}

// Run listens and answers until ctx ends, and then removes the socket.
//
// Three locks, because a person can loosen two of them: the folder must be 0700, the socket is 0600 from its first
// instant, and the kernel's word on who connected must be root or the daemon's own user.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.listen(ctx)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err = srv.Serve(netutil.LimitListener(&rootOnly{Listener: l, server: s}, connections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the admin socket %s: %w", s.path, err)
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the admin socket: %w", err)
	}
	// A folder that was there before may hold more than our socket: say what is wrong with it, do not change it.
	switch info, err := os.Lstat(dir); {
	case err != nil:
		return nil, fmt.Errorf("looking at the folder of the admin socket: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("the folder of the admin socket, %s, is no folder", dir)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("the folder of the admin socket, %s, has mode %04o and is open to others: make it 0700 or set --admin-socket to a path in a folder of its own", dir, info.Mode().Perm())
	}
	switch info, err := os.Lstat(s.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("looking at the admin socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("admin socket %s is there already and is no socket: remove it or set --admin-socket to another path", s.path)
	default: // left by a daemon that was killed
		if err := os.Remove(s.path); err != nil {
			return nil, fmt.Errorf("removing the old admin socket: %w", err)
		}
	}
	config := net.ListenConfig{Control: ownerOnly}
	l, err := config.Listen(ctx, "unix", s.path)
	if err != nil {
		return nil, fmt.Errorf("listening on the admin socket: %w", err)
	}
	return l, nil
}

// ownerOnly sets a socket's mode before bind gives it a name: Linux makes the file with the mode of the socket's inode.
func ownerOnly(_, _ string, conn syscall.RawConn) error {
	var chmod error
	if err := conn.Control(func(fd uintptr) { chmod = syscall.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return chmod
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/volumes", func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.Marshal(bounded(s.list()))
		if err != nil {
			s.log.Error("cannot encode the list of volumes", logkey.Error, err)
			http.Error(w, "cannot encode the list of volumes", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(body, '\n'))
	})
	return mux
}

// rootOnly hangs up on every peer that may not connect.
type rootOnly struct {
	net.Listener
	server *Server
}

func (r *rootOnly) Accept() (net.Conn, error) {
	for {
		c, err := r.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && r.server.mayConnect(uid) {
			return c, nil
		}
		_ = c.Close()
		r.server.log.Warn("refused a connection to the admin socket", logkey.Reason, "only root and the daemon's own user may connect", logkey.User, uid, logkey.Error, err)
	}
}

// peerUID asks the kernel who is at the other end (SO_PEERCRED, unix(7)).
func peerUID(c net.Conn) (uint32, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("asking for the peer's credentials: %w", credErr)
	}
	return cred.Uid, nil
}
