// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// Stamped by the build: -ldflags "-X main.version=v1.2.3 -X main.commit=HASH".
var (
	version = "dev"
	commit  = "" // "": what the go command has stamped, if it was built inside the repository
)

// revision returns the commit that the binary was built from, as far as it is known.
func revision() string {
	if commit != "" {
		return commit[:min(12, len(commit))]
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if rev == "" {
		return ""
	}
	return rev[:min(12, len(rev))] + dirty
}

func versionCommand(args []string, stdout io.Writer) error {
	if err := parse(flag.NewFlagSet("leasefs version", flag.ContinueOnError), args, stdout); err != nil {
		return err
	}
	rev := revision()
	if rev != "" {
		rev = " (" + rev + ")"
	}
	_, err := fmt.Fprintf(stdout, "leasefs %s%s %s %s/%s\n", version, rev, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
