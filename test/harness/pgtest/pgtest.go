// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pgtest runs a real PostgreSQL server for tests and for the demo: Debian's package, in a folder of its own, on
// a free port of 127.0.0.1, with passwords really checked (scram-sha-256, nothing is trusted).
//
// Tests call [Start], programs call [Run]. Both work as root, as any other user, and inside `unshare -Urm`; see
// [identity] for how.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leasefs/leasefs/test/harness/internal/process"
	"github.com/leasefs/leasefs/test/harness/internal/repo"
	"github.com/leasefs/leasefs/test/harness/internal/scratch"
)

// ErrNotInstalled is wrapped by the error of [Run] when the machine has no PostgreSQL server.
var ErrNotInstalled = errors.New("no PostgreSQL server on this machine; apt-get install postgresql")

const (
	startTimeout = 2 * time.Minute // of a busy machine
	stopPatience = time.Minute
	loginTimeout = 15 * time.Second
)

// Server is a running PostgreSQL. The fields do not change; the methods may be called from many goroutines, but for
// Stop, Kill, Restart and Close.
type Server struct {
	Host          string // 127.0.0.1
	Port          int
	Database      string // the database that everyone may connect to
	AdminUser     string // a superuser
	AdminPassword string

	dir  string // holds all of it
	bin  string // the folder of initdb and postgres
	run  identity
	proc *process.Process
}

// Start runs a server until the end of the test. Where there is no PostgreSQL the test is skipped with the reason, and
// fails when CI=true; with -short it is skipped too. When the test has failed, the end of the server's log is shown.
func Start(tb testing.TB) *Server {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: this test runs a PostgreSQL server")
	}
	s, err := Run(tb.Context())
	switch {
	case errors.Is(err, ErrNotInstalled) && os.Getenv("CI") != "true":
		tb.Skip(err)
	case err != nil:
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("PostgreSQL's last lines:\n%s", s.proc.Tail(40))
		}
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Run makes a new database cluster, starts a server on it and waits until it accepts logins. The caller closes it. The
// server ends with this process, whatever ends it.
func Run(ctx context.Context) (_ *Server, err error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	run, err := newIdentity()
	if err != nil {
		return nil, err
	}
	// Not below a test's own temporary folder: those are closed to the user that the server runs as, and too long
	// for the name of a unix socket.
	dir, err := scratch.Dir("leasefs-pg-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for PostgreSQL: %w", err)
	}
	s := &Server{
		Host: "127.0.0.1", Database: "postgres", AdminUser: "admin", AdminPassword: rand.Text(),
		dir: dir, bin: bin, run: run,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := run.own(dir); err != nil {
		return nil, err
	}
	if err := s.initdb(ctx); err != nil {
		return nil, err
	}
	return s, s.start(ctx)
}

// binaries returns the folder of PostgreSQL's programs: $PG_BIN, or the newest of Debian's, or the one on PATH.
func binaries() (string, error) {
	var candidates []string
	if dir := os.Getenv("PG_BIN"); dir != "" {
		candidates = []string{dir}
	} else {
		candidates, _ = filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is a good one
		slices.SortFunc(candidates, func(a, b string) int { return major(b) - major(a) })
		if initdb, err := exec.LookPath("initdb"); err == nil {
			candidates = append(candidates, filepath.Dir(initdb))
		}
	}
	for _, dir := range candidates {
		_, noInitdb := exec.LookPath(filepath.Join(dir, "initdb"))
		_, noPostgres := exec.LookPath(filepath.Join(dir, "postgres"))
		if noInitdb == nil && noPostgres == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("looking for initdb and postgres in %q: %w", candidates, ErrNotInstalled)
}

// major returns the 15 of /usr/lib/postgresql/15/bin.
func major(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // 0, and so last, for a name that is no number
	return n
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// initdb makes the cluster. Nothing in it is worth an fsync.
func (s *Server) initdb(ctx context.Context) error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(s.AdminPassword), 0o600); err != nil {
		return fmt.Errorf("writing PostgreSQL's first password: %w", err)
	}
	if err := s.run.own(password); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "--pgdata="+s.data(), "--username="+s.AdminUser,
		"--pwfile="+password, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	s.run.apply(cmd, s.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// start chooses a port and starts the server on it; when the port was taken meanwhile, it chooses another.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if s.Port == 0 {
			port, err := repo.FreePort()
			if err != nil {
				return err
			}
			s.Port = port
		}
		err := s.startOn(ctx)
		if err == nil {
			return nil
		}
		fresh := s.proc == nil || !strings.Contains(s.proc.Tail(10), "Address already in use")
		if fresh || ctx.Err() != nil {
			return fmt.Errorf("starting PostgreSQL: %w", err)
		}
		s.Port = 0
	}
}

