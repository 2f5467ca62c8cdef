// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/hashicorp/vault/api"

	"github.com/leasefs/leasefs/test/harness/internal/process"
	"github.com/leasefs/leasefs/test/harness/internal/repo"
)

// firstStart chooses a free port and starts the server on it, again when another process took the port meanwhile.
func (s *Server) firstStart(ctx context.Context, bin string) error {
	for {
		port, err := repo.FreePort()
		if err != nil {
			return err
		}
		s.port = port
		s.Addr = fmt.Sprintf("http://127.0.0.1:%d", port)
		s.root = s.Root()
		err = s.launch(ctx, bin)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || s.proc == nil || !strings.Contains(s.proc.Tail(20), "address already in use") {
			return fmt.Errorf("starting Vault: %w", err)
		}
	}
}

// launch starts the process and waits until it answers as the state of its storage lets it.
func (s *Server) launch(ctx context.Context, bin string) error {
	args := []string{"server", "-dev", "-dev-no-store-token", "-dev-root-token-id=" + s.RootToken,
		fmt.Sprintf("-dev-listen-address=127.0.0.1:%d", s.port)}
	if s.opts.Durable {
		config, err := s.writeConfig()
		if err != nil {
			return err
		}
		args = []string{"server", "-config=" + config}
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = s.dir
	// Nothing of the caller's VAULT_ variables, and no token file in the caller's home.
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	proc, err := process.Start(cmd, filepath.Join(s.dir, "log"), syscall.SIGKILL)
	if err != nil {
		return err
	}
	s.proc = proc
	return proc.Await(ctx, func(ctx context.Context) error {
		health, err := s.root.Sys().HealthWithContext(ctx)
		switch {
		case err != nil:
			return err
		case s.opts.Durable: // sealed, or not even initialised: it answers, which is enough
			return nil
		case !health.Initialized || health.Sealed || health.Standby:
			return fmt.Errorf("health: %+v", health)
		}
		return nil
	})
}

func (s *Server) writeConfig() (string, error) {
	data := filepath.Join(s.dir, "raft")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return "", fmt.Errorf("making Vault's storage: %w", err)
	}
	config := fmt.Sprintf(`disable_mlock = true
api_addr      = "http://127.0.0.1:%[1]d"
cluster_addr  = "https://127.0.0.1:%[2]d"
listener "tcp" {
  address         = "127.0.0.1:%[1]d"
  cluster_address = "127.0.0.1:%[2]d"
  tls_disable     = true
}
storage "raft" {
  path                   = %[3]q
  node_id                = "one"
  performance_multiplier = 1
}
`, s.port, s.port+1, data)
	path := filepath.Join(s.dir, "config.hcl")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return "", fmt.Errorf("writing Vault's configuration: %w", err)
	}
	return path, nil
}

// initialise makes a new durable server what a dev server is from the start: initialised, unsealed, with KV at secret.
func (s *Server) initialise(ctx context.Context) error {
	init, err := s.root.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialising Vault: %w", err)
	}
	s.UnsealKey, s.RootToken = init.Keys[0], init.RootToken
	s.root = s.Root()
	if err := s.Unseal(ctx); err != nil {
		return err
	}
	return s.EnableKV(ctx, "secret", 2)
}

// readUnsealKey waits for the key that a dev server prints once it serves.
func (s *Server) readUnsealKey(ctx context.Context) error {
	return s.proc.Await(ctx, func(context.Context) error {
		match := regexp.MustCompile(`(?m)^Unseal Key: (\S+)$`).FindStringSubmatch(s.proc.Log())
		if match == nil {
			return errors.New("it has printed no unseal key")
		}
		s.UnsealKey = match[1]
		return nil
	})
}

// Seal seals the server: from now on it answers 503 to everything.
func (s *Server) Seal(ctx context.Context) error {
	if err := s.root.Sys().SealWithContext(ctx); err != nil {
		return fmt.Errorf("sealing Vault: %w", err)
	}
	return nil
}

// Unseal undoes Seal and waits until the server is active.
func (s *Server) Unseal(ctx context.Context) error {
	if _, err := s.root.Sys().UnsealWithContext(ctx, s.UnsealKey); err != nil {
		return fmt.Errorf("unsealing Vault: %w", err)
	}
	return s.proc.Await(ctx, func(ctx context.Context) error {
		health, err := s.root.Sys().HealthWithContext(ctx)
		if err == nil && (health.Sealed || health.Standby) {
			err = fmt.Errorf("health: %+v", health)
		}
		return err
	})
}

// Pause stops the process with SIGSTOP: connections stay open, nothing is answered. Leases run on, and those that end
// meanwhile are revoked after Resume.
func (s *Server) Pause() error { return s.proc.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() error { return s.proc.Signal(syscall.SIGCONT) }

// Stop ends the process: connections are refused. A dev server has lost everything then.
func (s *Server) Stop(ctx context.Context) error {
	return s.proc.Stop(ctx, syscall.SIGTERM, stopPatience)
}

// Kill ends the process with SIGKILL.
func (s *Server) Kill() error { return s.proc.Kill() }

// Restart starts a durable server that was stopped or killed again, on the same port, and unseals it. Tokens and leases
// are as they were; those that ended meanwhile are revoked now.
func (s *Server) Restart(ctx context.Context) error {
	switch {
	case !s.opts.Durable:
		return errors.New("restarting Vault: a dev server keeps nothing; use a durable one")
	case s.proc.Running():
		return errors.New("restarting Vault: it is running")
	}
	bin, err := Binary(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.launch(ctx, bin); err != nil {
		return fmt.Errorf("restarting Vault: %w", err)
	}
	return s.Unseal(ctx)
}
