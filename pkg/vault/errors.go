// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	Role       string // of the login
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
		return "check the mount of the auth method, and the role's bound service accounts, namespaces and audience"
	case e.Class == Denied:
		return "the policies of the pod's role must allow it"
	case e.Class == InvalidToken:
		return "the session has expired or was revoked: log in again"
	case e.Class == NotFound && e.Op == OpLogin && e.Status == http.StatusNotFound:
		return "check the mount of the auth method"
	case e.Class == NotFound && e.Op == OpLogin:
		return "create the role, or name another in roleName"
	case e.Class == Transient && e.Op == OpLogin && e.Status == http.StatusForbidden:
		return "vault says so when it cannot reach the Kubernetes API, when there is no auth method at that mount, and when the service account was made anew; it is tried again"
	case e.Class == Transient && e.Status == http.StatusServiceUnavailable:
		return "unseal or initialise it, or wait for its leader"
	case e.Class == Transient:
		return "it is tried again"
	}
	return ""
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
