// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/leasefs/leasefs/pkg/secret"
)

// Login is one login with a pod's service account token.
type Login struct {
	Namespace         string // Vault namespace; "": the connection's
	Method            string // kubernetes or jwt
	Mount             string // of the auth method, without auth/; "": the method's name
	Role              string // Vault role; "" lets a jwt mount use its default
	Path              string // below the mount; "": login
	JWT               secret.Value
	ServiceAccountUID string // of the pod, for Session.Identity
}

// Session is what a login gives.
type Session struct {
	Token     secret.Value
	Accessor  string        // "" for a batch token
	TTL       time.Duration // 0: never ends
	Renewable bool
	Batch     bool // a batch token: not stored by Vault, never renewed, never revoked
	// Identity is an opaque, stable hash of whom Vault took the pod for and what it allows: connection, namespace,
	// method, mount, role, service account, entity, policies and metadata. Sessions of one Identity may share a response.
	Identity string
}

// Auth is a session as the other calls need it.
type Auth struct {
	Namespace string // Vault namespace; "": the connection's
	Token     secret.Value
	Identity  string // Session.Identity; "": share nothing
	Role      string // of its login, for errors; "": they do not say
}

// Grant is how long Vault lets something live on.
type Grant struct {
	TTL       time.Duration // 0: of a session that never ends, of a lease that is over
	Renewable bool
	Capped    bool // less than was asked for: the maximum TTL is near
}

// Login logs in. When ctx ends before Vault has answered, the token that Vault may still give is revoked behind the
// caller's back, so that a caller who gave up leaves none behind. *Error.
func (c *Client) Login(ctx context.Context, l Login) (Session, error) {
	if l.Mount == "" {
		l.Mount = l.Method
	}
	if l.Path == "" {
		l.Path = "login"
	}
	q := call{
		op: OpLogin, finish: true, method: http.MethodPost, namespace: c.namespace(l.Namespace), role: l.Role, login: l.Method, jwt: l.JWT,
		path: "auth/" + strings.Trim(l.Mount, "/") + "/" + strings.Trim(l.Path, "/"),
		body: struct {
			Role string `json:"role,omitempty"`
			JWT  string `json:"jwt"`
		}{l.Role, l.JWT.Reveal()},
	}
	if err := checkPath(q.path); err != nil {
		return Session{}, c.newError(q, BadRequest, err)
	}
	if ctx.Err() != nil {
		return Session{}, c.fail(ctx, q, context.Cause(ctx))
	}
	type outcome struct {
		session Session
		err     error
	}
	done := make(chan outcome)
	started := c.background(func() {
		s, err := c.login(ctx, q, l)
		select {
		case done <- outcome{s, err}:
		case <-ctx.Done():
			if err == nil {
				c.discard(ctx, q.namespace, s.Token)
			}
		}
	})
	if !started {
		return Session{}, c.newError(q, Transient, errors.New("the client of the connection is closed"))
	}
	select {
	case o := <-done:
		return o.session, o.err
	case <-ctx.Done():
		return Session{}, c.fail(ctx, q, context.Cause(ctx))
	}
}

// discard revokes the token of a login that nobody waits for any more. It does what it can: what fails here ends with
// the token's TTL.
func (c *Client) discard(ctx context.Context, namespace string, token secret.Value) {
	ctx, release := c.detach(ctx)
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	_ = c.RevokeSession(ctx, Auth{Namespace: namespace, Token: token})
}

func (c *Client) login(ctx context.Context, q call, l Login) (Session, error) {
	r, err := c.exchange(ctx, q)
	if err != nil {
		return Session{}, err
	}
	if r.secret == nil || r.secret.Auth == nil || r.secret.Auth.ClientToken == "" {
		text := "it answered without a token"
		if r.secret != nil && r.secret.Auth != nil && r.secret.Auth.MFARequirement != nil {
			text = "it wants a second factor, which a pod cannot give"
		}
		return Session{}, c.bad(q, r, text)
	}
	a := r.secret.Auth
	return Session{
		Token: secret.New(a.ClientToken), Accessor: a.Accessor,
		TTL: seconds(int64(a.LeaseDuration)), Renewable: a.Renewable, Batch: isBatch(a.ClientToken),
		Identity: c.identity(q.namespace, l, a),
	}, nil
}

// isBatch tells batch tokens by their prefix; "b." is that of Vault before 1.10.
func isBatch(token string) bool {
	return strings.HasPrefix(token, "hvb.") || strings.HasPrefix(token, "b.")
}

