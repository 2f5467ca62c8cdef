// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/leasefs/leasefs/pkg/audit"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// AuditLines are lines of the driver's audit log, in its order.
type AuditLines []audit.Line

// Audit returns the lines of the driver's audit log so far, of all drivers on this node.
func (d *Driver) Audit() (AuditLines, error) {
	data, err := os.ReadFile(d.AuditFile)
	if err != nil {
		return nil, fmt.Errorf("reading the driver's audit log: %w", err)
	}
	var out AuditLines
	for len(data) > 0 {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break // being written
		}
		data = rest
		var line audit.Line
		if err := json.Unmarshal(text, &line); err != nil {
			return nil, fmt.Errorf("reading the driver's audit log: %w: %q", err, text)
		}
		out = append(out, line)
	}
	return out, nil
}

// Of returns the lines of one event.
func (ls AuditLines) Of(event rotation.AuditEvent) AuditLines {
	var out AuditLines
	for _, l := range ls {
		if l.Event == event {
			out = append(out, l)
		}
	}
	return out
}
