// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package audit writes who did what to which secret: one JSON object a line for every login, read, renewal, swap and
// revocation. A line names things (pod, role, path, files) and never holds a value or a token.
//
// The audit log must not stand in the way of what it tells about. So an entry is encoded and queued by the one who has
// it, and written by Run; a full queue, a full disk or a stuck pipe loses lines, which is counted and logged, and never
// delays or fails a rotation. The price is that a SIGKILL loses what is queued, usually less than a millisecond's worth.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

// Destinations that are no file.
const (
	Stdout = "-"
	Off    = "off"
)

// queueLength is how many lines may wait for a slow disk: a node full of volumes writes a few hundred when all of them
// are published at once.
const queueLength = 4096

// Observer counts what became of lines.
type Observer interface {
	AuditLine(Result)
}

// Result is what became of one line.
type Result string

// Results of a line.
const (
	Written Result = "written"
	Failed  Result = "failed"  // the destination refused it
	Dropped Result = "dropped" // the queue was full
)

// Line is one line of the audit log. Fields are only ever added.
type Line struct {
	Time           time.Time           `json:"time"`
	Event          rotation.AuditEvent `json:"event"`
	Outcome        string              `json:"outcome"` // ok | error
	ErrorClass     string              `json:"errorClass,omitempty"`
	Node           string              `json:"node,omitempty"`
	Namespace      string              `json:"namespace,omitempty"`
	Pod            string              `json:"pod,omitempty"`
	PodUID         string              `json:"podUID,omitempty"`
	ServiceAccount string              `json:"serviceAccount,omitempty"`
	Volume         string              `json:"volume,omitempty"`
	Connection     string              `json:"connection,omitempty"`
	Role           string              `json:"role,omitempty"`
	Path           string              `json:"path,omitempty"`
	Files          []string            `json:"files,omitempty"`
	Kind           rotation.Kind       `json:"kind,omitempty"`
	LeaseHash      string              `json:"leaseHash,omitempty"`
	Expires        *time.Time          `json:"expires,omitempty"`
	Generation     string              `json:"generation,omitempty"`
}

// Log is an audit log. Make one with New.
type Log struct {
	node  string
	dest  *destination // nil: off
	queue chan []byte
	obs   Observer
	log   *slog.Logger
}

// New returns a log that writes to the file at to, to standard output (Stdout) or nowhere (Off). node is the name that
// each line gives this node. It does no I/O: see Open and Run.
func New(to, node string, obs Observer, log *slog.Logger) *Log {
	l := &Log{node: node, queue: make(chan []byte, queueLength), obs: obs, log: log}
	if to != Off {
		l.dest = &destination{path: to}
	}
	return l
}

// Open opens the destination. A path that cannot be right (no such folder, no permission) is an error, for whoever
// gave it. A disk that is full or broken is none: the daemon must start, and Run tries again.
func (l *Log) Open() error {
	if l.dest == nil {
		return nil
	}
	err := l.dest.open()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errNoFile) {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	return nil
}

// Audit implements rotation.Auditor. It never waits.
func (l *Log) Audit(e rotation.Entry) {
	if l.dest == nil {
		return
	}
	line, err := json.Marshal(l.line(e, time.Now()))
	if err != nil {
		l.obs.AuditLine(Failed)
		return
	}
	select {
	case l.queue <- append(line, '\n'):
	default:
		l.obs.AuditLine(Dropped)
	}
}

// Run writes what Audit queues, until ctx ends and the queue is empty.
func (l *Log) Run(ctx context.Context) error {
	if l.dest == nil {
		<-ctx.Done()
		return nil
	}
	defer l.dest.close()
	w := writer{dest: l.dest, obs: l.obs, log: l.log}
	for {
		select {
		case line := <-l.queue:
			w.write(line)
		case <-ctx.Done():
			for {
				select {
				case line := <-l.queue:
					w.write(line)
				default:
					return nil
				}
			}
		}
	}
}

// writer turns a run of failures into one log line, and its end into another.
type writer struct {
	dest *destination
	obs  Observer
	log  *slog.Logger
	lost int // lines lost since the destination began to fail
}

func (w *writer) write(line []byte) {
	err := w.dest.write(line)
	switch {
	case err != nil:
		w.obs.AuditLine(Failed)
		if w.lost++; w.lost == 1 {
			w.log.Error("cannot write the audit log; lines are lost until it can be written again", logkey.File, w.dest.path, logkey.Error, err)
		}
	default:
		w.obs.AuditLine(Written)
		if w.lost > 0 {
			w.log.Warn("the audit log can be written again", logkey.File, w.dest.path, logkey.Count, w.lost)
			w.lost = 0
		}
	}
}

func (l *Log) line(e rotation.Entry, now time.Time) Line {
	out := Line{
		Time: now.UTC(), Event: e.Event, Outcome: "ok", Node: l.node,
		Namespace: e.Pod.Namespace, Pod: e.Pod.Name, PodUID: e.Pod.UID, ServiceAccount: e.Pod.ServiceAccount, Volume: e.VolumeID,
		Connection: e.Connection, Role: e.Role, Path: e.Path, Files: e.Files, Kind: e.Kind, LeaseHash: leaseHash(e.LeaseID),
		Generation: e.Generation,
	}
	if !e.Expires.IsZero() {
		t := e.Expires.UTC()
		out.Expires = &t
	}
	if e.Err != nil {
		out.Outcome, out.ErrorClass = "error", errorClass(e.Err)
	}
	return out
}

// leaseHash returns the first 16 hexadecimal digits of the lease id's SHA-256, which is enough to tell the leases of a
// cluster apart. There is no salt on purpose: a lease id ends in 24 random letters, so that nobody finds it by
// guessing, while whoever holds the id (an operator with Vault's own log) finds its lines with
// `printf %s ID | sha256sum | cut -c1-16`, on every node.
func leaseHash(id string) string {
	if id == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// errorClass names an error by one of a fixed few words. The text stays out: it may repeat what Vault or a file said.
func errorClass(err error) string {
	var ve *vault.Error
	var me *rotation.MountError
	var be *rotation.BudgetError
	switch {
	case errors.As(err, &ve):
		return ve.Class.String()
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, rotation.ErrNoToken):
		return string(rotation.ResultNoToken)
	case errors.Is(err, mount.ErrNoSpace):
		return "no-space"
	case errors.As(err, &be):
		return "budget"
	case errors.As(err, &me):
		return "mount"
	default:
		return "other"
	}
}
