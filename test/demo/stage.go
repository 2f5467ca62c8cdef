// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/pgtest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// The lives of what Vault hands out: short, so that a demo of half a minute sees several of each.
const (
	tokenTTL       = 15 * time.Second
	certificateTTL = 20 * time.Second
	userTTL        = 10 * time.Second
	userMaxTTL     = 30 * time.Second
	refresh        = 2 * time.Second
)

// config is the driver's configuration file; the node's administrator writes it.
const config = `connections:
- name: default
  address: %s
  authMethod: jwt
defaults:
  refreshInterval: %s
  minRefreshInterval: 1s
  credentialGrace: 3s
  generationGrace: 3s
`

const policy = `path "secret/data/app"    { capabilities = ["read"] }
path "pki/issue/web"      { capabilities = ["update"] }
path "database/creds/app" { capabilities = ["read"] }
`

// objects is what the pod's author writes; userObjects is left out where there is no PostgreSQL.
const (
	objects = `- {objectName: greeting,    secretPath: secret/data/app, secretKey: greeting}
- {objectName: tls/tls.crt, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: web.shop.svc}, secretKey: certificate}
- {objectName: tls/tls.key, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: web.shop.svc}, secretKey: private_key}
- {objectName: tls/ca.crt,  secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: web.shop.svc}, secretKey: issuing_ca}
`
	userObjects = `- {objectName: db/username, secretPath: database/creds/app, secretKey: username}
- {objectName: db/password, secretPath: database/creds/app, secretKey: password}
`
)

// stage is all that runs.
type stage struct {
	vault   *vaulttest.Server
	pg      *pgtest.Server // nil: none installed
	driver  *kubelettest.Driver
	kubelet *kubelettest.Kubelet
	volume  kubelettest.Volume
	target  string // where the pod's files are
}

// setUp starts everything and says what. driver is the program; "" has it built.
func setUp(ctx context.Context, s *screen, driver string) (_ *stage, err error) {
	st := &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	issuer, err := kubelettest.NewIssuer()
	if err != nil {
		return nil, err
	}
	s.title("1. The stage")
	if err := st.start(ctx, s, driver == ""); err != nil {
		return nil, err
	}
	if err := st.furnish(ctx, issuer); err != nil {
		return nil, err
	}
	s.text("Vault      %s, a dev server; pods log in with their service account token (jwt auth)", st.vault.Addr)
	if st.pg != nil {
		s.text("PostgreSQL 127.0.0.1:%d; Vault makes users in it that live %s, at most %s", st.pg.Port, userTTL, userMaxTTL)
	} else {
		s.text("PostgreSQL is not installed (apt-get install postgresql): the demo goes without a database user")
	}
	st.driver, err = kubelettest.RunDriver(ctx, kubelettest.DriverOptions{
		Binary: driver, Config: fmt.Sprintf(config, st.vault.Addr, refresh),
	})
	if err != nil {
		return nil, err
	}
	s.text("leasefs    process %d, on the CSI socket %s", st.driver.PID(), st.driver.Socket)

	st.kubelet = st.driver.Kubelet(issuer)
	if _, err := kubelettest.Register(ctx, st.driver.RegSocket); err != nil {
		return nil, err
	}
	st.volume = kubelettest.Volume{
		Pod: kubelettest.NewPod("shop", "web-0", "web"), Name: "secrets", ReadOnly: true,
		Attributes: map[string]string{"roleName": "web", "objects": st.objects()},
	}
	st.target = st.volume.Target(st.driver.KubeletDir)
	s.text("kubelet    played by this program; the driver has registered with it")
	return st, nil
}

// start starts the servers and builds the driver if it has to be, at the same time.
func (st *stage) start(ctx context.Context, s *screen, build bool) error {
	s.text("starting ...")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		st.vault, err = vaulttest.Run(ctx, vaulttest.Options{})
		return err
	})
	group.Go(func() (err error) {
		st.pg, err = pgtest.Run(ctx)
		if errors.Is(err, pgtest.ErrNotInstalled) {
			return nil
		}
		return err
	})
	if build {
		group.Go(func() error {
			_, err := kubelettest.BuildDriver(ctx)
			return err
		})
	}
	return group.Wait()
}

