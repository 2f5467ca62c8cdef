// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) { mounttest.Main(m) }

// Vault, the driver and the kubelet together: a pod's secret appears, the driver is killed and started again, the secret
// goes away, and Vault holds nothing of it any more.
func TestDriverServesAPodThroughAKill(t *testing.T) {
	ctx := t.Context()
	issuer, err := kubelettest.NewIssuer()
	ok(t, err)
	vault := vaulttest.Start(t)
	ok(t, vault.EnableJWT(ctx, "jwt", issuer.PublicPEM()))
	ok(t, vault.Policy(ctx, "kv", `path "secret/data/*" { capabilities = ["read"] }`))
	ok(t, vault.JWTRole(ctx, "jwt", "web", vaulttest.Role{Namespaces: []string{"shop"}, Policies: []string{"kv"}}))
	ok(t, vault.WriteKV2(ctx, "secret", "app", map[string]any{"greeting": "hello"}))

	d := kubelettest.StartDriver(t, kubelettest.DriverOptions{
		Config: "connections:\n- {name: default, address: " + vault.Addr + ", authMethod: jwt}\n",
	})
	registered, err := kubelettest.Register(ctx, d.RegSocket)
	ok(t, err)
	if registered.Endpoint != d.Socket || registered.NodeID != "node-1" {
		t.Errorf("registered as %+v", registered)
	}
	k := d.Kubelet(issuer)
	v := kubelettest.Volume{
		Pod: kubelettest.NewPod("shop", "web-0", "web"), Name: "secrets", ReadOnly: true,
		Attributes: map[string]string{
			"roleName": "web",
			"objects":  "- {objectName: greeting, secretPath: secret/data/app, secretKey: greeting}",
		},
	}
	target := v.Target(d.KubeletDir)
	check := func() {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(target, "greeting"))
		ok(t, err)
		if string(got) != "hello" {
			t.Errorf("greeting = %q", got)
		}
	}

	ok(t, k.Publish(ctx, v))
	check()
	ok(t, d.Kill())
	check()
	ok(t, d.Start(ctx))
	check()
	ok(t, k.Publish(ctx, v)) // again, as the kubelet does
	volumes, err := d.Volumes()
	ok(t, err)
	if len(volumes) != 1 || volumes[0] != target {
		t.Errorf("volumes mounted: %q", volumes)
	}
	metrics, err := d.Metrics(ctx)
	ok(t, err)
	if !strings.Contains(metrics, "leasefs_") {
		t.Errorf("metrics: %s", metrics)
	}
	out, err := d.Command(ctx, "volumes", "-o", "json").CombinedOutput()
	ok(t, err)
	if !strings.Contains(string(out), v.ID()) {
		t.Errorf("leasefs volumes: %s", out)
	}

	ok(t, k.Unpublish(ctx, v))
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target: %v", err)
	}
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ok(t, vault.AwaitEmpty(soon))
	ok(t, d.Stop(ctx))
	requests, err := vault.Requests(0)
	ok(t, err)
	if requests.Count("auth/jwt/login") != 1 || requests.Count("secret/data/app") != 1 {
		t.Errorf("requests: %v", requests.Paths())
	}
	lines, err := d.Audit()
	ok(t, err)
	for _, event := range []rotation.AuditEvent{rotation.AuditLogin, rotation.AuditRead, rotation.AuditPublish, rotation.AuditRecover, rotation.AuditUnpublish} {
		if len(lines.Of(event)) == 0 {
			t.Errorf("no %s in the audit log", event)
		}
	}
}

func TestDriverThatDoesNotStartSaysWhy(t *testing.T) {
	_, err := kubelettest.RunDriver(t.Context(), kubelettest.DriverOptions{Config: "nonsense: true\n"})
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("error = %v", err)
	}
}
