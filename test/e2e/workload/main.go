// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Command workload is the application in the containers of the end-to-end tests. It uses its files as a careful
// application does and writes what it sees to standard output, one JSON object a line.
//
//	workload watch DIR             every change of ..data, by inotify
//	workload pair DIR              whether tls.crt and tls.key of one open of ..data match, at every read
//	workload database DIR HOST:PORT   a login with username and password of one open of ..data, again and again
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// period is that of a summary line.
const period = time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

// run ends with an error always: at the latest with that of ctx.
func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "watch":
		return watch(ctx, args[1])
	case len(args) == 2 && args[0] == "pair":
		return pair(ctx, args[1])
	case len(args) == 3 && args[0] == "database":
		return database(ctx, args[1], args[2])
	}
	return fmt.Errorf("cannot do %q", args)
}

// line writes one object. It panics when nobody can read it: the test would wait for nothing.
func line(v any) {
	data, err := json.Marshal(v)
	if err == nil {
		_, err = os.Stdout.Write(append(data, '\n'))
	}
	if err != nil {
		panic(err)
	}
}

// now is the time in the form that every line has.
func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
