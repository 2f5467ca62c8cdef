// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/leasefs/leasefs/pkg/audit"
)

// Where things are on a node, relative to the kubelet's own folder.
const (
	defaultKubeletDir = "/var/lib/kubelet"
	pluginSubdir      = "plugins/csi.leasefs.io"
	registrySubdir    = "plugins_registry"
)

// maxSocketPath is what fits into a unix socket's address with its closing zero byte (unix(7)).
const maxSocketPath = 107

// errHelpShown: the command line asked for help and got it.
var errHelpShown = errors.New("help was shown")

// options are the flags of run.
type options struct {
	config          string
	endpoint        string // path of the CSI socket
	pluginDir       string
	stateDir        string
	kubeletDir      string
	registrationDir string // "": no registration
	nodeID          string
	httpAddress     string // "": no HTTP
	adminSocket     string // "": none
	logFormat       string
	logLevel        slog.Level
	auditLog        string
	events          bool
	lockMemory      bool
}

func newRunFlags(o *options) *flag.FlagSet {
	f := flag.NewFlagSet("leasefs run", flag.ContinueOnError)
	f.StringVar(&o.config, "config", "/etc/leasefs/config.yaml", "the configuration `file`; it is read again when it changes")
	f.StringVar(&o.kubeletDir, "kubelet-dir", defaultKubeletDir, "the kubelet's root `folder`; volumes are published only below its pods folder")
	f.StringVar(&o.pluginDir, "plugin-dir", "", "`folder` of the driver's own (default KUBELET-DIR/"+pluginSubdir+"); the kubelet must see it under the same path")
	f.StringVar(&o.stateDir, "state-dir", "", "`folder` on which the daemon mounts the tmpfs with its records (default PLUGIN-DIR/state)")
	f.StringVar(&o.endpoint, "endpoint", "", "`path` of the CSI socket, with or without unix:// (default PLUGIN-DIR/csi.sock)")
	f.StringVar(&o.registrationDir, "registration-dir", "", "`folder` in which the kubelet looks for plugins (default KUBELET-DIR/"+registrySubdir+"); set it to \"\" for no registration")
	f.StringVar(&o.nodeID, "node-id", "", "`name` of this node (required)")
	f.StringVar(&o.httpAddress, "http-address", ":9808", "`address` of /healthz, /readyz and /metrics; \"\": none")
	f.StringVar(&o.adminSocket, "admin-socket", "", "`path` of the socket that leasefs volumes asks (default PLUGIN-DIR/admin/admin.sock); set it to \"\" for none")
	f.StringVar(&o.logFormat, "log-format", "json", "`format` of the log: json or text")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "`level` from which on lines are logged: debug, info, warn or error")
	f.StringVar(&o.auditLog, "audit-log", audit.Off, "`file` of the audit log, - for standard output, or off")
	f.BoolVar(&o.events, "events", false, "write Events on the pods; it takes a pod's service account that may create and patch events")
	f.BoolVar(&o.lockMemory, "lock-memory", true, "keep the daemon's memory out of swap if this node has swap")
	return f
}

// parseRun reads the command line of run.
func parseRun(args []string, stdout io.Writer) (options, error) {
	var o options
	f := newRunFlags(&o)
	if err := parse(f, args, stdout); err != nil {
		return o, err
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })

	for name, path := range map[string]*string{"kubelet-dir": &o.kubeletDir, "plugin-dir": &o.pluginDir, "state-dir": &o.stateDir} {
		if given[name] && *path == "" {
			return o, usagef("--%s is empty", name)
		}
	}
	fill(&o.pluginDir, filepath.Join(o.kubeletDir, pluginSubdir), false)
	fill(&o.stateDir, filepath.Join(o.pluginDir, "state"), false)
	fill(&o.registrationDir, filepath.Join(o.kubeletDir, registrySubdir), given["registration-dir"])
	fill(&o.endpoint, filepath.Join(o.pluginDir, "csi.sock"), given["endpoint"])
	fill(&o.adminSocket, filepath.Join(o.pluginDir, "admin", "admin.sock"), given["admin-socket"])
	o.endpoint = strings.TrimPrefix(o.endpoint, "unix://")
	return o, o.check()
}

// fill sets *s to value if nobody has set it.
func fill(s *string, value string, given bool) {
	if *s == "" && !given {
		*s = value
	}
}

// check returns every fault of o as one error.
func (o *options) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.nodeID == "" {
		fault("--node-id is required: in a pod, take it from spec.nodeName")
	}
	if o.logFormat != "json" && o.logFormat != "text" {
		fault("--log-format is %q; it may be json or text", o.logFormat)
	}
	if o.endpoint == "" {
		fault("--endpoint is empty")
	}
	for _, p := range []struct{ flag, path string }{
		{"config", o.config}, {"kubelet-dir", o.kubeletDir}, {"plugin-dir", o.pluginDir}, {"state-dir", o.stateDir},
		{"endpoint", o.endpoint}, {"registration-dir", o.registrationDir}, {"admin-socket", o.adminSocket},
	} {
		if p.path != "" && !filepath.IsAbs(p.path) {
			fault("--%s is %q; it must be an absolute path", p.flag, p.path)
		}
	}
	for _, p := range []struct{ flag, path string }{{"endpoint", o.endpoint}, {"admin-socket", o.adminSocket}} {
		if len(p.path) > maxSocketPath {
			fault("--%s is %d bytes long; the path of a unix socket may have %d", p.flag, len(p.path), maxSocketPath)
		}
	}
	if o.auditLog == "" {
		fault("--audit-log is empty; it may be a file, - or off")
	}
	if o.httpAddress != "" {
		if _, _, err := net.SplitHostPort(o.httpAddress); err != nil {
			fault("--http-address is %q; it must be HOST:PORT or :PORT", o.httpAddress)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.Error()
	}
	return usagef("%s", strings.Join(texts, "; "))
}

// parse parses args, shows help on stdout if they ask for it, and turns every fault into one usage error.
func parse(f *flag.FlagSet, args []string, stdout io.Writer) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, "Flags of "+f.Name()+":\n"+flagHelp(f))
		return errHelpShown
	case err != nil:
		return usagef("%w; %s --help lists the flags", err, f.Name())
	case f.NArg() > 0:
		return usagef("%s takes no argument, and got %q", f.Name(), f.Arg(0))
	}
	return nil
}

// flagHelp lists the flags of f with two dashes, as everything else of Kubernetes writes them.
func flagHelp(f *flag.FlagSet) string {
	var s strings.Builder
	f.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		head := "--" + f.Name
		if value != "" {
			head += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(&s, "  %s\n      %s\n", head, text)
	})
	return s.String()
}

// newLogger returns the daemon's log.
func newLogger(o options, w io.Writer) *slog.Logger {
	h := &slog.HandlerOptions{Level: o.logLevel}
	if o.logFormat == "text" {
		return slog.New(slog.NewTextHandler(w, h))
	}
	return slog.New(slog.NewJSONHandler(w, h))
}

// defaultAdminSocket is where a daemon with default flags listens.
func defaultAdminSocket() string {
	if s := os.Getenv("LEASEFS_ADMIN_SOCKET"); s != "" {
		return s
	}
	return filepath.Join(defaultKubeletDir, pluginSubdir, "admin", "admin.sock")
}
