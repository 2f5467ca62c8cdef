// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/admin"
	"github.com/leasefs/leasefs/pkg/mount/mounttest"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

// cluster is a Vault, a node with the daemon on it (this test binary, so with the race detector if the test has it), and
// a kubelet.
type cluster struct {
	*testing.T
	vault   *vaulttest.Server
	driver  *kubelettest.Driver
	kubelet *kubelettest.Kubelet
}

const canaryValue = "canary-5f1c9e7a"

func newCluster(t *testing.T, args ...string) *cluster {
	t.Helper()
	return newClusterWith(t, kubelettest.DriverOptions{Args: args})
}

// newClusterWith adds the configuration and the program to options.
func newClusterWith(t *testing.T, options kubelettest.DriverOptions) *cluster {
	t.Helper()
	c := &cluster{T: t, vault: vaulttest.Start(t)}
	ctx := t.Context()
	issuer, err := kubelettest.NewIssuer()
	c.ok(err)
	c.ok(c.vault.EnableJWT(ctx, "jwt", issuer.PublicPEM()))
	c.ok(c.vault.Policy(ctx, "kv", `path "secret/data/app" { capabilities = ["read"] }`))
	c.ok(c.vault.JWTRole(ctx, "jwt", "web", vaulttest.Role{Policies: []string{"kv"}, TTL: time.Hour}))
	c.ok(c.vault.WriteKV2(ctx, "secret", "app", map[string]any{"password": canaryValue}))
	options.Config, options.Binary, options.Env = c.config(), self(t), []string{reenter + "=main"}
	c.driver = kubelettest.StartDriver(t, options)
	c.kubelet = c.driver.Kubelet(issuer)
	return c
}

func (c *cluster) config() string {
	return "connections:\n- {name: default, address: '" + c.vault.Addr + "', authMethod: jwt}\n"
}

func (c *cluster) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// volume is one of a pod's with a file from each object.
func (c *cluster) volume(pod, role, objects string) kubelettest.Volume {
	return kubelettest.Volume{
		Pod: kubelettest.NewPod("shop", pod, "web"), Name: "secrets", ReadOnly: true,
		Attributes: map[string]string{"roleName": role, "objects": objects},
	}
}

const goodObject = "- {objectName: password, secretPath: secret/data/app, secretKey: password}"

func (c *cluster) read(v kubelettest.Volume) string {
	c.Helper()
	text, err := os.ReadFile(filepath.Join(v.Target(c.driver.KubeletDir), "password"))
	c.ok(err)
	return string(text)
}

// get asks the daemon's HTTP server.
func (c *cluster) get(path string) (status int, body string) {
	c.Helper()
	res, err := http.Get("http://" + c.driver.HTTPAddress + path)
	c.ok(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	c.ok(err)
	return res.StatusCode, string(text)
}

// eventually waits until what is so, for a while.
func (c *cluster) eventually(what string, so func() bool) {
	c.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if so() {
			return
		}
	}
	c.Fatalf("not within 30 s: %s", what)
}

// command runs the program beside the daemon.
func (c *cluster) command(args ...string) string {
	c.Helper()
	cmd := c.driver.Command(c.Context(), args...)
	cmd.Env = append(cmd.Env, reenter+"=main")
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.Fatalf("leasefs %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestReadyOnlyWhenTheKubeletKnowsTheDriver(t *testing.T) {
	c := newCluster(t)
	if status, body := c.get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "kubelet has not registered") {
		t.Errorf("before registration: %d %s", status, body)
	}
	if status, body := c.get("/healthz"); status != http.StatusOK {
		t.Errorf("healthz before registration: %d %s", status, body)
	}
	_, err := kubelettest.Register(t.Context(), c.driver.RegSocket)
	c.ok(err)
	if status, body := c.get("/readyz"); status != http.StatusOK {
		t.Errorf("after registration: %d %s", status, body)
	}
	if _, text := c.get("/metrics"); !strings.Contains(text, "\nleasefs_kubelet_registered 1\n") {
		t.Error("metrics do not say that the kubelet has registered the driver")
	}
}

func TestDaemonWithoutRegistrationIsReadyByItself(t *testing.T) {
	c := newCluster(t, "--registration-dir=")
	if status, body := c.get("/readyz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if _, err := os.Lstat(c.driver.RegSocket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a registration socket: %v", err)
	}
}

