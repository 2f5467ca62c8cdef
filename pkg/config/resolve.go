// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// Resolved is what a volume consists of: its attributes, with the configuration's values where they say nothing.
type Resolved struct {
	Connection string // name
	Namespace  string // Vault namespace; "": the root
	AuthMethod string // kubernetes or jwt
	AuthMount  string
	Role       string
	Audience   string // "": the API server's own
	Objects    []attributes.Object
	Refresh    time.Duration
	Size       int64       // bytes of content
	FileMode   fs.FileMode // 0: 0440 with a group, else 0444
	OnExpiry   attributes.OnExpiry
}

// Resolve puts a volume's attributes and the configuration together. The error is a *attributes.Faults with everything
// that the attributes ask for and the configuration does not allow.
func (c *Config) Resolve(spec attributes.Spec) (Resolved, error) {
	var faults attributes.Faults
	faultf := func(key, format string, args ...any) {
		faults.List = append(faults.List, attributes.Fault{Key: key, Problem: fmt.Sprintf(format, args...)})
	}
	r := Resolved{
		Objects:  spec.Objects,
		Refresh:  or(spec.RefreshInterval, c.Defaults.RefreshInterval),
		Size:     or(spec.Size, c.Defaults.VolumeSize),
		FileMode: or(spec.FilePermission, c.Defaults.FileMode),
		OnExpiry: or(spec.OnExpiry, attributes.Keep),
	}
	if r.Refresh < c.Defaults.MinRefreshInterval {
		faultf("refreshInterval", "must be at least %s on this node", printDuration(c.Defaults.MinRefreshInterval))
	}
	if r.Size > c.Defaults.MaxVolumeSize {
		faultf("size", "must be at most %s on this node", printSize(c.Defaults.MaxVolumeSize))
	}
	if connection := c.choose(spec, faultf); connection != nil {
		connection.fill(&r, spec, faultf)
	}
	if len(faults.List) > 0 {
		return Resolved{}, &faults
	}
	return r, nil
}

type faultFunc func(key, format string, args ...any)

// choose finds the connection of a volume:
//
//  1. the one that it names, whose address must then be vaultAddress, if that is given too;
//  2. else, with vaultAddress, the one with that address; of several the default one;
//  3. else the default one.
func (c *Config) choose(spec attributes.Spec, faultf faultFunc) *Connection {
	name := or(spec.Connection, DefaultConnection)
	i := slices.IndexFunc(c.Connections, func(n Connection) bool { return n.Name == name })
	address := NormalizeAddress(spec.VaultAddress)
	switch {
	case spec.Connection != "" && i < 0: // 1
		faultf("connection", "is not one of this node's connections: %s", c.names(""))
	case spec.VaultAddress == "" && i < 0: // 3
		faultf("connection", "is required, for this node has none called %s: name one of %s", DefaultConnection, c.names(""))
	case spec.VaultAddress == "" || i >= 0 && c.Connections[i].Address == address: // 1, 2, 3
		return &c.Connections[i]
	case spec.Connection != "":
		faultf("vaultAddress", "is not the address of connection %s; leave it out", spec.Connection)
	default:
		return c.byAddress(address, faultf) // 2
	}
	return nil
}

// byAddress finds the one connection with a normalised address.
func (c *Config) byAddress(address string, faultf faultFunc) *Connection {
	var found *Connection
	for i := range c.Connections {
		if address == "" || c.Connections[i].Address != address {
			continue
		}
		if found != nil {
			faultf("vaultAddress", "is the address of several connections; name one of them with connection: %s", c.names(address))
			return nil
		}
		found = &c.Connections[i]
	}
	if found == nil {
		faultf("vaultAddress", "is not the address of one of this node's connections; leave it out, or name one with connection: %s", c.names(""))
	}
	return found
}

// names lists the connections with an address, or all.
func (c *Config) names(address string) string {
	var list []string
	for _, n := range c.Connections {
		if address == "" || n.Address == address {
			list = append(list, n.Name)
		}
	}
	return strings.Join(list, ", ")
}

// fill takes from the connection what the volume leaves open. The connection's mount is that of the connection's method:
// a volume with another method and no mount of its own gets that method's usual one.
func (c *Connection) fill(r *Resolved, spec attributes.Spec, faultf faultFunc) {
	r.Connection = c.Name
	r.Namespace = or(spec.Namespace, c.Namespace)
	r.AuthMethod = or(spec.AuthMethod, c.AuthMethod)
	r.Audience = or(spec.Audience, c.Audience)
	r.Role = or(spec.Role, c.Role)
	r.AuthMount = spec.AuthMount
	switch {
	case r.AuthMount != "":
	case r.AuthMethod == c.AuthMethod:
		r.AuthMount = c.AuthMount
	default:
		r.AuthMount = r.AuthMethod
	}
	if !c.allowsNamespace(r.Namespace) {
		faultf("vaultNamespace", "%s is not a Vault namespace that connection %s allows", strictyaml.Echo(r.Namespace), c.Name)
	}
	if r.Role == "" {
		faultf("roleName", "is required: connection %s has no default role", c.Name)
	}
}

// or is the first of two values, or the second if the first is not set.
func or[T comparable](a, b T) T {
	var none T
	if a != none {
		return a
	}
	return b
}
