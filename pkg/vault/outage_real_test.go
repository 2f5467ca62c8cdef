// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
	"github.com/leasefs/leasefs/test/harness/pgtest"
)

func TestRealSealedVaultIsTransientAndComesBack(t *testing.T) {
	r := start(t)
	ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"a": 1}))
	_, auth := r.login(t, "app")
	ok(t, r.Seal(t.Context()))
	for range 20 {
		_, err := r.read(t, auth, app)
		wantClass(t, err, vault.Transient)
		_, err = r.client.Login(t.Context(), r.request(t, "jwt", "app"))
		wantClass(t, err, vault.Transient)
	}
	_, err := r.read(t, auth, app)
	wantText(t, err, vault.Transient, "Vault is sealed")
	ok(t, r.Unseal(t.Context()))
	eventually(t, "the same session reads again", func() bool { _, err := r.read(t, auth, app); return err == nil })
}

func TestRealFrozenVaultEndsEachCallInTime(t *testing.T) {
	r := start(t, func(cfg *vault.Config) { cfg.RequestTimeout = time.Second })
	ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"a": 1}))
	_, auth := r.login(t, "app")
	ok(t, r.Pause())
	for range 8 {
		begin := time.Now()
		_, err := r.read(t, auth, app)
		wantClass(t, err, vault.Transient)
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("a read took %v", took)
		}
	}
	_, err := r.read(t, auth, app)
	wantText(t, err, vault.Transient, "no complete answer within 1s", "known to be down")
	ok(t, r.Resume())
	eventually(t, "the same session reads again", func() bool { _, err := r.read(t, auth, app); return err == nil })
}

func TestRealKilledVaultIsTransient(t *testing.T) {
	r := start(t)
	_, auth := r.login(t, "app")
	ok(t, r.Kill())
	_, err := r.read(t, auth, app)
	wantClass(t, err, vault.Transient)
	_, err = r.read(t, auth, app)
	wantText(t, err, vault.Transient, "connection refused")
}

// A standby whose leader it cannot forward to answers every request with a redirect to the leader's address.
func TestRealVaultBehindARedirectingStandby(t *testing.T) {
	r := start(t)
	ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"a": 1}))
	standby := serve(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Location", r.Addr+q.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	r.client = connect(t, standby.URL)
	_, err := r.client.Login(t.Context(), r.request(t, "jwt", "app"))
	wantText(t, err, vault.Transient, r.Addr, "allow it")
	r.client = connect(t, standby.URL, func(cfg *vault.Config) { cfg.AllowedRedirects = []string{r.Addr} })
	_, auth := r.login(t, "app")
	if _, err := r.read(t, auth, app); err != nil {
		t.Error(err)
	}
	ok(t, r.client.RevokeSession(t.Context(), auth))
}

func TestRealRateLimitQuotaIsTransient(t *testing.T) {
	r := start(t)
	ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"a": 1}))
	_, auth := r.login(t, "app")
	_, err := r.Root().Logical().Write("sys/quotas/rate-limit/q", map[string]any{"rate": 1, "path": "secret/"})
	ok(t, err)
	eventually(t, "the quota is used up", func() bool { _, err = r.read(t, auth, app); return err != nil })
	if e := wantClass(t, err, vault.Transient); e.Status != 429 {
		t.Errorf("status %d", e.Status)
	}
	wantText(t, err, vault.Transient, "rate limit quota exceeded")
}

