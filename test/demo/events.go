// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/leasefs/leasefs/pkg/audit"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
)

// follow shows each new line of the daemon's audit log, until ctx ends. Reads of plain values, of which nearly all find
// what was there before, are left out; one that finds something new ends in a swap, which is shown.
func follow(ctx context.Context, s *screen, d *kubelettest.Driver, p *probe) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	shown := 0
	var before snapshot
	for {
		lines, err := d.Audit()
		if err != nil {
			return err
		}
		for _, l := range lines[shown:] {
			text := describe(l)
			if l.Event == rotation.AuditPublish || l.Event == rotation.AuditSwap {
				if now, err := p.read(time.Now()); err == nil {
					text += changes(before, now)
					before = now
				}
			}
			if text != "" {
				s.at(l.Time, daemon, "%s", text)
			}
		}
		shown = len(lines)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// describe says in words what a line of the audit log says; "" if it is not worth a line.
func describe(l audit.Line) string {
	var text string
	switch l.Event {
	case rotation.AuditLogin:
		text = fmt.Sprintf("logged in to Vault as %s/%s with the role %s", l.Namespace, l.ServiceAccount, l.Role)
	case rotation.AuditRead:
		if l.Kind == rotation.KindPlain && l.Outcome == "ok" {
			return ""
		}
		text = fmt.Sprintf("read %s: %s%s", l.Path, nameOf(l.Kind), until(l))
	case rotation.AuditRenewSession:
		text = "renewed its Vault token" + until(l)
	case rotation.AuditRenewLease:
		text = "renewed the lease of " + l.Path + until(l)
	case rotation.AuditRevokeLease:
		text = "revoked the old lease of " + l.Path
	case rotation.AuditRevokeSession:
		text = "revoked its Vault token, and with it every lease"
	case rotation.AuditPublish:
		text = "mounted the volume, complete and read-only"
	case rotation.AuditSwap:
		text = "swapped the files"
	case rotation.AuditUnpublish:
		text = "unmounted the volume"
	case rotation.AuditRecover:
		text = "took the volume over from the daemon before it: same token, same leases, same files"
	default:
		text = fmt.Sprintf("%s %s", l.Event, l.Path)
	}
	if l.Outcome != "ok" {
		text += " — FAILED: " + cmp.Or(l.ErrorClass, l.Outcome)
	}
	return text
}

// nameOf is a kind of lease in words.
func nameOf(k rotation.Kind) string {
	switch k {
	case rotation.KindRenewable:
		return "a new user with a lease that can be renewed"
	case rotation.KindCertificate:
		return "a new certificate and its key"
	default:
		return string(k)
	}
}

func until(l audit.Line) string {
	if l.Expires == nil || l.Outcome != "ok" {
		return ""
	}
	return fmt.Sprintf(", good for %.0f s", l.Expires.Sub(l.Time).Seconds())
}

// changes says what differs between two generations of the pod's files; at the first, what there is.
func changes(before, now snapshot) string {
	var parts []string
	add := func(name, old, new string) {
		switch old {
		case new:
		case "":
			parts = append(parts, name+" "+new)
		default:
			parts = append(parts, name+" "+old+" → "+new)
		}
	}
	add("greeting", quoted(before.greeting), quoted(now.greeting))
	add("certificate", short(before.serial), short(now.serial))
	add("database user", shortUser(before.username), shortUser(now.username))
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("%q", s)
}

// short is the beginning of a serial number.
func short(serial string) string {
	if len(serial) <= 8 {
		return serial
	}
	return serial[:8] + "…"
}

// shortUser is the random part of a name that Vault has made: v-jwt-...-app-RANDOM-TIME.
func shortUser(name string) string {
	parts := strings.Split(name, "-")
	if len(parts) < 3 {
		return name
	}
	return parts[0] + "-…-" + short(parts[len(parts)-2])
}
