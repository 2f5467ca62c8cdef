// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/leasefs/leasefs/test/harness/internal/process"
	"github.com/leasefs/leasefs/test/harness/internal/repo"
	"github.com/leasefs/leasefs/test/harness/internal/scratch"
)

const (
	driverStartTimeout = time.Minute // of a busy machine
	driverStopPatience = time.Minute
)

// DriverOptions is how the driver is to be run.
type DriverOptions struct {
	// Config is the configuration file, as YAML. Required.
	Config string
	// Binary is the program; "" is what [BuildDriver] returns.
	Binary string
	// Dir is a folder for everything; "" is a new one. Its path must be short: it holds unix sockets.
	Dir string
	// Args are flags to add to, or to override, the harness's own.
	Args []string
	// Env is added to this process's environment.
	Env []string
	// Wrapper is a command to run the driver with, one that ends by executing it, such as
	// {"unshare", "-m", "--propagation", "slave"}.
	Wrapper []string
}

// Driver is the real leasefs program on a node of its own: a folder with a kubelet's root folder in it. Killing it and
// starting it again leaves its mounts, like a container that is replaced. Its methods are not for concurrent use, but for
// Log, Audit and Metrics.
type Driver struct {
	KubeletDir  string
	PluginDir   string
	Socket      string // the CSI socket
	RegSocket   string // the registration socket
	AdminSocket string
	ConfigFile  string
	AuditFile   string
	HTTPAddress string
	Binary      string

	opts DriverOptions
	dir  string
	proc *process.Process
}

// StartDriver runs the driver until the end of the test, and then unmounts and removes all of its folder. When the test
// has failed, the driver's log is shown.
func StartDriver(tb testing.TB, opts DriverOptions) *Driver {
	tb.Helper()
	d, err := RunDriver(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the driver's last lines:\n%s", d.proc.Tail(60))
		}
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	return d
}

// RunDriver makes the folders of a node, starts the driver and waits until it is ready. The caller closes it. The driver
// ends with this process, whatever ends it; its folder and mounts stay then, and the next driver's start removes them.
func RunDriver(ctx context.Context, opts DriverOptions) (_ *Driver, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("running the driver: it mounts, so this needs root; run it inside `unshare -Urm`")
	}
	if opts.Binary == "" {
		if opts.Binary, err = BuildDriver(ctx); err != nil {
			return nil, err
		}
	}
	if opts.Dir == "" {
		if opts.Dir, err = scratch.Dir("leasefs-node-"); err != nil {
			return nil, fmt.Errorf("making a node's folder: %w", err)
		}
	}
	kubelet := filepath.Join(opts.Dir, "kubelet")
	plugin := filepath.Join(kubelet, "plugins", "csi.leasefs.io")
	d := &Driver{
		KubeletDir: kubelet, PluginDir: plugin, Binary: opts.Binary,
		Socket:      filepath.Join(plugin, "csi.sock"),
		RegSocket:   filepath.Join(kubelet, "plugins_registry", "csi.leasefs.io-reg.sock"),
		AdminSocket: filepath.Join(plugin, "admin", "admin.sock"),
		ConfigFile:  filepath.Join(opts.Dir, "config.yaml"),
		AuditFile:   filepath.Join(opts.Dir, "audit.log"),
		opts:        opts, dir: opts.Dir,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	for _, sub := range []string{"pods", "plugins", "plugins_registry"} {
		if err := os.MkdirAll(filepath.Join(kubelet, sub), 0o750); err != nil {
			return nil, fmt.Errorf("making a node's folders: %w", err)
		}
	}
	port, err := repo.FreePort()
	if err != nil {
		return nil, err
	}
	d.HTTPAddress = fmt.Sprintf("127.0.0.1:%d", port)
	if err := d.WriteConfig(opts.Config); err != nil {
		return nil, err
	}
	return d, d.Start(ctx)
}

// WriteConfig replaces the configuration file. A running driver takes it up by itself.
func (d *Driver) WriteConfig(yaml string) error {
	next := d.ConfigFile + ".next"
	if err := os.WriteFile(next, []byte(yaml), 0o600); err != nil {
		return fmt.Errorf("writing the driver's configuration: %w", err)
	}
	if err := os.Rename(next, d.ConfigFile); err != nil {
		return fmt.Errorf("writing the driver's configuration: %w", err)
	}
	return nil
}