func (s *Server) startOn(ctx context.Context) error {
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-h", s.Host, "-p", strconv.Itoa(s.Port),
		"-k", s.dir, "-F", "-c", "full_page_writes=off", "-c", "synchronous_commit=off", "-c", "max_connections=200",
		"-c", "shared_buffers=16MB", "-c", "dynamic_shared_memory_type=mmap", "-c", "log_connections=off")
	s.run.apply(cmd, s.dir)
	// SIGQUIT is its immediate shutdown: unlike SIGKILL it takes the server's children and shared memory along.
	proc, err := process.Start(cmd, filepath.Join(s.dir, "log"), syscall.SIGQUIT)
	if err != nil {
		return err
	}
	s.proc = proc
	return proc.Await(ctx, func(ctx context.Context) error {
		return s.Login(ctx, s.AdminUser, s.AdminPassword)
	})
}

// DSN returns the address to connect to as user, in URL form.
func (s *Server) DSN(user, password string) string {
	u := url.URL{
		Scheme: "postgresql", User: url.UserPassword(user, password), Path: s.Database,
		Host: s.Host + ":" + strconv.Itoa(s.Port), RawQuery: "sslmode=disable",
	}
	return u.String()
}

// AdminDSN returns the superuser's address to connect to.
func (s *Server) AdminDSN() string { return s.DSN(s.AdminUser, s.AdminPassword) }

// Login opens a session as user, asks the server who it is, and closes it. The error is nil only if all of it went
// well: the user exists, the password is right, and the account has not expired.
func (s *Server) Login(ctx context.Context, user, password string) error {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN(user, password))
	if err != nil {
		return fmt.Errorf("logging in to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var who string
	if err := conn.QueryRow(ctx, "select current_user").Scan(&who); err != nil {
		return fmt.Errorf("asking PostgreSQL who %s is: %w", user, err)
	}
	if who != user {
		return fmt.Errorf("PostgreSQL says that %s is %s", user, who)
	}
	return nil
}

// Exec runs statements as the superuser, for example `create role app login password 'x'`.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, s.AdminDSN())
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// Users returns the names of the roles that may log in, but for the superuser: what Vault has created and not dropped.
func (s *Server) Users(ctx context.Context) ([]string, error) {
	conn, err := pgx.Connect(ctx, s.AdminDSN())
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "select rolname from pg_roles where rolcanlogin and not rolsuper order by 1")
	if err != nil {
		return nil, fmt.Errorf("listing PostgreSQL's users: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Stop shuts the server down: sessions are ended, logins are refused, the data stays. Restart brings it back.
func (s *Server) Stop(ctx context.Context) error {
	return s.proc.Stop(ctx, syscall.SIGINT, stopPatience)
}

// Restart starts a stopped server again, on the same port.
func (s *Server) Restart(ctx context.Context) error {
	if s.proc.Running() {
		return errors.New("restarting PostgreSQL: it is running")
	}
	return s.start(ctx)
}

// Log returns the server's own log.
func (s *Server) Log() string { return s.proc.Log() }

// Close ends the server at once and removes its folder.
func (s *Server) Close() error {
	var err error
	if s.proc != nil {
		err = s.proc.Stop(context.Background(), syscall.SIGQUIT, stopPatience)
	}
	return errors.Join(err, scratch.Remove(s.dir))
}
