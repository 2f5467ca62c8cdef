// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/leasefs/leasefs/pkg/config"
	"github.com/leasefs/leasefs/pkg/vault"
)

// checkCommand is `leasefs check`: it reads a configuration as the daemon would, and says what pods may do with it. It
// asks no Vault.
func checkCommand(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("leasefs check", flag.ContinueOnError)
	file := f.String("config", "/etc/leasefs/config.yaml", "the configuration `file`")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	cfg, err := config.Load(*file)
	if err != nil {
		return &usageError{err}
	}
	pool := vault.NewPool(nil)
	defer pool.Close()
	if err := pool.Update(cfg.VaultConfigs()); err != nil {
		return &usageError{fmt.Errorf("%s: %w", *file, err)}
	}
	_, _ = fmt.Fprintf(stdout, "%s is sound.\n\n", *file)
	return describe(stdout, cfg)
}

// describe says what cfg allows.
func describe(w io.Writer, cfg *config.Config) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	for _, c := range cfg.Connections {
		note := ""
		if c.Name == config.DefaultConnection {
			note = " (of pods that name none)"
		}
		_, _ = fmt.Fprintf(t, "Connection %s%s\n", c.Name, note)
		row("address", "%s", c.Address)
		row("trusts", "%s", trusts(c))
		row("login", "%s at auth/%s, audience %s, role %s", c.AuthMethod, c.AuthMount, cmp.Or(c.Audience, "of the API server"), cmp.Or(c.Role, "named by the pod"))
		row("namespace", "%s; pods may name %s", cmp.Or(c.Namespace, "root"), cmp.Or(strings.Join(c.AllowedNamespaces, ", "), "no other"))
		row("requests", "%s, each at most %s and %s", rate(c), c.RequestTimeout, bytes(c.MaxResponseSize))
		row("redirects", "to %s", cmp.Or(strings.Join(c.AllowedRedirects, ", "), "its own address only"))
		_, _ = io.WriteString(t, "\n")
	}
	d := cfg.Defaults
	_, _ = io.WriteString(t, "Volumes\n")
	row("read again every", "%s, at least %s", d.RefreshInterval, d.MinRefreshInterval)
	row("size", "%s, at most %s", bytes(d.VolumeSize), bytes(d.MaxVolumeSize))
	row("all together", "%s", cmp.Or(map[bool]string{true: "no limit"}[d.NodeBudget == 0], bytes(d.NodeBudget)))
	row("grace", "%s for replaced credentials, %s for replaced files", d.CredentialGrace, d.GenerationGrace)
	row("pods' tokens", "in the request's %s", map[string]string{config.TokenInSecrets: "secrets", config.TokenInVolumeContext: "volume context"}[d.TokenTransport])
	return t.Flush()
}

func trusts(c config.Connection) string {
	switch {
	case strings.HasPrefix(c.Address, "http://"):
		return "anybody: the connection is not encrypted"
	case c.CAFile != "":
		return c.CAFile
	case len(c.CAPEM) > 0:
		return "the certificates in the file"
	default:
		return "the system's certificates"
	}
}

func rate(c config.Connection) string {
	if c.RequestRate == 0 {
		return "any number"
	}
	return fmt.Sprintf("%g per second, %d at once", c.RequestRate, cmp.Or(c.RequestBurst, max(1, int(c.RequestRate))))
}

func bytes(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }
