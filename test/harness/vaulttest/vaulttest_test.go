// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/vault/api"

	"github.com/leasefs/leasefs/test/harness/internal/process"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/pgtest"
)

const readKV = `path "secret/data/*" { capabilities = ["read"] }`

// web is the pod that may log in with the role "web" of login.
var web = kubelettest.NewPod("shop", "web-0", "web") // read only

func issuer(t *testing.T) *kubelettest.Issuer {
	t.Helper()
	i, err := kubelettest.NewIssuer()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// jwtRole has s accept the pods of the service account shop/web.
func jwtRole(t *testing.T, s *Server, i *kubelettest.Issuer, r Role) {
	t.Helper()
	ok(t, s.EnableJWT(t.Context(), "jwt", i.PublicPEM()))
	ok(t, s.Policy(t.Context(), "kv", readKV))
	r.Namespaces, r.ServiceAccounts = []string{"shop"}, []string{"web"}
	r.Policies = append(r.Policies, "kv")
	ok(t, s.JWTRole(t.Context(), "jwt", "web", r))
}

// login logs in with claims that change has been applied to.
func login(t *testing.T, s *Server, i *kubelettest.Issuer, mount string, change func(*kubelettest.Claims)) (*api.Client, *api.SecretAuth, error) {
	t.Helper()
	claims := web.Claims("vault", time.Now(), time.Hour)
	if change != nil {
		change(&claims)
	}
	token, err := i.Sign(claims)
	ok(t, err)
	secret, err := s.Client("").Logical().WriteWithContext(t.Context(), "auth/"+mount+"/login", map[string]any{"role": "web", "jwt": token})
	if err != nil {
		return nil, nil, err
	}
	return s.Client(secret.Auth.ClientToken), secret.Auth, nil
}

func TestJWTRoleLetsInOnlyItsServiceAccount(t *testing.T) {
	t.Parallel()
	s, i := Start(t), issuer(t)
	jwtRole(t, s, i, Role{TTL: 20 * time.Second, MaxTTL: time.Minute})
	for _, tc := range []struct {
		name   string
		change func(*kubelettest.Claims)
		want   string // part of the error; "" none
	}{
		{"the pod's own token", func(*kubelettest.Claims) {}, ""},
		{"another audience", func(c *kubelettest.Claims) { c.Audience = []string{"api"} }, "invalid audience"},
		{"another namespace", func(c *kubelettest.Claims) { c.Kubernetes.Namespace = "till" }, "does not match any associated bound claim values"},
		{"another service account", func(c *kubelettest.Claims) { c.Kubernetes.ServiceAccount.Name = "db" }, "does not match any associated bound claim values"},
		{"an expired token", func(c *kubelettest.Claims) { *c.Expiry -= 3601 }, "token is expired"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, auth, err := login(t, s, i, "jwt", tc.change)
			if tc.want == "" {
				ok(t, err)
				if auth.LeaseDuration != 20 || auth.Metadata["service_account_namespace"] != "shop" {
					t.Errorf("auth = %+v", auth)
				}
			} else if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
		})
	}
	if _, _, err := login(t, s, issuer(t), "jwt", nil); err == nil {
		t.Error("logged in with a token of another issuer")
	}
}

func TestKubernetesAuthAsksTheReviewer(t *testing.T) {
	t.Parallel()
	s, i := Start(t), issuer(t)
	reviewer := NewReviewer(i.PublicKey())
	defer reviewer.Close()
	ok(t, s.EnableKubernetes(t.Context(), "kubernetes", reviewer, "any"))
	ok(t, s.KubernetesRole(t.Context(), "kubernetes", "web", Role{Namespaces: []string{"shop"}, ServiceAccounts: []string{"web"}}))

	if _, _, err := login(t, s, i, "kubernetes", nil); err != nil {
		t.Error(err)
	}
	if n := reviewer.Reviews(); n != 1 {
		t.Errorf("%d reviews", n)
	}
	if _, _, err := login(t, s, issuer(t), "kubernetes", nil); err == nil {
		t.Error("logged in with a token of another issuer")
	}
	reviewer.SetDown(true)
	var refused *api.ResponseError
	if _, _, err := login(t, s, i, "kubernetes", nil); !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
		t.Errorf("with the API server down: %v", err)
	}
}

