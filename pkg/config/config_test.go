// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/config"
	"github.com/leasefs/leasefs/pkg/vault"
)

// valid is a configuration that uses every key; CA is a certificate in lines.
const valid = `connections:
- name: default
  address: https://Vault.Example.com:443/
  caPEM: |
CA
  serverName: vault.internal
  namespace: /team/
  allowedNamespaces: [shared, team/*]
  authMethod: jwt
  authMount: jwt/cluster-1/
  audience: https://vault.example.com
  role: app
  requestRate: 12.5
  requestBurst: 20
  requestTimeout: 5s
  maxResponseSize: 1Mi
  cacheTTL: 30s
  cacheSize: 10
  allowedRedirects: ["https://10.0.0.1:8200", "https://10.0.0.2:8200/"]
  proxyFromEnvironment: true
  allowInsecureHTTP: false
defaults:
  refreshInterval: 1m
  minRefreshInterval: 5s
  volumeSize: 64Ki
  maxVolumeSize: 4Mi
  nodeBudget: 64Mi
  fileMode: 0440
  credentialGrace: 2m
  generationGrace: 5s
  publishTimeout: 60s
  selinuxContext: system_u:object_r:container_file_t:s0
  tokenTransport: volumeContext
`

// certificate makes a self-signed certificate and its key, in PEM.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

func TestParseReadsEveryKey(t *testing.T) {
	ca, _ := certificate(t)
	got, err := config.Parse([]byte(strings.Replace(valid, "CA", indent(ca), 1)), "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Connections: []config.Connection{{
			Name: "default", Address: "https://vault.example.com", CAPEM: []byte(ca), ServerName: "vault.internal",
			Namespace: "team", AllowedNamespaces: []string{"shared", "team/*"},
			AuthMethod: "jwt", AuthMount: "jwt/cluster-1", Audience: "https://vault.example.com", Role: "app",
			RequestRate: 12.5, RequestBurst: 20, RequestTimeout: 5 * time.Second, MaxResponseSize: 1 << 20,
			CacheTTL: 30 * time.Second, CacheSize: 10,
			AllowedRedirects: []string{"https://10.0.0.1:8200", "https://10.0.0.2:8200"}, ProxyFromEnvironment: true,
		}},
		Defaults: config.Defaults{
			RefreshInterval: time.Minute, MinRefreshInterval: 5 * time.Second, VolumeSize: 64 << 10, MaxVolumeSize: 4 << 20,
			NodeBudget: 64 << 20, FileMode: 0o440, CredentialGrace: 2 * time.Minute, GenerationGrace: 5 * time.Second,
			PublishTimeout: time.Minute, SELinuxContext: "system_u:object_r:container_file_t:s0", TokenTransport: config.TokenInVolumeContext,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	connection, defaults := config.Settings()
	for _, s := range append(connection, defaults...) {
		if !strings.Contains(valid, s.Key+":") && s.Key != "caFile" {
			t.Errorf("the test's configuration does not use %s", s.Key)
		}
	}
}

