// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// A database role of ttl 10 s and max_ttl 30 s: the lease is renewed, reaches its maximum, is replaced, the old user is dropped, and
// there is no moment at which what the files say does not log in.
func TestADatabaseUserNeverFailsALoginOverThreeMaximumTTLs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	pg := w.database(10*time.Second, 30*time.Second)
	v := volume("web-0", username, password)
	start := w.vault.Mark()
	w.publish(v)

	var users []string
	logins := 0
	for end := time.Now().Add(80 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		user, err := w.login(pg, v)
		if err != nil {
			t.Fatalf("login %d as %s: %v\n%s", logins, user, err, w.driver.Log())
		}
		logins++
		if !slices.Contains(users, user) {
			users = append(users, user)
		}
	}
	t.Logf("%d logins as %d users, none failed", logins, len(users))

	if len(users) < 3 || len(users) > 5 {
		t.Errorf("%d users in 80 s with a maximum TTL of 30 s", len(users))
	}
	requests, err := w.vault.Requests(start)
	ok(t, err)
	if n := requests.Count("auth/jwt/login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	if creds, renewals := requests.Count("database/creds/dyn"), requests.Count("sys/leases/renew"); creds != len(users) || renewals < 2*(creds-1) {
		t.Errorf("%d reads of credentials and %d renewals for %d users", creds, renewals, len(users))
	}
	w.eventually(soon, "users that were replaced are dropped", func() bool {
		alive, err := pg.Users(t.Context())
		return err == nil && len(alive) <= 2
	})
	w.unpublish(v)
	w.wantNothingLeft()
	w.eventually(soon, "the database has no user of the volume", func() bool {
		alive, err := pg.Users(t.Context())
		return err == nil && len(alive) == 0
	})
}

// A lease that Vault does not renew: the SSH engine's one-time passwords come with one. It is replaced before it ends, never
// offered for a renewal, and the password before is good for as long as applications have to change over.
func TestALeaseThatCannotBeRenewedIsReplacedBeforeItEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{policy: `path "ssh/creds/*" { capabilities = ["update"] }`})
	const host = "192.0.2.7"
	w.sshPasswords(8 * time.Second)
	v := volume("web-0", "{objectName: otp, secretPath: ssh/creds/otp, method: PUT, secretArgs: {ip: "+host+"}, secretKey: key}")
	start := w.vault.Mark()
	w.publish(v)
	if lease := w.volumes()[0].Leases[0]; lease.Kind != string(rotation.KindFixed) || lease.Expires == nil {
		t.Fatalf("the lease is %+v", lease)
	}

	// usable spends a password, as the helper on the host does.
	usable := func(otp string) bool {
		secret, err := w.vault.Root().Logical().WriteWithContext(t.Context(), "ssh/verify", map[string]any{"otp": otp})
		return err == nil && secret != nil && secret.Data["ip"] == host
	}
	var current string
	var lastRead time.Time
	passwords := 0
	for end := time.Now().Add(soon); passwords < 4 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		began := time.Now()
		otp := w.file(v, "otp")
		if otp != current && current != "" && !usable(current) && !late(lastRead) {
			t.Errorf("password %d was of no use any more when the next one came", passwords)
		}
		if otp != current {
			passwords++
		}
		current, lastRead = otp, began
	}
	if passwords < 4 || !usable(current) {
		t.Errorf("only %d passwords, or the last one is of no use", passwords)
	}
	requests, err := w.vault.Requests(start)
	ok(t, err)
	if issued, renewals := requests.Count("ssh/creds/otp"), requests.Count("sys/leases/renew"); issued != passwords || renewals != 0 {
		t.Errorf("%d passwords issued, %d seen, %d renewals", issued, passwords, renewals)
	}
	w.unpublish(v)
	w.wantNothingLeft()
}

// sshPasswords gives Vault an SSH engine with the role "otp", whose one-time passwords have leases of the given TTL.
func (w *world) sshPasswords(ttl time.Duration) {
	w.Helper()
	ok(w, w.vault.Root().Sys().MountWithContext(w.Context(), "ssh", &api.MountInput{
		Type: "ssh", Config: api.MountConfigInput{DefaultLeaseTTL: ttl.String()},
	}))
	_, err := w.vault.Root().Logical().WriteWithContext(w.Context(), "ssh/roles/otp", map[string]any{
		"key_type": "otp", "default_user": "deploy", "cidr_list": "192.0.2.0/24",
	})
	ok(w, err)
}

