// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Class tells what to do about a failure.
type Class int

// Classes of failure.
const (
	Unknown      Class = iota // not an error of this package
	Transient                 // the same call may work later: Vault is down, sealed, busy, or cannot reach what it needs
	Denied                    // Vault refuses: a policy or a role must change
	InvalidToken              // the session is over: log in again
	NotFound                  // nothing there, a deleted version, or an unknown role
	LeaseGone                 // the lease is over: fetch anew
	NotRenewable              // the lease or token cannot be renewed: fetch anew, or log in again, in time
	BadRequest                // the request is wrong
	BadResponse               // the answer is empty, not Vault's, or too large
)

var classNames = [...]string{"unknown", "transient", "denied", "invalid-token", "not-found", "lease-gone", "not-renewable", "bad-request", "bad-response"}

// String is a word for logs and metrics, from a fixed few.
func (c Class) String() string {
	if c < 0 || int(c) >= len(classNames) {
		return classNames[Unknown]
	}
	return classNames[c]
}

// ClassOf is the class of an error, or of the first one that it wraps. A context's error is Transient. Unknown for nil
// and for errors that have nothing to do with Vault.
func ClassOf(err error) Class {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Class
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Transient
	}
	return Unknown
}

// Error is a failure of one operation. Its text says what failed, where, why and what to do, and holds no token.
type Error struct {
	Op         Op
	Connection string
	Namespace  string
	Path       string // of the request, without /v1/
	Role       string // of a login
	Status     int    // HTTP status; 0: there was no complete answer
	Class      Class
	Messages   []string      // Vault's own, cut in length and number, tokens stripped
	RetryAfter time.Duration // how long Vault, or the open breaker, asks to wait; 0: it did not say
	Err        error         // why there was no usable answer; nil when Vault answered with a failure
	hint       string        // what to do, when more is known than the class tells
}

// Unwrap gives the cause, a context's error for instance.
func (e *Error) Unwrap() error { return e.Err }

var doing = map[Op]string{
	OpLogin: "logging in at", OpRenewSession: "renewing the session by", OpLookupSession: "looking up the session by",
	OpRevokeSession: "revoking the session by", OpRead: "reading", OpRenewLease: "renewing a lease by",
	OpLookupLease: "looking up a lease by", OpRevokeLease: "revoking a lease by", OpHealth: "asking",
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", doing[e.Op], e.Path)
	if e.Role != "" {
		fmt.Fprintf(&b, " as role %q", e.Role)
	}
	fmt.Fprintf(&b, " of vault connection %q", e.Connection)
	if e.Namespace != "" {
		fmt.Fprintf(&b, " in namespace %q", e.Namespace)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": status %d", e.Status)
	}
	if len(e.Messages) > 0 {
		fmt.Fprintf(&b, ": %s", strings.Join(e.Messages, "; "))
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %s", clean(e.Err.Error()))
	}
	if advice := e.advice(); advice != "" {
		fmt.Fprintf(&b, " (%s)", advice)
	}
	return b.String()
}

// advice is what to do about it, where that is not plain from the rest.
func (e *Error) advice() string {
	switch {
	case e.hint != "":
		return e.hint
	case e.Class == Denied && e.Op == OpLogin:
		return "check the role's bound service accounts, namespaces and audience"
	case e.Class == Denied:
		return "the policies of the pod's role must allow it"
	case e.Class == InvalidToken:
		return "the session has expired or was revoked: log in again"
	case e.Class == NotFound && e.Op == OpLogin:
		return "create the role, or name another in roleName"
	case e.Class == Transient && e.Status == http.StatusServiceUnavailable:
		return "unseal or initialise it, or wait for its leader"
	case e.Class == Transient:
		return "it is tried again"
	}
	return ""
}

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
			Version   any    `json:"version"`
			Deleted   string `json:"deletion_time"`
			Destroyed bool   `json:"destroyed"`
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
	switch m := r.Data.Metadata; {
	case e.Op != OpRead:
	case e.Status == http.StatusNotFound && m.Destroyed:
		e.hint = fmt.Sprintf("version %v was destroyed: write a new version, or ask for another with ?version=", m.Version)
	case e.Status == http.StatusNotFound && m.Deleted != "":
		e.hint = fmt.Sprintf("version %v was deleted at %s: undelete it, or write a new version", m.Version, clean(m.Deleted))
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
	textsNotRenewable = []string{"lease is not renewable", "batch tokens cannot be renewed", "invalid lease ID", "token is not renewable"}
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
	case op == OpLogin && has(textsRole):
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

// UnknownConnectionError says that the configuration has no connection of that name.
type UnknownConnectionError struct {
	Name  string
	Known []string // sorted
}

// Error implements error.
func (e *UnknownConnectionError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("vault connection %q is not configured on this node; no connection is", e.Name)
	}
	return fmt.Sprintf("vault connection %q is not configured on this node; there are: %s", e.Name, strings.Join(e.Known, ", "))
}