// Kubelet returns a kubelet whose plugin this driver is.
func (d *Driver) Kubelet(issuer *Issuer) *Kubelet {
	return &Kubelet{Root: d.KubeletDir, Socket: d.Socket, Issuer: issuer}
}

// Start starts the driver, which must not be running, and waits until it answers on its CSI socket.
func (d *Driver) Start(ctx context.Context) error {
	if d.Running() {
		return errors.New("starting the driver: it is running")
	}
	args := append([]string{d.Binary, "run",
		"--config=" + d.ConfigFile, "--kubelet-dir=" + d.KubeletDir, "--node-id=node-1", "--http-address=" + d.HTTPAddress,
		"--audit-log=" + d.AuditFile, "--log-format=text", "--log-level=debug", "--lock-memory=false",
	}, d.opts.Args...)
	command := append(append([]string{}, d.opts.Wrapper...), args...)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), d.opts.Env...)
	proc, err := process.Start(cmd, filepath.Join(d.dir, "driver.log"), syscall.SIGKILL)
	if err != nil {
		return err
	}
	d.proc = proc
	ctx, cancel := context.WithTimeout(ctx, driverStartTimeout)
	defer cancel()
	return proc.Await(ctx, func(ctx context.Context) (err error) {
		client, err := Dial(d.Socket) // a new one each time: gRPC waits a second and more before it dials again
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, client.Close()) }()
		return client.Ready(ctx)
	})
}

// Running tells whether the driver's process is there.
func (d *Driver) Running() bool { return d.proc != nil && d.proc.Running() }

// PID returns the process id of the driver that was started last.
func (d *Driver) PID() int { return d.proc.PID() }

// Kill ends the driver with SIGKILL. Start starts it again on the same node.
func (d *Driver) Kill() error { return d.proc.Kill() }

// Stop ends the driver with SIGTERM. An exit status other than 0 is an error.
func (d *Driver) Stop(ctx context.Context) error {
	if err := d.proc.Stop(ctx, syscall.SIGTERM, driverStopPatience); err != nil {
		return err
	}
	if code := d.proc.ExitCode(); code != 0 {
		return fmt.Errorf("the driver ended with status %d; its last lines:\n%s", code, d.proc.Tail(15))
	}
	return nil
}

// Signal sends a signal to the driver, for example SIGSTOP.
func (d *Driver) Signal(sig syscall.Signal) error { return d.proc.Signal(sig) }

// Exited is closed when the driver that was started last has ended.
func (d *Driver) Exited() <-chan struct{} { return d.proc.Done() }

// Log returns all that drivers on this node have written to standard output and error.
func (d *Driver) Log() string { return d.proc.Log() }

// Metrics returns the text of /metrics.
func (d *Driver) Metrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.HTTPAddress+"/metrics", nil)
	if err != nil {
		return "", fmt.Errorf("asking for metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking for metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return "", fmt.Errorf("asking for metrics: %w", err)
	}
	return string(text), nil
}

// Command returns a command that runs the driver's program with other arguments, with what it needs to find the running
// daemon, for example "volumes", "-o", "json".
func (d *Driver) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.Binary, args...)
	cmd.Env = append(os.Environ(), "LEASEFS_ADMIN_SOCKET="+d.AdminSocket)
	return cmd
}

// Mounts returns the mount points of this process's mount namespace that are below the node's folder, in the order in
// which they were mounted.
func (d *Driver) Mounts() ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(d.dir))
	if err != nil {
		return nil, fmt.Errorf("listing the node's mounts: %w", err)
	}
	var out []string
	for _, info := range infos {
		out = append(out, info.Mountpoint)
	}
	return out, nil
}

// Volumes returns those of Mounts that are volumes of pods.
func (d *Driver) Volumes() ([]string, error) {
	all, err := d.Mounts()
	var out []string
	for _, m := range all {
		if strings.HasPrefix(m, filepath.Join(d.KubeletDir, "pods")+"/") {
			out = append(out, m)
		}
	}
	return out, err
}

// Close kills the driver, unmounts all that is below the node's folder and removes it.
func (d *Driver) Close() error {
	if d.proc != nil {
		if err := d.proc.Kill(); err != nil {
			return err
		}
	}
	return scratch.Remove(d.dir)
}
