// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/leasefs/leasefs/pkg/vault"
)

// Kind is what bounds the life of a secret.
type Kind string

// Kinds of lease. KindSession is the login itself, the parent of every Vault lease under it.
const (
	KindSession     Kind = "session"
	KindRenewable   Kind = "renewable"   // a Vault lease that can be renewed, until its maximum TTL
	KindFixed       Kind = "fixed"       // a Vault lease that cannot be renewed
	KindCertificate Kind = "certificate" // an issued certificate: its notAfter
	KindStaticRole  Kind = "static-role" // a credential that Vault rotates on a clock of its own
	KindPlain       Kind = "plain"       // nothing: read again every refresh interval
)

// staticSlack is how long after its announced rotation a static credential counts as possibly still right. Vault
// rotates up to a second after the ttl reaches 0, and later while it cannot reach the database: then the old credential
// is the right one.
const staticSlack = 10 * time.Second

// Lease is what the daemon knows about the life of one secret of a volume. It holds no value.
type Lease struct {
	Key     string    `json:"key"`          // of the request, unique within a volume
	Path    string    `json:"path"`         // Vault path, for people
	Kind    Kind      `json:"kind"`         //
	ID      string    `json:"id,omitempty"` // Vault's lease_id, "" where there is none
	Session int       `json:"session"`      // number of the session that read it
	Term              // when it was granted, how long it lasts
	Checked time.Time `json:"checked,omitzero"` // when Vault last confirmed it between renewals
	// Ended: its end was reported, and its files are gone if the volume wants that.
	Ended   bool `json:"ended,omitempty"`
	Trouble      // what went wrong since
}

// Term is a span of validity that Vault granted.
type Term struct {
	Granted time.Time     `json:"granted"`          // when Vault last granted it
	TTL     time.Duration `json:"ttl,omitempty"`    // from Granted; 0: it does not end by itself
	Expires time.Time     `json:"expires,omitzero"` // zero: never
	// Renewable and Final decide how it goes on: a term that is renewable and not final is renewed; a final one has
	// reached its maximum TTL, and is replaced like one that was never renewable.
	Renewable bool `json:"renewable,omitempty"`
	Final     bool `json:"final,omitempty"`
}

// Trouble is a run of failures on one lease or session.
type Trouble struct {
	Failures int       `json:"failures,omitempty"`
	Retry    time.Time `json:"retry,omitzero"`    // not before
	Problem  string    `json:"problem,omitempty"` // text for people, without any value
}

// expired reports whether the term is over at now.
func (t Term) expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// grant starts a term of ttl at now; 0 never ends.
func grant(now time.Time, ttl time.Duration, renewable bool) Term {
	t := Term{Granted: now, TTL: ttl, Renewable: renewable}
	if ttl > 0 {
		t.Expires = now.Add(ttl)
	}
	return t
}

// Renewed is the term after a renewal that answered g at now.
//
// Vault keeps saying `renewable: true` when the maximum TTL is reached; the signs are its warning and an end that no
// longer moves. The end must move by at least a tenth of what was granted before, or renewing gains nothing.
func (t Term) Renewed(g vault.Grant, now time.Time) Term {
	if g.TTL <= 0 && !t.Expires.IsZero() { // less than a second is left
		t.Final = true
		return t
	}
	n := grant(now, g.TTL, g.Renewable)
	gained := n.Expires.Sub(t.Expires)
	n.Final = g.Capped || !g.Renewable || (!t.Expires.IsZero() && gained < t.TTL/10)
	return n
}

// Classify says what bounds the life of the answer r to q, received at now, when the wall clock showed wall; the caller
// fills in Key and Session.
//
//  1. A certificate that was issued (the answer to a write) lasts until its notAfter, which is wall time, or the lease's end
//     if that is sooner. Its TTL is not positive where it has ended already. A certificate that was merely read (a KV value,
//     a CA) has a life that reading again does not prolong.
//  2. A lease_id means a lease, renewable or not.
//  3. A ttl beside a rotation period, schedule or time of rotation means a static role.
//  4. All else is plain. The lease_duration of a KV v1 answer without lease_id is advice of its writer, not a bound.
func Classify(q vault.Request, r *vault.Response, now, wall time.Time) Lease {
	l := Lease{Path: q.Path, ID: r.LeaseID}
	switch end, isCert := certificateEnd(r.Data); {
	case isCert && q.Method != "" && q.Method != http.MethodGet: // 1
		l.Kind = KindCertificate
		l.Term = grant(now, end.Sub(wall), false)
		if r.LeaseID != "" && r.LeaseDuration > 0 && r.LeaseDuration < l.TTL {
			l.Term = grant(now, r.LeaseDuration, false)
		}
	case r.LeaseID != "" && r.LeaseDuration > 0: // 2
		l.Kind = KindFixed
		if r.Renewable {
			l.Kind = KindRenewable
		}
		l.Term = grant(now, r.LeaseDuration, r.Renewable)
	default:
		l.Kind, l.Term = KindPlain, Term{Granted: now} // 4
		if ttl, ok := staticTTL(r.Data); ok {          // 3
			l.Kind = KindStaticRole
			l.TTL, l.Expires = ttl, now.Add(ttl+staticSlack)
		}
	}
	return l
}

// certificateEnd is the notAfter of the first certificate in data's `certificate`, if there is one.
func certificateEnd(data map[string]any) (time.Time, bool) {
	text, ok := data["certificate"].(string)
	if !ok {
		return time.Time{}, false
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}

// staticTTL is the time to the next rotation in the answer of a static role, as the database and LDAP engines give it.
func staticTTL(data map[string]any) (time.Duration, bool) {
	ttl, ok := data["ttl"].(json.Number)
	if !ok {
		return 0, false
	}
	seconds, err := ttl.Int64()
	if err != nil || seconds < 0 {
		return 0, false
	}
	for _, clock := range []string{"rotation_period", "rotation_schedule", "last_vault_rotation"} {
		if _, ok := data[clock]; ok {
			return time.Duration(seconds) * time.Second, true
		}
	}
	return 0, false
}