func TestAStaticRoleIsFollowedThroughItsRotations(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	pg := w.database(time.Minute, time.Hour)
	ok(t, w.vault.DatabaseStaticRole(t.Context(), "database", "legacy", pg, "legacy", 5*time.Second))
	v := volume("web-0", "{objectName: password, secretPath: database/static-creds/legacy, secretKey: password}")
	w.publish(v)
	seen := map[string]bool{}
	var wrongSince time.Time
	for end := time.Now().Add(soon); len(seen) < 4 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		secret := w.file(v, "password")
		seen[secret] = true
		if pg.Login(t.Context(), "legacy", secret) == nil {
			wrongSince = time.Time{}
			continue
		}
		// Vault changes the password before anybody can know the new one: only how long that lasts is ours.
		if wrongSince.IsZero() {
			wrongSince = time.Now()
		}
		if d := time.Since(wrongSince); d > 4*time.Second {
			t.Fatalf("the password has been wrong for %v\n%s", d, w.driver.Log())
		}
	}
	if len(seen) < 4 {
		t.Errorf("%d passwords in %v with a rotation period of 5 s", len(seen), soon)
	}
}

func TestACertificateAndItsKeyMatchAtEveryRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	ok(t, w.vault.EnablePKI(t.Context(), "pki"))
	ok(t, w.vault.PKIRole(t.Context(), "pki", "web", vaulttest.PKIRole{TTL: 6 * time.Second}))
	issue := "secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: web.example.com}"
	v := volume("web-0", "{objectName: tls.crt, "+issue+", secretKey: certificate}",
		"{objectName: tls.key, "+issue+", secretKey: private_key}", "{objectName: ca.crt, "+issue+", secretKey: issuing_ca}")
	start := w.vault.Mark()
	w.publish(v)
	serials := map[string]bool{}
	reads := 0
	for end := time.Now().Add(soon); len(serials) < 5 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		began := time.Now()
		pair := w.generation(v, "tls.crt", "tls.key")
		certificate, err := tls.X509KeyPair([]byte(pair[0]), []byte(pair[1]))
		if err != nil {
			t.Fatalf("read %d: %v", reads, err)
		}
		if began.After(certificate.Leaf.NotAfter) {
			t.Fatalf("read %d: expired %v ago", reads, began.Sub(certificate.Leaf.NotAfter))
		}
		serials[certificate.Leaf.SerialNumber.String()] = true
		reads++
	}
	requests, err := w.vault.Requests(start)
	ok(t, err)
	if issued := requests.Count("pki/issue/web"); issued < 5 || issued > len(serials)+1 {
		t.Errorf("%d certificates issued, %d seen", issued, len(serials))
	}
	t.Logf("%d reads of %d certificates, all match", reads, len(serials))
}

func TestTwoCertificatesOfOnePathWithOtherArgumentsAreTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	ok(t, w.vault.EnablePKI(t.Context(), "pki"))
	ok(t, w.vault.PKIRole(t.Context(), "pki", "web", vaulttest.PKIRole{TTL: time.Hour}))
	v := volume("web-0",
		"{objectName: a.crt, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: a.example.com}, secretKey: certificate}",
		"{objectName: b.crt, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: b.example.com}, secretKey: certificate}")
	w.publish(v)
	if w.file(v, "a.crt") == w.file(v, "b.crt") {
		t.Fatal("both files hold one certificate")
	}
}

func TestAChangedValueIsSwappedInAndSeenThroughAnOpenDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	ok(t, w.vault.WriteKV1(t.Context(), "kv1", "app", map[string]any{"data": map[string]any{"inner": "x"}, "n": 7}))
	v := volume("web-0", greeting, "{objectName: sub/n, secretPath: kv1/app, secretKey: n}", "{objectName: whole.json, secretPath: kv1/app}")
	w.publish(v)
	if got := w.file(v, "greeting") + w.file(v, "sub/n"); got != "hello7" {
		t.Errorf("files hold %q", got)
	}
	if whole := w.file(v, "whole.json"); !strings.Contains(whole, `"inner":"x"`) || strings.Contains(whole, "request_id") {
		t.Errorf("the whole response is %s", whole)
	}
	before, err := os.Readlink(filepath.Join(w.target(v), "..data"))
	ok(t, err)
	w.greet("hello again")
	w.eventually(soon, "the new value", func() bool { return w.file(v, "greeting") == "hello again" })
	after, err := os.Readlink(filepath.Join(w.target(v), "..data"))
	ok(t, err)
	if before == after {
		t.Error("..data names the same generation")
	}
	w.eventually(soon, "the old generation is removed", func() bool {
		_, err := os.Stat(filepath.Join(w.target(v), before))
		return os.IsNotExist(err)
	})
}

// What a pod can do with its files, and what it cannot: the mount is read-only although the pod did not ask for it.
func TestFilesBelongToThePodsGroupAndNobodyWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	v := volume("web-0", greeting)
	v.ReadOnly = false
	group := int64(os.Getgid()) // in a user namespace no other group exists
	v.FSGroup = &group
	w.publish(v)
	check := func() {
		t.Helper()
		info, err := os.Stat(filepath.Join(w.target(v), "greeting"))
		ok(t, err)
		if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o440 || int64(stat.Gid) != group {
			t.Errorf("mode %v, group %d; want 0440 and %d", info.Mode(), stat.Gid, group)
		}
		if err := os.WriteFile(filepath.Join(w.target(v), "new"), nil, 0o600); !strings.Contains(errText(err), "read-only file system") {
			t.Errorf("writing: %v", err)
		}
	}
	check()
	w.greet("again")
	w.eventually(soon, "the new value", func() bool { return w.file(v, "greeting") == "again" })
	check()
}

