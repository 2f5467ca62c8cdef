// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Command leasefs is the node daemon and CSI node plugin, and the tool with which a person looks at it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1 // something went wrong while running
	exitUsage   = 2 // a flag or the configuration is wrong; starting again as it stands is of no use
)

const help = `leasefs mounts Vault secrets into pods and keeps them true for as long as the pods live.

Usage:
  leasefs [run] [flags]       the daemon of a node (the default)
  leasefs volumes [flags]     show the volumes of this node's daemon
  leasefs check --config F    read a configuration file and say what it allows
  leasefs version             say which build this is

leasefs COMMAND --help lists the flags of a command.
`

// usageError is a fault of whoever wrote the command line or the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// errLogged: the command failed and has said so in its log.
var errLogged = errors.New("failed; see the log")

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func main() {
	harden()
	os.Exit(dispatch(os.Args[1:], os.Stdout, os.Stderr))
}

// dispatch runs one sub-command and returns the exit status.
func dispatch(args []string, stdout, stderr io.Writer) int {
	command, rest := "run", args
	if len(args) > 0 && (args[0] == "" || args[0][0] != '-') {
		command, rest = args[0], args[1:]
	}
	var err error
	switch {
	case command == "help", len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help"):
		_, _ = io.WriteString(stdout, help+"\nFlags of run:\n"+flagHelp(newRunFlags(&options{})))
	case command == "run":
		err = runCommand(rest, stdout, stderr)
	case command == "volumes":
		err = volumesCommand(rest, stdout)
	case command == "check":
		err = checkCommand(rest, stdout)
	case command == "version":
		err = versionCommand(rest, stdout)
	default:
		err = usagef("unknown command %q; leasefs help lists the commands", command)
	}
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, errHelpShown):
		return exitOK
	case errors.Is(err, errLogged):
		return exitFailure
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "leasefs: %v\n", err)
		return exitUsage
	default:
		_, _ = fmt.Fprintf(stderr, "leasefs: %v\n", err)
		return exitFailure
	}
}
