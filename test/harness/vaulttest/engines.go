// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/leasefs/leasefs/test/harness/pgtest"
)

func (s *Server) mount(ctx context.Context, mount string, input *api.MountInput) error {
	if err := s.root.Sys().MountWithContext(ctx, mount, input); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", input.Type, mount, err)
	}
	return nil
}

// EnableKV mounts a KV engine of version 1 or 2. Version 2 is at secret from the start.
func (s *Server) EnableKV(ctx context.Context, mount string, version int) error {
	return s.mount(ctx, mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": strconv.Itoa(version)}})
}

// WriteKV1 writes a secret of a version 1 engine; the driver's secretPath for it is "MOUNT/NAME".
func (s *Server) WriteKV1(ctx context.Context, mount, name string, data map[string]any) error {
	return s.write(ctx, mount+"/"+name, data)
}

// WriteKV2 writes a new version of a secret of a version 2 engine; the driver's secretPath for it is "MOUNT/data/NAME".
func (s *Server) WriteKV2(ctx context.Context, mount, name string, data map[string]any) error {
	return s.write(ctx, mount+"/data/"+name, map[string]any{"data": data})
}

// PKIRole is a role that certificates are issued by, for any name, with P-256 keys.
type PKIRole struct {
	TTL time.Duration // of each certificate
	// GenerateLease gives each certificate a lease, one that cannot be renewed.
	GenerateLease bool
	// NotBefore is how far before now a certificate's life is said to begin. Zero is Vault's default, 30 s: with a
	// short TTL most of a certificate's life is over when it is issued. At least a second otherwise.
	NotBefore time.Duration
}

// EnablePKI mounts a PKI engine with a root certificate of its own.
func (s *Server) EnablePKI(ctx context.Context, mount string) error {
	if err := s.mount(ctx, mount, &api.MountInput{Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "87600h"}}); err != nil {
		return err
	}
	return s.write(ctx, mount+"/root/generate/internal", map[string]any{
		"common_name": "leasefs test root", "ttl": "87600h", "key_type": "ec", "key_bits": 256,
	})
}

// PKIRole writes a role; the driver's secretPath for it is "MOUNT/issue/NAME" with the method PUT.
func (s *Server) PKIRole(ctx context.Context, mount, name string, r PKIRole) error {
	role := map[string]any{
		"allow_any_name": true, "enforce_hostnames": false, "key_type": "ec", "key_bits": 256,
		"ttl": seconds(r.TTL), "generate_lease": r.GenerateLease,
	}
	if r.NotBefore != 0 {
		role["not_before_duration"] = seconds(r.NotBefore)
	}
	return s.write(ctx, mount+"/roles/"+name, role)
}

// EnableDatabase mounts a database engine at mount, with one database named "pg" that any of its roles may use.
func (s *Server) EnableDatabase(ctx context.Context, mount string, pg *pgtest.Server) error {
	if err := s.mount(ctx, mount, &api.MountInput{Type: "database"}); err != nil {
		return err
	}
	return s.write(ctx, mount+"/config/pg", map[string]any{
		"plugin_name":             "postgresql-database-plugin",
		"allowed_roles":           "*",
		"connection_url":          fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/%s?sslmode=disable", pg.Host, pg.Port, pg.Database),
		"username":                pg.AdminUser,
		"password":                pg.AdminPassword,
		"password_authentication": "scram-sha-256",
	})
}

// DatabaseRole writes a role of dynamic users; the driver's secretPath for it is "MOUNT/creds/NAME". Each user is a
// PostgreSQL role that can log in, valid until its lease ends, dropped when the lease is revoked.
func (s *Server) DatabaseRole(ctx context.Context, mount, name string, ttl, maxTTL time.Duration) error {
	return s.write(ctx, mount+"/roles/"+name, map[string]any{
		"db_name": "pg", "default_ttl": seconds(ttl), "max_ttl": seconds(maxTTL),
		"creation_statements": []string{
			`create role "{{name}}" with login password '{{password}}' valid until '{{expiration}}'`,
		},
	})
}

// DatabaseStaticRole creates a PostgreSQL user and has Vault change its password once in each period (at least five
// seconds); the driver's secretPath for it is "MOUNT/static-creds/NAME".
func (s *Server) DatabaseStaticRole(ctx context.Context, mount, name string, pg *pgtest.Server, user string, period time.Duration) error {
	if err := pg.Exec(ctx, fmt.Sprintf("create role %q login", user)); err != nil {
		return err
	}
	return s.write(ctx, mount+"/static-roles/"+name, map[string]any{
		"db_name": "pg", "username": user, "rotation_period": seconds(period),
	})
}