func TestALeaseThatAnOperatorRevokesIsReplacedBeforeItWouldHaveEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	const ttl = time.Minute
	pg := w.database(ttl, time.Hour)
	v := volume("web-0", username, password)
	v.Attributes["refreshInterval"] = "5s"
	w.publish(v)
	old := w.file(v, "username")
	leases, err := w.vault.Leases(t.Context(), "database/creds/dyn")
	ok(t, err)
	ok(t, w.vault.Root().Sys().Revoke(leases[0]))
	w.eventually(ttl, "new credentials, before the lease would have ended", func() bool { return w.file(v, "username") != old })
	_, err = w.login(pg, v)
	ok(t, err)
}

func TestATokenThatAnOperatorRevokesIsFollowedByOneLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	pg := w.database(30*time.Second, time.Hour)
	v := volume("web-0", username, password)
	v.Attributes["refreshInterval"] = "5s"
	start := w.vault.Mark()
	w.publish(v)
	old := w.file(v, "username")
	accessors, err := w.vault.TokenAccessors(t.Context())
	ok(t, err)
	for _, a := range accessors {
		ok(t, w.vault.Root().Auth().Token().RevokeAccessor(a))
	}
	w.eventually(soon, "new credentials", func() bool { return w.file(v, "username") != old })
	_, err = w.login(pg, v)
	ok(t, err)
	requests, err := w.vault.Requests(start)
	ok(t, err)
	if n := requests.Count("auth/jwt/login"); n != 2 {
		t.Errorf("%d logins, want the first and one more", n)
	}
}

// Short sessions: the token is renewed, reaches its maximum, a new login follows, and the leases under the old one are replaced
// before it dies.
func TestASessionsMaximumTTLIsSurvived(t *testing.T) {
	t.Parallel()
	for name, role := range map[string]vaulttest.Role{
		"service tokens": {TTL: 6 * time.Second, MaxTTL: 15 * time.Second},
		"batch tokens":   {TTL: 12 * time.Second, MaxTTL: 12 * time.Second, Type: "batch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{token: role})
			pg := w.database(time.Minute, time.Hour)
			v := volume("web-0", username, password)
			start := w.vault.Mark()
			w.publish(v)
			for end := time.Now().Add(35 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				if user, err := w.login(pg, v); err != nil {
					t.Fatalf("login as %s: %v\n%s", user, err, w.driver.Log())
				}
			}
			requests, err := w.vault.Requests(start)
			ok(t, err)
			if n := requests.Count("auth/jwt/login"); n < 3 || n > 8 {
				t.Errorf("%d logins in 35 s", n)
			}
			w.unpublish(v)
			w.wantNothingLeft()
		})
	}
}

func TestKubernetesAuthWorksLikeJWT(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("hello")
	reviewer := vaulttest.NewReviewer(w.kubelet.Issuer.PublicKey())
	t.Cleanup(reviewer.Close)
	token, err := w.kubelet.Issuer.Mint(kubelettest.NewPod("kube-system", "reviewer", "reviewer"), "vault", time.Hour)
	ok(t, err)
	ok(t, w.vault.EnableKubernetes(t.Context(), "kubernetes", reviewer, token))
	ok(t, w.vault.KubernetesRole(t.Context(), "kubernetes", "app", vaulttest.Role{Policies: []string{"app"}, Namespaces: []string{"shop"}, ServiceAccounts: []string{"web"}}))
	v := volume("web-0", greeting)
	v.Attributes["authMethod"] = "kubernetes"
	w.publish(v)
	if got := w.file(v, "greeting"); got != "hello" {
		t.Errorf("greeting = %q", got)
	}
	if reviewer.Reviews() == 0 {
		t.Error("the token was not reviewed")
	}
	stranger := volume("web-1", greeting)
	stranger.Pod.ServiceAccount = "stranger"
	stranger.Attributes["authMethod"] = "kubernetes"
	if err := w.kubelet.Publish(t.Context(), stranger); !strings.Contains(errText(err), "PermissionDenied") {
		t.Errorf("a stranger's publish: %v", err)
	}
	w.unpublish(v)
	w.wantNothingLeft()
}

// The audit log tells the whole story of a volume, without a value.
func TestTheAuditLogTellsWhatHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.greet("canary-value")
	v := volume("web-0", greeting)
	w.publish(v)
	w.greet("canary-value-2")
	w.eventually(soon, "the new value", func() bool { return w.file(v, "greeting") == "canary-value-2" })
	w.unpublish(v)
	w.wantNothingLeft()
	lines, err := w.driver.Audit()
	ok(t, err)
	for _, event := range []rotation.AuditEvent{rotation.AuditLogin, rotation.AuditRead, rotation.AuditPublish, rotation.AuditSwap, rotation.AuditUnpublish, rotation.AuditRevokeSession} {
		if len(lines.Of(event)) == 0 {
			t.Errorf("no line about %s", event)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
