// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/leasefs/leasefs/pkg/admin"
)

// adminTimeout bounds one question to the daemon.
const adminTimeout = 15 * time.Second

func volumesCommand(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("leasefs volumes", flag.ContinueOnError)
	output := f.String("o", "table", "table or json")
	socket := f.String("admin-socket", defaultAdminSocket(), "`path` of the daemon's admin socket; $LEASEFS_ADMIN_SOCKET changes the default")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	if *output != "table" && *output != "json" {
		return usagef("-o is %q; it may be table or json", *output)
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	list, err := admin.Volumes(ctx, *socket)
	if err != nil {
		return err
	}
	if *output == "json" {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(list)
	}
	return writeTable(stdout, list)
}

// writeTable writes list for a person. Times are told from list.Time, the daemon's own clock.
func writeTable(w io.Writer, list admin.List) error {
	if len(list.Volumes) == 0 {
		_, err := io.WriteString(w, "no volumes on this node\n")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	_, _ = io.WriteString(t, "POD\tCONNECTION\tROLE\tPHASE\tFILES\tLEASES\tNEXT\tEXPIRES\tLAST ERROR\n")
	for _, v := range list.Volumes {
		row := []string{
			v.Namespace + "/" + v.Pod, v.Connection, v.Role, v.Phase, someOf(v.Files, 3), kinds(v.Leases),
			next(v, list.Time), expires(v, list.Time), v.LastError,
		}
		for i := range row {
			row[i] = cell(row[i])
		}
		_, _ = io.WriteString(t, strings.Join(row, "\t")+"\n")
	}
	if list.Truncated {
		_, _ = fmt.Fprintf(t, "... more than %d volumes\n", admin.MaxVolumes)
	}
	return t.Flush()
}

// someOf lists at most n names, and how many more there are.
func someOf(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ",")
	}
	return fmt.Sprintf("%s,+%d", strings.Join(names[:n], ","), len(names)-n)
}

// kinds counts the kinds of leases: "2 renewable,plain".
func kinds(leases []admin.Lease) string {
	count := map[string]int{}
	for _, l := range leases {
		count[l.Kind]++
	}
	var parts []string
	for _, kind := range slices.SortedFunc(maps.Keys(count), cmp.Compare[string]) {
		if n := count[kind]; n > 1 {
			kind = fmt.Sprintf("%d %s", n, kind)
		}
		parts = append(parts, kind)
	}
	return strings.Join(parts, ",")
}

// when tells t from now: "in 5m", or that it is past.
func when(t, now time.Time, past string) string {
	if t.After(now) {
		return "in " + duration.HumanDuration(t.Sub(now))
	}
	return past + " " + duration.HumanDuration(now.Sub(t)) + " ago"
}

// next tells what the daemon does next with v, and when: the earliest of the steps on its leases and its session.
func next(v admin.Volume, now time.Time) string {
	if v.Next == nil {
		return ""
	}
	text := when(*v.Next, now, "due")
	for _, l := range append(slices.Clone(v.Leases), deref(v.Session)...) {
		if l.Next != nil && l.Next.Equal(*v.Next) && l.NextAction != "" {
			return l.NextAction + " " + text
		}
	}
	return text
}

func deref(l *admin.Lease) []admin.Lease {
	if l == nil {
		return nil
	}
	return []admin.Lease{*l}
}

func expires(v admin.Volume, now time.Time) string {
	switch {
	case v.Expires != nil:
		return when(*v.Expires, now, "expired")
	case v.Expired:
		return "expired"
	case v.Phase == "live":
		return "never"
	}
	return ""
}

// maxCell is the widest that a cell may be before it is cut.
const maxCell = 160

// cell makes s fit into one cell of a terminal: it says "-" for nothing, and holds no control characters, which could
// break the table or do things to the terminal.
func cell(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxCell {
		s = string(r[:maxCell]) + "..."
	}
	if s == "" {
		return "-"
	}
	return s
}
