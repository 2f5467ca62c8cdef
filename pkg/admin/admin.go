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

import (
	"strings"
	"time"
)

// APIVersion is the value of List.APIVersion.
const APIVersion = "leasefs.io/admin/v1"

// The bounds of a List. What is above them is cut off, and the List or the Volume says that it was.
const (
	MaxVolumes = 4096 // volumes in one List
	MaxItems   = 256  // files, and leases, of one Volume
	MaxText    = 512  // bytes of a LastError
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
	Target         string     `json:"target"` // where it is mounted
	Namespace      string     `json:"namespace"`
	Pod            string     `json:"pod"`
	PodUID         string     `json:"podUID"`
	ServiceAccount string     `json:"serviceAccount"`
	Connection     string     `json:"connection"`
	Role           string     `json:"role"`
	Phase          string     `json:"phase"` // publishing | live | releasing
	Generation     string     `json:"generation,omitempty"`
	Rotated        *time.Time `json:"rotated,omitempty"`   // when the files last changed
	Files          []string   `json:"files"`               // paths inside the volume; never null
	Session        *Lease     `json:"session,omitempty"`   // absent: there is none at the moment
	Leases         []Lease    `json:"leases"`              // the session is not among them; never null
	Next           *time.Time `json:"next,omitempty"`      // when the daemon comes back to the volume
	Expires        *time.Time `json:"expires,omitempty"`   // when the first of its secrets ends; absent: none does
	Expired        bool       `json:"expired,omitempty"`   // a secret of the volume has ended
	LastError      string     `json:"lastError,omitempty"` // of what fails at the moment
	Truncated      bool       `json:"truncated,omitempty"` // there are more than MaxItems files or leases
}

// Lease is one secret of a volume, or its session.
type Lease struct {
	Path       string     `json:"path,omitempty"`       // in Vault; empty for the session
	Files      []string   `json:"files,omitempty"`      // that are made from it
	Kind       string     `json:"kind"`                 // session | renewable | fixed | certificate | static-role | plain
	NextAction string     `json:"nextAction,omitempty"` // renew | fetch | check
	Next       *time.Time `json:"next,omitempty"`       // when that is done
	Expires    *time.Time `json:"expires,omitempty"`    // absent: it does not end by itself
	LastError  string     `json:"lastError,omitempty"`
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
		leases := make([]Lease, len(v.Leases))
		for j, l := range v.Leases {
			if len(l.Files) > MaxItems {
				l.Files, v.Truncated = l.Files[:MaxItems], true
			}
			l.LastError = short(l.LastError)
			leases[j] = l
		}
		v.Leases, v.LastError = leases, short(v.LastError)
		if v.Files == nil {
			v.Files = []string{}
		}
		volumes[i] = v
	}
	l.Volumes = volumes
	return l
}

func short(text string) string {
	if len(text) <= MaxText {
		return text
	}
	return strings.ToValidUTF8(text[:MaxText], "") + "..."
}
