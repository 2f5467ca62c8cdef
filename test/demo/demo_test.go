// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/audit"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// A demo that says "all of it happened" is worth what its checks are worth: so each must notice its fault.

func TestProbeNoticesWhatIsWrongWithTheFiles(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, files map[string]string)
		want   string // part of the error; "" none
	}{
		{"nothing", func(*testing.T, map[string]string) {}, ""},
		{"a missing file", func(_ *testing.T, f map[string]string) { delete(f, "db/password") }, "no such file"},
		{"an empty file", func(_ *testing.T, f map[string]string) { f["greeting"] = "" }, "is empty"},
		{"another certificate's key", func(t *testing.T, f map[string]string) { _, f["tls/tls.key"], _ = issue(t, now) }, "private key does not match"},
		{"another authority", func(t *testing.T, f map[string]string) { _, _, f["tls/ca.crt"] = issue(t, now) }, "unknown authority"},
		{"no authority", func(_ *testing.T, f map[string]string) { f["tls/ca.crt"] = "none" }, "no authority"},
		{"an expired certificate", func(t *testing.T, f map[string]string) {
			f["tls/tls.crt"], f["tls/tls.key"], f["tls/ca.crt"] = issue(t, now.Add(-21*time.Second))
		}, "expired"},
		{"a password that does not work", func(_ *testing.T, f map[string]string) { f["db/password"] = "wrong" }, "refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{"greeting": "hello", "db/username": "app", "db/password": "right"}
			files["tls/tls.crt"], files["tls/tls.key"], files["tls/ca.crt"] = issue(t, now)
			tc.change(t, files)
			p := &probe{target: volume(t, files), login: onlyRight, users: map[string]bool{}, serials: map[string]bool{}, generations: map[string]bool{}}
			for range 30 {
				p.look(t.Context())
			}
			err := p.verdict().err
			if tc.want == "" {
				if err != nil || p.logins != 30 || p.current().greeting != "hello" {
					t.Errorf("error %v, %d logins, %+v", err, p.logins, p.current())
				}
			} else if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "30 times not") {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestProbeThatHardlyLookedIsNoProof(t *testing.T) {
	if err := (&probe{looks: 3}).verdict().err; err == nil {
		t.Error("three looks are taken for a proof")
	}
}

func TestVerdictFailsWithOneBadCheck(t *testing.T) {
	var out bytes.Buffer
	s := &screen{w: &out}
	if !s.verdict([]check{{"a", nil}, {"b", nil}}) {
		t.Error("all good, and the verdict is not")
	}
	if s.verdict([]check{{"a", nil}, {"b", errors.New("no")}, {"c", nil}}) {
		t.Error("one is bad, and the verdict is not")
	}
	if !strings.Contains(out.String(), "✗ b: no") {
		t.Errorf("output: %s", out.String())
	}
}

func TestRefusesWritesIsAboutAReadOnlyMount(t *testing.T) {
	if err := refusesWrites(t.TempDir()); err == nil {
		t.Error("a folder that anyone may write to counts as read-only")
	}
	if err := refusesWrites(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a folder that is not there counts as read-only")
	}
}

func TestEveryEventHasItsWords(t *testing.T) {
	for _, e := range []rotation.AuditEvent{
		rotation.AuditLogin, rotation.AuditRead, rotation.AuditRenewSession, rotation.AuditRenewLease, rotation.AuditRevokeSession,
		rotation.AuditRevokeLease, rotation.AuditPublish, rotation.AuditSwap, rotation.AuditUnpublish, rotation.AuditRecover, rotation.AuditExpire,
	} {
		if describe(audit.Line{Event: e, Outcome: "ok"}) == "" {
			t.Errorf("%s is left out", e)
		}
		if text := describe(audit.Line{Event: e, Outcome: "error", ErrorClass: "denied", Kind: rotation.KindPlain}); !strings.Contains(text, "FAILED: denied") {
			t.Errorf("a failed %s reads %q", e, text)
		}
	}
	if text := describe(audit.Line{Event: rotation.AuditRead, Outcome: "ok", Kind: rotation.KindPlain}); text != "" {
		t.Errorf("a routine look reads %q", text)
	}
}

func TestChangesNameWhatDiffers(t *testing.T) {
	one := snapshot{greeting: "hello", username: "v-jwt-app-AAAAAAAAAAAA-17", serial: "0102030405"}
	two := one
	two.greeting = "bye"
	for _, tc := range []struct {
		name        string
		before, now snapshot
		want        string
	}{
		{"the first", snapshot{}, one, `: greeting "hello", certificate 01020304…, database user v-…-AAAAAAAA…`},
		{"none", one, one, ""},
		{"one", one, two, `: greeting "hello" → "bye"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := changes(tc.before, tc.now); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func onlyRight(_ context.Context, _, password string) error {
	if password != "right" {
		return errors.New("login refused")
	}
	return nil
}

// volume makes a folder in the layout of a volume.
func volume(t *testing.T, files map[string]string) string {
	t.Helper()
	target := t.TempDir()
	for name, text := range files {
		path := filepath.Join(target, "..1", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..1", filepath.Join(target, "..data")); err != nil {
		t.Fatal(err)
	}
	return target
}

// issue returns a certificate that lives for 20 seconds from begin, its key and its authority.
func issue(t *testing.T, begin time.Time) (cert, key, ca string) {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "web"}, NotBefore: begin.Add(-30 * time.Second), NotAfter: begin.Add(20 * time.Second),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	authorityKey, leafKey := newKey(t), newKey(t)
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, leafKey.Public(), authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return asPEM("CERTIFICATE", leafDER), asPEM("EC PRIVATE KEY", keyDER), asPEM("CERTIFICATE", caDER)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