func TestRequestsAreThoseThatVaultReallyGot(t *testing.T) {
	t.Parallel()
	s, i := Start(t), issuer(t)
	jwtRole(t, s, i, Role{})
	ok(t, s.WriteKV2(t.Context(), "secret", "app", map[string]any{"a": "b"}))
	client, auth, err := login(t, s, i, "jwt", nil)
	ok(t, err)
	mark := s.Mark()
	for range 3 {
		_, err = client.Logical().ReadWithContext(t.Context(), "secret/data/app")
		ok(t, err)
	}
	_, err = client.Logical().ReadWithContext(t.Context(), "sys/policies/acl/kv")
	if err == nil {
		t.Error("read what no policy allows")
	}

	all, err := s.Requests(0)
	ok(t, err)
	if diff := cmp.Diff(map[string]int{"auth/jwt/login": 1, "secret/data/app": 3, "sys/policies/acl/kv": 1}, all.Paths()); diff != "" {
		t.Error(diff)
	}
	if n := all.Count("auth/*/login"); n != 1 {
		t.Errorf("%d logins", n)
	}
	later, err := s.Requests(mark)
	ok(t, err)
	if n := len(later); n != 4 {
		t.Errorf("%d requests since the mark", n)
	}
	for _, r := range all {
		if r.Accessor != auth.Accessor {
			t.Errorf("%s with the accessor %q, want %q", r.Path, r.Accessor, auth.Accessor)
		}
		if denied := strings.Contains(r.Error, "permission denied"); denied != (r.Path == "sys/policies/acl/kv") {
			t.Errorf("%s: error %q", r.Path, r.Error)
		}
	}
}

func TestSealPauseAndStopAreSeenByClients(t *testing.T) {
	t.Parallel()
	s := Start(t)
	read := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Root().Logical().ReadWithContext(ctx, "secret/data/app")
		return err
	}
	ok(t, read())

	ok(t, s.Seal(t.Context()))
	var sealed *api.ResponseError
	if err := read(); !errors.As(err, &sealed) || sealed.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("sealed: %v", err)
	}
	ok(t, s.Unseal(t.Context()))
	ok(t, read())

	ok(t, s.Pause())
	if err := read(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("paused: %v", err)
	}
	ok(t, s.Resume())
	ok(t, read())

	ok(t, s.Stop(t.Context()))
	if err := read(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stopped: %v", err)
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a dev server was started again, without its data")
	}
}

func TestDurableServerKeepsTokensAndLeases(t *testing.T) {
	t.Parallel()
	s, i, pg := StartDurable(t), issuer(t), pgtest.Start(t)
	ctx := t.Context()
	jwtRole(t, s, i, Role{Policies: []string{"db"}})
	ok(t, s.Policy(ctx, "db", `path "database/creds/*" { capabilities = ["read"] }`))
	ok(t, s.EnableDatabase(ctx, "database", pg))
	ok(t, s.DatabaseRole(ctx, "database", "app", time.Minute, time.Hour))
	client, auth, err := login(t, s, i, "jwt", nil)
	ok(t, err)
	creds, err := client.Logical().ReadWithContext(ctx, "database/creds/app")
	ok(t, err)

	for _, end := range []struct {
		name string
		stop func() error
	}{
		{"stopped", func() error { return s.Stop(ctx) }},
		{"killed", s.Kill},
	} {
		t.Run(end.name, func(t *testing.T) {
			ok(t, end.stop())
			begin := time.Now()
			ok(t, s.Restart(ctx))
			t.Logf("restarted in %s", time.Since(begin).Round(time.Millisecond))
			accessors, err := s.TokenAccessors(ctx)
			ok(t, err)
			if diff := cmp.Diff([]string{auth.Accessor}, accessors); diff != "" {
				t.Error(diff)
			}
			leases, err := s.Leases(ctx, "database")
			ok(t, err)
			if diff := cmp.Diff([]string{creds.LeaseID}, leases); diff != "" {
				t.Error(diff)
			}
			mark := s.Mark()
			_, err = client.Sys().RenewWithContext(ctx, creds.LeaseID, 0)
			ok(t, err)
			renewals, err := s.Requests(mark)
			ok(t, err)
			if len(renewals) != 1 || renewals[0].Path != "sys/leases/renew" || renewals[0].LeaseID != creds.LeaseID {
				t.Errorf("requests = %+v", renewals)
			}
		})
	}
}

