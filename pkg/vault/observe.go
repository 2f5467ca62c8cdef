// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import "time"

// Op is what an exchange with Vault was for; a label of metrics, one of a fixed few.
type Op string

// Operations.
const (
	OpLogin         Op = "login"
	OpRenewSession  Op = "renew-session"
	OpLookupSession Op = "lookup-session"
	OpRevokeSession Op = "revoke-session"
	OpRead          Op = "read"
	OpRenewLease    Op = "renew-lease"
	OpLookupLease   Op = "lookup-lease"
	OpRevokeLease   Op = "revoke-lease"
	OpHealth        Op = "health" // the breaker's own question whether Vault is back
)

// Codes that an exchange without an HTTP status has.
const (
	CodeError    = "error"    // no complete answer: network, TLS, a cut body, a refused redirect
	CodeTimeout  = "timeout"  // no complete answer in time
	CodeCanceled = "canceled" // the caller gave up
	CodeBreaker  = "breaker"  // not sent: the breaker is open
)

// Kinds of cache hit.
const (
	HitCache    = "cache"    // answered from the response cache
	HitInflight = "inflight" // answered by an identical read that was under way
)

// Observer is told of every exchange. Its methods must not block. Labels are bounded.
type Observer interface {
	// VaultRequest tells of one exchange: its HTTP status, or one of the codes of this package, and how long it took
	// (waiting for the rate limit not included).
	VaultRequest(connection string, op Op, code string, d time.Duration)
	// CacheHit tells of a read that needed no exchange of its own.
	CacheHit(connection string, kind string)
}

// nobody observes nothing.
type nobody struct{}

func (nobody) VaultRequest(string, Op, string, time.Duration) {}
func (nobody) CacheHit(string, string)                        {}