// furnish sets Vault up as its administrator would.
func (st *stage) furnish(ctx context.Context, issuer *kubelettest.Issuer) error {
	v := st.vault
	steps := []func() error{
		func() error { return v.EnableJWT(ctx, "jwt", issuer.PublicPEM()) },
		func() error { return v.Policy(ctx, "web", policy) },
		func() error {
			return v.JWTRole(ctx, "jwt", "web", vaulttest.Role{
				Namespaces: []string{"shop"}, ServiceAccounts: []string{"web"}, Policies: []string{"web"}, TTL: tokenTTL,
			})
		},
		func() error { return v.WriteKV2(ctx, "secret", "app", map[string]any{"greeting": "good morning"}) },
		func() error { return v.EnablePKI(ctx, "pki") },
		func() error { return v.PKIRole(ctx, "pki", "web", vaulttest.PKIRole{TTL: certificateTTL}) },
	}
	if st.pg != nil {
		steps = append(steps,
			func() error { return v.EnableDatabase(ctx, "database", st.pg) },
			func() error { return v.DatabaseRole(ctx, "database", "app", userTTL, userMaxTTL) },
		)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// objects is the attribute of the pod's volume.
func (st *stage) objects() string {
	if st.pg == nil {
		return objects
	}
	return objects + userObjects
}

// restart starts the driver again after it has ended. The kubelet sees its new socket and registers it.
func (st *stage) restart(ctx context.Context) error {
	if err := st.driver.Start(ctx); err != nil {
		return err
	}
	_, err := kubelettest.Register(ctx, st.driver.RegSocket)
	return err
}

// close ends everything and removes it.
func (st *stage) close() error {
	var errs []error
	if st.driver != nil {
		errs = append(errs, st.driver.Close())
	}
	if st.pg != nil {
		errs = append(errs, st.pg.Close())
	}
	if st.vault != nil {
		errs = append(errs, st.vault.Close())
	}
	return errors.Join(errs...)
}

// lookAround is what a person can do in another terminal while the demo is kept.
func (st *stage) lookAround() string {
	enter := ""
	if os.Getenv(inside) != "" {
		enter = fmt.Sprintf("nsenter --preserve-credentials -U -m -t %d ", os.Getpid())
	}
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	add("export LEASEFS_ADMIN_SOCKET=%s", st.driver.AdminSocket)
	add("export VAULT_ADDR=%s VAULT_TOKEN=%s", st.vault.Addr, st.vault.RootToken)
	add("T=%s", st.target)
	add("")
	add("%s%s volumes                 # what the daemon knows, and what it does next", enter, st.driver.Binary)
	add("%sls -laR $T", enter)
	add("%scat $T/greeting", enter)
	if st.pg != nil {
		add("PGPASSWORD=$(%scat $T/db/password) psql -h 127.0.0.1 -p %d -U $(%scat $T/db/username) postgres -c 'select current_user'",
			enter, st.pg.Port, enter)
	}
	add("%sopenssl x509 -in $T/tls/tls.crt -noout -subject -dates", enter)
	vault, err := vaulttest.Binary(context.Background())
	if err != nil { // it has run, so it was found
		vault = "vault"
	}
	add("%s kv put secret/app greeting='good night'     # arrives in %s", vault, refresh)
	add("%s list sys/leases/lookup/auth/jwt/login", vault)
	add("curl -s http://%s/metrics | grep -E '^leasefs_(rotations|swaps|vault_requests|volumes)'", st.driver.HTTPAddress)
	add("tail -f %s     # the audit log", st.driver.AuditFile)
	add("kill -9 %d     # the daemon; it is started again", st.driver.PID())
	return b.String()
}
