// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package podtoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

var (
	now    = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	thePod = Pod{Namespace: "shop", Name: "web-0", UID: "0b5c8f2e-1111-4a2b-9c3d-5e6f70819293", ServiceAccount: "web"}
)

// given is one call's input: the claims of the token, how it is signed, and how the kubelet wraps it.
type given struct {
	claims   map[string]any
	k8s      map[string]any
	sign     func(testing.TB, map[string]any) string
	wrap     func(token string) string
	audience string
	pod      Pod
	now      time.Time
}

// valid is what a kubelet passes for thePod: one token for the audience "vault", good for ten more minutes.
func valid() *given {
	k8s := map[string]any{
		"namespace":      "shop",
		"node":           map[string]any{"name": "n1", "uid": "6c0f"},
		"pod":            map[string]any{"name": "web-0", "uid": "0b5c8f2e-1111-4a2b-9c3d-5e6f70819293"},
		"serviceaccount": map[string]any{"name": "web", "uid": "sa-uid-1"},
		"warnafter":      now.Unix(),
	}
	g := &given{
		k8s: k8s,
		claims: map[string]any{
			"iss": "https://kubernetes.default.svc.cluster.local",
			"sub": "system:serviceaccount:shop:web",
			"aud": []string{"vault"},
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
			"kubernetes.io": k8s,
		},
		sign:     signES256,
		audience: "vault",
		pod:      thePod,
		now:      now,
	}
	g.wrap = func(token string) string {
		return fmt.Sprintf(`{"vault":{"token":%q,"expirationTimestamp":"2026-09-01T12:10:00Z"}}`, token)
	}
	return g
}

func signES256(t testing.TB, claims map[string]any) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signWith(t, jose.SigningKey{Algorithm: jose.ES256, Key: key}, claims)
}

func signWith(t testing.TB, key jose.SigningKey, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestSelectTakesTheTokenOfThePod(t *testing.T) {
	tests := map[string]struct {
		mutate  func(*given)
		expires time.Time
	}{
		"as the kubelet passes it":   {func(*given) {}, now.Add(10 * time.Minute)},
		"audience as a plain string": {func(g *given) { g.claims["aud"] = "vault" }, now.Add(10 * time.Minute)},
		"one audience of several in the token": {
			func(g *given) { g.claims["aud"] = []string{"other", "vault"} }, now.Add(10 * time.Minute)},
		"tokens for several audiences": {func(g *given) {
			g.wrap = func(token string) string {
				return fmt.Sprintf(`{"b":{"token":"x"},"vault":{"token":%q,"expirationTimestamp":"2026-09-01T12:10:00Z"}}`, token)
			}
		}, now.Add(10 * time.Minute)},
		"no timestamp of the kubelet": {func(g *given) {
			g.wrap = func(token string) string { return fmt.Sprintf(`{"vault":{"token":%q}}`, token) }
		}, now.Add(10 * time.Minute)},
		"an extended token ends when the kubelet says": {
			func(g *given) { g.claims["exp"] = now.Add(365 * 24 * time.Hour).Unix() }, now.Add(10 * time.Minute)},
		"exp before the kubelet's timestamp": {
			func(g *given) { g.claims["exp"] = now.Add(time.Minute).Unix() }, now.Add(time.Minute)},
		"the API server's default audience": {func(g *given) {
			g.audience = ""
			g.claims["aud"] = []string{"https://kubernetes.default.svc.cluster.local"}
			g.wrap = func(token string) string { return fmt.Sprintf(`{"":{"token":%q}}`, token) }
		}, now.Add(10 * time.Minute)},
		"nbf ahead of this node's clock is Vault's to judge": {
			func(g *given) { g.claims["nbf"] = now.Add(time.Minute).Unix() }, now.Add(10 * time.Minute)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := valid()
			tt.mutate(g)
			token := g.sign(t, g.claims)
			got, err := Select(g.wrap(token), g.audience, g.pod, g.now)
			if err != nil {
				t.Fatal(err)
			}
			if got.JWT.Reveal() != token {
				t.Error("another token was taken")
			}
			if !got.Expires.Equal(tt.expires) {
				t.Errorf("expires %s, want %s", got.Expires.UTC(), tt.expires)
			}
			if got.ServiceAccountUID != "sa-uid-1" {
				t.Errorf("service account UID %q", got.ServiceAccountUID)
			}
		})
	}
}