func TestRealDatabaseLease(t *testing.T) {
	r, pg := start(t, cached), pgtest.Start(t)
	ok(t, r.EnableDatabase(t.Context(), "database", pg))
	ok(t, r.DatabaseRole(t.Context(), "database", "app", 6*time.Second, 9*time.Second))
	ok(t, r.DatabaseStaticRole(t.Context(), "database", "fixed", pg, "fixed", time.Hour))
	_, auth := r.login(t, "app")
	creds := vault.Request{Path: "database/creds/app"}

	one, err := r.read(t, auth, creds)
	ok(t, err)
	two, err := r.read(t, auth, creds)
	ok(t, err)
	if one.LeaseID == two.LeaseID || !strings.HasPrefix(one.LeaseID, "database/creds/app/") || one.LeaseDuration != 6*time.Second || !one.Renewable {
		t.Errorf("leases %q and %q of %v, renewable %v", one.LeaseID, two.LeaseID, one.LeaseDuration, one.Renewable)
	}
	ok(t, pg.Login(t.Context(), one.Data["username"].(string), one.Data["password"].(string)))

	grant, err := r.client.RenewLease(t.Context(), auth, one.LeaseID, 0)
	ok(t, err)
	if grant.TTL != 6*time.Second || !grant.Renewable || grant.Capped {
		t.Errorf("at first a renewal gives %+v", grant)
	}
	if grant, err = r.client.RenewLease(t.Context(), auth, one.LeaseID, 3500*time.Millisecond); err != nil || grant.TTL != 4*time.Second {
		t.Errorf("a renewal by 3.5s, in whole seconds, gives %+v, %v", grant, err)
	}
	if grant, err = r.client.LookupLease(t.Context(), auth, one.LeaseID); err != nil || grant.TTL <= 0 || grant.TTL > 4*time.Second || !grant.Renewable {
		t.Errorf("lookup gives %+v, %v", grant, err)
	}
	eventually(t, "the maximum cuts a renewal", func() bool {
		grant, err = r.client.RenewLease(t.Context(), auth, one.LeaseID, 0)
		return err != nil || grant.Capped
	})
	if err != nil || grant.TTL >= 6*time.Second || !grant.Renewable {
		t.Errorf("near the maximum a renewal gives %+v, %v", grant, err)
	}

	three, err := r.read(t, auth, creds)
	ok(t, err)
	ok(t, pg.Stop(t.Context()))
	_, err = r.client.RenewLease(t.Context(), auth, three.LeaseID, 0)
	wantText(t, err, vault.Transient, "failed to renew entry")
	if failure(t, err).Status != 400 {
		t.Errorf("the status is %d: the fact that this test stands for has changed", failure(t, err).Status)
	}
	_, err = r.read(t, auth, creds)
	wantText(t, err, vault.Transient)
	wantText(t, r.client.RevokeLease(t.Context(), auth, three.LeaseID), vault.Transient)
	ok(t, pg.Restart(t.Context()))
	eventually(t, "the lease can be revoked again", func() bool { return r.client.RevokeLease(t.Context(), auth, three.LeaseID) == nil })

	fixed, err := r.read(t, auth, vault.Request{Path: "database/static-creds/fixed"})
	ok(t, err)
	if fixed.LeaseID != "" || fixed.Data["ttl"] == nil || fixed.Data["rotation_period"] == nil {
		t.Errorf("static role: lease %q, fields %d", fixed.LeaseID, len(fixed.Data))
	}
	_, err = r.read(t, auth, vault.Request{Path: "database/creds/nope"})
	wantText(t, err, vault.NotFound, "unknown role: nope")
}

// Credentials fetched with a session die with it, whatever their own lease says.
func TestRealLeaseDiesWithItsSession(t *testing.T) {
	r, pg := start(t), pgtest.Start(t)
	ok(t, r.EnableDatabase(t.Context(), "database", pg))
	ok(t, r.DatabaseRole(t.Context(), "database", "app", time.Minute, time.Minute))
	_, auth := r.login(t, "app")
	got, err := r.read(t, auth, vault.Request{Path: "database/creds/app"})
	ok(t, err)
	ok(t, r.client.RevokeSession(t.Context(), auth))
	eventually(t, "the database user is gone", func() bool {
		return pg.Login(t.Context(), got.Data["username"].(string), got.Data["password"].(string)) != nil
	})
	_, err = r.client.LookupLease(t.Context(), vault.Auth{Token: secret.New(r.RootToken)}, got.LeaseID)
	wantText(t, err, vault.LeaseGone)
}
