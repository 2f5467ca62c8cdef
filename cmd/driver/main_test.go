// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

// reenter makes the test binary behave like the program: with its value "main" it is leasefs, with "harden" it says what
// harden has done to it.
const reenter = "LEASEFS_TEST_REENTER"

func TestMain(m *testing.M) {
	switch os.Getenv(reenter) {
	case "main":
		main()
	case "harden":
		harden()
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		var core unix.Rlimit
		err = errors.Join(err, unix.Getrlimit(unix.RLIMIT_CORE, &core))
		fmt.Printf("dumpable=%d core=%d/%d traceback=%s err=%v\n", dumpable, core.Cur, core.Max, os.Getenv("GOTRACEBACK"), err)
	case "":
		mounttest.Main(m)
	}
}

// leasefs runs the program to its end.
func leasefs(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), self(t), args...)
	cmd.Env = append(os.Environ(), reenter+"=main")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// file writes a file into a folder of the test's own.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shortDir is a folder whose path leaves room for a unix socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lfs") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

const soundConfig = "connections:\n- {name: default, address: 'http://127.0.0.1:1', authMethod: jwt, role: app}\n"

// A fault of whoever started it: status 2 and one line that says what to change.
func TestWrongCommandLineOrConfigurationIsOneMessageAndStatus2(t *testing.T) {
	sound := file(t, "config.yaml", soundConfig)
	dir := shortDir(t)
	run := func(args ...string) []string {
		return append([]string{"run", "--node-id=n", "--config=" + sound}, args...)
	}
	cases := map[string]struct {
		args []string
		want string // in the message
	}{
		"unknown command":               {[]string{"frobnicate"}, `unknown command "frobnicate"`},
		"unknown flag":                  {run("--colour"), "-colour; leasefs run --help"},
		"unknown flag without command":  {[]string{"--colour"}, "-colour; leasefs run --help"},
		"argument":                      {run("now"), `takes no argument, and got "now"`},
		"no node id":                    {[]string{"run", "--config=" + sound}, "--node-id is required"},
		"log format":                    {run("--log-format=xml"), `--log-format is "xml"`},
		"log level":                     {run("--log-level=loud"), "-log-level"},
		"relative endpoint":             {run("--endpoint=csi.sock"), `--endpoint is "csi.sock"; it must be an absolute path`},
		"empty endpoint":                {run("--endpoint="), "--endpoint is empty"},
		"empty plugin folder":           {run("--plugin-dir="), "--plugin-dir is empty"},
		"endpoint of another kind":      {run("--endpoint=tcp://127.0.0.1:1"), "must be an absolute path"},
		"endpoint too long":             {run("--endpoint=/" + strings.Repeat("x", 107)), "108 bytes long; the path of a unix socket may have 107"},
		"HTTP address without a port":   {run("--http-address=localhost"), "it must be HOST:PORT or :PORT"},
		"empty audit log":               {run("--audit-log="), "--audit-log is empty"},
		"audit log in no folder":        {run("--audit-log=" + dir + "/no/audit.log"), "opening the audit log"},
		"registration folder not there": {run("--kubelet-dir="+dir, "--registration-dir="+dir+"/no"), "does not exist"},
		"two faults at once":            {run("--log-format=xml", "--http-address=x"), "it must be HOST:PORT"},
		"configuration not there":       {[]string{"run", "--node-id=n", "--config=/no/such"}, "/no/such: no such file"},
		"configuration with a fault":    {[]string{"run", "--node-id=n", "--config=" + file(t, "c.yaml", soundConfig+"colour: red\n")}, "colour"},
		"check: file not there":         {[]string{"check", "--config=/no/such"}, "/no/such: no such file"},
		"check: http to another host":   {[]string{"check", "--config=" + file(t, "c.yaml", strings.ReplaceAll(soundConfig, "127.0.0.1:1", "vault.example.com"))}, "allowInsecureHTTP"},
		"volumes: output":               {[]string{"volumes", "-o", "xml"}, `-o is "xml"`},
		"version: argument":             {[]string{"version", "please"}, "takes no argument"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := leasefs(t, c.args...)
			if status != 2 || stdout != "" {
				t.Errorf("status %d, want 2; standard output %q", status, stdout)
			}
			if !strings.HasPrefix(stderr, "leasefs: ") || !strings.Contains(stderr, c.want) || strings.Contains(stderr, `"level"`) {
				t.Errorf("want one message with %q, got:\n%s", c.want, stderr)
			}
		})
	}
}

func TestRuntimeFailureIsLoggedAndStatus1(t *testing.T) {
	dir := shortDir(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := leasefs(t, "run", "--node-id=n", "--config="+file(t, "c.yaml", soundConfig), "--kubelet-dir="+dir, "--registration-dir=", "--plugin-dir="+dir+"/file/x")
	if status != 1 || !strings.Contains(stderr, `"level":"ERROR","msg":"leasefs failed"`) || strings.Count(stderr, "ERROR") != 1 {
		t.Errorf("status %d, want 1 and one error in the log:\n%s", status, stderr)
	}
}

func TestVolumesWithoutADaemonIsStatus1(t *testing.T) {
	status, stdout, stderr := leasefs(t, "volumes", "--admin-socket="+t.TempDir()+"/admin.sock")
	if status != 1 || stdout != "" || !strings.Contains(stderr, "is it running, and are you root?") {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

func TestHelpIsOnStandardOutput(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"-h"}, {"run", "--help"}, {"volumes", "-h"}, {"check", "--help"}} {
		status, stdout, stderr := leasefs(t, args...)
		if status != 0 || stdout == "" || stderr != "" {
			t.Errorf("%v: status %d, %d bytes on standard output, standard error %q", args, status, len(stdout), stderr)
		}
	}
}

func TestHelpListsEveryFlagOfRun(t *testing.T) {
	_, stdout, _ := leasefs(t, "help")
	for _, name := range []string{"config", "endpoint", "plugin-dir", "state-dir", "kubelet-dir", "registration-dir", "node-id", "http-address", "admin-socket", "log-format", "log-level", "audit-log", "lock-memory"} {
		if !strings.Contains(stdout, "  --"+name) {
			t.Errorf("no --%s in:\n%s", name, stdout)
		}
	}
}

func TestVersionSaysWhatIsRunning(t *testing.T) {
	status, stdout, _ := leasefs(t, "version")
	if status != 0 || !strings.HasPrefix(stdout, "leasefs dev") || !strings.Contains(stdout, runtime.Version()) {
		t.Errorf("status %d: %s", status, stdout)
	}
}

func TestCheckSaysWhatIsAllowed(t *testing.T) {
	config := file(t, "config.yaml", `connections:
- name: default
  address: https://vault.example.com:8200
  audience: vault
  namespace: team
  allowedNamespaces: [team/*]
  requestRate: 50
- {name: lab, address: 'http://127.0.0.1:8200', authMethod: jwt, role: app}
`)
	status, stdout, stderr := leasefs(t, "check", "--config="+config)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	golden(t, "check.golden", strings.ReplaceAll(stdout, config, "config.yaml"))
}

func TestHardenedProcessLeavesNoCore(t *testing.T) {
	cmd := exec.Command(self(t))
	cmd.Env = append(os.Environ(), reenter+"=harden", "GOTRACEBACK=crash")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), "dumpable=0 core=0/0 traceback=single err=<nil>\n"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}
