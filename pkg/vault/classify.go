// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// newError describes a failure of a call.
func (c *Client) newError(q call, class Class, err error) *Error {
	return &Error{Op: q.op, Connection: c.cfg.Name, Namespace: q.namespace, Path: q.path, Role: q.role, Class: class, Err: err}
}

// fail is the error of an exchange that had no complete answer.
func (c *Client) fail(ctx context.Context, q call, err error) *Error {
	switch {
	case errors.As(err, new(*badAnswer)):
		return c.newError(q, BadResponse, err)
	case errors.As(err, new(*badRequest)):
		return c.newError(q, BadRequest, err)
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return c.newError(q, Transient, err)
}

// refused is the error of a complete answer that is not 2xx.
func (c *Client) refused(q call, resp *http.Response, body []byte) *Error {
	answer := decodeRefusal(body)
	e := c.newError(q, classify(q.op, q.login, resp.StatusCode, answer.Errors), nil)
	e.Status = resp.StatusCode
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	e.Messages = messages(slices.Concat(answer.Errors, answer.Warnings), q.token, q.jwt)
	if !answer.vault {
		e.Messages = []string{"the answer is not the JSON of a Vault"}
	}
	answer.explain(e)
	return e
}

// refusal is the body of an answer that is not 2xx.
type refusal struct {
	Errors   []string `json:"errors"`
	Warnings []string `json:"warnings"`
	Data     struct {
		Metadata struct {
			Version   json.Number `json:"version"`
			Deleted   string      `json:"deletion_time"`
			Destroyed bool        `json:"destroyed"`
		} `json:"metadata"`
	} `json:"data"`
	vault bool // it is one of Vault's
}

func decodeRefusal(body []byte) refusal {
	var r refusal
	if checkShape(body) == nil && unmarshal(body, &r) == nil {
		r.vault = true
		return r
	}
	return refusal{}
}

// explain adds what only this answer tells: why there is nothing at a path of KV version 2.
func (r refusal) explain(e *Error) {
	m := r.Data.Metadata
	deleted, err := time.Parse(time.RFC3339, m.Deleted)
	switch {
	case e.Op != OpRead:
	case e.Status == http.StatusNotFound && m.Destroyed:
		e.hint = fmt.Sprintf("version %v was destroyed: write a new version, or ask for another with ?version=", m.Version)
	case e.Status == http.StatusNotFound && err == nil:
		e.hint = fmt.Sprintf("version %v was deleted at %s: undelete it, or write a new version", m.Version, deleted.UTC().Format(time.RFC3339))
	case e.Status == http.StatusNotFound && slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "versioned K/V") }):
		mount, rest, _ := strings.Cut(e.Path, "/")
		e.hint = fmt.Sprintf("this is KV version 2, whose paths have data/ after the mount, as in %s/data/%s", mount, rest)
	case e.Status == http.StatusNotFound && len(e.Messages) == 0:
		e.hint = "nothing is there: check secretPath"
	case e.Status == http.StatusMethodNotAllowed:
		e.hint = "the path wants another method: PUT for secrets that are issued, as those of pki, GET for those that are stored"
	}
}

// Texts of Vault's that decide a class; see classify.
var (
	textsGone         = []string{"lease not found", "invalid lease"}
	textsNotRenewable = []string{"lease is not renewable", "batch tokens cannot be renewed", "token is not renewable"}
	textsNetwork      = []string{"connection refused", "connection reset", "no such host", "i/o timeout", "deadline exceeded", "no route to host", "network is unreachable", "handshake timeout", "unexpected eof", "server misbehaving", "too many connections", "the database system is"}
	textsRole         = []string{"could not be found", "invalid role name"}
	textsToken        = []string{"error validating token", "error validating claims", "claim", "token is expired", "service account", "namespace not authorized", "invalid audience", "token not yet valid", "no known key"}
)

// classify judges a complete answer that is not 2xx by status and text, for neither alone tells: a lease cannot be
// renewed for good, or only while its database is down, and both are 400; a login is 403 when the role does not allow
// the service account, and when Vault cannot reach the Kubernetes API (then with the bare text "permission denied").
func classify(op Op, login string, status int, texts []string) Class {
	text := strings.ToLower(strings.Join(texts, "\n"))
	has := func(list []string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(text, strings.ToLower(s)) })
	}
	switch {
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusPreconditionFailed,
		status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == 472, status == 473, status == 474, status < 400:
		return Transient
	case status == http.StatusNotFound:
		return NotFound
	case status == http.StatusForbidden && op == OpLogin:
		if login == "kubernetes" && len(texts) == 1 && texts[0] == "permission denied" || has(textsNetwork) {
			return Transient
		}
		return Denied
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		if strings.Contains(text, "invalid token") || strings.Contains(text, "bad token") {
			return InvalidToken
		}
		return Denied
	case status != http.StatusBadRequest:
		return BadRequest
	}
	switch { // 400
	case has(textsGone) && op != OpRead && op != OpLogin:
		return LeaseGone
	case has(textsNotRenewable):
		return NotRenewable
	case has(textsNetwork):
		return Transient
	case (op == OpRenewLease || op == OpRevokeLease) && (strings.Contains(text, "failed to renew entry") || strings.Contains(text, "failed to revoke entry")):
		return Transient
	case op == OpRead && strings.Contains(text, "unknown role"), op == OpLogin && has(textsRole):
		return NotFound
	case op == OpLogin && has(textsToken):
		return Denied
	}
	return BadRequest
}

// retryAfter reads the header of that name, seconds or a date (RFC 9110, 10.2.3), as a wait of at most an hour.
func retryAfter(header string, now time.Time) time.Duration {
	var wait time.Duration
	if n, err := strconv.ParseInt(header, 10, 64); err == nil {
		wait = seconds(n)
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), time.Hour)
}
