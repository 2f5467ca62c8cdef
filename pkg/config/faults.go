// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"

	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// Faults are all mistakes of a configuration.
type Faults struct {
	File string // "": unknown
	List []strictyaml.Fault
}

// Error lists the faults, one a line, each with its key and line. It repeats no value that could be secret.
func (f *Faults) Error() string {
	var b strings.Builder
	b.WriteString("configuration")
	if f.File != "" {
		b.WriteString(" " + f.File)
	}
	for i, fault := range f.List {
		if i == 0 && len(f.List) == 1 {
			b.WriteString(": ")
		} else if i == 0 {
			fmt.Fprintf(&b, " has %d faults:\n  ", len(f.List))
		} else {
			b.WriteString("\n  ")
		}
		if fault.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", fault.Line)
		}
		if fault.Key != "" {
			b.WriteString(fault.Key + ": ")
		}
		b.WriteString(fault.Problem)
	}
	return b.String()
}
