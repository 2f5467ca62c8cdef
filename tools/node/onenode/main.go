// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Command onenode starts and stops a one-node Kubernetes for tests: real servers, in namespaces of its own. See the
// README in the folder above.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const usage = `usage: onenode COMMAND [OPTIONS]

  up [-programs DIR] [-sync 1m]      start a node; -sync is the kubelet's period, a republish comes every 1 to 1.5 of it
  down                               end it and remove everything
  check-clean                        say what of any run is left on this machine; exit status 1 when anything is
  exec [-node] COMMAND [ARG...]      run a program where the API server is, or, with -node, where the kubelet and the
                                     pods' mounts are
  status                             units with their process ids, as seen by exec without -node
  start UNIT, stop [-kill] UNIT      UNIT: etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet
  reboot                             cut the node's power: pods, mounts and /run are gone; then start it again
  image -ref NAME -out FILE [...]    make a container image's tar from local files, see onenode image -h
  load FILE...                       give images to the node's runtime

Every command takes -run DIR, the run folder (default $LEASEFS_NODE_RUN, or leasefs-node in the folder for temporary files).
`

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "node: "+format+"\n", args...) }

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := command(ctx, os.Args[1], os.Args[2:])
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		say("%s: %s", os.Args[1], err)
		os.Exit(1)
	}
}

func command(ctx context.Context, name string, args []string) error {
	flags := flag.NewFlagSet("onenode "+name, flag.ContinueOnError)
	run := flags.String("run", defaultRun(), "the run folder")
	switch name {
	case "up":
		programs := flags.String("programs", "", "the folder that ensure.sh printed")
		sync := flags.String("sync", "1m", "the kubelet's syncFrequency")
		if err := parse(flags, args, run); err != nil {
			return err
		}
		return up(ctx, layout{Run: *run, Programs: *programs, Sync: *sync})
	case "down":
		if err := parse(flags, args, run); err != nil {
			return err
		}
		return down(*run)
	case "check-clean":
		if err := parse(flags, args, run); err != nil {
			return err
		}
		if left := leftovers(*run); len(left) != 0 {
			return errors.New("left: " + strings.Join(left, "; "))
		}
		say("nothing is left")
		return nil
	case "image":
		return imageCommand(flags, args)
	case "machine", "node":
		if err := parse(flags, args, run); err != nil {
			return err
		}
		l, err := load(*run)
		if err != nil {
			return err
		}
		return map[string]func(layout) error{"machine": runMachine, "node": runNode}[name](l)
	}
	return liveCommand(ctx, flags, name, args, run)
}

// liveCommand is one that needs a run.
func liveCommand(ctx context.Context, flags *flag.FlagSet, name string, args []string, run *string) error {
	inside := flags.Bool("node", false, "in the node's own namespaces")
	kill := flags.Bool("kill", false, "with SIGKILL")
	if err := parse(flags, args, run); err != nil {
		return err
	}
	l, err := load(*run)
	if err != nil {
		return err
	}
	rest := flags.Args()
	socketOf := func(unit string) string {
		if inNode[unit] {
			return l.socket("node")
		}
		return l.socket("machine")
	}
	switch {
	case name == "exec" && len(rest) > 0:
		return enter(l, *inside, rest)
	case name == "status":
		return printStatus(ctx, l)
	case name == "start" && len(rest) == 1:
		return ask(ctx, socketOf(rest[0]), http.MethodPost, "/start?unit="+url.QueryEscape(rest[0]), nil)
	case name == "stop" && len(rest) == 1:
		order := "/stop?unit=" + url.QueryEscape(rest[0])
		if *kill {
			order += "&signal=KILL"
		}
		return ask(ctx, socketOf(rest[0]), http.MethodPost, order, nil)
	case name == "reboot":
		return ask(ctx, l.socket("machine"), http.MethodPost, "/reboot", nil)
	case name == "load" && len(rest) > 0:
		for _, file := range rest {
			if file, err = filepath.Abs(file); err != nil {
				return err
			}
			if err := enter(l, true, []string{l.debian("usr/bin/ctr"), "-n", "k8s.io", "images", "import", file}); err != nil {
				return fmt.Errorf("importing %s: %w", file, err)
			}
		}
		return nil
	}
	fmt.Fprint(os.Stderr, usage)
	return flag.ErrHelp
}

func defaultRun() string {
	if run := os.Getenv(runEnv); run != "" {
		return run
	}
	return filepath.Join(os.TempDir(), "leasefs-node")
}

func parse(flags *flag.FlagSet, args []string, run *string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	abs, err := filepath.Abs(*run)
	*run = abs
	return err
}

// enter runs a program in the run's namespaces, with this process's working directory, and waits for it. It works from
// inside of the run too: the namespaces of the node are below those of the machine.
func enter(l layout, inside bool, args []string) error {
	role, kinds := "machine", []string{"-m", "-n", "-p"}
	if inside {
		role, kinds = "node", []string{"-m", "-n", "-p", "-i", "-u"}
	}
	pid := supervisorPID(l, role)
	if pid == 0 {
		return fmt.Errorf("the %s of %s does not run", role, l.Run)
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	argv := append([]string{fmt.Sprintf("--target=%d", pid)}, kinds...)
	argv = append(argv, "--", "/bin/sh", "-c", `cd "$1" 2>/dev/null; shift; exec "$@"`, "sh", wd)
	cmd := exec.Command("nsenter", append(argv, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), partOf+"="+l.Run, runEnv+"="+l.Run, "KUBECONFIG="+l.kubeconfig())
	return cmd.Run()
}

func printStatus(ctx context.Context, l layout) error {
	for _, name := range []string{"machine", "node"} {
		var s status
		if err := ask(ctx, l.socket(name), http.MethodGet, "/status", &s); err != nil {
			return err
		}
		for unit, pid := range s.Units {
			where := "machine"
			if inNode[unit] {
				where = "node"
			}
			fmt.Printf("%-24s %6d  (%s)\n", unit, pid, where)
		}
	}
	return nil
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

func imageCommand(flags *flag.FlagSet, args []string) error {
	var i image
	var files, links, entrypoint, env list
	out := flags.String("out", "", "the tar to write")
	dockerfile := flags.String("dockerfile", "", "take the last stage of this Dockerfile; -file says which local file is which that it copies")
	flags.StringVar(&i.Ref, "ref", "", "the image's full name, such as localhost/leasefs:dev")
	flags.StringVar(&i.User, "user", "", "user, or user:group, that the image runs as")
	flags.Var(&files, "file", "LOCAL=PATH: copy a file to an absolute path of the image (repeatable)")
	flags.Var(&links, "link", "TARGET=PATH: a symlink in the image (repeatable)")
	flags.Var(&entrypoint, "entrypoint", "one word of the entry point (repeatable)")
	flags.Var(&env, "env", "NAME=VALUE (repeatable)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if i.Ref == "" || *out == "" || len(files) == 0 {
		return errors.New("-ref, -out and at least one -file are needed")
	}
	i.Entrypoint, i.Env = entrypoint, env
	if *dockerfile != "" {
		return i.fromDockerfile(*dockerfile, files, *out)
	}
	for n, pair := range append(files, links...) {
		source, path, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%q has no =", pair)
		}
		f := imageFile{Path: path, Source: source}
		if n >= len(files) {
			f = imageFile{Path: path, Link: source}
		}
		i.Files = append(i.Files, f)
	}
	return i.writeTo(*out)
}

func (i image) fromDockerfile(dockerfile string, files []string, out string) error {
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		return err
	}
	have := map[string]string{}
	for _, pair := range files {
		source, path, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%q has no =", pair)
		}
		have[path] = source
	}
	if err := i.lastStage(string(text), have); err != nil {
		return fmt.Errorf("%s: %w", dockerfile, err)
	}
	return i.writeTo(out)
}
