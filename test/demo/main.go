// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Command demo shows in less than a minute what leasefs does, on real parts: a Vault server, the leasefs program, a
// tmpfs, and PostgreSQL where it is installed. Only the kubelet is played, over the plugin's real socket.
//
// Everything that it says happened, it has checked; the exit status is 0 only if all of it did. It runs as root, or else
// in a user namespace of its own (unshare -Urm). With KEEP=1 in the environment it stays before the end, with commands to
// look around.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// limit bounds a demo that is not kept, once its parts are built.
const limit = 3 * time.Minute

// errNotAll: the demo went to its end, and something that it checked was not as it should be.
var errNotAll = errors.New("not all of it happened as it should; see ✗ above")

const inside = "LEASEFS_DEMO_INSIDE" // set in the user namespace

func main() {
	driver := flag.String("driver", "", "the leasefs `program` to show (default: built from cmd/driver)")
	flag.Parse()
	if os.Geteuid() != 0 {
		err := unshare()
		fmt.Fprintln(os.Stderr, "demo: it mounts, so it needs root or `unshare -Urm`:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	err := run(ctx, *driver, os.Getenv("KEEP") == "1")
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted && err != nil && !errors.Is(err, errNotAll):
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// unshare replaces this process by itself in a user namespace in which it may mount.
func unshare() error {
	if os.Getenv(inside) != "" {
		return errors.New("`unshare -Urm` did not make this process root")
	}
	program, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(program, append([]string{program, "-Urm", self}, os.Args[1:]...), append(os.Environ(), inside+"=1"))
}

// run is the whole demo: put up the stage, tell the story, say what was checked.
func run(ctx context.Context, driver string, keep bool) (err error) {
	s := newScreen(os.Stdout)
	s.title("leasefs: a pod's Vault secrets as files, kept true for as long as the pod lives")
	st, err := setUp(ctx, s, driver)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	if !keep {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return tell(ctx, s, st, keep)
}
