// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// summary is what pair and database write each second: all that they have seen so far.
type summary struct {
	Time     string   `json:"time"`
	Uses     int      `json:"uses"`     // reads or logins that went well
	Failures []string `json:"failures"` // those that did not; at most the first ten
	Failed   int      `json:"failed"`   // how many
	Again    int      `json:"again"`    // reads made anew since a generation was removed while it was read
	Seen     []string `json:"seen"`     // serial numbers or user names, in the order of their coming
}

func (s *summary) fail(err error) {
	if s.Failed++; len(s.Failures) < 10 {
		s.Failures = append(s.Failures, now()+" "+err.Error())
	}
}

func (s *summary) use(what string) {
	s.Uses++
	if len(s.Seen) == 0 || s.Seen[len(s.Seen)-1] != what {
		s.Seen = append(s.Seen, what)
	}
}

// repeat calls use until the end, with a pause after each call, and writes a summary each second.
func repeat(ctx context.Context, every time.Duration, use func(*summary)) error {
	var s summary
	next := time.Now()
	for {
		use(&s)
		if time.Now().After(next) {
			s.Time = now()
			line(s)
			next = time.Now().Add(period)
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}

// together reads files of one generation: ..data is opened once, so that none is of the next. A generation that was
// replaced is there for some seconds more; a reader that is slower than that reads again.
func (s *summary) together(dir string, names ...string) ([][]byte, error) {
	for {
		out, err := readGeneration(filepath.Join(dir, "..data"), names)
		if !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
		if s.Again++; s.Again > 1000 {
			return nil, err
		}
	}
}

func readGeneration(dir string, names []string) ([][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	var out [][]byte
	for _, name := range names {
		data, err := root.ReadFile(name)
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

// pair is a server that loads its certificate for each connection.
func pair(ctx context.Context, dir string) error {
	return repeat(ctx, 5*time.Millisecond, func(s *summary) {
		files, err := s.together(dir, "tls.crt", "tls.key")
		if err != nil {
			s.fail(err)
			return
		}
		cert, err := tls.X509KeyPair(files[0], files[1])
		if err != nil {
			s.fail(err)
			return
		}
		if time.Now().After(cert.Leaf.NotAfter) {
			s.fail(fmt.Errorf("the certificate %x has expired", cert.Leaf.SerialNumber))
			return
		}
		s.use(fmt.Sprintf("%x", cert.Leaf.SerialNumber))
	})
}

// database is a client that opens a connection for each piece of work.
func database(ctx context.Context, dir, address string) error {
	return repeat(ctx, 100*time.Millisecond, func(s *summary) {
		files, err := s.together(dir, "username", "password")
		if err != nil {
			s.fail(err)
			return
		}
		user, password := string(files[0]), string(files[1])
		if err := login(ctx, address, user, password); err != nil {
			s.fail(fmt.Errorf("%s: %w", user, err))
			return
		}
		s.use(user)
	})
}

func login(ctx context.Context, address, user, password string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	target := url.URL{
		Scheme: "postgresql", User: url.UserPassword(user, password), Host: address, Path: "postgres", RawQuery: "sslmode=disable",
	}
	conn, err := pgx.Connect(ctx, target.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var who string
	if err := conn.QueryRow(ctx, "select current_user").Scan(&who); err != nil {
		return err
	}
	if who != user {
		return fmt.Errorf("the server says %q", who)
	}
	return nil
}