func TestDatabaseUsersComeAndGoWithTheirLease(t *testing.T) {
	t.Parallel()
	s, pg := Start(t), pgtest.Start(t)
	ctx := t.Context()
	ok(t, s.EnableDatabase(ctx, "database", pg))
	ok(t, s.DatabaseRole(ctx, "database", "app", 10*time.Second, 30*time.Second))
	creds, err := s.Root().Logical().ReadWithContext(ctx, "database/creds/app")
	ok(t, err)
	if creds.LeaseDuration != 10 || !creds.Renewable {
		t.Errorf("lease of %d s, renewable %t", creds.LeaseDuration, creds.Renewable)
	}
	user, password := creds.Data["username"].(string), creds.Data["password"].(string)
	ok(t, pg.Login(ctx, user, password))
	ok(t, s.Root().Sys().RevokeWithContext(ctx, creds.LeaseID))
	for pg.Login(ctx, user, password) == nil && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond) // a revocation is done in the background
	}
	leases, err := s.Leases(ctx, "")
	ok(t, err)
	if len(leases) != 0 {
		t.Errorf("leases = %q", leases)
	}
}

func TestStaticRoleChangesThePasswordInItsPeriod(t *testing.T) {
	t.Parallel()
	s, pg := Start(t), pgtest.Start(t)
	ctx := t.Context()
	ok(t, s.EnableDatabase(ctx, "database", pg))
	ok(t, s.DatabaseStaticRole(ctx, "database", "report", pg, "reporter", 5*time.Second))
	read := func() string {
		secret, err := s.Root().Logical().ReadWithContext(ctx, "database/static-creds/report")
		ok(t, err)
		password := secret.Data["password"].(string)
		ok(t, pg.Login(ctx, "reporter", password))
		return password
	}
	first := read()
	deadline := time.Now().Add(time.Minute)
	for read() == first {
		if time.Now().After(deadline) {
			t.Fatal("the password has not changed")
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func TestPKIRoleIssuesWhatItSays(t *testing.T) {
	t.Parallel()
	s := Start(t)
	ctx := t.Context()
	ok(t, s.EnablePKI(ctx, "pki"))
	for _, tc := range []struct {
		name  string
		role  PKIRole
		lease bool
	}{
		{"plain", PKIRole{TTL: 20 * time.Second, NotBefore: time.Second}, false},
		{"leased", PKIRole{TTL: 20 * time.Second, GenerateLease: true}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ok(t, s.PKIRole(ctx, "pki", tc.name, tc.role))
			cert, err := s.Root().Logical().WriteWithContext(ctx, "pki/issue/"+tc.name, map[string]any{"common_name": "web.shop.svc"})
			ok(t, err)
			if (cert.LeaseID != "") != tc.lease {
				t.Errorf("lease %q", cert.LeaseID)
			}
			if _, has := cert.Data["private_key"].(string); !has {
				t.Error("no private key")
			}
		})
	}
}

func TestKV1AndKV2AreWhereTheSecretPathSays(t *testing.T) {
	t.Parallel()
	s := Start(t)
	ctx := t.Context()
	ok(t, s.EnableKV(ctx, "kv1", 1))
	ok(t, s.WriteKV1(ctx, "kv1", "app", map[string]any{"a": "1"}))
	ok(t, s.WriteKV2(ctx, "secret", "app", map[string]any{"a": "2"}))
	one, err := s.Root().Logical().ReadWithContext(ctx, "kv1/app")
	ok(t, err)
	two, err := s.Root().Logical().ReadWithContext(ctx, "secret/data/app")
	ok(t, err)
	if one.Data["a"] != "1" || two.Data["data"].(map[string]any)["a"] != "2" {
		t.Errorf("%v, %v", one.Data, two.Data)
	}
}

// No server may outlive its test binary, whatever ended that.
func TestServerDiesWithAKilledTestBinary(t *testing.T) {
	if os.Getenv("VAULTTEST_PARENT") != "" {
		s, err := Run(t.Context(), Options{})
		if err != nil {
			panic(err)
		}
		println("pid", s.proc.PID(), s.dir)
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerDiesWithAKilledTestBinary$")
	cmd.Env = append(os.Environ(), "VAULTTEST_PARENT=1")
	parent, err := process.Start(cmd, filepath.Join(t.TempDir(), "log"), syscall.SIGKILL)
	ok(t, err)
	defer func() { _ = parent.Kill() }()
	var vault int
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ok(t, parent.Await(ctx, func(context.Context) error {
		_, after, _ := strings.Cut(parent.Log(), "pid ")
		fields := strings.Fields(after)
		if len(fields) < 2 {
			return errors.New("no server yet")
		}
		t.Cleanup(func() { _ = os.RemoveAll(fields[1]) })
		vault, err = strconv.Atoi(fields[0])
		return err
	}))
	ok(t, parent.Signal(syscall.SIGKILL))
	for running(vault) {
		if ctx.Err() != nil {
			t.Fatalf("Vault, process %d, has outlived the test binary", vault)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// running tells whether a process is there and no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
