// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

func TestRealLogin(t *testing.T) {
	r := start(t)
	r.role(t, "short", vaulttest.Role{Policies: []string{"everything"}, TTL: 20 * time.Second, MaxTTL: time.Minute})
	for _, method := range []string{"jwt", "kubernetes"} {
		t.Run(method, func(t *testing.T) {
			s, err := r.client.Login(t.Context(), r.request(t, method, "short"))
			ok(t, err)
			if s.Token.IsZero() || s.Accessor == "" || s.TTL != 20*time.Second || !s.Renewable || s.Batch || s.Identity == "" {
				t.Errorf("session %+v", s)
			}
			again, err := r.client.Login(t.Context(), r.request(t, method, "short"))
			ok(t, err)
			if again.Identity != s.Identity || again.Token.Equal(s.Token) {
				t.Error("another login of the same service account must have the same identity and another token")
			}
			other, err := r.client.Login(t.Context(), r.request(t, method, "app"))
			ok(t, err)
			if other.Identity == s.Identity {
				t.Error("a login with another role has the same identity")
			}
			pod := r.pod
			r.pod = kubelettest.NewPod("shop", "api-0", "api")
			defer func() { r.pod = pod }()
			if other, err = r.client.Login(t.Context(), r.request(t, method, "short")); err != nil || other.Identity == s.Identity {
				t.Errorf("a login of another service account has the same identity, or fails: %v", err)
			}
		})
	}
}

func TestRealLoginRefusals(t *testing.T) {
	r := start(t)
	stranger := kubelettest.NewPod("other", "web-0", "web")
	namesake := kubelettest.NewPod("shop", "x-0", "x")
	foreign, err := kubelettest.NewIssuer()
	ok(t, err)
	mint := func(i *kubelettest.Issuer, p kubelettest.Pod, audience string, ttl time.Duration) secret.Value {
		token, err := i.Mint(p, audience, ttl)
		ok(t, err)
		return secret.New(token)
	}
	type refusal struct {
		class vault.Class
		text  string
	}
	for name, c := range map[string]struct {
		mutate          func(*vault.Login)
		jwt, kubernetes refusal
	}{
		"no such role": {
			func(l *vault.Login) { l.Role = "nope" },
			refusal{vault.NotFound, `role "nope" could not be found`}, refusal{vault.NotFound, `invalid role name "nope"`},
		},
		"another namespace": {
			func(l *vault.Login) { l.JWT = mint(r.issuer, stranger, "vault", time.Hour) },
			refusal{vault.Denied, "claim"}, refusal{vault.Denied, "namespace not authorized"},
		},
		"another service account": {
			func(l *vault.Login) { l.JWT = mint(r.issuer, namesake, "vault", time.Hour) },
			refusal{vault.Denied, "claim"}, refusal{vault.Denied, "service account name not authorized"},
		},
		"another audience": {
			func(l *vault.Login) { l.JWT = mint(r.issuer, r.pod, "elsewhere", time.Hour) },
			refusal{vault.Denied, "invalid audience (aud) claim"}, refusal{vault.Denied, "invalid audience (aud) claim"},
		},
		"an expired token": {
			func(l *vault.Login) { l.JWT = mint(r.issuer, r.pod, "vault", -time.Hour) },
			refusal{vault.Denied, "expired"}, refusal{vault.Denied, "expired"},
		},
		"a token of another cluster": {
			func(l *vault.Login) { l.JWT = mint(foreign, r.pod, "vault", time.Hour) },
			refusal{vault.Denied, "error validating token"}, refusal{vault.Transient, "permission denied"},
		},
		"no token": {
			func(l *vault.Login) { l.JWT = secret.Value{} },
			refusal{vault.BadRequest, "missing token"}, refusal{vault.BadRequest, "missing jwt"},
		},
		"no such mount": {
			func(l *vault.Login) { l.Mount = "nope" },
			refusal{vault.Denied, "mount"}, refusal{vault.Transient, "mount"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for method, want := range map[string]refusal{"jwt": c.jwt, "kubernetes": c.kubernetes} {
				l := r.request(t, method, "app")
				c.mutate(&l)
				_, err := r.client.Login(t.Context(), l)
				wantText(t, err, want.class, want.text, l.Role)
			}
		})
	}
}

func TestRealKubernetesLoginWhileTheAPIServerIsDownIsTransient(t *testing.T) {
	r := start(t)
	r.reviewer.SetDown(true)
	_, err := r.client.Login(t.Context(), r.request(t, "kubernetes", "app"))
	wantText(t, err, vault.Transient, "Kubernetes API")
	r.reviewer.SetDown(false)
	_, err = r.client.Login(t.Context(), r.request(t, "kubernetes", "app"))
	ok(t, err)
}