// identity hashes whom Vault authorised. Every part is preceded by its length, so that no two lists run together.
func (c *Client) identity(namespace string, l Login, a *api.SecretAuth) string {
	h := sha256.New()
	put(h, "leasefs session identity 1", c.cfg.Name, namespace, l.Method, l.Mount, l.Path, l.Role, l.ServiceAccountUID, a.EntityID)
	for _, policies := range [][]string{a.Policies, a.TokenPolicies, a.IdentityPolicies} {
		put(h, slices.Sorted(slices.Values(policies))...)
	}
	var metadata []string
	for _, k := range slices.Sorted(maps.Keys(a.Metadata)) {
		metadata = append(metadata, k, a.Metadata[k])
	}
	put(h, metadata...)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// put writes a list of strings so that different lists never write the same bytes.
func put(h hash.Hash, parts ...string) {
	var n [8]byte
	length := func(i int) { binary.BigEndian.PutUint64(n[:], uint64(i)); _, _ = h.Write(n[:]) }
	length(len(parts))
	for _, p := range parts {
		length(len(p))
		_, _ = h.Write([]byte(p))
	}
}

// RenewSession renews the session by the TTL of its role. *Error; NotRenewable for a batch token.
func (c *Client) RenewSession(ctx context.Context, auth Auth) (Grant, error) {
	q := c.authorised(OpRenewSession, http.MethodPost, "auth/token/renew-self", auth)
	q.body = struct{}{}
	if isBatch(auth.Token.Reveal()) {
		return Grant{}, c.newError(q, NotRenewable, errors.New("a batch token cannot be renewed"))
	}
	r, err := c.exchange(ctx, q)
	if err != nil {
		return Grant{}, err
	}
	if r.secret == nil || r.secret.Auth == nil {
		return Grant{}, c.bad(q, r, "it answered without the session's new TTL")
	}
	return Grant{TTL: seconds(int64(r.secret.Auth.LeaseDuration)), Renewable: r.secret.Auth.Renewable, Capped: capped(r.secret.Warnings)}, nil
}

// LookupSession asks how long the session lives. *Error; InvalidToken when it is over.
func (c *Client) LookupSession(ctx context.Context, auth Auth) (Grant, error) {
	q := c.authorised(OpLookupSession, http.MethodGet, "auth/token/lookup-self", auth)
	return c.lookup(ctx, q)
}

// RevokeSession ends the session and all its leases. A session that is over already, and a batch token, which cannot be
// revoked, are no error.
func (c *Client) RevokeSession(ctx context.Context, auth Auth) error {
	if isBatch(auth.Token.Reveal()) {
		return nil
	}
	q := c.authorised(OpRevokeSession, http.MethodPost, "auth/token/revoke-self", auth)
	q.body = struct{}{}
	_, err := c.exchange(ctx, q)
	var e *Error
	if errors.As(err, &e) && (e.Class == InvalidToken || e.Status == http.StatusBadRequest && slices.ContainsFunc(e.Messages, func(m string) bool {
		return strings.Contains(m, "batch tokens cannot be revoked")
	})) {
		return nil
	}
	return err
}

// authorised is a call with the session's token.
func (c *Client) authorised(op Op, method, path string, auth Auth) call {
	return call{op: op, method: method, path: path, namespace: c.namespace(auth.Namespace), role: auth.Role, token: auth.Token}
}

// lookup makes a call whose data tell ttl and renewable.
func (c *Client) lookup(ctx context.Context, q call) (Grant, error) {
	r, err := c.exchange(ctx, q)
	if err != nil {
		return Grant{}, err
	}
	if r.secret == nil || r.secret.Data == nil {
		return Grant{}, c.bad(q, r, "it answered without data")
	}
	n, ok := r.secret.Data["ttl"].(json.Number)
	ttl, err := n.Int64()
	if !ok || err != nil {
		return Grant{}, c.bad(q, r, "it answered without a ttl")
	}
	renewable, _ := r.secret.Data["renewable"].(bool)
	return Grant{TTL: seconds(ttl), Renewable: renewable}, nil
}

// capped tells whether Vault warned that it gave less than was asked for.
func capped(warnings []string) bool {
	return slices.ContainsFunc(warnings, func(w string) bool {
		return strings.Contains(w, "TTL value is capped") || strings.Contains(w, "exceeded the effective max_ttl")
	})
}

// bad is the error of a 2xx without what it must hold.
func (c *Client) bad(q call, r *reply, text string) *Error {
	e := c.newError(q, BadResponse, errors.New(text))
	e.Status = r.status
	if r.secret != nil {
		e.Messages = messages(r.secret.Warnings, q.token, q.jwt)
	}
	return e
}
