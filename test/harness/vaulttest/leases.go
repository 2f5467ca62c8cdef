// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// list returns the keys below a path; a path with nothing below it has none.
func (s *Server) list(ctx context.Context, path string) ([]string, error) {
	secret, err := s.root.Logical().ListWithContext(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", path, err)
	}
	if secret == nil {
		return nil, nil
	}
	keys, _ := secret.Data["keys"].([]any)
	out := make([]string, 0, len(keys))
	for _, key := range keys {
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("listing %s: a key is a %T", path, key)
		}
		out = append(out, name)
	}
	return out, nil
}

// Leases returns the ids of all leases that Vault holds below prefix ("database/creds/", or "" for all), sorted. A login
// has a lease too, under "auth/"; root's is not in the list. A lease whose revocation fails (its database is down) stays in the list.
func (s *Server) Leases(ctx context.Context, prefix string) ([]string, error) {
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	keys, err := s.list(ctx, "sys/leases/lookup/"+prefix)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, key := range keys {
		if !strings.HasSuffix(key, "/") {
			if !slices.Contains(s.own, prefix+key) {
				out = append(out, prefix+key)
			}
			continue
		}
		below, err := s.Leases(ctx, prefix+key)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	slices.Sort(out)
	return out, nil
}

// Token is what Vault knows about a live token.
type Token struct {
	Accessor    string
	DisplayName string // for example jwt-system:serviceaccount:shop:web
	Path        string // what made it: auth/jwt/login
	Policies    []string
	Meta        map[string]any
	TTL         time.Duration // left
}

// Tokens returns the live service tokens, but for root's. A batch token is in no list: Vault does not keep it.
func (s *Server) Tokens(ctx context.Context) ([]Token, error) {
	accessors, err := s.list(ctx, "auth/token/accessors")
	if err != nil {
		return nil, err
	}
	slices.Sort(accessors)
	var out []Token
	for _, accessor := range accessors {
		secret, err := s.root.Auth().Token().LookupAccessorWithContext(ctx, accessor)
		if gone(err) {
			continue // it ended between the two requests
		}
		if err != nil {
			return nil, fmt.Errorf("looking up a token by its accessor: %w", err)
		}
		token, err := asToken(accessor, secret)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(token.Policies, "root") {
			out = append(out, token)
		}
	}
	return out, nil
}

func asToken(accessor string, secret *api.Secret) (Token, error) {
	policies, err := secret.TokenPolicies()
	if err != nil {
		return Token{}, fmt.Errorf("the policies of a token: %w", err)
	}
	ttl, err := secret.TokenTTL()
	if err != nil {
		return Token{}, fmt.Errorf("the ttl of a token: %w", err)
	}
	t := Token{Accessor: accessor, Policies: policies, TTL: ttl}
	t.DisplayName, _ = secret.Data["display_name"].(string)
	t.Path, _ = secret.Data["path"].(string)
	t.Meta, _ = secret.Data["meta"].(map[string]any)
	return t, nil
}

// gone tells whether Vault says that an accessor has no token.
func gone(err error) bool {
	var e *api.ResponseError
	return errors.As(err, &e) && (e.StatusCode == http.StatusNotFound || e.StatusCode == http.StatusForbidden ||
		strings.Contains(strings.Join(e.Errors, " "), "invalid accessor")) // with 400, while the token is being revoked
}

// TokenAccessors returns the accessors of [Server.Tokens], sorted.
func (s *Server) TokenAccessors(ctx context.Context) ([]string, error) {
	tokens, err := s.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(tokens))
	for _, t := range tokens {
		out = append(out, t.Accessor)
	}
	return out, nil
}

// AwaitEmpty waits until Vault holds no lease and no token but root's. The error, when ctx ends first, lists what is left.
func (s *Server) AwaitEmpty(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		leases, err := s.Leases(ctx, "")
		if err != nil {
			return err
		}
		tokens, err := s.TokenAccessors(ctx)
		if err != nil {
			return err
		}
		if len(leases) == 0 && len(tokens) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("left in Vault: the leases %q and the tokens with the accessors %q: %w", leases, tokens, ctx.Err())
		case <-tick.C:
		}
	}
}