// SIGTERM: status 0, sockets gone, and everything that the next daemon goes on with still there.
func TestSIGTERMLeavesVolumesAndLeases(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	v := c.volume("web-0", "web", goodObject)
	c.ok(c.kubelet.Publish(ctx, v))
	tokens, err := c.vault.TokenAccessors(ctx)
	c.ok(err)

	c.ok(c.driver.Stop(ctx))
	for _, socket := range []string{c.driver.RegSocket, c.driver.Socket, c.driver.AdminSocket} {
		if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", filepath.Base(socket), err)
		}
	}
	if got := c.read(v); got != canaryValue {
		t.Errorf("the file holds %q", got)
	}
	after, err := c.vault.TokenAccessors(ctx)
	c.ok(err)
	if len(tokens) == 0 || fmt.Sprint(tokens) != fmt.Sprint(after) {
		t.Errorf("sessions before %v, after %v", tokens, after)
	}

	c.ok(c.driver.Start(ctx))
	c.ok(c.kubelet.Publish(ctx, v))
	requests, err := c.vault.Requests(0)
	c.ok(err)
	if n := requests.Count("auth/jwt/login"); n != 1 {
		t.Errorf("%d logins, want 1: a restart logs nobody in", n)
	}
	c.ok(c.kubelet.Unpublish(ctx, v))
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c.ok(c.vault.AwaitEmpty(soon))
}

// A publish that waits for Vault when SIGTERM comes is finished, not cut off.
func TestSIGTERMLetsACallFinish(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	c.ok(c.vault.Pause())
	v := c.volume("web-0", "web", goodObject)
	done := make(chan error, 1)
	go func() { done <- c.kubelet.Publish(ctx, v) }()
	c.eventually("the publish is under way", func() bool { return strings.Contains(c.command("volumes"), "publishing") })
	c.ok(c.driver.Signal(syscall.SIGTERM))
	c.eventually("the kubelet is told that the driver leaves", func() bool {
		_, err := os.Lstat(c.driver.RegSocket)
		return errors.Is(err, fs.ErrNotExist)
	})
	c.ok(c.vault.Resume())
	c.ok(<-done)
	if got := c.read(v); got != canaryValue {
		t.Errorf("the file holds %q", got)
	}
	<-c.driver.Exited()
	c.ok(c.driver.Start(ctx))
	c.ok(c.kubelet.Unpublish(ctx, v))
}

func TestSecondDaemonIsKeptOutOfThePluginFolder(t *testing.T) {
	dir := t.TempDir()
	log := newLogger(options{}, io.Discard)
	first, err := lockFolder(t.Context(), filepath.Join(dir, "lock"), 0, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(t.Context(), filepath.Join(dir, "lock"), 150*time.Millisecond, log); err == nil || !strings.Contains(err.Error(), "another leasefs uses the plugin folder") {
		t.Errorf("got %v", err)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = first.Close() })
	second, err := lockFolder(t.Context(), filepath.Join(dir, "lock"), time.Minute, log)
	if err != nil {
		t.Fatalf("the first has left, and yet: %v", err)
	}
	_ = second.Close()
}