func TestSelectRefuses(t *testing.T) {
	tests := map[string]struct {
		mutate func(*given)
		want   []string // parts of the error
	}{
		"another pod's token": {
			func(g *given) { g.k8s["pod"] = map[string]any{"name": "api-0", "uid": "other"} },
			[]string{`kubernetes.io/pod/name is "api-0" instead of "web-0"`, `kubernetes.io/pod/uid is "other"`}},
		"an earlier pod of the same name": {
			func(g *given) { g.k8s["pod"] = map[string]any{"name": "web-0", "uid": "earlier"} },
			[]string{`kubernetes.io/pod/uid is "earlier"`}},
		"another service account": {func(g *given) {
			g.claims["sub"] = "system:serviceaccount:shop:admin"
			g.k8s["serviceaccount"] = map[string]any{"name": "admin", "uid": "sa-uid-2"}
		}, []string{`sub is "system:serviceaccount:shop:admin"`, `kubernetes.io/serviceaccount/name is "admin" instead of "web"`}},
		"sub and serviceaccount disagree": {
			func(g *given) { g.claims["sub"] = "system:serviceaccount:shop:admin" }, []string{`sub is`}},
		"another namespace": {func(g *given) {
			g.claims["sub"] = "system:serviceaccount:bank:web"
			g.k8s["namespace"] = "bank"
		}, []string{`kubernetes.io/namespace is "bank" instead of "shop"`}},
		"a namespace that glues onto a name": {func(g *given) {
			g.pod.Namespace, g.pod.ServiceAccount = "shop:web", "x"
			g.claims["sub"] = "system:serviceaccount:shop:web:x"
		}, []string{`kubernetes.io/namespace is "shop" instead of "shop:web"`}},
		"a token that is not bound to a pod": {
			func(g *given) { delete(g.k8s, "pod") },
			[]string{"kubernetes.io/pod/name is missing", "kubernetes.io/pod/uid is missing"}},
		"a legacy token without kubernetes.io claims": {
			func(g *given) { delete(g.claims, "kubernetes.io") }, []string{"kubernetes.io/namespace is missing"}},
		"no UID of the service account": {
			func(g *given) { g.k8s["serviceaccount"] = map[string]any{"name": "web"} },
			[]string{"kubernetes.io/serviceaccount/uid is missing"}},
		"a pod info that is empty matches no empty claim": {func(g *given) {
			g.pod = Pod{}
			delete(g.claims, "kubernetes.io")
			g.claims["sub"] = "system:serviceaccount::"
		}, []string{"kubernetes.io/pod/uid is missing"}},
		"another audience inside": {
			func(g *given) { g.claims["aud"] = []string{"evil"} }, []string{`aud is "evil"`}},
		"no audience inside": {func(g *given) { delete(g.claims, "aud") }, []string{"aud is missing"}},
		"no audience inside, default asked": {func(g *given) {
			delete(g.claims, "aud")
			g.audience = ""
			g.wrap = func(token string) string { return fmt.Sprintf(`{"":{"token":%q}}`, token) }
		}, []string{"aud is missing"}},
		"expired at this very second": {
			func(g *given) { g.claims["exp"] = now.Unix() }, []string{"expired at 2026-09-01T12:00:00Z"}},
		"expired by the kubelet's timestamp": {
			func(g *given) { g.now = now.Add(11 * time.Minute); g.claims["exp"] = now.Add(time.Hour).Unix() },
			[]string{"expired at 2026-09-01T12:10:00Z"}},
		"no expiry":                 {func(g *given) { delete(g.claims, "exp") }, []string{"exp is missing"}},
		"an expiry beyond all time": {func(g *given) { g.claims["exp"] = 1e300 }, []string{"expired at"}},
		"a timestamp that is none": {func(g *given) {
			g.wrap = func(token string) string {
				return fmt.Sprintf(`{"vault":{"token":%q,"expirationTimestamp":"soon"}}`, token)
			}
		}, []string{"expirationTimestamp is not a time"}},
		"the token in the timestamp's place": {func(g *given) {
			g.wrap = func(token string) string {
				return fmt.Sprintf(`{"vault":{"token":%q,"expirationTimestamp":%q}}`, token, token)
			}
		}, []string{"expirationTimestamp is not a time"}},
		"every mismatch is told": {func(g *given) {
			g.claims["sub"] = "system:serviceaccount:a:b"
			g.claims["aud"] = "c"
			g.claims["exp"] = 1
			g.k8s["namespace"] = "a"
		}, []string{"sub is", "kubernetes.io/namespace is", "aud is", "expired at 1970"}},
		"no token for the audience": {
			func(g *given) { g.audience = "prod-vault" },
			[]string{`no token for audience "prod-vault"`, `("vault")`, "CSIDriver.spec.tokenRequests"}},
		"no token at all": {
			func(g *given) { g.wrap = func(string) string { return `{}` } },
			[]string{"(none)", "CSIDriver.spec.tokenRequests"}},
		"an audience's entry is null": {
			func(g *given) { g.wrap = func(string) string { return `{"vault":null}` } }, []string{"is empty"}},
		"many audiences are not all named": {func(g *given) {
			g.audience = "zz"
			g.wrap = func(string) string {
				all := map[string]entry{}
				for i := range 40 {
					all[fmt.Sprintf("aud-%02d", i)] = entry{}
				}
				b, _ := json.Marshal(all)
				return string(b)
			}
		}, []string{`"aud-00"`, "and 32 more"}},
		"the token in the audience's place": {func(g *given) {
			g.wrap = func(token string) string { return fmt.Sprintf(`{%q:{"token":"x"}}`, token) }
		}, []string{`no token for audience "vault"`}},
		"an empty document":      {func(g *given) { g.wrap = func(string) string { return "" } }, []string{"not a JSON object"}},
		"null":                   {func(g *given) { g.wrap = func(string) string { return "null" } }, []string{"not a JSON object"}},
		"the bare token":         {func(g *given) { g.wrap = func(token string) string { return token } }, []string{"not a JSON object"}},
		"a string for an object": {func(g *given) { g.wrap = func(token string) string { return fmt.Sprintf(`{"vault":%q}`, token) } }, []string{"not a JSON object"}},
		"a token followed by CRLF": {func(g *given) {
			g.wrap = func(token string) string { return fmt.Sprintf(`{"vault":{"token":%q}}`, token+"\r\n") }
		}, []string{"has characters that no signed token"}},
		"a token of two parts": {func(g *given) {
			g.wrap = func(token string) string {
				return fmt.Sprintf(`{"vault":{"token":%q}}`, token[:strings.LastIndex(token, ".")])
			}
		}, []string{"is not a token signed"}},
		"a token too long": {func(g *given) {
			g.wrap = func(token string) string {
				return fmt.Sprintf(`{"vault":{"token":%q}}`, strings.Repeat(token, 100))
			}
		}, []string{"more than the 16384"}},
		"a document too long": {func(g *given) {
			g.wrap = func(token string) string {
				return fmt.Sprintf(`{"vault":{"token":%q}}%s`, token, strings.Repeat(" ", maxDocument))
			}
		}, []string{"more than the 262144"}},
		"signed with a shared key": {func(g *given) {
			g.sign = func(t testing.TB, claims map[string]any) string {
				return signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("k", 32))}, claims)
			}
		}, []string{"is not a token signed with a public key"}},
		"claims of another form": {
			func(g *given) { g.claims["kubernetes.io"] = "shop" }, []string{"has claims of a form"}},
		"an audience that is a number": {
			func(g *given) { g.claims["aud"] = 7 }, []string{"has claims of a form"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := valid()
			tt.mutate(g)
			token := g.sign(t, g.claims)
			got, err := Select(g.wrap(token), g.audience, g.pod, g.now)
			if err == nil {
				t.Fatalf("accepted: %v", got)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q\nlacks %q", err, want)
				}
			}
			if got != (Token{}) {
				t.Error("a refused token is returned")
			}
			assertHoldsNoToken(t, err.Error(), token)
		})
	}
}

