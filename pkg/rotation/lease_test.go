// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

// The table that the documentation shows: how each kind of lease is known by Vault's answer, and what it is taken for where it only
// looks like one.
func TestClassifyKnowsEachKindByItsAnswer(t *testing.T) {
	const get, put = "GET", "PUT"
	cert := `{"certificate":` + certificateJSON(t, epoch.Add(24*time.Hour)) + `,"private_key":"x"}`
	day := rotation.Term{Granted: epoch, TTL: 24 * time.Hour, Expires: epoch.Add(24 * time.Hour)}
	plain := rotation.Term{Granted: epoch}
	const static = `{"username":"u","password":"p","ttl":60,`
	minute := rotation.Term{Granted: epoch, TTL: time.Minute, Expires: epoch.Add(70 * time.Second)} // and the slack
	for name, row := range map[string]struct {
		method    string
		leaseID   string
		duration  time.Duration
		renewable bool
		data      string
		kind      rotation.Kind
		term      rotation.Term
	}{
		"KV version 1":                         {get, "", 768 * time.Hour, false, `{"password":"p"}`, rotation.KindPlain, plain},
		"KV version 1 with its writer's ttl":   {get, "", time.Hour, false, `{"password":"p","ttl":"1h"}`, rotation.KindPlain, plain},
		"KV version 1 with a ttl that counts":  {get, "", 30 * time.Second, false, `{"password":"p","ttl":30}`, rotation.KindPlain, plain},
		"KV version 2":                         {get, "", 0, false, `{"data":{"ttl":30,"rotation_period":60},"metadata":{"version":1}}`, rotation.KindPlain, plain},
		"dynamic credentials":                  {get, "db/1", time.Hour, true, `{"username":"u"}`, rotation.KindRenewable, term(time.Hour)},
		"dynamic credentials by a write":       {put, "aws/1", time.Hour, true, `{"access_key":"k"}`, rotation.KindRenewable, term(time.Hour)},
		"lease that cannot be renewed":         {get, "sts/1", time.Hour, false, `{"token":"t"}`, rotation.KindFixed, rotation.Term{Granted: epoch, TTL: time.Hour, Expires: epoch.Add(time.Hour)}},
		"lease id without a duration":          {get, "x/1", 0, true, `{"token":"t"}`, rotation.KindPlain, plain},
		"issued certificate":                   {put, "", 0, false, cert, rotation.KindCertificate, day},
		"issued certificate with a lease":      {put, "pki/1", 24 * time.Hour, false, cert, rotation.KindCertificate, day},
		"issued certificate, a shorter lease":  {put, "pki/1", time.Hour, false, cert, rotation.KindCertificate, rotation.Term{Granted: epoch, TTL: time.Hour, Expires: epoch.Add(time.Hour)}},
		"certificate that was merely read":     {get, "", 0, false, cert, rotation.KindPlain, plain},
		"certificate that is text":             {put, "", 0, false, `{"certificate":"hello"}`, rotation.KindPlain, plain},
		"certificate that is a key":            {put, "", 0, false, `{"certificate":"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"}`, rotation.KindPlain, plain},
		"certificate that cannot be read":      {put, "", 0, false, `{"certificate":"-----BEGIN CERTIFICATE-----\nMC4=\n-----END CERTIFICATE-----\n"}`, rotation.KindPlain, plain},
		"certificate that is a list":           {put, "", 0, false, `{"certificate":["x"]}`, rotation.KindPlain, plain},
		"signed SSH key":                       {put, "", 0, false, `{"serial_number":"1","signed_key":"ssh-rsa-cert x"}`, rotation.KindPlain, plain},
		"static role with a period":            {get, "", 0, false, static + `"rotation_period":3600}`, rotation.KindStaticRole, minute},
		"static role with a schedule":          {get, "", 0, false, static + `"rotation_schedule":"0 * * * *","rotation_window":3600}`, rotation.KindStaticRole, minute},
		"static role that says when it was":    {get, "", 0, false, static + `"last_vault_rotation":"2026-01-02T03:04:05Z"}`, rotation.KindStaticRole, minute},
		"static role that is rotating":         {get, "", 0, false, `{"ttl":0,"rotation_period":3600}`, rotation.KindStaticRole, rotation.Term{Granted: epoch, Expires: epoch.Add(10 * time.Second)}},
		"ttl beside nothing that rotates":      {get, "", 0, false, `{"password":"p","ttl":60}`, rotation.KindPlain, plain},
		"ttl that is negative":                 {get, "", 0, false, `{"ttl":-1,"rotation_period":3600}`, rotation.KindPlain, plain},
		"ttl that is a fraction":               {get, "", 0, false, `{"ttl":1.5,"rotation_period":3600}`, rotation.KindPlain, plain},
		"answer without anything":              {get, "", 0, false, `{}`, rotation.KindPlain, plain},
		"method that is left out means GET":    {"", "", 0, false, cert, rotation.KindPlain, plain},
		"certificate among the values of KV 2": {get, "", 0, false, `{"data":` + cert + `,"metadata":{"version":1}}`, rotation.KindPlain, plain},
	} {
		t.Run(name, func(t *testing.T) {
			dec := json.NewDecoder(strings.NewReader(row.data)) // as the client decodes
			dec.UseNumber()
			r := &vault.Response{LeaseID: row.leaseID, LeaseDuration: row.duration, Renewable: row.renewable}
			if err := dec.Decode(&r.Data); err != nil {
				t.Fatal(err)
			}
			got := rotation.Classify(vault.Request{Path: "a/b", Method: row.method}, r, epoch, epoch)
			want := rotation.Lease{Path: "a/b", Kind: row.kind, ID: row.leaseID, Term: row.term}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
		})
	}
}

// certificateJSON is a certificate that ends at notAfter, as it stands in a JSON text.
func certificateJSON(t *testing.T, notAfter time.Time) string {
	t.Helper()
	text, err := json.Marshal(certificatePEM(epoch, notAfter))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// certificatePEM is a certificate of its own that is issued at now, and like Vault's dated back by half a minute.
func certificatePEM(now, notAfter time.Time) string {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-30 * time.Second), NotAfter: notAfter}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// notAfter is when a certificate ends.
func notAfter(t *testing.T, text string) time.Time {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no certificate: %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert.NotAfter
}
