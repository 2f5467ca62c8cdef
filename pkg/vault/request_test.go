// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/secret"
)

// tricky are strings that run into each other when parts are joined carelessly.
var tricky = rapid.StringOfN(rapid.RuneFrom([]rune("ab/?#&= %+\x00é")), 0, 5, -1)

func anyRequest() *rapid.Generator[Request] {
	return rapid.Custom(func(t *rapid.T) Request {
		r := Request{
			Path:   tricky.Draw(t, "path"),
			Method: rapid.SampledFrom([]string{"", "GET", "PUT", "POST"}).Draw(t, "method"),
		}
		for k, v := range rapid.MapOfN(tricky, rapid.SliceOfN(tricky, 0, 2), 0, 2).Draw(t, "query") {
			if r.Query == nil {
				r.Query = url.Values{}
			}
			r.Query[k] = v
		}
		value := rapid.OneOf(
			rapid.Just[any](nil), rapid.Map(rapid.IntRange(0, 2), func(i int) any { return i }),
			rapid.Map(tricky, func(s string) any { return s }), rapid.Just[any](true), rapid.Just[any]("1"),
			rapid.Just[any](map[string]any{"a": 1}), rapid.Just[any]([]any{"a", "b"}))
		if args := rapid.MapOfN(tricky, value, 0, 2).Draw(t, "args"); len(args) > 0 {
			r.Args = args
		}
		return r
	})
}

// sent is what a request is on the wire, in a form that can be compared.
func sent(r Request) [4]string {
	args := ""
	if len(r.Args) > 0 {
		b, err := json.Marshal(r.Args)
		if err != nil {
			panic(err)
		}
		args = string(b)
	}
	return [4]string{r.method(), r.Path, r.Query.Encode(), args}
}

// The standard provider's cache ignored the arguments: two certificates on one path became one.
func TestKeysOfRequestsAreEqualExactlyWhenTheRequestsAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyRequest().Draw(t, "a"), anyRequest().Draw(t, "b")
		if rapid.Bool().Draw(t, "b is a with one change") {
			b = a
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				b.Path += tricky.Draw(t, "more path")
			case 1:
				b.Method = rapid.SampledFrom([]string{"", "GET", "PUT", "POST"}).Draw(t, "other method")
			case 2:
				b.Query = url.Values{"version": {tricky.Draw(t, "version")}}
			case 3:
				b.Args = map[string]any{"common_name": tricky.Draw(t, "common name")}
			}
		}
		if (sent(a) == sent(b)) != (a.Key() == b.Key()) {
			t.Fatalf("%q and %q have the keys\n%s\n%s", sent(a), sent(b), a.Key(), b.Key())
		}
	})
}

func TestKeyReadsWellAndHidesArguments(t *testing.T) {
	if got := (Request{Path: "secret/data/app", Query: url.Values{"version": {"2"}}}).Key(); got != "GET secret/data/app?version=2" {
		t.Errorf("got %q", got)
	}
	got := Request{Path: "transit/decrypt/x", Method: "PUT", Args: map[string]any{"ciphertext": "the-ciphertext"}}.Key()
	if !strings.HasPrefix(got, "PUT transit/decrypt/x#") || strings.Contains(got, "the-ciphertext") {
		t.Errorf("got %q", got)
	}
}

func TestRequestsThatCannotBeSentAreFound(t *testing.T) {
	valid := Request{Path: "pki/issue/web", Method: "PUT", Args: map[string]any{"common_name": "a"}}
	if err := valid.check(); err != nil {
		t.Fatalf("the valid request: %v", err)
	}
	for name, mutate := range map[string]func(*Request){
		"no path":              func(r *Request) { r.Path = "" },
		"leading slash":        func(r *Request) { r.Path = "/pki" },
		"trailing slash":       func(r *Request) { r.Path = "pki/" },
		"double slash":         func(r *Request) { r.Path = "pki//issue" },
		"up":                   func(r *Request) { r.Path = "pki/../sys/seal" },
		"up at the end":        func(r *Request) { r.Path = "pki/.." },
		"here":                 func(r *Request) { r.Path = "./pki" },
		"control character":    func(r *Request) { r.Path = "pki/a\nb" },
		"DELETE":               func(r *Request) { r.Method = "DELETE" },
		"lower case":           func(r *Request) { r.Method = "put" },
		"method with newline":  func(r *Request) { r.Method = "PUT\r\nX: y" },
		"arguments of a GET":   func(r *Request) { r.Method = "GET" },
		"arguments of default": func(r *Request) { r.Method = "" },
		"arguments not JSON":   func(r *Request) { r.Args = map[string]any{"f": func() {}} },
	} {
		t.Run(name, func(t *testing.T) {
			r := valid
			mutate(&r)
			if err := r.check(); err == nil {
				t.Errorf("%+v was taken", r)
			}
			_ = r.Key() // must not panic
		})
	}
}

