// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package admin lets root on the node see what the daemon is doing: HTTP over a unix socket that nobody else can open.
//
// The protocol is one request:
//
//	GET /v1/volumes  ->  200, application/json, one List
//
// A List says its own version. Fields are only ever added within v1; a reader ignores what it does not know. Nothing in
// it is a secret: the types of this package have no field that could hold a value or a token. The answer is bounded by
// MaxVolumes, MaxItems and MaxText, so that neither side can be made to hold an answer of any size.
package admin

import "time"

// APIVersion is the value of List.APIVersion.
const APIVersion = "leasefs.io/admin/v1"

// The bounds of a List. What is above them is cut off, and the List or the Volume says that it was.
const (
	MaxVolumes = 4096 // volumes in one List
	MaxItems   = 256  // files, and leases, of one Volume
	MaxText    = 512  // bytes of LastError
)

// List is the answer to GET /v1/volumes.
type List struct {
	APIVersion string    `json:"apiVersion"`
	Version    string    `json:"version"`             // of the daemon
	Time       time.Time `json:"time"`                // of the daemon's clock when it answered
	Volumes    []Volume  `json:"volumes"`             // sorted by namespace, pod, id; never null
	Truncated  bool      `json:"truncated,omitempty"` // there are more than MaxVolumes
}

// Volume is one volume of the node.
type Volume struct {
	ID             string     `json:"id"`
	Namespace      string     `json:"namespace"`
	Pod            string     `json:"pod"`
	PodUID         string     `json:"podUID"`
	ServiceAccount string     `json:"serviceAccount"`
	Connection     string     `json:"connection"`
	Role           string     `json:"role"`
	Phase          string     `json:"phase"`
	Generation     string     `json:"generation,omitempty"`
	Files          []string   `json:"files"`                 // paths inside the volume; never null
	Leases         []Lease    `json:"leases"`                // the session is not among them; never null
	Session        *Lease     `json:"session,omitempty"`     // absent: no session at the moment
	Next           *time.Time `json:"next,omitempty"`        // when the daemon comes back to the volume
	Expires        *time.Time `json:"expires,omitempty"`     // when the first of its secrets ends; absent: none does
	Expired        bool       `json:"expired,omitempty"`     // a secret in the volume has ended
	Failures       int        `json:"failures,omitempty"`    // attempts that failed in a row
	LastError      string     `json:"lastError,omitempty"`   // of the last of them
	LastErrorAt    *time.Time `json:"lastErrorAt,omitempty"` //
	Truncated      bool       `json:"truncated,omitempty"`   // there are more than MaxItems files or leases
}

// Lease is one secret, or the session, of a volume.
type Lease struct {
	Path    string     `json:"path,omitempty"`    // in Vault; empty for the session
	Kind    string     `json:"kind"`              // of lease, see docs/design.md
	Next    *time.Time `json:"next,omitempty"`    // when it is renewed, checked or read anew
	Expires *time.Time `json:"expires,omitempty"` // absent: it does not
}

// bounded returns l cut to the bounds of the package.
func bounded(l List) List {
	if len(l.Volumes) > MaxVolumes {
		l.Volumes, l.Truncated = l.Volumes[:MaxVolumes], true
	}
	volumes := make([]Volume, len(l.Volumes))
	for i, v := range l.Volumes {
		if len(v.Files) > MaxItems {
			v.Files, v.Truncated = v.Files[:MaxItems], true
		}
		if len(v.Leases) > MaxItems {
			v.Leases, v.Truncated = v.Leases[:MaxItems], true
		}
		if len(v.LastError) > MaxText {
			v.LastError = v.LastError[:MaxText] + "..."
		}
		if v.Files == nil {
			v.Files = []string{}
		}
		if v.Leases == nil {
			v.Leases = []Lease{}
		}
		volumes[i] = v
	}
	l.Volumes = volumes
	return l
}
