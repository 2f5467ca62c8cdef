// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config reads the daemon's configuration file: the Vaults that pods of this node may use, and what applies to
// volumes that say nothing themselves. It is written by the node's administrator, is read strictly, and holds no secret.
//
// connection.go and defaults.go list every key once, with its default and bounds; the tables of docs/configuration.md are
// made from these lists. resolve.go puts a pod's attributes and the configuration together, source.go follows the file while
// the daemon runs.
package config

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/leasefs/leasefs/pkg/strictyaml"
	"github.com/leasefs/leasefs/pkg/vault"
)

// DefaultConnection is the name of the connection of volumes that name none.
const DefaultConnection = "default"

// Config is a configuration file that was read and found sound. Never modify one: it is shared.
type Config struct {
	Connections []Connection // at least one, with different names
	Defaults    Defaults
}

// Connection is a Vault that pods may use.
type Connection struct {
	Name              string
	Address           string // as NormalizeAddress writes it
	CAFile            string // absolute; "": none
	CAPEM             []byte // content of CAFile, or the inline certificates; empty: the system's roots
	ServerName        string
	Namespace         string   // Vault namespace of volumes that name none
	AllowedNamespaces []string // patterns, see allowsNamespace
	AuthMethod        string   // kubernetes or jwt
	AuthMount         string   // never empty
	Audience          string   // "": the API server's own
	Role              string   // of volumes that name none; "": they must

	RequestRate     float64 // per second; 0: no limit
	RequestBurst    int     // 0: one second's worth
	RequestTimeout  time.Duration
	MaxResponseSize int64 // bytes
	CacheTTL        time.Duration
	CacheSize       int // responses

	AllowedRedirects     []string // as NormalizeAddress writes them
	ProxyFromEnvironment bool
	AllowInsecureHTTP    bool
}

// Limits of the files. A certificate has about 2 KiB; a bundle of all public authorities 250 KiB.
var limits = strictyaml.Limits{Bytes: 1 << 20, Depth: 8, Values: 64 << 10}

const maxCAFile = 1 << 20

// Load reads the configuration file at path. Paths in it are relative to its directory. The error is a *Faults, or says
// why the file cannot be read.
func Load(path string) (*Config, error) {
	data, err := readFile(path, int64(limits.Bytes))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parse(data, path, filepath.Dir(path))
}

// Parse reads a configuration whose relative paths start at dir. It reads the CA files that the configuration names.
// The error is a *Faults with all mistakes.
func Parse(data []byte, dir string) (*Config, error) { return parse(data, "", dir) }

// parse reads data in these steps:
//
//  1. YAML, with its bounds;
//  2. each section by its list of keys;
//  3. what must fit together.
func parse(data []byte, file, dir string) (*Config, error) {
	root, doc, ok := strictyaml.Parse(data, "", limits) // 1
	if !ok {
		return nil, &Faults{File: file, List: doc.Faults()}
	}
	c := &Config{}
	if values, ok := root.Mapping([]string{"connections", "defaults"}, nil); ok {
		c.readConnections(root, values, dir) // 2, 3
		c.readDefaults(root, values)
	}
	if faults := doc.Faults(); len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b strictyaml.Fault) int { return cmp.Compare(a.Line, b.Line) })
		return nil, &Faults{File: file, List: faults}
	}
	return c, nil
}

func (c *Config) readConnections(root strictyaml.Value, values map[string]strictyaml.Value, dir string) {
	v, given := values["connections"]
	if !given {
		root.Child("connections").Faultf("is required: list at least one Vault that pods may use")
		return
	}
	list, ok := v.List()
	if ok && len(list) == 0 {
		v.Faultf("is empty: list at least one Vault that pods may use")
	}
	first := map[string]int{}
	for i, element := range list {
		connection := readConnection(element, dir)
		if j, twice := first[connection.Name]; twice && connection.Name != "" {
			element.Child("name").Faultf("is the same as connections[%d].name", j)
		} else {
			first[connection.Name] = i
		}
		c.Connections = append(c.Connections, connection)
	}
}

// VaultConfigs are the connections as the Vault client needs them.
func (c *Config) VaultConfigs() []vault.Config {
	configs := make([]vault.Config, len(c.Connections))
	for i, n := range c.Connections {
		configs[i] = vault.Config{
			Name:                 n.Name,
			Address:              n.Address,
			AllowedRedirects:     n.AllowedRedirects,
			ServerName:           n.ServerName,
			Namespace:            n.Namespace,
			CAPEM:                n.CAPEM,
			RequestTimeout:       n.RequestTimeout,
			RequestRate:          n.RequestRate,
			RequestBurst:         n.RequestBurst,
			MaxResponseBytes:     n.MaxResponseSize,
			ProxyFromEnvironment: n.ProxyFromEnvironment,
			CacheTTL:             n.CacheTTL,
			CacheSize:            n.CacheSize,
		}
	}
	return configs
}

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, nil
}

// Settings lists the keys of an element of `connections` and those of `defaults`.
func Settings() (connection, defaults []Setting) {
	for _, s := range connectionSettings() {
		connection = append(connection, s.Setting)
	}
	for _, s := range defaultSettings() {
		defaults = append(defaults, s.Setting)
	}
	return connection, defaults
}
