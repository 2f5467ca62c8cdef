// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package vaulttest runs a real Vault server for tests and for the demo, and sets it up: auth methods, roles, secrets
// engines. It also answers what only Vault knows: which requests it really got, which tokens and leases are alive.
//
// Tests call [Start] or [StartDurable], programs call [Run]. The server's binary comes from tools/vault/ensure.sh,
// which finds it or builds it once; VAULT_BIN overrides.
package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/leasefs/leasefs/test/harness/internal/process"
	"github.com/leasefs/leasefs/test/harness/internal/repo"
	"github.com/leasefs/leasefs/test/harness/internal/scratch"
)

const (
	startTimeout   = 2 * time.Minute // of a busy machine
	stopPatience   = 10 * time.Second
	requestTimeout = 30 * time.Second
)

// Options is how a server is to be run. The zero value is a dev server, which forgets all when it stops.
type Options struct {
	// Durable makes it a server with storage: Stop and Restart keep tokens and leases. It takes about three seconds
	// to start instead of a fifth of one.
	Durable bool
	// NoAudit leaves the audit device out, for benchmarks. Requests is then an error.
	NoAudit bool
}

// Server is a running Vault, unsealed. A KV version 2 engine is mounted at secret. The fields do not change.
type Server struct {
	Addr      string // http://127.0.0.1:PORT
	RootToken string
	UnsealKey string

	opts Options
	dir  string
	port int
	proc *process.Process
	root *api.Client
	own  []string // the leases there were before anything was done: a dev server's root token has one
}

// Start runs a dev server until the end of the test; with -short the test is skipped. When the test has failed, the end
// of Vault's log is shown.
func Start(tb testing.TB) *Server { tb.Helper(); return start(tb, Options{}) }

// StartDurable is [Start] with [Options.Durable].
func StartDurable(tb testing.TB) *Server { tb.Helper(); return start(tb, Options{Durable: true}) }

func start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: this test runs a Vault server")
	}
	s, err := Run(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("Vault's last lines:\n%s", s.proc.Tail(40))
		}
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Run starts a server and waits until it serves. The caller closes it. The server ends with this process, whatever ends
// it. When Vault has to be built first, which takes minutes and is said on standard error, ctx bounds that too.
func Run(ctx context.Context, opts Options) (s *Server, err error) {
	bin, err := Binary(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := scratch.Dir("leasefs-vault-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for Vault: %w", err)
	}
	s = &Server{opts: opts, dir: dir, RootToken: "root-" + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.firstStart(ctx, bin); err != nil {
		return nil, err
	}
	if opts.Durable {
		err = s.initialise(ctx)
	} else {
		err = s.readUnsealKey(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !opts.NoAudit {
		if err := s.enableAudit(ctx); err != nil {
			return nil, err
		}
	}
	s.own, err = s.Leases(ctx, "")
	return s, err
}

// Binary returns the path of a Vault program. It is asked for once per process.
func Binary(ctx context.Context) (string, error) {
	binary.Lock()
	defer binary.Unlock()
	if binary.path != "" {
		return binary.path, nil
	}
	root, err := repo.Root()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "tools", "vault", "ensure.sh"))
	cmd.Dir = root
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if os.Getenv("VAULT_BIN") == "" {
		cmd.Stderr = os.Stderr // a build takes minutes: let it say so
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("finding or building Vault with tools/vault/ensure.sh: %w %s", err, problem.String())
	}
	binary.path = strings.TrimSpace(out.String())
	return binary.path, nil
}

// binary remembers the answer of ensure.sh, which takes a fraction of a second, for a test binary with many servers.
var binary struct {
	sync.Mutex
	path string
}

// Root returns a client with the root token. It neither retries nor looks at the environment. Each call makes a new one,
// so the caller may change it.
func (s *Server) Root() *api.Client { return s.Client(s.RootToken) }

// Client returns a client with the given token.
func (s *Server) Client(token string) *api.Client {
	config := api.DefaultConfig()
	config.Address = s.Addr
	config.MaxRetries = 0
	config.Timeout = requestTimeout
	client, err := api.NewClient(config)
	if err != nil {
		panic(fmt.Sprintf("a Vault client for %q: %v", s.Addr, err)) // it can refuse nothing but the address, which is ours
	}
	client.ClearNamespace()
	client.SetToken(token)
	return client
}

// Log returns all that Vault has written to its own log.
func (s *Server) Log() string { return s.proc.Log() }

// Dir is the folder that holds the server's files; Close removes it.
func (s *Server) Dir() string { return s.dir }

// Close ends the server at once and removes its folder.
func (s *Server) Close() error {
	var err error
	if s.proc != nil {
		err = s.proc.Kill()
	}
	return errors.Join(err, scratch.Remove(s.dir))
}

// write is a PUT by root; the result is dropped.
func (s *Server) write(ctx context.Context, path string, data map[string]any) error {
	if _, err := s.root.Logical().WriteWithContext(ctx, path, data); err != nil {
		return fmt.Errorf("setting up Vault: %w", err)
	}
	return nil
}