type authorised struct {
	connection, namespace string
	login                 Login
	auth                  api.SecretAuth
}

func anyAuthorised() *rapid.Generator[authorised] {
	word := rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 0, 2, -1)
	list := rapid.SliceOfN(word, 0, 2)
	return rapid.Custom(func(t *rapid.T) authorised {
		return authorised{
			connection: word.Draw(t, "connection"), namespace: word.Draw(t, "namespace"),
			login: Login{Method: word.Draw(t, "method"), Mount: word.Draw(t, "mount"), Path: word.Draw(t, "path"), Role: word.Draw(t, "role"),
				ServiceAccountUID: word.Draw(t, "uid"), JWT: secret.New(word.Draw(t, "jwt"))},
			auth: api.SecretAuth{ClientToken: word.Draw(t, "token"), Accessor: word.Draw(t, "accessor"), EntityID: word.Draw(t, "entity"),
				Policies: list.Draw(t, "policies"), TokenPolicies: list.Draw(t, "token policies"), IdentityPolicies: list.Draw(t, "identity policies"),
				Metadata: rapid.MapOfN(word, word, 0, 2).Draw(t, "metadata")},
		}
	})
}

// whom is what two sessions must have in common to share: everything but the token and the order of policies.
func (a authorised) whom() string {
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	if a.auth.Metadata == nil {
		a.auth.Metadata = map[string]string{}
	}
	b, err := json.Marshal([]any{a.connection, a.namespace, a.login.Method, a.login.Mount, a.login.Path, a.login.Role, a.login.ServiceAccountUID,
		a.auth.EntityID, sorted(a.auth.Policies), sorted(a.auth.TokenPolicies), sorted(a.auth.IdentityPolicies), a.auth.Metadata})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (a authorised) identity() string {
	c := &Client{cfg: Config{Name: a.connection}}
	return c.identity(a.namespace, a.login, &a.auth)
}

func TestPartsOfAnIdentityDoNotRunTogether(t *testing.T) {
	seen := map[string]string{}
	for name, a := range map[string]authorised{
		"mount ab":           {login: Login{Mount: "ab"}},
		"mount a, path b":    {login: Login{Mount: "a", Path: "b"}},
		"path ab":            {login: Login{Path: "ab"}},
		"path a, role b":     {login: Login{Path: "a", Role: "b"}},
		"policies a and b":   {auth: api.SecretAuth{Policies: []string{"a", "b"}}},
		"policy ab":          {auth: api.SecretAuth{Policies: []string{"ab"}}},
		"of the token":       {auth: api.SecretAuth{TokenPolicies: []string{"ab"}}},
		"of the identity":    {auth: api.SecretAuth{IdentityPolicies: []string{"ab"}}},
		"metadata a is bc":   {auth: api.SecretAuth{Metadata: map[string]string{"a": "bc"}}},
		"metadata ab is c":   {auth: api.SecretAuth{Metadata: map[string]string{"ab": "c"}}},
		"metadata in policy": {auth: api.SecretAuth{IdentityPolicies: []string{"a", "bc"}}},
	} {
		id := a.identity()
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s have the same identity", name, other)
		}
		seen[id] = name
	}
}

func TestIdentitiesAreEqualExactlyWhenVaultAuthorisedTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyAuthorised().Draw(t, "a"), anyAuthorised().Draw(t, "b")
		if (a.whom() == b.whom()) != (a.identity() == b.identity()) {
			t.Fatalf("%s\n%s\nhave the identities %s, %s", a.whom(), b.whom(), a.identity(), b.identity())
		}
		c := a
		c.login.JWT, c.auth.ClientToken, c.auth.Accessor = secret.New("another"), "another", "another"
		c.auth.Policies = slices.Clone(a.auth.Policies)
		slices.Reverse(c.auth.Policies)
		if a.identity() != c.identity() {
			t.Fatal("another login of the same service account has another identity")
		}
		for field, change := range map[string]func(*authorised){
			"connection": func(x *authorised) { x.connection += "x" }, "namespace": func(x *authorised) { x.namespace += "x" },
			"method": func(x *authorised) { x.login.Method += "x" }, "mount": func(x *authorised) { x.login.Mount += "x" },
			"role": func(x *authorised) { x.login.Role += "x" }, "service account": func(x *authorised) { x.login.ServiceAccountUID += "x" },
			"entity": func(x *authorised) { x.auth.EntityID += "x" },
			"policy": func(x *authorised) { x.auth.Policies = append(slices.Clone(x.auth.Policies), "x") },
		} {
			d := a
			if change(&d); d.identity() == a.identity() {
				t.Fatalf("another %s has the same identity", field)
			}
		}
	})
}
