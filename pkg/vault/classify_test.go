// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"net/http"
	"testing"
	"time"
)

const denied = "1 error occurred:\n\t* permission denied\n\n"

// Every text is one that Vault 1.21 was seen to answer with.
func TestClassOfAnAnswerIsJudgedByStatusAndText(t *testing.T) {
	for _, c := range []struct {
		name   string
		op     Op
		login  string
		status int
		text   string
		want   Class
	}{
		{"sealed", OpRead, "", 503, "Vault is sealed", Transient},
		{"internal error", OpRead, "", 500, "1 error occurred:\n\t* internal error\n\n", Transient},
		{"new credentials with the database down", OpRead, "", 500, "failed to connect: connection refused", Transient},
		{"a proxy without a Vault behind it", OpRead, "", 502, "", Transient},
		{"rate limit quota", OpRead, "", 429, `request path "secret/data/x": rate limit quota exceeded`, Transient},
		{"replica that is behind", OpRead, "", 412, "required index state not present", Transient},
		{"standby without a leader", OpLogin, "jwt", 474, "", Transient},
		{"recovery secondary", OpRead, "", 472, "", Transient},
		{"no policy", OpRead, "", 403, denied, Denied},
		{"no policy to revoke leases", OpRevokeLease, "", 403, denied, Denied},
		{"session over, read", OpRead, "", 403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n", InvalidToken},
		{"session over, renewal", OpRenewSession, "", 403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n", InvalidToken},
		{"session over, lease", OpRenewLease, "", 403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n", InvalidToken},
		{"nothing there", OpRead, "", 404, "", NotFound},
		{"no such mount, asked by root", OpRead, "", 404, `no handler for route "nope/x". route entry not found.`, NotFound},
		{"no such database role", OpRead, "", 400, "unknown role: nope", NotFound},
		{"GET on pki/issue", OpRead, "", 405, "1 error occurred:\n\t* unsupported operation\n\n", BadRequest},
		{"bad argument", OpRead, "", 400, "common name x.com not allowed by this role", BadRequest},

		{"lease over, renewal", OpRenewLease, "", 400, "lease not found", LeaseGone},
		{"lease over, lookup", OpLookupLease, "", 400, "invalid lease", LeaseGone},
		{"lease of a certificate", OpRenewLease, "", 400, "lease is not renewable", NotRenewable},
		{"batch token", OpRenewSession, "", 400, "1 error occurred:\n\t* batch tokens cannot be renewed\n\n", NotRenewable},
		{"root token", OpRenewSession, "", 400, "lease is not renewable", NotRenewable},
		{"renewal with the database down", OpRenewLease, "", 400, "failed to renew entry: resp: (*logical.Response)(nil) err: dial tcp 127.0.0.1:5432: connect: connection refused", Transient},
		{"revocation with the database down", OpRevokeLease, "", 400, "failed to revoke entry: resp: (*logical.Response)(nil) err: connection refused", Transient},
		{"no lease id", OpRenewLease, "", 400, "lease_id must be specified", BadRequest},

		{"jwt: no such role", OpLogin, "jwt", 400, `role "nope" could not be found`, NotFound},
		{"kubernetes: no such role", OpLogin, "kubernetes", 400, `invalid role name "nope"`, NotFound},
		{"jwt: audience", OpLogin, "jwt", 400, "error validating token: invalid audience (aud) claim: audience claim does not match any bound audience", Denied},
		{"jwt: expired", OpLogin, "jwt", 400, "error validating token: token is expired", Denied},
		{"jwt: claim", OpLogin, "jwt", 400, `error validating claims: claim "sub" does not match any associated bound claim values`, Denied},
		{"jwt: keys out of reach", OpLogin, "jwt", 400, "error validating token: fetching keys Get \"https://10.0.0.1/openid/v1/jwks\": dial tcp 10.0.0.1:443: connect: connection refused", Transient},
		{"jwt: no such mount", OpLogin, "jwt", 403, "permission denied", Denied},
		{"jwt: no role given", OpLogin, "jwt", 400, "missing role", BadRequest},
		{"kubernetes: name", OpLogin, "kubernetes", 403, "service account name not authorized", Denied},
		{"kubernetes: namespace", OpLogin, "kubernetes", 403, "namespace not authorized", Denied},
		{"kubernetes: audience", OpLogin, "kubernetes", 403, "invalid audience (aud) claim: audience claim does not match any expected audience", Denied},
		{"kubernetes: API server out of reach", OpLogin, "kubernetes", 403, "permission denied", Transient},
		{"kubernetes: a policy says no", OpLogin, "kubernetes", 403, denied, Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			var texts []string
			if c.text != "" {
				texts = []string{c.text}
			}
			if got := classify(c.op, c.login, c.status, texts); got != c.want {
				t.Errorf("classify(%s, %d, %q) = %v, want %v", c.op, c.status, c.text, got, c.want)
			}
		})
	}
}

func TestEveryClassHasAName(t *testing.T) {
	seen := map[string]bool{}
	for c := Unknown; c <= BadResponse; c++ {
		if c.String() == "" || seen[c.String()] {
			t.Errorf("class %d is called %q", c, c.String())
		}
		seen[c.String()] = true
	}
	if Class(-1).String() != "unknown" || Class(99).String() != "unknown" {
		t.Error("a class that does not exist must be unknown")
	}
}

func TestRetryAfterIsReadAsSecondsOrDate(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                    0,
		"7":                   7 * time.Second,
		"0":                   0,
		"-3":                  0,
		"99999":               time.Hour,
		"9223372036854775807": time.Hour,
		"soon":                0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Minute).Format(http.TimeFormat):     0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", header, got, want)
		}
	}
}