// assertHoldsNoToken: neither the signature nor any longer stretch of the payload.
func assertHoldsNoToken(t testing.TB, text, token string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if strings.Contains(text, parts[2]) {
		t.Errorf("the signature is in %q", text)
	}
	for i := 0; i+maxQuoted+1 <= len(token); i++ {
		if strings.Contains(text, token[i:i+maxQuoted+1]) {
			t.Fatalf("%d bytes of the token are in %q", maxQuoted+1, text)
		}
	}
}

func TestTokenRedactsItself(t *testing.T) {
	g := valid()
	token := g.sign(t, g.claims)
	got, err := Select(g.wrap(token), g.audience, g.pod, g.now)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(verb, got); strings.Contains(text, token[:20]) {
			t.Errorf("%s prints the token: %s", verb, text)
		}
	}
	if b, _ := json.Marshal(got); strings.Contains(string(b), token[:20]) {
		t.Errorf("JSON holds the token: %s", b)
	}
}

// FuzzSelect: whatever stands in the kubelet's place, Select never panics, and what it accepts really is of this pod,
// this audience and this time.
func FuzzSelect(f *testing.F) {
	g := valid()
	token := g.sign(f, g.claims)
	f.Add(g.wrap(token), "vault")
	f.Add(`{"":{"token":"a.b.c"}}`, "")
	f.Add(`{"vault":{"token":"eyJhbGciOiJub25lIn0.e30.","expirationTimestamp":"2026-09-01T12:10:00Z"}}`, "vault")
	f.Add(`{"vault":{"token":"eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOnt9fQ.AA"}}`, "vault")
	f.Add(`null`, "vault")
	f.Add(`{"vault":[]}`, "vault")
	f.Add(strings.Repeat(`{"vault":`, 1000), "vault")
	f.Fuzz(func(t *testing.T, tokens, audience string) {
		got, err := Select(tokens, audience, thePod, now)
		if err != nil {
			if got != (Token{}) {
				t.Fatal("a refused token is returned")
			}
			return
		}
		said, err := read(got.JWT.Reveal())
		if err != nil {
			t.Fatalf("accepted an unreadable token: %v", err)
		}
		if said.Kubernetes.Pod.UID != thePod.UID || said.Kubernetes.Namespace != thePod.Namespace ||
			said.Subject != "system:serviceaccount:shop:web" || !got.Expires.After(now) || got.ServiceAccountUID == "" {
			t.Fatalf("accepted a token that is not the pod's: %+v", said)
		}
		if audience != "" && !said.Audience.Contains(audience) {
			t.Fatalf("accepted a token for %v, asked for %q", said.Audience, audience)
		}
	})
}
