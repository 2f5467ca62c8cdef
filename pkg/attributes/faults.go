// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes

import (
	"fmt"
	"strings"
)

// Fault is one mistake in a request.
type Fault struct {
	Key     string // the attribute, or the place in it: "objects[2].secretPath"
	Problem string // what is wrong and what to do; no value that could be secret
}

// Faults are all mistakes of a request. It is the error of Parse and of the configuration's Resolve.
type Faults struct{ List []Fault }

// maxPrinted bounds the message: it ends up in an Event, which holds 1 KiB.
const maxPrinted = 16

// Error lists the faults, each with its key, on one line.
func (f *Faults) Error() string {
	var b strings.Builder
	if len(f.List) > 1 {
		fmt.Fprintf(&b, "%d faults: ", len(f.List))
	}
	for i, fault := range f.List {
		if i == maxPrinted {
			fmt.Fprintf(&b, "; and %d more", len(f.List)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(fault.Key)
		b.WriteString(": ")
		b.WriteString(fault.Problem)
	}
	return b.String()
}
