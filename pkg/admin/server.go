// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/socket"
)

// connections is how many the server holds open at once: it is there for a person or two.
const connections = 8

// Server answers on a socket. Make one with NewServer.
type Server struct {
	path string
	list func() List
	log  *slog.Logger
}

// NewServer returns a server for the socket at path, which answers with what list returns. It does no I/O.
func NewServer(path string, list func() List, log *slog.Logger) *Server {
	return &Server{path: path, list: list, log: log}
}

// Run listens and answers until ctx ends, and then removes the socket. It lies in a folder for itself.
func (s *Server) Run(ctx context.Context) error {
	listener, err := socket.Listen(ctx, s.path, socket.Private, s.log)
	if err != nil {
		return fmt.Errorf("the admin socket (--admin-socket): %w", err)
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
	err = srv.Serve(netutil.LimitListener(listener, connections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the admin socket %s: %w", s.path, err)
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