func TestVaultConfigsAreSoundForTheClient(t *testing.T) {
	ca, _ := certificate(t)
	c, err := config.Parse([]byte(strings.Replace(valid, "CA", indent(ca), 1)), ".")
	if err != nil {
		t.Fatal(err)
	}
	got := c.VaultConfigs()
	want := []vault.Config{{
		Name: "default", Address: "https://vault.example.com", ServerName: "vault.internal", Namespace: "team", CAPEM: []byte(ca),
		AllowedRedirects: []string{"https://10.0.0.1:8200", "https://10.0.0.2:8200"},
		RequestTimeout:   5 * time.Second, RequestRate: 12.5, RequestBurst: 20, MaxResponseBytes: 1 << 20,
		ProxyFromEnvironment: true, CacheTTL: 30 * time.Second, CacheSize: 10,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	client, err := vault.NewClient(got[0], nil)
	if err != nil {
		t.Fatalf("the client refuses what the configuration accepts: %v", err)
	}
	client.Close()
}

// Rows replace one text of the valid configuration. A row without faults must be accepted.
func TestParseNamesEveryFaultWithKeyAndLine(t *testing.T) {
	ca, key := certificate(t)
	text := strings.Replace(valid, "CA", indent(ca), 1)
	const http = "address: http://127.0.0.1:8200\n  "
	const secure = "address: https://Vault.Example.com:443/\n  "
	noCA := "caPEM: |\n" + indent(ca) + "\n  serverName: vault.internal"
	rows := []struct {
		name, old, new string
		want           []string // "key: part of the problem"
	}{
		{"unknown section", "defaults:", "default:", []string{"default: did you mean defaults?"}},
		{"unknown key", "serverName:", "servername:", []string{"connections[0].servername: did you mean serverName?"}},
		{"unknown key of the defaults", "nodeBudget:", "budget:", []string{"defaults.budget: unknown key"}},
		{"key twice", "role: app", "role: app\n  role: app", []string{"connections[0].role: twice"}},
		{"no connections", text, "defaults: {}", []string{"connections: is required"}},
		{"empty connections", text, "connections: []", []string{"connections: is empty"}},
		{"connections as a mapping", text, "connections: {default: {}}", []string{"connections: must be a list, not a mapping"}},
		{"connection that is text", text, "connections: [vault]", []string{"connections[0]: must be a mapping, not text"}},
		{"defaults as a list", "defaults:\n", "defaults: [a]\nx:\n", []string{
			"defaults: must be a mapping, not a list", "x: unknown key",
		}},
		{"two of a name", text, "connections:\n- {name: a, address: 'https://a'}\n- {name: a, address: 'https://b'}", []string{"connections[1].name: same as connections[0].name"}},
		{"no name", "name: default", "role: x", []string{"connections[0].name: is required", "connections[0].role: twice"}},
		{"no address", secure, "", []string{"connections[0].address: is required"}},

		{"name with capitals", "name: default", "name: Default", []string{"connections[0].name: lower-case"}},
		{"name that is a number", "name: default", "name: 5", []string{"connections[0].name: must be text, not a number (quote it if it is text)"}},
		{"name of 64", "name: default", "name: " + strings.Repeat("a", 64), []string{"connections[0].name: at most 63"}},
		{"name of 63", "name: default", "name: " + strings.Repeat("a", 63), nil},
		{"empty name", "name: default", "name: ''", []string{"connections[0].name: lower-case"}},
		{"address without a scheme", "https://Vault.Example.com:443/", "vault:8200", []string{"connections[0].address: must be"}},
		{"address with a password", "https://Vault.Example.com:443/", "https://user:hunter2@vault", []string{"connections[0].address: must not hold a user or a password"}},
		{"address with a query", "https://Vault.Example.com:443/", "https://vault?x", []string{"connections[0].address: query"}},
		{"http to another host", secure, "address: http://vault.example.com\n  ", []string{"connections[0].address: set allowInsecureHTTP: true"}},
		{"http to a name that begins like loopback", secure, "address: http://127.0.0.1.example.com\n  ", []string{"connections[0].address: not loopback"}},
		{"http with certificates", secure, http, []string{"connections[0].address: only https uses"}},
		{"certificates twice", "serverName: vault.internal", "caFile: ca.pem", []string{"connections[0].caPEM: beside caFile"}},
		{"certificate file that is not there", noCA, "caFile: nothing.pem", []string{"connections[0].caFile: no such file"}},
		{"certificate file that is a directory", noCA, "caFile: .", []string{"connections[0].caFile: is not a file"}},
		{"no certificate", indent(ca), "    hello", []string{"connections[0].caPEM: no PEM certificate"}},
		{"private key", indent(ca), indent(key), []string{"connections[0].caPEM: holds a private key"}},
		{"private key after the certificate", indent(ca), indent(ca + key), []string{"connections[0].caPEM: holds a private key"}},
		{"broken certificate", "-----END CERTIFICATE-----", "-----END CERT-----", []string{"connections[0].caPEM: no PEM certificate"}},
		{"comment beside the certificate", indent(ca), "    # our authority\n" + indent(ca), nil},
		{"namespace with dots", "namespace: /team/", "namespace: team/..", []string{"connections[0].namespace: single slashes"}},
		{"pattern in the middle", "[shared, team/*]", "['a/*/b', 'a*', '*', '..']", []string{
			"connections[0].allowedNamespaces[0]: last part",
			"connections[0].allowedNamespaces[1]: last part",
			"connections[0].allowedNamespaces[3]: single slashes",
		}},
		{"pattern that YAML takes for an alias", "[shared, team/*]", "[*]", []string{"not valid YAML"}},
		{"namespaces as text", "[shared, team/*]", "team", []string{"connections[0].allowedNamespaces: must be a list, not text"}},
		{"auth method", "authMethod: jwt", "authMethod: approle", []string{"connections[0].authMethod: must be kubernetes or jwt, not \"approle\""}},
		{"auth mount", "authMount: jwt/cluster-1/", "authMount: auth/jwt", []string{"connections[0].authMount: leave \"auth/\" out"}},
		{"rate in words", "requestRate: 12.5", "requestRate: fast", []string{"connections[0].requestRate: must be a number"}},
		{"rate that is negative", "requestRate: 12.5", "requestRate: -1", []string{"connections[0].requestRate: from 0.1 to 100000"}},
		{"timeout without a unit", "requestTimeout: 5s", "requestTimeout: 5", []string{"connections[0].requestTimeout: with a unit"}},
		{"redirect with a path", "https://10.0.0.1:8200", "https://10.0.0.1:8200/ui", []string{"connections[0].allowedRedirects[0]: path"}},
		{"redirect to http", "https://10.0.0.1:8200", "http://10.0.0.1:8200", []string{"connections[0].allowedRedirects: element 0 is http"}},
		{"yes for true", "proxyFromEnvironment: true", "proxyFromEnvironment: yes", []string{"connections[0].proxyFromEnvironment: true or false"}},
		{"interval below its floor", "refreshInterval: 1m", "refreshInterval: 2s", []string{"defaults.refreshInterval: shorter than minRefreshInterval (5s)"}},
		{"size above its maximum", "volumeSize: 64Ki", "volumeSize: 5Mi", []string{"defaults.volumeSize: more than maxVolumeSize (4Mi)"}},
		{"budget that no volume fits into", "nodeBudget: 64Mi", "nodeBudget: 8Mi", []string{"defaults.nodeBudget: would never fit"}},
		{"no budget", "nodeBudget: 64Mi", "nodeBudget: 0", nil},
		{"mode in decimal", "fileMode: 0440", "fileMode: 288", []string{"defaults.fileMode: leading 0"}},
		{"timeout past the kubelet's", "publishTimeout: 60s", "publishTimeout: 91s", []string{"defaults.publishTimeout: from 5s to 1m30s"}},
		{"mount options in the context", "container_file_t:s0", "container_file_t:s0,size=1 ,uid=0", []string{"defaults.selinuxContext: user:role:type:level"}},
		{"context with categories", "container_file_t:s0", "container_file_t:s0:c1,c2", nil},
		{"transport", "tokenTransport: volumeContext", "tokenTransport: both", []string{"defaults.tokenTransport: secrets or volumeContext"}},
		{"anchor", "name: default", "name: &n default", []string{"connections[0].name: anchors"}},
		{"empty file", text, "\n", []string{"is empty"}},
		{"not YAML", "defaults:\n", "defaults: [\n", []string{"not valid YAML"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(text, row.old) {
				t.Fatalf("the row replaces nothing")
			}
			changed := strings.Replace(text, row.old, row.new, 1)
			_, err := config.Parse([]byte(changed), t.TempDir())
			checkFaults(t, changed, err, row.want)
		})
	}
}

func TestAllFaultsComeBackTogetherInTheOrderOfTheFile(t *testing.T) {
	text := "connections:\n- address: x\n  requestRate: x\ndefaults:\n  fileMode: x\nmore: x\n"
	_, err := config.Parse([]byte(text), ".")
	checkFaults(t, text, err, []string{
		"connections[0].name: is required", "connections[0].address: must be", "connections[0].requestRate: must be",
		"defaults.fileMode: must be", "more: unknown key",
	})
}

// checkFaults wants exactly these faults, in this order, each with a line that its key stands on.
func checkFaults(t *testing.T, text string, err error, want []string) {
	t.Helper()
	if err == nil {
		if len(want) > 0 {
			t.Fatalf("accepted; want %q", want)
		}
		return
	}
	var faults *config.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("the error is not *Faults: %v", err)
	}
	lines := strings.Split(text, "\n")
	for i, f := range faults.List {
		if i >= len(want) {
			t.Errorf("unexpected: %+v", f)
			continue
		}
		key, part, hasKey := strings.Cut(want[i], ": ")
		if !hasKey {
			key, part = "", want[i]
		}
		if f.Key != key || !strings.Contains(f.Problem, part) {
			t.Errorf("want %s\n got %s: %s", want[i], f.Key, f.Problem)
		}
		name := f.Key[strings.LastIndex(f.Key, ".")+1:]
		name, _, _ = strings.Cut(name, "[")
		if name != "" && f.Problem != "is required" && !strings.HasPrefix(f.Problem, "is required:") && !strings.Contains(lines[f.Line-1], name) {
			t.Errorf("%s: line %d is %q", f.Key, f.Line, lines[f.Line-1])
		}
		if printed := fmt.Sprintf("line %d: %s: %s", f.Line, f.Key, f.Problem); f.Key != "" && !strings.Contains(err.Error(), printed) {
			t.Errorf("%q is not in the message:\n%v", printed, err)
		}
	}
	if len(faults.List) < len(want) {
		t.Errorf("missing: %q", want[len(faults.List):])
	}
}

func TestConnectionDefaultsFollowTheirAuthMethod(t *testing.T) {
	c, err := config.Parse([]byte("connections: [{name: a, address: 'http://localhost:8200'}, {name: b, address: 'http://[::1]:8200', authMethod: jwt, audience: ''}]"), ".")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.Connections[0], c.Connections[1]; a.AuthMount != "kubernetes" || a.Audience != "vault" || b.AuthMount != "jwt" || b.Audience != "" {
		t.Fatalf("a = %+v\nb = %+v", a, b)
	}
}

func TestLoadReadsPathsRelativeToTheFile(t *testing.T) {
	dir := t.TempDir()
	ca, _ := certificate(t)
	write(t, filepath.Join(dir, "ca.pem"), ca)
	write(t, filepath.Join(dir, "config.yaml"), "connections: [{name: default, address: 'https://vault', caFile: ca.pem}]")
	c, err := config.Load(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Connections[0]; got.CAFile != filepath.Join(dir, "ca.pem") || string(got.CAPEM) != ca {
		t.Fatalf("connection = %+v", got)
	}
}

func TestLoadSaysWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "long"), strings.Repeat("#", 1<<20+1))
	write(t, filepath.Join(dir, "bad"), "connections: [{}]")
	for path, want := range map[string]string{"none": "no such file", ".": "is not a file", "long": "longer than", "bad": "configuration " + dir + "/bad has 2 faults:\n  line 1: "} {
		if _, err := config.Load(filepath.Join(dir, path)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

// A canary stands where a secret could stand by mistake.
func TestFaultsNeverRepeatASecret(t *testing.T) {
	const canary = "canarynotforlogs"
	_, key := certificate(t)
	secretLine := strings.Split(key, "\n")[1]
	for _, text := range []string{
		"connections: [{name: a, address: 'https://u:" + canary + "@vault'}]",
		"connections: [{name: a, address: 'x://u:" + canary + "@vault'}]",
		"connections: [{name: a, address: 'https://" + canary + "%zz'}]",
		"connections: [{name: a, address: 'https://v', allowedRedirects: ['https://u:" + canary + "@v']}]",
		"connections:\n- name: a\n  address: https://v\n  caPEM: |\n" + indent(key),
		"connections:\n- name: a\n  address: https://v\n  caPEM:\n" + key,
		"connections:\n- name: a\n  address: https://v\n  caPEM: |\n" + key,
		"connections:\n- name: a\n  address: https://v\n  " + secretLine + ": x\n",
		"connections:\n- name: a\n  address: https://v\n  caPEM: " + canary,
		"connections:\n- name: a\n  address: https://v\n  caPEM: [" + canary,
	} {
		_, err := config.Parse([]byte(text), ".")
		if err == nil {
			t.Errorf("accepted: %s", text)
			continue
		}
		for _, secret := range []string{canary, secretLine, secretLine[:20]} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("leaked: %v", err)
			}
		}
	}
}

