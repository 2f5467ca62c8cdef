// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"
)

// Role is a role of the jwt or the kubernetes auth method: which pods may log in, and what they get.
type Role struct {
	// Audiences of the token, one of which must match. Empty is "vault", the harness's default audience.
	Audiences []string
	// Namespaces and ServiceAccounts that may log in. Empty: any.
	Namespaces, ServiceAccounts []string
	Policies                    []string
	// TTL and MaxTTL of the Vault token; zero is Vault's default (768 h).
	TTL, MaxTTL time.Duration
	// Type is service (the default) or batch.
	Type string
}

func (r Role) token() map[string]any {
	if r.Type == "" {
		r.Type = "service"
	}
	return map[string]any{
		"token_policies": r.Policies, "token_type": r.Type,
		"token_ttl": seconds(r.TTL), "token_max_ttl": seconds(r.MaxTTL),
	}
}

func (r Role) audiences() []string {
	if len(r.Audiences) == 0 {
		return []string{"vault"}
	}
	return r.Audiences
}

// seconds is a duration as Vault's API takes it.
func seconds(d time.Duration) int { return int(d / time.Second) }

// EnableJWT mounts the jwt auth method at mount (for example "jwt") and has it accept what the private keys of the
// given PEM public keys have signed.
func (s *Server) EnableJWT(ctx context.Context, mount string, publicPEM ...string) error {
	if err := s.root.Sys().EnableAuthWithOptionsWithContext(ctx, mount, &api.EnableAuthOptions{Type: "jwt"}); err != nil {
		return fmt.Errorf("enabling jwt auth at %s: %w", mount, err)
	}
	return s.write(ctx, "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": publicPEM})
}

// JWTRole writes a role of the jwt auth method, as one writes it for Kubernetes' service account tokens. Vault's leeways
// of minutes for clocks that differ are off: a token that has expired is refused.
func (s *Server) JWTRole(ctx context.Context, mount, name string, r Role) error {
	role := r.token()
	role["role_type"] = "jwt"
	role["user_claim"] = "sub"
	role["bound_audiences"] = r.audiences()
	role["expiration_leeway"] = -1
	role["not_before_leeway"] = -1
	role["clock_skew_leeway"] = -1
	role["claim_mappings"] = map[string]any{
		"/kubernetes.io/namespace":           "service_account_namespace",
		"/kubernetes.io/serviceaccount/name": "service_account_name",
	}
	bound := map[string]any{}
	if len(r.Namespaces) > 0 {
		bound["/kubernetes.io/namespace"] = r.Namespaces
	}
	if len(r.ServiceAccounts) > 0 {
		bound["/kubernetes.io/serviceaccount/name"] = r.ServiceAccounts
	}
	if len(bound) > 0 {
		role["bound_claims"] = bound
	}
	return s.write(ctx, "auth/"+mount+"/role/"+name, role)
}

// EnableKubernetes mounts the kubernetes auth method at mount and points it at an API server that does nothing but
// review tokens, see [NewReviewer]. reviewerToken is the credential that Vault shows there.
func (s *Server) EnableKubernetes(ctx context.Context, mount string, reviewer *Reviewer, reviewerToken string) error {
	if err := s.root.Sys().EnableAuthWithOptionsWithContext(ctx, mount, &api.EnableAuthOptions{Type: "kubernetes"}); err != nil {
		return fmt.Errorf("enabling kubernetes auth at %s: %w", mount, err)
	}
	return s.write(ctx, "auth/"+mount+"/config", map[string]any{
		"kubernetes_host": reviewer.URL(), "disable_local_ca_jwt": true, "token_reviewer_jwt": reviewerToken,
	})
}

// KubernetesRole writes a role of the kubernetes auth method. Vault takes one audience for it.
func (s *Server) KubernetesRole(ctx context.Context, mount, name string, r Role) error {
	role := r.token()
	role["audience"] = r.audiences()[0]
	role["bound_service_account_namespaces"] = orAny(r.Namespaces)
	role["bound_service_account_names"] = orAny(r.ServiceAccounts)
	return s.write(ctx, "auth/"+mount+"/role/"+name, role)
}

func orAny(names []string) []string {
	if len(names) == 0 {
		return []string{"*"}
	}
	return names
}

// Policy writes a policy in Vault's own language. Rights that every token of the driver needs (renewing and revoking
// itself, renewing leases) are in Vault's default policy.
func (s *Server) Policy(ctx context.Context, name, hcl string) error {
	if err := s.root.Sys().PutPolicyWithContext(ctx, name, hcl); err != nil {
		return fmt.Errorf("writing the policy %s: %w", name, err)
	}
	return nil
}
