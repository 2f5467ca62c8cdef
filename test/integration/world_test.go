// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package integration tests the driver as it runs on a node, with everything real but the kubelet: the binary as a process of its
// own, a Vault server, PostgreSQL, tmpfs mounts. The kubelet's part is played over the CSI socket (test/harness/kubelettest).
package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/pgtest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

func TestMain(m *testing.M) { mounttest.Main(m) }

// world is a node with a Vault beside it.
type world struct {
	*testing.T
	vault   *vaulttest.Server
	driver  *kubelettest.Driver
	kubelet *kubelettest.Kubelet
}

// options of a world; the zero value is right for most tests.
type options struct {
	durable  bool           // Vault keeps its storage over a restart
	token    vaulttest.Role // TTL, MaxTTL and Type of the sessions; the policies are filled in
	policy   string         // added to the policy of the role
	defaults string         // YAML of the configuration's defaults
	extra    string         // YAML added to the connection, with two spaces of indent
	args     []string       // flags of the driver
}

// policy lets a pod read everything that the tests make; Vault's own default policy lets it renew and look up.
const policy = `
path "secret/*" { capabilities = ["read"] }
path "kv1/*" { capabilities = ["read"] }
path "database/*" { capabilities = ["read"] }
path "pki/issue/*" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
`

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	ctx := t.Context()
	issuer, err := kubelettest.NewIssuer()
	ok(t, err)
	w := &world{T: t}
	if o.durable {
		w.vault = vaulttest.StartDurable(t)
	} else {
		w.vault = vaulttest.Start(t)
	}
	ok(t, w.vault.EnableJWT(ctx, "jwt", issuer.PublicPEM()))
	ok(t, w.vault.Policy(ctx, "app", policy+o.policy))
	o.token.Policies = []string{"app"}
	ok(t, w.vault.JWTRole(ctx, "jwt", "app", o.token))
	ok(t, w.vault.EnableKV(ctx, "kv1", 1))
	config := fmt.Sprintf("connections:\n- name: default\n  address: %s\n  authMethod: jwt\n  role: app\n%s", w.vault.Addr, o.extra)
	if o.defaults == "" {
		o.defaults = fmt.Sprintf("  minRefreshInterval: 1s\n  credentialGrace: %[1]ds\n  generationGrace: %[1]ds\n", grace)
	}
	w.driver = kubelettest.StartDriver(t, kubelettest.DriverOptions{Config: config + "defaults:\n" + o.defaults, Args: o.args})
	w.kubelet = w.driver.Kubelet(issuer)
	return w
}

// volume is a pod's volume with the given objects, as YAML flow mappings.
func volume(pod string, objects ...string) kubelettest.Volume {
	return kubelettest.Volume{
		Pod: kubelettest.NewPod("shop", pod, "web"), Name: "secrets", ReadOnly: true,
		Attributes: map[string]string{"objects": "- " + strings.Join(objects, "\n- "), "refreshInterval": "2s"},
	}
}

func (w *world) publish(v kubelettest.Volume) {
	w.Helper()
	ok(w, w.kubelet.Publish(w.Context(), v))
}

func (w *world) unpublish(v kubelettest.Volume) {
	w.Helper()
	ok(w, w.kubelet.Unpublish(w.Context(), v))
}

func (w *world) target(v kubelettest.Volume) string { return v.Target(w.driver.KubeletDir) }

// file is what the pod reads.
func (w *world) file(v kubelettest.Volume, name string) string {
	w.Helper()
	data, err := os.ReadFile(filepath.Join(w.target(v), name))
	ok(w, err)
	return string(data)
}

// generation reads several files as one application does that wants them to match: through one open of ..data. A reader
// that is slower than the grace of a replaced generation reads again.
func (w *world) generation(v kubelettest.Volume, names ...string) []string {
	w.Helper()
	for {
		start := time.Now()
		contents, err := w.readGeneration(v, names)
		if late(start) && errors.Is(err, fs.ErrNotExist) {
			w.Logf("read again: the first reading took %v", time.Since(start))
			continue
		}
		ok(w, err)
		return contents
	}
}

func (w *world) readGeneration(v kubelettest.Volume, names []string) ([]string, error) {
	root, err := os.OpenRoot(filepath.Join(w.target(v), "..data"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	contents := make([]string, len(names))
	for i, name := range names {
		data, err := root.ReadFile(name)
		if err != nil {
			return nil, err
		}
		contents[i] = string(data)
	}
	return contents, nil
}

// grace of replaced generations and of replaced credentials, in seconds, unless a test says otherwise.
const grace = 2

// late tells whether a reader who began at start has used up the grace, so that what it has need not be good any more. That
// is so on a busy machine, and no fault of the driver's.
func late(start time.Time) bool { return time.Since(start) > grace*time.Second-200*time.Millisecond }

// login logs in to the database with what the files say now, and returns the user. The error is nil or the driver's fault.
func (w *world) login(pg *pgtest.Server, v kubelettest.Volume) (string, error) {
	w.Helper()
	for {
		start := time.Now()
		creds := w.generation(v, "username", "password")
		err := pg.Login(w.Context(), creds[0], creds[1])
		if err == nil || !late(start) || w.Context().Err() != nil {
			return creds[0], err
		}
		w.Logf("log in again: the first attempt took %v: %v", time.Since(start), err)
	}
}

// soon is a limit without a meaning of its own: what is waited for takes a second or a few, but not on a busy machine.
const soon = time.Minute

// eventually waits until a condition holds; what it is called says what was waited for.
func (w *world) eventually(limit time.Duration, what string, condition func() bool) {
	w.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if condition() {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// wantNothingLeft checks that nothing of any volume is left, on the node and in Vault.
func (w *world) wantNothingLeft() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), soon)
	defer cancel()
	if err := w.vault.AwaitEmpty(ctx); err != nil {
		w.Errorf("Vault still holds something: %v", err)
	}
	mounts, err := w.driver.Volumes()
	ok(w, err)
	if len(mounts) != 0 {
		w.Errorf("mounts are left: %v", mounts)
	}
	w.eventually(soon, "no record is left", func() bool {
		records, err := filepath.Glob(filepath.Join(w.driver.PluginDir, "state", "*.json"))
		return err == nil && len(records) == 0
	})
}

// database gives Vault a PostgreSQL with the role "dyn" of the given TTLs.
func (w *world) database(ttl, maxTTL time.Duration) *pgtest.Server {
	w.Helper()
	pg := pgtest.Start(w)
	ok(w, w.vault.EnableDatabase(w.Context(), "database", pg))
	ok(w, w.vault.DatabaseRole(w.Context(), "database", "dyn", ttl, maxTTL))
	return pg
}

const (
	username = "{objectName: username, secretPath: database/creds/dyn, secretKey: username}"
	password = "{objectName: password, secretPath: database/creds/dyn, secretKey: password}"
	greeting = "{objectName: greeting, secretPath: secret/data/app, secretKey: greeting}"
)

// greet writes the value that greeting reads.
func (w *world) greet(text string) {
	w.Helper()
	ok(w, w.vault.WriteKV2(w.Context(), "secret", "app", map[string]any{"greeting": text}))
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
