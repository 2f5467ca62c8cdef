// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/config"
)

// node is a configuration with several connections, two of them to one Vault.
func node(t testing.TB) *config.Config {
	t.Helper()
	c, err := config.Parse([]byte(`
connections:
- {name: default, address: "https://vault:8200", role: fallback, namespace: team, allowedNamespaces: [shared, "other/*"], authMount: k8s}
- {name: same, address: "https://vault:8200/", authMethod: jwt, audience: same}
- {name: other, address: "https://other.example.com", allowedNamespaces: ["*"], role: other}
- {name: twin-a, address: "https://twin"}
- {name: twin-b, address: "https://twin"}
defaults: {refreshInterval: 1m, minRefreshInterval: 30s, volumeSize: 1Mi, maxVolumeSize: 2Mi}
`), ".")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func objects() []attributes.Object {
	return []attributes.Object{{Name: "a", Path: "kv/a", Method: "GET", Encoding: attributes.UTF8}}
}

func TestResolveFillsInWhatTheVolumeLeavesOpen(t *testing.T) {
	got, err := node(t).Resolve(attributes.Spec{Objects: objects()})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Resolved{
		Connection: "default", Namespace: "team", AuthMethod: "kubernetes", AuthMount: "k8s", Role: "fallback", Audience: "vault",
		Objects: objects(), Refresh: time.Minute, Size: 1 << 20, OnExpiry: attributes.Keep,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestResolveTakesWhatTheVolumeSays(t *testing.T) {
	got, err := node(t).Resolve(attributes.Spec{
		Connection: "other", VaultAddress: "https://OTHER.example.com:443/", Namespace: "any/where", AuthMethod: "jwt", AuthMount: "m",
		Role: "r", Audience: "a", Objects: objects(), RefreshInterval: 30 * time.Second, Size: 2 << 20, FilePermission: 0o400, OnExpiry: attributes.Remove,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Resolved{
		Connection: "other", Namespace: "any/where", AuthMethod: "jwt", AuthMount: "m", Role: "r", Audience: "a",
		Objects: objects(), Refresh: 30 * time.Second, Size: 2 << 20, FileMode: 0o400, OnExpiry: attributes.Remove,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// The mount of a connection belongs to its method.
func TestAuthMountFollowsTheMethod(t *testing.T) {
	for name, row := range map[string]struct {
		spec  attributes.Spec
		mount string
	}{
		"connection's method":       {attributes.Spec{}, "k8s"},
		"connection's method, said": {attributes.Spec{AuthMethod: "kubernetes"}, "k8s"},
		"another method":            {attributes.Spec{AuthMethod: "jwt"}, "jwt"},
		"another method and mount":  {attributes.Spec{AuthMethod: "jwt", AuthMount: "k8s"}, "k8s"},
	} {
		if got, err := node(t).Resolve(row.spec); err != nil || got.AuthMount != row.mount {
			t.Errorf("%s: %q, %v", name, got.AuthMount, err)
		}
	}
}

// A volume chooses among the allowed connections and can add none.
func TestResolveChoosesTheConnection(t *testing.T) {
	type spec = attributes.Spec
	rows := []struct {
		name  string
		spec  spec
		want  string // connection
		fault string // key: part of the problem
	}{
		{"nothing said", spec{}, "default", ""},
		{"by name", spec{Connection: "other"}, "other", ""},
		{"by address", spec{VaultAddress: "https://other.example.com"}, "other", ""},
		{"by address, spelt otherwise", spec{VaultAddress: "https://Other.Example.com:443/"}, "other", ""},
		{"by an address of several, one of them the default", spec{VaultAddress: "https://vault:8200"}, "default", ""},
		{"by an address of several", spec{VaultAddress: "https://twin", Role: "r"}, "", "vaultAddress: several connections; name one of them with connection: twin-a, twin-b"},
		{"by name and its address", spec{Connection: "same", VaultAddress: "https://vault:8200", Role: "r"}, "same", ""},
		{"by name and another's address", spec{Connection: "other", VaultAddress: "https://vault:8200"}, "", "vaultAddress: is not the address of connection other"},
		{"unknown name", spec{Connection: "prod"}, "", "connection: is not one of this node's connections: default, same, other, twin-a, twin-b"},
		{"foreign address", spec{VaultAddress: "https://evil.example.com"}, "", "vaultAddress: is not the address of one of this node's connections"},
		{"address that only begins like an allowed one", spec{VaultAddress: "https://other.example.com.evil.com"}, "", "vaultAddress: is not"},
		{"address with an allowed one as user", spec{VaultAddress: "https://other.example.com@evil.com"}, "", "vaultAddress: is not"},
		{"allowed host on another port", spec{VaultAddress: "https://other.example.com:8443"}, "", "vaultAddress: is not"},
		{"allowed host in the clear", spec{VaultAddress: "http://other.example.com"}, "", "vaultAddress: is not"},
		{"allowed host with a path", spec{VaultAddress: "https://other.example.com/v1"}, "", "vaultAddress: is not"},
		{"cloud metadata", spec{VaultAddress: "http://169.254.169.254"}, "", "vaultAddress: is not"},
		{"no address at all", spec{VaultAddress: "x"}, "", "vaultAddress: is not"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := node(t).Resolve(row.spec)
			if got.Connection != row.want {
				t.Errorf("connection %q, want %q", got.Connection, row.want)
			}
			checkResolveFault(t, err, row.fault)
		})
	}
}

func TestNodeWithoutADefaultConnectionWantsAName(t *testing.T) {
	c, err := config.Parse([]byte(`connections: [{name: a, address: "https://a", role: r}]`), ".")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Resolve(attributes.Spec{})
	checkResolveFault(t, err, "connection: this node has none called default: name one of a")
	if got, err := c.Resolve(attributes.Spec{VaultAddress: "https://a"}); err != nil || got.Connection != "a" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestResolveRefusesWhatTheNodeDoesNotAllow(t *testing.T) {
	type spec = attributes.Spec
	rows := []struct {
		name  string
		spec  spec
		fault string
	}{
		{"own namespace", spec{Namespace: "team"}, ""},
		{"listed namespace", spec{Namespace: "shared"}, ""},
		{"namespace below a listed one", spec{Namespace: "other/a/b"}, ""},
		{"the top of a listed tree", spec{Namespace: "other"}, `vaultNamespace: "other" is not a Vault namespace that connection default allows`},
		{"namespace that begins like a listed one", spec{Namespace: "shared2"}, "vaultNamespace: allows"},
		{"below a namespace that is listed alone", spec{Namespace: "shared/a"}, "vaultNamespace: allows"},
		{"below the own", spec{Namespace: "team/a"}, "vaultNamespace: allows"},
		{"none allowed", spec{Connection: "same", Namespace: "team", Role: "r"}, "vaultNamespace: allows"},
		{"interval at the floor", spec{RefreshInterval: 30 * time.Second}, ""},
		{"interval below the floor", spec{RefreshInterval: 29 * time.Second}, "refreshInterval: at least 30s"},
		{"size at the maximum", spec{Size: 2 << 20}, ""},
		{"size above the maximum", spec{Size: 2<<20 + 1}, "size: at most 2Mi"},
		{"no role", spec{Connection: "same"}, "roleName: is required: connection same has no default role"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := node(t).Resolve(row.spec)
			checkResolveFault(t, err, row.fault)
		})
	}
}

func TestResolveReportsAllFaultsAtOnce(t *testing.T) {
	_, err := node(t).Resolve(attributes.Spec{Connection: "same", VaultAddress: "https://vault:8200", Namespace: "x", RefreshInterval: 1, Size: 1 << 40})
	var faults *attributes.Faults
	if !errors.As(err, &faults) || len(faults.List) != 4 {
		t.Fatalf("got %v", err)
	}
}

// Property: whatever a volume asks for, what it gets lies within what the node allows.
func TestResolvedIsAlwaysWithinBounds(t *testing.T) {
	c := node(t)
	names := map[string]config.Connection{}
	for _, n := range c.Connections {
		names[n.Name] = n
	}
	rapid.Check(t, func(rt *rapid.T) {
		address := rapid.OneOf(rapid.SampledFrom([]string{"", "https://vault:8200", "https://twin/", "https://other.example.com", "https://evil"}), rapid.String())
		spec := attributes.Spec{
			Connection:      rapid.SampledFrom([]string{"", "default", "same", "other", "twin-a", "none"}).Draw(rt, "connection"),
			VaultAddress:    address.Draw(rt, "address"),
			Namespace:       rapid.SampledFrom([]string{"", "team", "shared", "other", "other/a", "root"}).Draw(rt, "namespace"),
			Role:            rapid.SampledFrom([]string{"", "r"}).Draw(rt, "role"),
			RefreshInterval: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "interval")),
			Size:            rapid.Int64Range(0, 4<<20).Draw(rt, "size"),
		}
		r, err := c.Resolve(spec)
		if err != nil {
			if !cmp.Equal(r, config.Resolved{}) {
				rt.Fatalf("a result beside %v", err)
			}
			return
		}
		connection, known := names[r.Connection]
		switch {
		case !known:
			rt.Fatalf("unknown connection %q", r.Connection)
		case spec.VaultAddress != "" && config.NormalizeAddress(spec.VaultAddress) != connection.Address:
			rt.Fatalf("the volume asked for %q and got %q", spec.VaultAddress, connection.Address)
		case spec.Connection != "" && spec.Connection != r.Connection:
			rt.Fatalf("the volume asked for %q and got %q", spec.Connection, r.Connection)
		case r.Refresh < c.Defaults.MinRefreshInterval || r.Size > c.Defaults.MaxVolumeSize || r.Size <= 0:
			rt.Fatalf("out of bounds: %+v", r)
		case r.Role == "" || r.AuthMount == "" || r.AuthMethod == "" || r.OnExpiry == "":
			rt.Fatalf("incomplete: %+v", r)
		case r.Namespace == "root" && r.Connection != "other":
			rt.Fatalf("namespace %q through %q", r.Namespace, r.Connection)
		}
	})
}

// checkResolveFault wants one fault "key: part of the problem", or none.
func checkResolveFault(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var faults *attributes.Faults
	key, part, _ := strings.Cut(want, ": ")
	if !errors.As(err, &faults) || len(faults.List) != 1 || faults.List[0].Key != key || !strings.Contains(faults.List[0].Problem, part) {
		t.Errorf("want %s\n got %v", want, err)
	}
}