// With swap on the node (here a list of it, put over the kernel's in a mount namespace of the daemon's own), memory is locked
// as it is used, not all that Go's runtime reserves. Root of a user namespace may not lock so much, and the log says that.
func TestMemoryIsLockedWhereThereIsSwap(t *testing.T) {
	swaps := file(t, "swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1 0 -2\n")
	c := newClusterWith(t, kubelettest.DriverOptions{
		Args:    []string{"--lock-memory=true"},
		Wrapper: []string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /proc/swaps && exec "$@"`, swaps},
	})
	if mounttest.InUserNamespace() {
		if !strings.Contains(c.driver.Log(), "the daemon's memory cannot be locked") {
			t.Error("the log does not say that memory cannot be locked")
		}
		return
	}
	if !strings.Contains(c.driver.Log(), "memory is locked, because this node has swap") {
		t.Error("the log does not say that memory is locked")
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.driver.PID()))
	c.ok(err)
	if strings.Contains(string(text), "VmLck:\t       0 kB") || !strings.Contains(string(text), "VmLck:") {
		t.Errorf("nothing is locked:\n%s", text)
	}
}

// A broken edit changes nothing and is told once; a sound one is taken up.
func TestConfigurationIsFollowed(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	second := strings.ReplaceAll(c.config(), "default", "second")
	v := c.volume("web-0", "web", goodObject)
	v.Attributes["connection"] = "second"
	if err := c.kubelet.Publish(ctx, v); err == nil || !strings.Contains(err.Error(), "connection") {
		t.Fatalf("a connection that is not there: %v", err)
	}

	c.ok(c.driver.WriteConfig(c.config() + "colour: red\n"))
	c.eventually("metrics say that the edit was refused", func() bool {
		_, text := c.get("/metrics")
		return strings.Contains(text, "leasefs_config_refused 1\n") && strings.Contains(text, `leasefs_config_reloads_total{result="error"} 1`)
	})
	if n := strings.Count(c.driver.Log(), "the one before stays in use"); n != 1 {
		t.Errorf("the log says %d times that the edit was refused, want once", n)
	}
	ours := c.volume("web-1", "web", goodObject)
	c.ok(c.kubelet.Publish(ctx, ours)) // by the configuration before
	c.ok(c.kubelet.Unpublish(ctx, ours))

	c.ok(c.driver.WriteConfig(c.config() + strings.TrimPrefix(second, "connections:\n")))
	c.eventually("metrics say that the edit was taken up", func() bool {
		_, text := c.get("/metrics")
		return strings.Contains(text, "leasefs_config_refused 0\n") && strings.Contains(text, `leasefs_config_reloads_total{result="ok"} 2`)
	})
	c.ok(c.kubelet.Publish(ctx, v))
	c.ok(c.kubelet.Unpublish(ctx, v))
}

func TestVolumesShowsWhatTheDaemonDoes(t *testing.T) {
	c := newCluster(t)
	v := c.volume("web-0", "web", goodObject)
	c.ok(c.kubelet.Publish(t.Context(), v))
	var list admin.List
	c.ok(json.Unmarshal([]byte(c.command("volumes", "-o", "json")), &list))
	if len(list.Volumes) != 1 {
		t.Fatalf("%d volumes, want 1", len(list.Volumes))
	}
	got := list.Volumes[0]
	if got.ID != v.ID() || got.Pod != "web-0" || got.Phase != "live" || len(got.Leases) != 1 || got.Leases[0].Kind != "plain" ||
		got.Leases[0].Path != "secret/data/app" || got.Session == nil || got.Session.Expires == nil || got.Next == nil {
		t.Errorf("%+v", got)
	}
	table := c.command("volumes")
	for _, want := range []string{"shop/web-0", "default", "web", "password", "plain", "fetch in", "never"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in:\n%s", want, table)
		}
	}
	c.ok(c.kubelet.Unpublish(t.Context(), v))
}

// The leak hunt: a value, a Vault token and a pod's token go through the daemon at its most talkative, on good ways and on
// every bad one that can be taken from outside. Then they are looked for wherever the daemon leaves anything.
func TestNoSinkHoldsASecret(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	canaries := map[string]string{"value": canaryValue}
	sinks := map[string]string{}

	good := c.volume("web-0", "web", goodObject)
	c.ok(c.kubelet.Publish(ctx, good))
	request, err := c.kubelet.PublishRequest(good)
	c.ok(err)
	for i, part := range strings.SplitN(podToken(t, request.GetSecrets()[kubelettest.TokensKey]), ".", 3) {
		canaries[fmt.Sprintf("part %d of the pod's token", i+1)] = part
	}
	delete(canaries, "part 1 of the pod's token") // the header says which algorithm it is, no more
	canaries["vault token"] = c.vaultToken()

	spoofed := c.volume("web-1", "web", goodObject)
	spoofed.Attributes[kubelettest.TokensKey] = `{"vault":{"token":"` + canaryValue + `"}}`
	bad := map[string]kubelettest.Volume{
		"role":    c.volume("web-2", "nobody", goodObject),
		"key":     c.volume("web-3", "web", "- {objectName: a, secretPath: secret/data/app, secretKey: no-such}"),
		"denied":  c.volume("web-4", "web", "- {objectName: a, secretPath: secret/data/other, secretKey: x}"),
		"args":    c.volume("web-5", "web", "- {objectName: a, secretPath: secret/data/app, method: PUT, secretArgs: {value: "+canaryValue+"}}"),
		"hex":     c.volume("web-6", "web", "- {objectName: a, secretPath: secret/data/app, secretKey: password, encoding: hex}"),
		"yaml":    c.volume("web-7", "web", "- {objectName: [}"),
		"spoofed": spoofed,
	}
	for name, v := range bad {
		err := c.kubelet.Publish(ctx, v)
		if err == nil {
			t.Errorf("%s: published", name)
			continue
		}
		sinks["error of "+name] = err.Error()
	}
	moved := good
	moved.Attributes = map[string]string{"roleName": "other", "objects": goodObject}
	if err := c.kubelet.Publish(ctx, moved); err == nil {
		t.Error("published with other attributes")
	} else {
		sinks["error of other attributes"] = err.Error()
	}
	c.ok(c.vault.Seal(ctx))
	if err := c.kubelet.Publish(ctx, c.volume("web-8", "web", goodObject)); err == nil {
		t.Error("published from a sealed Vault")
	} else {
		sinks["error of a sealed Vault"] = err.Error()
	}

	sinks["admin JSON"] = c.command("volumes", "-o", "json")
	sinks["table"] = c.command("volumes")
	_, sinks["metrics"] = c.get("/metrics")
	_, sinks["readyz"] = c.get("/readyz")
	_, sinks["healthz"] = c.get("/healthz")
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", c.driver.PID(), name))
		c.ok(err)
		sinks[name] = string(text)
	}
	c.ok(c.driver.Signal(syscall.SIGQUIT)) // the runtime prints every goroutine
	<-c.driver.Exited()
	sinks["log and crash"] = c.driver.Log()
	text, err := os.ReadFile(c.driver.AuditFile)
	c.ok(err)
	sinks["audit log"] = string(text)
	cores, _ := filepath.Glob(filepath.Join(filepath.Dir(c.driver.AuditFile), "core*"))
	if len(cores) > 0 {
		t.Errorf("there is a core: %v", cores)
	}

	if !strings.Contains(sinks["log and crash"], "goroutine ") {
		t.Error("the crash left no trace, so nothing was tested there")
	}
	for sink, text := range sinks {
		if text == "" {
			t.Errorf("%s is empty, so nothing was tested there", sink)
		}
		for what, canary := range canaries {
			for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary)), hex.EncodeToString([]byte(canary))} {
				if i := strings.Index(text, form); i >= 0 {
					t.Errorf("%s is in %s: ...%s...", what, sink, text[max(0, i-120):min(len(text), i+40)])
				}
			}
		}
	}
}

// podToken takes the JWT for Vault out of what the kubelet sends.
func podToken(t *testing.T, tokens string) string {
	t.Helper()
	var v map[string]struct{ Token string }
	if err := json.Unmarshal([]byte(tokens), &v); err != nil {
		t.Fatal(err)
	}
	if v["vault"].Token == "" {
		t.Fatal("the kubelet sends no token")
	}
	return v["vault"].Token
}

// vaultToken takes the session's token from the one place where it may be, the records, which only root can read.
func (c *cluster) vaultToken() string {
	c.Helper()
	state := filepath.Join(c.driver.PluginDir, "state")
	info, err := os.Stat(state)
	c.ok(err)
	if info.Mode().Perm() != 0o700 {
		c.Errorf("the records' folder has mode %04o", info.Mode().Perm())
	}
	files, err := filepath.Glob(filepath.Join(state, "*.json"))
	c.ok(err)
	for _, f := range files {
		info, err := os.Stat(f)
		c.ok(err)
		if info.Mode().Perm() != 0o600 {
			c.Errorf("the record has mode %04o", info.Mode().Perm())
		}
		text, err := os.ReadFile(f)
		c.ok(err)
		if i := strings.Index(string(text), "hvs."); i >= 0 {
			token, _, _ := strings.Cut(string(text[i:]), `"`)
			return token
		}
	}
	c.Fatalf("no Vault token in %d records", len(files))
	return ""
}