func TestNormalizeAddress(t *testing.T) {
	for in, want := range map[string]string{
		"https://vault.example.com":          "https://vault.example.com",
		"HTTPS://Vault.Example.COM:443/":     "https://vault.example.com",
		"https://vault.example.com:8200":     "https://vault.example.com:8200",
		"http://vault:80":                    "http://vault",
		"http://vault:443":                   "http://vault:443",
		"https://vault//a/./b/../c//":        "https://vault/a/c",
		"https://vault/A":                    "https://vault/A",
		"https://[2001:DB8:0:0::1]:8200/":    "https://[2001:db8::1]:8200",
		"https://[::1]":                      "https://[::1]",
		"https://[::ffff:10.0.0.1]:8200":     "https://10.0.0.1:8200",
		"https://user@vault":                 "",
		"https://vault?x=y":                  "",
		"https://vault?":                     "",
		"https://vault#x":                    "",
		"vault:8200":                         "",
		"https://":                           "",
		"":                                   "",
		"https://vault.example.com.evil.com": "https://vault.example.com.evil.com",
	} {
		if got := config.NormalizeAddress(in); got != want {
			t.Errorf("NormalizeAddress(%q) = %q, want %q", in, got, want)
		}
		if again := config.NormalizeAddress(want); again != want {
			t.Errorf("NormalizeAddress(%q) = %q: not stable", want, again)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	ca, _ := certificate(f)
	f.Add([]byte(strings.Replace(valid, "CA", indent(ca), 1)))
	f.Add([]byte("connections: [{name: a, address: 'http://127.0.0.1:1'}]"))
	f.Add([]byte("connections: [{name: a, address: 'https://[::1%25lo]:1', caFile: /dev/null}]\ndefaults: {nodeBudget: 1e3}"))
	f.Add([]byte("defaults: &d {<<: *d}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Contains(text, []byte("caFile")) {
			return // which would read files of this machine
		}
		c, err := config.Parse(text, ".")
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", c, err)
		}
		if err != nil {
			var faults *config.Faults
			if !errors.As(err, &faults) || len(faults.List) == 0 {
				t.Fatalf("the error is not *Faults with faults: %v", err)
			}
			return
		}
		for _, v := range c.VaultConfigs() {
			client, err := vault.NewClient(v, nil)
			if err != nil {
				t.Fatalf("the client refuses what the configuration accepts: %v", err)
			}
			client.Close()
		}
	})
}
