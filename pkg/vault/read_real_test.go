// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

func TestRealKV1(t *testing.T) {
	r := start(t)
	ok(t, r.EnableKV(t.Context(), "kv", 1))
	ok(t, r.WriteKV1(t.Context(), "kv", "app", map[string]any{"password": "x", "port": 5432, "big": json.Number("12345678901234567890")}))
	ok(t, r.WriteKV1(t.Context(), "kv", "short", map[string]any{"password": "x", "ttl": "90s"}))
	_, auth := r.login(t, "app")

	got, err := r.read(t, auth, vault.Request{Path: "kv/app"})
	ok(t, err)
	if d := cmp.Diff(map[string]any{"password": "x", "port": json.Number("5432"), "big": json.Number("12345678901234567890")}, got.Data); d != "" {
		t.Errorf("data (-want +got):\n%s", d)
	}
	if got.LeaseID != "" || got.Renewable || got.LeaseDuration != 768*time.Hour {
		t.Errorf("lease %q, %v, renewable %v: the duration is only advice", got.LeaseID, got.LeaseDuration, got.Renewable)
	}
	if got, err = r.read(t, auth, vault.Request{Path: "kv/short"}); err != nil || got.LeaseDuration != 90*time.Second {
		t.Errorf("the secret's own ttl is %v, %v", got.LeaseDuration, err)
	}
	_, err = r.read(t, auth, vault.Request{Path: "kv/nothing"})
	wantText(t, err, vault.NotFound, "kv/nothing", "nothing is there")
}

func TestRealKV2(t *testing.T) {
	r := start(t)
	for _, v := range []string{"one", "two", "three"} {
		ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"password": v}))
	}
	_, auth := r.login(t, "app")
	at := func(version string) (*vault.Response, error) {
		q := vault.Request{Path: "secret/data/app"}
		if version != "" {
			q.Query = url.Values{"version": {version}}
		}
		return r.read(t, auth, q)
	}
	for version, want := range map[string]string{"": "three", "1": "one", "3": "three"} {
		got, err := at(version)
		ok(t, err)
		if data, _ := got.Data["data"].(map[string]any); data["password"] != want {
			t.Errorf("version %q is %v, want %s", version, data, want)
		}
		if got.LeaseID != "" || got.LeaseDuration != 0 || got.Renewable {
			t.Errorf("it has a lease: %q %v", got.LeaseID, got.LeaseDuration)
		}
	}
	_, err := at("9")
	wantText(t, err, vault.NotFound, "nothing is there")
	_, err = r.read(t, auth, vault.Request{Path: "secret/app"})
	wantText(t, err, vault.NotFound, "versioned K/V", "secret/data/app")
	_, err = r.read(t, auth, vault.Request{Path: "secret/data/forbidden"})
	wantText(t, err, vault.Denied, "secret/data/forbidden", "permission denied", "policies")

	kv := r.Root().KVv2("secret")
	ok(t, kv.DeleteVersions(t.Context(), "app", []int{3}))
	_, err = at("")
	wantText(t, err, vault.NotFound, "version 3 was deleted at 20")
	ok(t, kv.Destroy(t.Context(), "app", []int{1}))
	_, err = at("1")
	wantText(t, err, vault.NotFound, "version 1 was destroyed")
	if _, err := at("2"); err != nil {
		t.Errorf("the version that is left: %v", err)
	}
}

func TestRealKV2VersionThatEndsByItself(t *testing.T) {
	r := start(t, cached)
	_, err := r.Root().Logical().Write("secret/metadata/app", map[string]any{"delete_version_after": "2s"})
	ok(t, err)
	_, auth := r.login(t, "app")
	ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"password": "x"}))
	got, err := r.read(t, auth, vault.Request{Path: "secret/data/app"})
	ok(t, err)
	if metadata, _ := got.Data["metadata"].(map[string]any); metadata["deletion_time"] == "" {
		t.Errorf("metadata %v", metadata)
	}
	eventually(t, "it ends, and the cache does not keep it alive", func() bool {
		_, err = r.read(t, auth, vault.Request{Path: "secret/data/app"})
		return err != nil
	})
	wantText(t, err, vault.NotFound, "version 1 was deleted at")
}

