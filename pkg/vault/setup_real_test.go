// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// real is a client, a real Vault with the auth methods jwt and kubernetes, and what makes pod tokens for both.
type real struct {
	*vaulttest.Server
	client   *vault.Client
	issuer   *kubelettest.Issuer
	reviewer *vaulttest.Reviewer
	pod      kubelettest.Pod
}

// ok fails the test on an error of the setup.
func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// everything is a policy that allows all that the tests read.
const everything = `path "*" { capabilities = ["create", "read", "update", "list"] }
path "secret/data/forbidden" { capabilities = ["deny"] }`

// start starts a Vault with the policy "everything" and the roles "app" of both auth methods.
func start(t *testing.T, change ...func(*vault.Config)) *real {
	t.Helper()
	t.Parallel() // they mostly wait
	r := &real{Server: vaulttest.Start(t), pod: kubelettest.NewPod("shop", "web-0", "web")}
	var err error
	r.issuer, err = kubelettest.NewIssuer()
	ok(t, err)
	r.reviewer = vaulttest.NewReviewer(r.issuer.PublicKey())
	t.Cleanup(r.reviewer.Close)
	ctx := t.Context()
	ok(t, r.Policy(ctx, "everything", everything))
	ok(t, r.EnableJWT(ctx, "jwt", r.issuer.PublicPEM()))
	ok(t, r.EnableKubernetes(ctx, "kubernetes", r.reviewer, r.podToken(t, "vault", time.Hour)))
	r.role(t, "app", vaulttest.Role{Policies: []string{"everything"}, Namespaces: []string{"shop"}, ServiceAccounts: []string{"web"}})
	r.client = connect(t, r.Addr, change...)
	return r
}

// role writes a role of both auth methods.
func (r *real) role(t *testing.T, name string, role vaulttest.Role) {
	t.Helper()
	ok(t, r.JWTRole(t.Context(), "jwt", name, role))
	ok(t, r.KubernetesRole(t.Context(), "kubernetes", name, role))
}

func (r *real) podToken(t *testing.T, audience string, ttl time.Duration) string {
	t.Helper()
	token, err := r.issuer.Mint(r.pod, audience, ttl)
	ok(t, err)
	return token
}

func (r *real) request(t *testing.T, method, role string) vault.Login {
	t.Helper()
	return vault.Login{Method: method, Role: role, JWT: secret.New(r.podToken(t, "vault", time.Hour)), ServiceAccountUID: r.pod.ServiceAccountUID}
}

// login logs the pod in by the jwt auth method, which must work.
func (r *real) login(t *testing.T, role string) (vault.Session, vault.Auth) {
	t.Helper()
	s, err := r.client.Login(t.Context(), r.request(t, "jwt", role))
	ok(t, err)
	return s, vault.Auth{Token: s.Token, Identity: s.Identity}
}

func (r *real) read(t *testing.T, auth vault.Auth, request vault.Request) (*vault.Response, error) {
	t.Helper()
	return r.client.Read(t.Context(), auth, request, vault.ReadOptions{})
}

// wantText checks that an error of a class says something.
func wantText(t *testing.T, err error, class vault.Class, parts ...string) {
	t.Helper()
	e := wantClass(t, err, class)
	for _, part := range parts {
		if !strings.Contains(e.Error(), part) {
			t.Errorf("%q is not in: %v", part, e)
		}
	}
	t.Log(e)
}
