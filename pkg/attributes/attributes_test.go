// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/attributes"
)

// valid is a request that uses every key.
func valid() map[string]string {
	return map[string]string{
		"roleName":           "app",
		"connection":         "default",
		"vaultAddress":       "https://vault.example.com:8200",
		"vaultNamespace":     "/team/",
		"authMethod":         "jwt",
		"vaultAuthMountPath": "jwt/cluster-1",
		"audience":           "https://vault.example.com",
		"refreshInterval":    "90s",
		"size":               "64Ki",
		"filePermission":     "0440",
		"onExpiry":           "remove",
		"objects": `
- objectName: db/password
  secretPath: secret/data/db?version=3&x=a%20b
  secretKey: password
  filePermission: 0400
  encoding: base64
- objectName: tls.json
  secretPath: /v1/pki/issue/web
  method: POST
  secretArgs:
    common_name: web.example.com
    ttl: 24h
    key_bits: 2048
    exclude_cn_from_sans: true
    not_after: 2030-01-01T00:00:00Z
    alt_names: [a.example.com, b.example.com]
    nothing: null
`,
	}
}

func TestParseReadsEveryKey(t *testing.T) {
	got, err := attributes.Parse(valid())
	if err != nil {
		t.Fatal(err)
	}
	want := attributes.Spec{
		Connection: "default", VaultAddress: "https://vault.example.com:8200", Namespace: "team",
		AuthMethod: "jwt", AuthMount: "jwt/cluster-1", Role: "app", Audience: "https://vault.example.com",
		RefreshInterval: 90 * time.Second, Size: 64 << 10, FilePermission: 0o440, OnExpiry: attributes.Remove,
		Objects: []attributes.Object{
			{
				Name: "db/password", Path: "secret/data/db", Query: map[string][]string{"version": {"3"}, "x": {"a b"}},
				Method: "GET", Key: "password", Encoding: attributes.Base64, Permission: 0o400,
			},
			{
				Name: "tls.json", Path: "pki/issue/web", Method: "POST", Encoding: attributes.UTF8,
				Args: map[string]any{
					"common_name": "web.example.com", "ttl": "24h", "key_bits": json.Number("2048"),
					"exclude_cn_from_sans": true, "not_after": "2030-01-01T00:00:00Z",
					"alt_names": []any{"a.example.com", "b.example.com"}, "nothing": nil,
				},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestWhatIsNotGivenStaysEmpty(t *testing.T) {
	least := map[string]string{"objects": "- {objectName: a, secretPath: kv/a}"}
	want, err := attributes.Parse(least)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(attributes.Spec{
		OnExpiry: attributes.Keep,
		Objects:  []attributes.Object{{Name: "a", Path: "kv/a", Method: "GET", Encoding: attributes.UTF8}},
	}, want); diff != "" {
		t.Fatal(diff)
	}

	// Templates of manifests write empty values for what is not set; in Kubernetes that means the default.
	empty := maps.Clone(least)
	for _, key := range attributes.VolumeKeys() {
		if key.Name != "objects" {
			empty[key.Name] = ""
		}
	}
	empty["objects"] = "- {objectName: a, secretPath: kv/a, secretKey: '', method: '', encoding: , secretArgs: , filePermission: ''}"
	got, err := attributes.Parse(empty)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// Rows change one thing of the valid request. A row without faults must be accepted.
func TestParseNamesEveryFault(t *testing.T) {
	type faults = map[string]string // key -> part of the problem
	long := strings.Repeat("x", 513)
	rows := []struct {
		name       string
		key, value string
		want       faults
	}{
		{"unknown key names the nearest", "rolename", "app", faults{"rolename": "did you mean roleName?"}},
		{"unknown key that is near nothing lists all", "zzzzzzzzzzzz", "x", faults{"zzzzzzzzzzzz": "known are audience, authMethod, connection"}},
		{"unknown key that is no name is not repeated", "my password is hunter2", "x", faults{"(a key of 22 bytes)": "unknown key"}},
		{"Kubernetes' own key", "csi.storage.k8s.io/pod.name", "x", faults{"csi.storage.k8s.io/pod.name": "Kubernetes' own"}},
		{"token beside the kubelet's", "csi.storage.k8s.io/serviceAccount.tokens", "{}", faults{"csi.storage.k8s.io/serviceAccount.tokens": "cannot be set"}},
		{"TLS verification off", "vaultSkipTLSVerify", "true", faults{"vaultSkipTLSVerify": "administrator"}},
		{"TLS verification on is the administrator's too", "vaultSkipTLSVerify", "false", faults{"vaultSkipTLSVerify": "administrator"}},
		{"CA of the author's", "vaultCACertPath", "/etc/shadow", faults{"vaultCACertPath": "administrator"}},
		{"CA directory of the author's", "vaultCADirectory", "/", faults{"vaultCADirectory": "administrator"}},
		{"server name of the author's", "vaultTLSServerName", "x", faults{"vaultTLSServerName": "administrator"}},
		{"client certificate of the author's", "vaultTLSClientCertPath", "x", faults{"vaultTLSClientCertPath": "no client certificate"}},
		{"client key of the author's", "vaultTLSClientKeyPath", "x", faults{"vaultTLSClientKeyPath": "no client certificate"}},
		{"secretProviderClass", "secretProviderClass", "x", faults{"secretProviderClass": "not supported yet"}},
		{"templates", "templates", "- path: x", faults{"templates": "not supported yet"}},

		{"role of 512 bytes", "roleName", long[:512], nil},
		{"role of 513 bytes", "roleName", long, faults{"roleName": "at most 512"}},
		{"role with a control character", "roleName", "a\nb", faults{"roleName": "control"}},
		{"role that is not UTF-8", "roleName", "a\xff", faults{"roleName": "UTF-8"}},
		{"address without a scheme", "vaultAddress", "vault:8200", faults{"vaultAddress": "must be an address"}},
		{"address of another scheme", "vaultAddress", "file:///etc/passwd", faults{"vaultAddress": "must be an address"}},
		{"address that is none", "vaultAddress", "https://%zz", faults{"vaultAddress": "must be an address"}},
		{"address that is too long", "vaultAddress", "https://" + strings.Repeat("x", 2048), faults{"vaultAddress": "must be an address"}},
		{"namespace with dots", "vaultNamespace", "team/../root", faults{"vaultNamespace": `".."`}},
		{"namespace with two slashes", "vaultNamespace", "a//b", faults{"vaultNamespace": "single slashes"}},
		{"auth method of another release", "authMethod", "approle", faults{"authMethod": `must be kubernetes or jwt, not "approle"`}},
		{"mount with dots", "vaultAuthMountPath", "..", faults{"vaultAuthMountPath": `".."`}},
		{"mount with auth/", "vaultAuthMountPath", "auth/jwt", faults{"vaultAuthMountPath": "leave \"auth/\" out"}},
		{"older name of the mount, same value", "vaultKubernetesMountPath", "jwt/cluster-1", nil},
		{"older name of the mount, other value", "vaultKubernetesMountPath", "k8s", faults{"vaultKubernetesMountPath": "older name"}},
		{"interval without a unit", "refreshInterval", "90", faults{"refreshInterval": "with a unit"}},
		{"interval that is negative", "refreshInterval", "-5m", faults{"refreshInterval": "more than 0"}},
		{"interval of zero", "refreshInterval", "0s", faults{"refreshInterval": "more than 0"}},
		{"interval of a year", "refreshInterval", "8760h", nil},
		{"interval of more than a year", "refreshInterval", "8761h", faults{"refreshInterval": "at most"}},
		{"interval past the range", "refreshInterval", "99999999999h", faults{"refreshInterval": "must be a duration"}},
		{"size in words", "size", "big", faults{"size": "quantity"}},
		{"size in bytes", "size", "4096", nil},
		{"size below one page", "size", "4095", faults{"size": "at least 4Ki"}},
		{"size that is negative", "size", "-1Mi", faults{"size": "quantity"}},
		{"size with half a byte", "size", "4096500m", faults{"size": "quantity"}},
		{"size past the range", "size", "100Ei", faults{"size": "quantity"}},
		{"size with a huge exponent", "size", "1e999999999", faults{"size": "quantity"}},
		{"size with many digits", "size", strings.Repeat("9", 100000), faults{"size": "a value of 100000 bytes"}},
		{"mode in decimal", "filePermission", "288", faults{"filePermission": "leading 0"}},
		{"mode with 0o", "filePermission", "0o640", nil},
		{"mode of the standard's default", "filePermission", "0644", nil},
		{"mode with execute", "filePermission", "0755", faults{"filePermission": "execute"}},
		{"mode with set-id", "filePermission", "04440", faults{"filePermission": "set-id"}},
		{"mode with sticky", "filePermission", "01440", faults{"filePermission": "sticky"}},
		{"mode writable by others", "filePermission", "0666", faults{"filePermission": "writable by others"}},
		{"mode that nobody reads", "filePermission", "0220", faults{"filePermission": "nobody"}},
		{"mode of nothing", "filePermission", "0000", faults{"filePermission": "nobody"}},
		{"mode with a sign", "filePermission", "0+40", faults{"filePermission": "octal"}},
		{"mode past the range", "filePermission", "0777777777777777777777", faults{"filePermission": "octal"}},
		{"onExpiry in another word", "onExpiry", "delete", faults{"onExpiry": "must be keep or remove"}},

		{"no objects", "objects", "", faults{"objects": "is required"}},
		{"blank objects", "objects", " \n", faults{"objects": "is required"}},
		{"comment only", "objects", "# nothing", faults{"objects": "is empty"}},
		{"null", "objects", "null", faults{"objects": "must be a list, not nothing"}},
		{"empty list", "objects", "[]", faults{"objects": "is empty"}},
		{"mapping for a list", "objects", "objectName: a", faults{"objects": "must be a list, not a mapping"}},
		{"the older list under array", "objects", "array:\n- |\n  objectName: a", faults{"objects": "must be a list"}},
		{"text for a list", "objects", "a", faults{"objects": "must be a list, not text"}},
		{"not YAML", "objects", "- a: [", faults{"objects": "is not valid YAML"}},
		{"two documents", "objects", "- {objectName: a, secretPath: b}\n---\n- x", faults{"objects": "several YAML documents"}},
		{"element that is text", "objects", "- a", faults{"objects[0]": "must be a mapping"}},
		{"element that is null", "objects", "-", faults{"objects[0]": "must be a mapping"}},
		{"257 objects", "objects", many(257), faults{"objects": "at most 256"}},
		{"256 objects", "objects", many(256), nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			attrs := valid()
			attrs[row.key] = row.value
			checkFaults(t, attrs, row.want)
		})
	}
}

// Rows replace the text of one object.
func TestParseNamesEveryFaultOfAnObject(t *testing.T) {
	type faults = map[string]string
	const p = "objects[0]."
	rows := []struct {
		name, object string
		want         faults
	}{
		{"the least", "{objectName: a, secretPath: kv/a}", nil},
		{"unknown key names the nearest", "{objectName: a, secretPath: kv/a, secretkey: k}", faults{p + "secretkey": "did you mean secretKey?"}},
		{"key of another release", "{objectName: a, secretPath: kv/a, objectVersion: 2}", faults{p + "objectVersion": "?version=N"}},
		{"key that is no name is not repeated", "{objectName: a, secretPath: kv/a, 'hunter2 hunter2': k}", faults{p + "(a key of 15 bytes)": "unknown key"}},
		{"key twice", "{objectName: a, objectName: b, secretPath: kv/a}", faults{p + "objectName": "twice"}},
		{"key twice, once empty", "{objectName: , objectName: b, secretPath: kv/a}", faults{p + "objectName": "twice"}},
		{"no name", "{secretPath: kv/a}", faults{p + "objectName": "is required"}},
		{"empty name", "{objectName: '', secretPath: kv/a}", faults{p + "objectName": "is required"}},
		{"null name", "{objectName: , secretPath: kv/a}", faults{p + "objectName": "is required"}},
		{"name that is a list", "{objectName: [a], secretPath: kv/a}", faults{p + "objectName": "must be text, not a list"}},
		{"name that YAML takes for a number", "{objectName: 1, secretPath: kv/a}", nil},
		{"name that YAML takes for a boolean", "{objectName: yes, secretPath: kv/a}", nil},
		{"name that leaves the volume", "{objectName: ../a, secretPath: kv/a}", faults{p + "objectName": `".."`}},
		{"no path", "{objectName: a}", faults{p + "secretPath": "is required"}},
		{"empty path", "{objectName: a, secretPath: ''}", faults{p + "secretPath": "is required"}},
		{"path of a slash", "{objectName: a, secretPath: /}", faults{p + "secretPath": "single slashes"}},
		{"path with dots", "{objectName: a, secretPath: kv/../sys/raw}", faults{p + "secretPath": `".."`}},
		{"path with one dot", "{objectName: a, secretPath: ./kv}", faults{p + "secretPath": `"."`}},
		{"path with two slashes", "{objectName: a, secretPath: kv//a}", faults{p + "secretPath": "single slashes"}},
		{"path with a slash at its end", "{objectName: a, secretPath: kv/a/}", faults{p + "secretPath": "single slashes"}},
		{"path with a line break", `{objectName: a, secretPath: "kv/a\r\nX-Vault-Token: x"}`, faults{p + "secretPath": "control"}},
		{"path with NUL in the query", `{objectName: a, secretPath: "kv/a?x=\0"}`, faults{p + "secretPath": "control"}},
		{"path with a bad query", "{objectName: a, secretPath: 'kv/a?x=%zz'}", faults{p + "secretPath": "query"}},
		{"path of 2048 bytes", "{objectName: a, secretPath: kv/" + strings.Repeat("x", 2045) + "}", nil},
		{"path of 2049 bytes", "{objectName: a, secretPath: kv/" + strings.Repeat("x", 2046) + "}", faults{p + "secretPath": "at most 2048"}},
		{"path with a space and a percent sign", "{objectName: a, secretPath: kv/a b%2e%2e}", nil},
		{"method in lower case", "{objectName: a, secretPath: kv/a, method: put}", faults{p + "method": `must be GET, PUT, POST, not "put"`}},
		{"method that destroys", "{objectName: a, secretPath: kv/a, method: DELETE}", faults{p + "method": "must be GET, PUT, POST"}},
		{"arguments of a GET", "{objectName: a, secretPath: kv/a, secretArgs: {a: b}}", faults{p + "secretArgs": "no effect on a GET"}},
		{"no arguments of a GET", "{objectName: a, secretPath: kv/a, secretArgs: {}}", nil},
		{"arguments as a list", "{objectName: a, secretPath: kv/a, method: PUT, secretArgs: [a]}", faults{p + "secretArgs": "must be a mapping, not a list"}},
		{"argument twice", "{objectName: a, secretPath: kv/a, method: PUT, secretArgs: {x: 1, x: 2}}", faults{p + "secretArgs.x": "twice"}},
		{"argument that YAML reads as octal", "{objectName: a, secretPath: kv/a, method: PUT, secretArgs: {pin: 0123}}", faults{p + "secretArgs.pin": "notation"}},
		{"argument with underscores", "{objectName: a, secretPath: kv/a, method: PUT, secretArgs: {n: [1, 1_000]}}", faults{p + "secretArgs.n[1]": "notation"}},
		{"argument that is no number", "{objectName: a, secretPath: kv/a, method: PUT, secretArgs: {n: .nan}}", faults{p + "secretArgs.n": "notation"}},
		{"mode in YAML's octal", "{objectName: a, secretPath: kv/a, filePermission: 0o440}", nil},
		{"mode in decimal", "{objectName: a, secretPath: kv/a, filePermission: 416}", faults{p + "filePermission": "leading 0"}},
		{"mode with execute", "{objectName: a, secretPath: kv/a, filePermission: 0500}", faults{p + "filePermission": "execute"}},
		{"mode that is a list", "{objectName: a, secretPath: kv/a, filePermission: [0400]}", faults{p + "filePermission": "must be text, not a list"}},
		{"unknown encoding", "{objectName: a, secretPath: kv/a, secretKey: k, encoding: base32}", faults{p + "encoding": "must be utf-8, base64, hex"}},
		{"encoding of a whole response", "{objectName: a, secretPath: kv/a, encoding: hex}", faults{p + "encoding": "needs secretKey"}},
		{"key with a control character", `{objectName: a, secretPath: kv/a, secretKey: "a\tb"}`, faults{p + "secretKey": "control"}},
		{"same name twice", "{objectName: a, secretPath: kv/a}\n- {objectName: a, secretPath: kv/b}", faults{"objects[1].objectName": "same as objects[0].objectName"}},
		{"file and directory", "{objectName: a/b/c, secretPath: kv/a}\n- {objectName: a/b, secretPath: kv/b}", faults{"objects[1].objectName": "a directory in objects[0].objectName"}},
		{"directory and file", "{objectName: a, secretPath: kv/a}\n- {objectName: a/b, secretPath: kv/b}", faults{"objects[0].objectName": "a directory in objects[1].objectName"}},
		{"names that begin alike", "{objectName: a, secretPath: kv/a}\n- {objectName: a-b, secretPath: kv/b}\n- {objectName: ab/c, secretPath: kv/b}", nil},
		{"names that differ in case", "{objectName: a, secretPath: kv/a}\n- {objectName: A, secretPath: kv/b}", nil},
		{
			"all at once", "{objectName: /a, secretPath: kv//a, method: X, encoding: y, filePermission: z, more: 1}",
			faults{p + "objectName": "relative", p + "secretPath": "slashes", p + "method": "must be", p + "encoding": "must be", p + "filePermission": "octal", p + "more": "unknown"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			attrs := valid()
			attrs["objects"] = "- " + row.object
			checkFaults(t, attrs, row.want)
		})
	}
}

func TestFaultsOfAllKeysComeBackTogether(t *testing.T) {
	attrs := map[string]string{
		"roleNmae": "x", "authMethod": "x", "vaultNamespace": "..", "refreshInterval": "x", "size": "x", "filePermission": "x",
		"onExpiry": "x", "vaultSkipTLSVerify": "true", "objects": "- {objectName: /, secretPath: kv}\n- {}",
	}
	_, err := attributes.Parse(attrs)
	var faults *attributes.Faults
	if !errors.As(err, &faults) || len(faults.List) != 11 {
		t.Fatalf("got %v", err)
	}
	for key := range attrs {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("the message does not name %s: %v", key, err)
		}
	}
}

func TestMessageOfManyFaultsIsBounded(t *testing.T) {
	_, err := attributes.Parse(map[string]string{"objects": strings.Repeat("- {}\n", 200)})
	if err == nil || len(err.Error()) > 1024 || !strings.Contains(err.Error(), "and 384 more") {
		t.Fatalf("%d bytes: %v", len(err.Error()), err)
	}
}

// The bounds of the YAML: each of these is small to write and would be large to hold.
func TestYAMLBombsAreRefused(t *testing.T) {
	laughs := "- &a {objectName: a, secretPath: b}\n"
	for i := range 30 {
		laughs += fmt.Sprintf("- &x%d [*a, *a, *a]\n", i)
	}
	rows := map[string]struct{ objects, want string }{
		"aliases of aliases": {laughs, "anchors and aliases"},
		"one alias":          {"- &a {objectName: a, secretPath: b}\n- *a\n", "anchors and aliases"},
		"alias of nothing":   {"- *a", "anchors and aliases"},
		"anchor of a key":    {"- {&a objectName: a, secretPath: b}", "anchors and aliases"},
		"merge":              {"- {objectName: a, <<: {secretPath: b}}", "merge keys"},
		"tag":                {"- {objectName: !!binary YQ==, secretPath: b}", "tags"},
		"tag of the author's": {
			"- !Ref {objectName: a, secretPath: b}", "tags",
		},
		"deep lists":          {"- {objectName: a, secretPath: b, method: PUT, secretArgs: {a: " + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "}}", "nested too deeply"},
		"very deep lists":     {strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "nested too deeply"},
		"deeper than YAML":    {strings.Repeat("[", 100000), "is not valid YAML"},
		"deep block mappings": {nested(50), "nested too deeply"},
		"many values":         {"[" + strings.Repeat("1,", 60000) + "]", "too many values"},
		"many mappings":       {"[" + strings.Repeat("{},", 40000) + "]", "too many values"},
		"long text":           {strings.Repeat("x", 128<<10+1), "at most 131072"},
		"mapping as a key":    {"- {? {a: b} : c}", "a key must be plain text"},
		"null as a key":       {"- {null: c}", "a key must be plain text"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := attributes.Parse(map[string]string{"objects": row.objects})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// The longest texts of the shapes that a YAML reader finds hard are read, or refused, in a moment.
func TestLongTextsCostLittle(t *testing.T) {
	for _, shape := range []string{"? ", "[", "a: ", "#\n", "&a ", "- #\n", "{a: [", "- {}\n", "[a: b, "} {
		for _, before := range []string{"", "- {objectName: a, secretPath: "} {
			text := before + strings.Repeat(shape, (128<<10-len(before))/len(shape))
			began := time.Now()
			if _, err := attributes.Parse(map[string]string{"objects": text}); err == nil {
				t.Errorf("%q after %q: accepted", shape, before)
			}
			if took := time.Since(began); took > 20*time.Second { // 0.1 s on an idle machine; a square or a power would be minutes
				t.Errorf("%q after %q: took %v", shape, before, took)
			}
		}
	}
}

// A canary stands in each place that may hold something secret, beside a fault of every kind.
func TestFaultsNeverRepeatASecret(t *testing.T) {
	const canary = "canarynotforlogs"
	objects := []string{
		"- {objectName: a, secretPath: kv/a, secretArgs: {password: CANARY}}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: [CANARY]}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: CANARY}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: CANARY, a: CANARY}}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: !x CANARY}}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: &b CANARY}}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: *CANARY}}",
		"- {objectName: a, secretPath: 'kv//a?password=CANARY'}",
		"- {objectName: a, secretPath: 'kv/a?password=CANARY%zz'}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: \"CANARY",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: 'CANARY\\",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: \"\\qCANARY\"}}",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: |CANARY}}",
		"- {objectName: a, secretPath: kv/a, CANARY with spaces: b}",
		"- objectName: a\n secretPath: CANARY\n  secretKey: b",
		"- CANARY",
		"CANARY",
		"%CANARY\n---\n- a",
		"- @CANARY",
		"- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: \x01CANARY}}",
	}
	var requests []map[string]string
	for _, text := range objects {
		requests = append(requests, map[string]string{"objects": strings.ReplaceAll(text, "CANARY", canary)})
	}
	requests = append(requests,
		map[string]string{"vaultAddress": "https://user:" + canary + "@%zz"},
		map[string]string{"vaultAddress": "ftp://user:" + canary + "@vault"},
		map[string]string{"vaultSkipTLSVerify": canary, "vaultTLSClientKeyPath": canary, "vaultCAPem": canary},
		map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": canary},
		map[string]string{"roleName": canary + "\n", "audience": canary + "\n", "vaultNamespace": canary + "//x"},
		map[string]string{canary + " in a key": "x"},
	)
	for _, attrs := range requests {
		_, err := attributes.Parse(attrs)
		if err == nil {
			t.Errorf("accepted: %q", attrs)
		} else if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
			t.Errorf("leaked: %v", err)
		}
	}
}

// What the record writes of an object makes the same object again, numbers included.
func TestObjectsSurviveJSON(t *testing.T) {
	spec, err := attributes.Parse(map[string]string{"objects": `- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {n: 12345678901234567890, f: 1.50, list: [1]}}`})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(spec.Objects)
	if err != nil {
		t.Fatal(err)
	}
	var again []attributes.Object
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec.Objects, again); diff != "" {
		t.Fatal(diff)
	}
	if err := json.Unmarshal([]byte(`[{"name": 1}]`), &again); err == nil {
		t.Fatal("a wrong type must be an error")
	}
}

// Property: a fault in one attribute never hides, changes or adds a fault of another one.
func TestFaultsAreIndependent(t *testing.T) {
	broken := map[string]string{
		"roleName": "a\x00", "authMethod": "x", "vaultNamespace": "..", "refreshInterval": "x", "size": "x",
		"filePermission": "x", "onExpiry": "x", "vaultAddress": "x", "audience": "\x7f", "connection": "\n", "unknown": "",
		"templates": "x", "objects": "- {}",
	}
	alone := map[string][]attributes.Fault{}
	for key, value := range broken {
		attrs := valid()
		attrs[key] = value
		alone[key] = faultsOf(t, attrs)
	}
	rapid.Check(t, func(rt *rapid.T) {
		attrs := valid()
		want := map[attributes.Fault]int{}
		for _, key := range rapid.SliceOfDistinct(rapid.SampledFrom(keys(broken)), rapid.ID[string]).Draw(rt, "broken keys") {
			attrs[key] = broken[key]
			for _, f := range alone[key] {
				want[f]++
			}
		}
		got := map[attributes.Fault]int{}
		for _, f := range faultsOf(t, attrs) {
			got[f]++
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func keys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func faultsOf(t *testing.T, attrs map[string]string) []attributes.Fault {
	t.Helper()
	_, err := attributes.Parse(attrs)
	if err == nil {
		return nil
	}
	var faults *attributes.Faults
	if !errors.As(err, &faults) || len(faults.List) == 0 {
		t.Fatalf("the error is not *Faults with faults: %v", err)
	}
	return faults.List
}

// checkFaults wants exactly the faults of want.
func checkFaults(t *testing.T, attrs map[string]string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, f := range faultsOf(t, attrs) {
		if _, twice := got[f.Key]; twice {
			t.Errorf("two faults with key %s", f.Key)
		}
		got[f.Key] = f.Problem
	}
	for key, part := range want {
		if problem, ok := got[key]; !ok || !strings.Contains(problem, part) {
			t.Errorf("%s: want a problem with %q, got %q", key, part, problem)
		}
		delete(got, key)
	}
	for key, problem := range got {
		t.Errorf("%s: unexpected: %s", key, problem)
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {objectName: f%d, secretPath: kv/a}\n", i)
	}
	return b.String()
}

// nested is n block mappings in each other.
func nested(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String() + strings.Repeat(" ", n) + "b: c\n"
}
