// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"
)

// Request is one request as Vault's own audit device recorded it, at the time of its answer. What Vault refuses before
// it looks at it (it is sealed, the body is no JSON) is in no audit log.
type Request struct {
	Time      time.Time
	Operation string // create, read, update, delete, list, ...
	Path      string // for example auth/jwt/login, secret/data/app, sys/leases/renew
	Error     string // "" when it was granted
	// Accessor is the token's that was used; for a login, the new token's.
	Accessor string
	// LeaseID is the lease that a renewal, a lookup or a revocation names, or that a read has made.
	LeaseID string
}

// Requests are in the order of Vault's answers.
type Requests []Request

// Count returns how many requests have a path that matches pattern in the manner of [path.Match] ("auth/*/login"),
// successful or not.
func (rs Requests) Count(pattern string) int { return len(rs.Match(pattern)) }

// Match returns the requests whose path matches pattern.
func (rs Requests) Match(pattern string) Requests {
	var out Requests
	for _, r := range rs {
		if ok, err := path.Match(pattern, r.Path); err != nil {
			panic(err) // the pattern is a constant of the test
		} else if ok {
			out = append(out, r)
		}
	}
	return out
}

// Paths returns how many requests each path has had, for a message.
func (rs Requests) Paths() map[string]int {
	out := map[string]int{}
	for _, r := range rs {
		out[r.Path]++
	}
	return out
}

func (s *Server) auditFile() string { return filepath.Join(s.dir, "audit.log") }

// enableAudit has Vault write every answer to a file, in plain text: this is a server for tests.
func (s *Server) enableAudit(ctx context.Context) error {
	err := s.root.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": s.auditFile(), "log_raw": "true", "hmac_accessor": "false"},
	})
	if err != nil {
		return fmt.Errorf("enabling Vault's audit device: %w", err)
	}
	return nil
}

// Mark is a place in the audit log.
type Mark int64

// Mark returns the place where the audit log ends now: what Vault has answered lies before it.
func (s *Server) Mark() Mark {
	info, err := os.Stat(s.auditFile())
	if err != nil {
		return 0
	}
	return Mark(info.Size())
}

// Requests returns all that Vault has answered since the mark (0: ever), but for what was asked with a root token: so the
// harness's own requests are not in it.
func (s *Server) Requests(since Mark) (Requests, error) {
	if s.opts.NoAudit {
		return nil, errors.New("this Vault was started without an audit device")
	}
	data, err := os.ReadFile(s.auditFile())
	if err != nil {
		return nil, fmt.Errorf("reading Vault's audit log: %w", err)
	}
	if int64(since) > int64(len(data)) {
		return nil, fmt.Errorf("reading Vault's audit log: %w: it is shorter than the mark", fs.ErrInvalid)
	}
	data = data[since:]
	var out Requests
	for len(data) > 0 {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break // being written
		}
		data = rest
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("reading Vault's audit log: %w", err)
		}
		if e.Type == "response" && !slices.Contains(e.Auth.Policies, "root") {
			out = append(out, e.asRequest())
		}
	}
	return out, nil
}

// entry is the part of an audit log entry that we look at.
type entry struct {
	Time  time.Time
	Type  string // request or response
	Error string
	Auth  struct {
		Accessor string
		Policies []string
	}
	Request struct {
		Operation, Path string
		Data            struct {
			LeaseID string `json:"lease_id"`
		}
	}
	Response struct {
		Auth   struct{ Accessor string }
		Secret struct {
			LeaseID string `json:"lease_id"`
		}
	}
}

func (e entry) asRequest() Request {
	r := Request{Time: e.Time, Operation: e.Request.Operation, Path: e.Request.Path, Error: e.Error,
		Accessor: e.Auth.Accessor, LeaseID: e.Request.Data.LeaseID}
	if r.Accessor == "" {
		r.Accessor = e.Response.Auth.Accessor
	}
	if r.LeaseID == "" {
		r.LeaseID = e.Response.Secret.LeaseID
	}
	return r
}
