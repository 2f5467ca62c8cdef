// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// The table between the two marks of docs/operating.md is made from the flags; -update writes it.
func TestDocsListEveryFlag(t *testing.T) {
	const file, begin, end = "../../docs/operating.md", "<!-- flags: made from cmd/driver by `go test ./cmd/driver -run Docs -update` -->\n", "<!-- end -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost its marks", file)
	}
	want := flagTable()
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(want, table); diff != "" {
		t.Fatalf("%s is out of date; -update writes it (-want +documented):\n%s", file, diff)
	}
}

func flagTable() string {
	var s strings.Builder
	s.WriteString("| flag | default | |\n| --- | --- | --- |\n")
	newRunFlags(&options{}).VisitAll(func(f *flag.Flag) {
		_, text := flag.UnquoteUsage(f)
		def := f.DefValue
		if before, rest, ok := strings.Cut(text, " (default "); ok { // one that depends on another flag
			computed, after, _ := strings.Cut(rest, ")")
			def, text = computed, before+after
		}
		fmt.Fprintf(&s, "| `--%s` | %s | %s |\n", f.Name, cmp.Or(map[bool]string{true: "`" + def + "`"}[def != ""], "none"), text)
	})
	return s.String()
}
