// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/leasefs/leasefs/pkg/config"
)

// Each row changes one thing in values that are good. Helm names the value that is wrong.
func TestSchemaRefuses(t *testing.T) {
	for name, row := range map[string]struct{ values, names string }{
		"a value that is not known":                 {"colour: red", "colour"},
		"a nested value that is not known":          {"image: {flag: x}", "flag"},
		"a tag that is a number":                    {"image: {tag: 1}", "/image/tag"},
		"a digest that is none":                     {"image: {digest: sha256:12}", "/image/digest"},
		"a pull policy that is none":                {"image: {pullPolicy: Sometimes}", "/image/pullPolicy"},
		"a relative kubelet folder":                 {"kubeletDir: var/lib/kubelet", "/kubeletDir"},
		"a kubelet folder with a slash behind it":   {"kubeletDir: /var/lib/kubelet/", "/kubeletDir"},
		"a kubelet folder too long for a socket":    {"kubeletDir: /" + strings.Repeat("k", 60), "/kubeletDir"},
		"a log level that is none":                  {"log: {level: loud}", "/log/level"},
		"an audit log in a file":                    {"auditLog: /var/log/audit", "/auditLog"},
		"a port that is none":                       {"http: {port: 0}", "/http/port"},
		"a word where a truth value belongs":        {`events: {enabled: "yes"}`, "/events/enabled"},
		"tokens that end at once":                   {"tokenExpirationSeconds: 60", "/tokenExpirationSeconds"},
		"no time to stop":                           {"terminationGracePeriodSeconds: 5", "/terminationGracePeriodSeconds"},
		"an update of no node":                      {"updateStrategy: {maxUnavailable: 0}", "/updateStrategy/maxUnavailable"},
		"a surge":                                   {"updateStrategy: {maxSurge: 1}", "maxSurge"},
		"no priority":                               {`priorityClassName: ""`, "/priorityClassName"},
		"a profile that is none":                    {"openshift: {ephemeralVolumeProfile: strict}", "/openshift/ephemeralVolumeProfile"},
		"the daemon's own variable":                 {"extraEnv: [{name: NODE_NAME, value: x}]", "/extraEnv/0/name"},
		"a limit of nonsense":                       {"resources: {limits: {memory: much}}", "/resources/limits/memory"},
		"a peer that is everybody":                  {"networkPolicy: {vaultPeers: [{}]}", "/networkPolicy/vaultPeers/0"},
		"a connection without an address":           {"connections: [{name: default}]", "address"},
		"a connection without a name":               {`connections: [{address: "https://v"}]`, "name"},
		"a connection with a key that is not known": {`connections: [{name: default, address: "https://v", token: x}]`, "token"},
		"a connection's address without a scheme":   {"connections: [{name: default, address: vault:8200}]", "/connections/0/address"},
		"a connection's address with a user in it":  {`connections: [{name: default, address: "https://u:p@v"}]`, "/connections/0/address"},
		"a connection with authorities given twice": {`connections: [{name: default, address: "https://v", caFile: /etc/leasefs-ca/ca, caPEM: x}]`, "/connections/0"},
		"a connection with a private key":           {`connections: [{name: default, address: "https://v", caPEM: "-----BEGIN PRIVATE KEY-----"}]`, "/connections/0/caPEM"},
		"a file of authorities that is not mounted": {`connections: [{name: default, address: "https://v", caFile: /etc/ssl/ca.pem}]`, "/connections/0/caFile"},
		"an auth mount with auth/ before it":        {`connections: [{name: default, address: "https://v", authMount: auth/kubernetes}]`, "/connections/0/authMount"},
		"a login that there is not":                 {`connections: [{name: default, address: "https://v", authMethod: approle}]`, "/connections/0/authMethod"},
		"a default that is not known":               {"defaults: {refresh: 5m}", "refresh"},
		"a duration without a unit":                 {"defaults: {refreshInterval: 300}", "/defaults/refreshInterval"},
		"a size of nonsense":                        {"defaults: {nodeBudget: 256MB}", "/defaults/nodeBudget"},
		"a file mode that YAML took for a number":   {"defaults: {fileMode: 0440}", "/defaults/fileMode"},
		"a file mode that lets programs run":        {`defaults: {fileMode: "0755"}`, "/defaults/fileMode"},
		"a token transport that is none":            {"defaults: {tokenTransport: mail}", "/defaults/tokenTransport"},
		"an SELinux context of one word":            {"defaults: {selinuxContext: container_file_t}", "/defaults/selinuxContext"},
		"an alert that comes after the end":         {"prometheusRule: {expiresSoonSeconds: 0}", "/prometheusRule/expiresSoonSeconds"},
		"a scrape interval without a unit":          {`podMonitor: {interval: "30"}`, "/podMonitor/interval"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, nil, least, row.values)
			if err == nil || !strings.Contains(err.Error(), "schema") || !strings.Contains(err.Error(), row.names) {
				t.Errorf("got %v, want it to name %s", err, row.names)
			}
		})
	}
}

// schema is the part of JSON schema that is looked at here.
type schema struct {
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties any               `json:"additionalProperties"`
	Definitions          map[string]schema `json:"definitions"`
	Ref                  string            `json:"$ref"`
}

func readSchema(t *testing.T) schema {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaKnowsTheKeysOfTheConfiguration(t *testing.T) {
	s := readSchema(t)
	connection, defaults := config.Settings()
	for name, settings := range map[string][]config.Setting{"connection": connection, "defaults": defaults} {
		var want []string
		for _, setting := range settings {
			want = append(want, setting.Key)
		}
		slices.Sort(want)
		if d := cmp.Diff(want, slices.Sorted(maps.Keys(s.Definitions[name].Properties))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if s.Definitions[name].AdditionalProperties != false {
			t.Errorf("%s may have other keys, too", name)
		}
	}
}

// values.yaml is the documentation of the chart: each value has its default there, a comment above it, and its place in
// the schema.
func TestEveryValueIsDocumented(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	s := readSchema(t)
	delete(s.Properties, "global") // helm's own
	documented(t, "", root.Content[0], s, s.Definitions)
}

// sections are values whose own values are documented, each by itself.
var sections = []string{"image", "events", "http", "updateStrategy", "serviceAccount", "namespace"}

func documented(t *testing.T, at string, values *yaml.Node, s schema, definitions map[string]schema) {
	t.Helper()
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		s = definitions[name]
	}
	if len(s.Properties) > 0 && s.AdditionalProperties != false {
		t.Errorf("%s: the schema lets values through that it does not know", at)
	}
	known := maps.Clone(s.Properties)
	for i := 0; i < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		name := strings.TrimPrefix(at+"."+key.Value, ".")
		sub, there := s.Properties[key.Value]
		if !there {
			t.Errorf("%s: not in the schema", name)
		}
		delete(known, key.Value)
		isSection := value.Kind == yaml.MappingNode && len(value.Content) > 0 && key.Value != "labels" && key.Value != "nodeSelector"
		explained := key.HeadComment != "" || slices.Contains(sections, name) || isSection && value.Content[0].HeadComment != ""
		if !explained {
			t.Errorf("%s: no comment above it", name)
		}
		if isSection {
			documented(t, name, value, sub, definitions)
		}
	}
	for name := range known {
		t.Errorf("%s.%s: in the schema, and not in values.yaml", at, name)
	}
}