func TestRealSessionIsRenewedUpToItsMaximumAndThenOver(t *testing.T) {
	r := start(t)
	r.role(t, "short", vaulttest.Role{Policies: []string{"everything"}, TTL: 4 * time.Second, MaxTTL: 6 * time.Second})
	_, auth := r.login(t, "short")
	grant, err := r.client.RenewSession(t.Context(), auth)
	ok(t, err)
	if grant.TTL != 4*time.Second || !grant.Renewable || grant.Capped {
		t.Errorf("at first a renewal gives %+v", grant)
	}
	if grant, err = r.client.LookupSession(t.Context(), auth); err != nil || grant.TTL <= 0 || grant.TTL > 4*time.Second || !grant.Renewable {
		t.Errorf("lookup gives %+v, %v", grant, err)
	}
	eventually(t, "the maximum cuts a renewal", func() bool {
		grant, err = r.client.RenewSession(t.Context(), auth)
		return err != nil || grant.Capped
	})
	if err != nil || grant.TTL >= 4*time.Second || !grant.Renewable {
		t.Errorf("near the maximum a renewal gives %+v, %v", grant, err)
	}
	eventually(t, "the session ends", func() bool {
		_, err = r.client.LookupSession(t.Context(), auth)
		return err != nil
	})
	wantText(t, err, vault.InvalidToken, "log in again") // Vault's word is "invalid token", and "bad token" in the moment of the end
	wantOver(t, r, auth)
}

// wantOver checks what every call says of a session that is over.
func wantOver(t *testing.T, r *real, auth vault.Auth) {
	t.Helper()
	ctx := t.Context()
	_, err := r.read(t, auth, vault.Request{Path: "secret/data/app"})
	wantClass(t, err, vault.InvalidToken)
	_, err = r.client.RenewSession(ctx, auth)
	wantClass(t, err, vault.InvalidToken)
	_, err = r.client.LookupSession(ctx, auth)
	wantClass(t, err, vault.InvalidToken)
	_, err = r.client.RenewLease(ctx, auth, "database/creds/x/1", 0)
	wantClass(t, err, vault.InvalidToken)
	_, err = r.client.LookupLease(ctx, auth, "database/creds/x/1")
	wantClass(t, err, vault.InvalidToken)
	wantClass(t, r.client.RevokeLease(ctx, auth, "database/creds/x/1"), vault.InvalidToken)
	ok(t, r.client.RevokeSession(ctx, auth))
}

func TestRealSessionRevokedBehindOurBack(t *testing.T) {
	r := start(t)
	s, auth := r.login(t, "app")
	ok(t, r.Root().Auth().Token().RevokeAccessor(s.Accessor))
	wantOver(t, r, auth)
}

func TestRealRevokedSessionLeavesNothing(t *testing.T) {
	r := start(t)
	ok(t, r.EnablePKI(t.Context(), "pki"))
	ok(t, r.PKIRole(t.Context(), "pki", "web", vaulttest.PKIRole{TTL: time.Minute, GenerateLease: true}))
	_, auth := r.login(t, "app")
	_, err := r.read(t, auth, vault.Request{Path: "pki/issue/web", Method: "PUT", Args: map[string]any{"common_name": "a"}})
	ok(t, err)
	ok(t, r.client.RevokeSession(t.Context(), auth))
	tokens, err := r.TokenAccessors(t.Context())
	ok(t, err)
	leases, err := r.Leases(t.Context(), "")
	ok(t, err)
	if len(tokens)+len(leases) != 0 {
		t.Errorf("left: tokens %v, leases %v", tokens, leases)
	}
	wantOver(t, r, auth)
}

func TestRealBatchToken(t *testing.T) {
	r := start(t)
	r.role(t, "batch", vaulttest.Role{Policies: []string{"everything"}, TTL: 20 * time.Second, Type: "batch"})
	ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"a": 1}))
	s, auth := r.login(t, "batch")
	if !s.Batch || s.Accessor != "" || s.Renewable || s.TTL != 20*time.Second {
		t.Errorf("session %+v", s)
	}
	if _, err := r.read(t, auth, vault.Request{Path: "secret/data/app"}); err != nil {
		t.Error(err)
	}
	grant, err := r.client.LookupSession(t.Context(), auth)
	ok(t, err)
	if grant.TTL <= 0 || grant.TTL > 20*time.Second || grant.Renewable {
		t.Errorf("lookup gave %+v", grant)
	}
	_, err = r.client.RenewSession(t.Context(), auth)
	wantText(t, err, vault.NotRenewable, "batch")
	ok(t, r.client.RevokeSession(t.Context(), auth))
}

// Callers who give up at any moment of their login leave no token behind.
func TestRealAbandonedLoginsLeaveNoToken(t *testing.T) {
	r := start(t)
	var wait sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 100 {
		l := r.request(t, "jwt", "app")
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(60))*time.Millisecond)
			defer cancel()
			s, err := r.client.Login(ctx, l)
			if err != nil {
				return
			}
			mu.Lock()
			done++
			mu.Unlock()
			if err := r.client.RevokeSession(t.Context(), vault.Auth{Token: s.Token}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	r.client.Close()
	tokens, err := r.TokenAccessors(t.Context())
	ok(t, err)
	all, err := r.Requests(0)
	ok(t, err)
	t.Logf("%d logins were waited for, %d reached Vault", done, all.Count("auth/jwt/login"))
	if len(tokens) != 0 {
		t.Errorf("%d tokens are left", len(tokens))
	}
	if reached := all.Count("auth/jwt/login"); reached == done {
		t.Errorf("none of the %d logins was abandoned under way: the test shows nothing", reached)
	}
}
