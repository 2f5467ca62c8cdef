// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/config"
)

// parse reads the rendered configuration as the daemon does.
func parse(t *testing.T, m manifests) *config.Config {
	t.Helper()
	c, err := config.Parse([]byte(m.config.Data["config.yaml"]), "/etc/leasefs")
	if err != nil {
		t.Fatalf("the rendered configuration has a fault: %v\n%s", err, m.config.Data["config.yaml"])
	}
	return c
}

func TestConfigurationIsPassedOnAsItStands(t *testing.T) {
	c := parse(t, render(t, `
image: {repository: x}
connections:
- name: default
  address: https://vault.example.com:8200
  serverName: vault
  namespace: teams/default
  allowedNamespaces: [teams/*]
  authMethod: jwt
  authMount: jwt/cluster-1
  audience: https://vault.example.com
  role: pods
  requestRate: 0.5
  requestBurst: 100000
  requestTimeout: 5s
  maxResponseSize: 8388608
  cacheTTL: 1h
  cacheSize: 100000
  allowedRedirects: ["https://vault-0.example.com:8200"]
  proxyFromEnvironment: true
- {name: dev, address: "http://vault.dev:8200", allowInsecureHTTP: true, cacheTTL: 0}
defaults:
  refreshInterval: 1h30m
  minRefreshInterval: 1s
  volumeSize: 65536
  maxVolumeSize: 2Mi
  nodeBudget: 1073741824
  fileMode: "0400"
  credentialGrace: 0
  generationGrace: 2s
  publishTimeout: 45s
  selinuxContext: system_u:object_r:container_file_t:s0
`))
	first, d := c.Connections[0], c.Defaults
	for name, ok := range map[string]bool{
		"two connections": len(c.Connections) == 2 && c.Connections[1].AllowInsecureHTTP,
		"login":           first.AuthMethod == "jwt" && first.AuthMount == "jwt/cluster-1" && first.Audience == "https://vault.example.com" && first.Role == "pods",
		"namespaces":      first.Namespace == "teams/default" && len(first.AllowedNamespaces) == 1,
		"limits": first.RequestRate == 0.5 && first.RequestBurst == 100000 && first.RequestTimeout == 5*time.Second &&
			first.MaxResponseSize == 8<<20 && first.CacheTTL == time.Hour && first.CacheSize == 100000,
		"redirects": len(first.AllowedRedirects) == 1 && first.ProxyFromEnvironment,
		"sizes":     d.VolumeSize == 64<<10 && d.MaxVolumeSize == 2<<20 && d.NodeBudget == 1<<30,
		"durations": d.RefreshInterval == 90*time.Minute && d.CredentialGrace == 0 && d.GenerationGrace == 2*time.Second && d.PublishTimeout == 45*time.Second,
		"mode":      d.FileMode == 0o400,
	} {
		if !ok {
			t.Errorf("%s: not what was given: %+v", name, c)
		}
	}
}

// programDir is where the driver is built.
var programDir string

func TestMain(m *testing.M) {
	var err error
	if programDir, err = os.MkdirTemp("", "leasefs-deploy-"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(programDir)
	os.Exit(status)
}

// program is the driver, built once.
var program = sync.OnceValues(func() (string, error) {
	file := filepath.Join(programDir, "leasefs")
	if out, err := exec.Command("go", "build", "-o", file, "../../cmd/driver").CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return file, nil
})

// run runs the driver and returns its exit status and all that it printed.
func run(t *testing.T, args ...string) (int, string) {
	t.Helper()
	look(t, "../../cmd", "../../pkg")
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), file, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

func TestTheProgramFindsTheRenderedConfigurationSound(t *testing.T) {
	for name, values := range map[string]string{"least": least, "OpenShift": onOpenShift} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(render(t, values).config.Data["config.yaml"]), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, out := run(t, "check", "--config", file); status != 0 || !strings.Contains(out, "is sound") {
			t.Errorf("%s: status %d\n%s", name, status, out)
		}
	}
}

// The driver reads its flags before its configuration: with a configuration that is not there, a complaint about that
// alone means that every flag was accepted.
func TestTheProgramTakesTheRenderedArguments(t *testing.T) {
	arguments := func(m manifests) []string {
		var args []string
		for _, a := range m.container().Args {
			args = append(args, strings.ReplaceAll(strings.ReplaceAll(a, "$(NODE_NAME)", "node-1"), "/etc/leasefs/", t.TempDir()+"/"))
		}
		return args
	}
	const noConfiguration = "reading the configuration"
	for name, values := range map[string]string{
		"least": least, "everything": all,
		"all of the other values": least + "log: {level: warn, format: text}\nauditLog: stdout\nhttp: {port: 1234}\nevents: {enabled: false}\nkubeletDir: /k",
	} {
		status, out := run(t, arguments(render(t, values))...)
		if status != 2 || !strings.Contains(out, noConfiguration) || strings.Contains(out, "--") {
			t.Errorf("%s: status %d\n%s", name, status, out)
		}
	}
	if status, out := run(t, append(arguments(render(t, least)), "--no-such-flag")...); status != 2 || strings.Contains(out, noConfiguration) {
		t.Errorf("a wrong flag goes unnoticed: status %d\n%s", status, out)
	}
	if status, out := run(t, append(arguments(render(t, least)), "--log-format=xml")...); status != 2 || strings.Contains(out, noConfiguration) {
		t.Errorf("a wrong value of a flag goes unnoticed: status %d\n%s", status, out)
	}
}
