// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// ReadOptions are the ways to read.
type ReadOptions struct {
	Fresh bool // ask Vault, whatever the cache has
}

// shareKey is what two reads must have in common to share a response.
type shareKey struct{ identity, namespace, request string }

// Read reads a secret. *Error; an answer without a secret in it is a BadResponse.
//
// GETs of one Identity are shared, others never:
//
//  1. A response of the cache is taken, unless the read is to be Fresh.
//  2. An identical read that is under way is waited for. Its response is not taken when it is a lease: a lease belongs to
//     one session and dies with it. Nor is a refusal of the other's session. Then, and from then on for that request,
//     each caller reads by itself.
//  3. Else Vault is asked, and the response kept when it is a plain value: no lease, no certificate, no clock of its own.
func (c *Client) Read(ctx context.Context, auth Auth, r Request, o ReadOptions) (*Response, error) {
	q := c.authorised(OpRead, r.method(), r.Path, auth)
	if err := r.check(); err != nil {
		return nil, c.newError(q, BadRequest, err)
	}
	q.query = r.Query
	if q.method != http.MethodGet {
		q.body = r.Args
		if r.Args == nil {
			q.body = struct{}{}
		}
	}
	if q.method != http.MethodGet || auth.Identity == "" {
		resp, _, err := c.read(ctx, q)
		return resp, err
	}
	key := shareKey{auth.Identity, q.namespace, r.Key()}
	if !o.Fresh {
		if resp, ok := c.cache.get(key); ok {
			c.obs.CacheHit(c.cfg.Name, HitCache)
			return resp, nil
		}
	}
	own := func(ctx context.Context) (*Response, error) {
		resp, size, err := c.read(ctx, q)
		if err == nil {
			c.keep(key, resp, size)
		}
		return resp, err
	}
	if c.flights.alone(key.request) {
		return own(ctx)
	}
	resp, leader, err := c.flights.do(ctx, key, own)
	switch class := ClassOf(err); {
	case errors.Is(err, errLeft):
		return nil, c.fail(ctx, q, context.Cause(ctx))
	case leader:
	case err != nil && (class == InvalidToken || class == Denied):
		return own(ctx)
	case err == nil && resp.LeaseID != "":
		return own(ctx)
	case err == nil:
		c.obs.CacheHit(c.cfg.Name, HitInflight)
	}
	return resp, err
}

// read asks Vault for a secret, and tells the size of its answer in bytes.
func (c *Client) read(ctx context.Context, q call) (*Response, int, error) {
	r, err := c.exchange(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	switch s := r.secret; {
	case s == nil:
		return nil, 0, c.bad(q, r, "it answered without a body; the path is one that only takes")
	case s.WrapInfo != nil:
		return nil, 0, c.bad(q, r, "it answered with a wrapped secret, which is not supported")
	case s.Auth != nil:
		return nil, 0, c.bad(q, r, "it answered with a login, not with a secret")
	case s.Data == nil:
		return nil, 0, c.bad(q, r, "it answered without data")
	}
	return &Response{
		LeaseID: r.secret.LeaseID, LeaseDuration: seconds(int64(r.secret.LeaseDuration)), Renewable: r.secret.Renewable,
		Data: r.secret.Data, Warnings: messages(r.secret.Warnings, q.token),
	}, r.size, nil
}

// maxCachedBytes is the largest answer that is kept, so that the cache's size bounds its memory.
const maxCachedBytes = 64 << 10

// keep puts a response into the cache if it may be served again, and remembers requests that give leases.
func (c *Client) keep(key shareKey, r *Response, size int) {
	switch {
	case r.LeaseID != "":
		c.flights.leased(key.request)
	case size <= maxCachedBytes && plain(r):
		c.cache.add(key, r)
	}
}

// ownClock are the fields by which Vault tells when a value that has no lease ends.
var ownClock = []string{"ttl", "rotation_period", "rotation_schedule", "last_vault_rotation", "expiration", "expires_at", "expire_time"}

// plain tells whether a response has no clock of its own: no lease, no certificate, no ttl, no date of deletion.
func plain(r *Response) bool {
	for _, field := range ownClock {
		if _, ok := r.Data[field]; ok {
			return false
		}
	}
	if metadata, ok := r.Data["metadata"].(map[string]any); ok {
		if at, _ := metadata["deletion_time"].(string); at != "" {
			return false
		}
	}
	return r.LeaseID == "" && !hasCertificate(r.Data)
}

// hasCertificate looks for a PEM certificate anywhere in a value. Its recursion is bounded by maxJSONDepth.
func hasCertificate(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, "-----BEGIN CERTIFICATE")
	case []any:
		for _, e := range v {
			if hasCertificate(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if hasCertificate(e) {
				return true
			}
		}
	}
	return false
}
