// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leasefs/leasefs/test/harness/pgtest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// Where the node's pods reach the servers.
const (
	vaultURL        = "https://" + nodeIP + ":8200"
	databaseAddress = nodeIP + ":5432"
)

// servers are what stands beside the node: a Vault with storage, and the database that it makes users for.
type servers struct {
	vault *vaulttest.Server
	pg    *pgtest.Server
}

// startServers starts both and sets Vault up. The returned function ends them.
func startServers(ctx context.Context, k *kube, n node) (_ *servers, _ func() error, err error) {
	s := &servers{}
	var closers []func() error
	closeAll := func() error {
		var all error
		for _, c := range closers {
			all = errors.Join(all, c())
		}
		return all
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	if s.vault, err = vaulttest.Run(ctx, vaulttest.Options{Durable: true}); err != nil {
		return nil, nil, err
	}
	closers = append(closers, s.vault.Close)
	if s.pg, err = pgtest.Run(ctx); err != nil {
		return nil, nil, err
	}
	closers = append(closers, s.pg.Close)

	cert, err := tls.LoadX509KeyPair(filepath.Join(n.run, "pki/server.crt"), filepath.Join(n.run, "pki/server.key"))
	if err != nil {
		return nil, nil, err
	}
	for from, to := range map[string]string{
		strings.TrimPrefix(vaultURL, "https://"): strings.TrimPrefix(s.vault.Addr, "http://"),
		databaseAddress:                          net.JoinHostPort(s.pg.Host, strconv.Itoa(s.pg.Port)),
	} {
		listener, err := net.Listen("tcp", from)
		if err != nil {
			return nil, nil, err
		}
		if from != databaseAddress {
			listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}})
		}
		closers = append(closers, listener.Close)
		go relay(listener, to)
	}
	return s, closeAll, s.setUp(ctx, k, n)
}

// relay passes connections on: the harness's servers listen on loopback only, and Vault without TLS. While the server is
// down a connection is accepted and closed at once, as by a load balancer in front of it.
func relay(listener net.Listener, to string) {
	for {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.DialTimeout("tcp", to, 5*time.Second)
			if err != nil {
				return
			}
			defer out.Close()
			go func() {
				_, _ = io.Copy(out, in)
				_ = out.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(in, out)
		}()
	}
}

// policy lets a pod do what the scenarios need, and no more: secret/data/forbidden is there and cannot be read.
const policy = `
path "secret/data/e2e/*"       { capabilities = ["read"] }
path "database/creds/*"        { capabilities = ["read"] }
path "database/static-creds/*" { capabilities = ["read"] }
path "pki/issue/*"             { capabilities = ["create", "update"] }
`

// setUp configures Vault as the administrator of a cluster does:
//  1. auth/kubernetes has the API server review every pod's token. It shows a token of its own for that, of a service
//     account that may ask for reviews, since the pods' tokens are for Vault and the API server would refuse them.
//  2. auth/jwt checks the signature itself, with the keys that the API server publishes; auth/jwt-offline with a key that
//     was copied.
//  3. The engines and the role "app" of each auth method.
func (s *servers) setUp(ctx context.Context, k *kube, n node) error {
	reviewer, err := reviewerToken(ctx, k)
	if err != nil {
		return fmt.Errorf("making the reviewer's service account: %w", err)
	}
	ca, err := n.pki("ca.crt")
	if err != nil {
		return err
	}
	key, err := n.pki("sa.pub")
	if err != nil {
		return err
	}
	root := s.vault.Root()
	for _, auth := range []struct { // 1, 2
		mount, kind string
		config      map[string]any
	}{
		{"kubernetes", "kubernetes", map[string]any{
			"kubernetes_host": apiURL, "kubernetes_ca_cert": ca, "token_reviewer_jwt": reviewer, "disable_local_ca_jwt": true,
		}},
		{"jwt", "jwt", map[string]any{"oidc_discovery_url": apiURL, "oidc_discovery_ca_pem": ca, "bound_issuer": apiURL}},
		{"jwt-offline", "jwt", map[string]any{"jwt_validation_pubkeys": []string{key}, "bound_issuer": apiURL}},
	} {
		if err := root.Sys().EnableAuthWithOptionsWithContext(ctx, auth.mount, &api.EnableAuthOptions{Type: auth.kind}); err != nil {
			return fmt.Errorf("enabling auth/%s: %w", auth.mount, err)
		}
		if _, err := root.Logical().WriteWithContext(ctx, "auth/"+auth.mount+"/config", auth.config); err != nil {
			return fmt.Errorf("configuring auth/%s: %w", auth.mount, err)
		}
	}
	v := s.vault
	role := vaulttest.Role{Policies: []string{"e2e"}, TTL: 2 * time.Minute, MaxTTL: time.Hour}
	return errors.Join( // 3
		v.Policy(ctx, "e2e", policy),
		v.KubernetesRole(ctx, "kubernetes", "app", role),
		v.JWTRole(ctx, "jwt", "app", role),
		v.JWTRole(ctx, "jwt-offline", "app", role),
		v.WriteKV2(ctx, "secret", "forbidden", map[string]any{"value": "never seen"}),
		v.WriteKV2(ctx, "secret", "e2e/app", map[string]any{"password": "first"}),
		v.EnableDatabase(ctx, "database", s.pg),
		v.DatabaseRole(ctx, "database", "app", 10*time.Second, 30*time.Second),
		v.EnablePKI(ctx, "pki"),
		v.PKIRole(ctx, "pki", "short", vaulttest.PKIRole{TTL: 4 * time.Second, NotBefore: time.Second}),
	)
}

// reviewerToken makes the service account with which Vault asks for reviews, and a token of it. On a node that was kept
// from an earlier run the account is there.
func reviewerToken(ctx context.Context, k *kube) (string, error) {
	const namespace, name = "kube-system", "vault-reviewer"
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := k.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
	}
	if _, err := k.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	lifetime := int64(24 * 60 * 60)
	request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: &lifetime}}
	answer, err := k.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}