func TestRealListIsAReadToo(t *testing.T) {
	r := start(t)
	ok(t, r.WriteKV2(t.Context(), "secret", "app", map[string]any{"a": 1}))
	_, auth := r.login(t, "app")
	got, err := r.read(t, auth, vault.Request{Path: "secret/metadata", Query: url.Values{"list": {"true"}}})
	ok(t, err)
	if d := cmp.Diff(map[string]any{"keys": []any{"app"}}, got.Data); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRealPKIWithoutLease(t *testing.T) {
	r := start(t, cached)
	ok(t, r.EnablePKI(t.Context(), "pki"))
	ok(t, r.PKIRole(t.Context(), "pki", "web", vaulttest.PKIRole{TTL: time.Minute}))
	_, auth := r.login(t, "app")
	issue := vault.Request{Path: "pki/issue/web", Method: "PUT", Args: map[string]any{"common_name": "a.example.com"}}
	serials := map[any]bool{}
	for range 3 {
		got, err := r.read(t, auth, issue)
		ok(t, err)
		if got.LeaseID != "" || got.LeaseDuration != 0 {
			t.Errorf("lease %q of %v", got.LeaseID, got.LeaseDuration)
		}
		if _, ok := got.Data["expiration"].(json.Number); !ok || !strings.HasPrefix(got.Data["certificate"].(string), "-----BEGIN CERTIFICATE-----") {
			t.Errorf("no certificate: expiration is %T", got.Data["expiration"])
		}
		serials[got.Data["serial_number"]] = true
	}
	if len(serials) != 3 {
		t.Errorf("three calls gave %d certificates", len(serials))
	}
	for name, c := range map[string]struct {
		request vault.Request
		class   vault.Class
		text    string
	}{
		"GET":          {vault.Request{Path: "pki/issue/web"}, vault.BadRequest, "PUT"},
		"GET and args": {vault.Request{Path: "pki/issue/web", Args: issue.Args}, vault.BadRequest, "PUT"},
		"no such role": {vault.Request{Path: "pki/issue/nope", Method: "PUT", Args: issue.Args}, vault.NotFound, "unknown role"},
		"no name":      {vault.Request{Path: "pki/issue/web", Method: "POST"}, vault.BadRequest, "common_name"},
		"a write":      {vault.Request{Path: "cubbyhole/x", Method: "PUT", Args: map[string]any{"a": 1}}, vault.BadResponse, "without a body"},
		"raw PEM":      {vault.Request{Path: "pki/ca/pem"}, vault.BadResponse, "not the JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.read(t, auth, c.request)
			wantText(t, err, c.class, c.text)
		})
	}
}

func TestRealPKIWithLease(t *testing.T) {
	r := start(t)
	ok(t, r.EnablePKI(t.Context(), "pki"))
	ok(t, r.PKIRole(t.Context(), "pki", "web", vaulttest.PKIRole{TTL: time.Minute, GenerateLease: true}))
	_, auth := r.login(t, "app")
	got, err := r.read(t, auth, vault.Request{Path: "pki/issue/web", Method: "PUT", Args: map[string]any{"common_name": "a.example.com"}})
	ok(t, err)
	if !strings.HasPrefix(got.LeaseID, "pki/issue/web/") || got.LeaseDuration < 30*time.Second || got.LeaseDuration > time.Minute || got.Renewable {
		t.Errorf("lease %q of %v, renewable %v", got.LeaseID, got.LeaseDuration, got.Renewable)
	}
	_, err = r.client.RenewLease(t.Context(), auth, got.LeaseID, 0)
	wantText(t, err, vault.NotRenewable, "lease is not renewable")
	grant, err := r.client.LookupLease(t.Context(), auth, got.LeaseID)
	ok(t, err)
	if grant.TTL < 10*time.Second || grant.TTL > time.Minute || grant.Renewable {
		t.Errorf("lookup gave %+v", grant)
	}
	for range 2 {
		ok(t, r.client.RevokeLease(t.Context(), auth, got.LeaseID))
	}
	_, err = r.client.LookupLease(t.Context(), auth, got.LeaseID)
	wantText(t, err, vault.LeaseGone, "invalid lease")
	_, err = r.client.RenewLease(t.Context(), auth, got.LeaseID, 0)
	wantText(t, err, vault.LeaseGone, "lease not found")
}

func TestRealDefaultPolicyDoesNotAllowToRevokeALease(t *testing.T) {
	r := start(t)
	r.role(t, "default", vaulttest.Role{Policies: []string{"default"}})
	_, auth := r.login(t, "default")
	wantText(t, r.client.RevokeLease(t.Context(), auth, "database/creds/x/1"), vault.Denied, "permission denied")
	_, err := r.client.LookupLease(t.Context(), auth, "database/creds/x/1")
	wantText(t, err, vault.LeaseGone)
}

func TestRealPathsThatAreNotThere(t *testing.T) {
	r := start(t)
	_, auth := r.login(t, "app")
	_, err := r.read(t, auth, vault.Request{Path: "nope/x"})
	if class := vault.ClassOf(err); class != vault.NotFound && class != vault.Denied {
		t.Errorf("no such mount: %v", err)
	}
	_, err = r.read(t, vault.Auth{Token: secret.New(r.RootToken)}, vault.Request{Path: "nope/x"})
	wantText(t, err, vault.NotFound, "no handler for route")
}
