// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leasefs/leasefs/pkg/secret"
)

// Phase is where a volume is in its life.
type Phase string

// Phases. A record exists in each of them, so that a daemon that was killed in any can finish or undo it.
const (
	PhasePublishing Phase = "publishing"
	PhaseLive       Phase = "live"
	PhaseReleasing  Phase = "releasing" // unmounted or about to be; sessions still to revoke
)

// Record is what outlives a restart of the daemon: what was asked, and what Vault granted. Values of secrets are not in
// it (they are in the volume alone), and neither is the pod's token.
type Record struct {
	Name        string    `json:"name"` // unique for each publish, also for two of one volume id
	Phase       Phase     `json:"phase"`
	VolumeID    string    `json:"volumeID"`
	Target      string    `json:"target"`
	Pod         Pod       `json:"pod"`
	Plan        Plan      `json:"plan"`
	Group       *uint32   `json:"group,omitempty"`
	Fingerprint string    `json:"fingerprint"`
	Sessions    []Session `json:"sessions,omitempty"` // the newest first; older ones wait to be revoked
	Generation  string    `json:"generation,omitempty"`
	Leases      []Lease   `json:"leases,omitempty"` // of the files in Generation, in the order of the plan
	// Staged is the generation that is about to become current, with its leases. After a kill, what the volume's ..data
	// names tells which of the two is true.
	Staged  *Staged   `json:"staged,omitempty"`
	Retired []Retired `json:"retired,omitempty"` // leases that no file needs any longer
	Swapped time.Time `json:"swapped,omitzero"`  // when the generation before was replaced; zero once it is pruned
	Rotated time.Time `json:"rotated,omitzero"`  // last swap, for people
	// Adopted: the file system was at the target before the publish; a failed publish leaves it there.
	Adopted bool `json:"adopted,omitempty"`
	// Boot is the moment of boot on the clock of the daemon that wrote the record. All its times are on that clock.
	Boot time.Time `json:"boot,omitzero"`
}

// Session is one login of one volume.
type Session struct {
	Number   int          `json:"number"`
	Token    secret.Value `json:"-"` // written by Encode alone
	Accessor string       `json:"accessor,omitempty"`
	Identity string       `json:"identity,omitempty"`
	Batch    bool         `json:"batch,omitempty"`
	Term
	Trouble
	RevokeAt time.Time `json:"revokeAt,omitzero"` // set once nothing depends on the session any longer
}

// Staged is a complete generation that is not current yet.
type Staged struct {
	Generation string  `json:"generation"`
	Leases     []Lease `json:"leases"`
}

// Retired is a lease to be revoked.
type Retired struct {
	ID      string    `json:"id"`
	Path    string    `json:"path"`
	Session int       `json:"session"`
	At      time.Time `json:"at"`               // not before
	Expires time.Time `json:"expires,omitzero"` // it ends by itself
	Trouble
}

// recordVersion is the version of the form of records. A daemon refuses records of a version that it does not know.
const recordVersion = 1

// recordFile is the form of a record on its tmpfs.
type recordFile struct {
	Version int            `json:"version"`
	Tokens  map[int]string `json:"tokens,omitempty"` // by number of session
	Record  *Record        `json:"record"`
}

// Encode gives the bytes of a record, tokens included: they may go to the daemon's own tmpfs and nowhere else.
func (r *Record) Encode() ([]byte, error) {
	f := recordFile{Version: recordVersion, Record: r, Tokens: map[int]string{}}
	for _, s := range r.Sessions {
		f.Tokens[s.Number] = s.Token.Reveal()
	}
	return json.Marshal(f)
}

// DecodeRecord is the inverse of Encode. It never panics, and no error holds a part of data, which has tokens in it.
func DecodeRecord(data []byte) (*Record, error) {
	var f recordFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, errors.New("record is not complete JSON of the known form")
	}
	r := f.Record
	switch {
	case f.Version != recordVersion:
		return nil, fmt.Errorf("record has version %d, this driver reads version %d", f.Version, recordVersion)
	case r == nil || r.Name == "" || r.VolumeID == "" || r.Target == "":
		return nil, errors.New("record names no volume")
	case r.Phase != PhasePublishing && r.Phase != PhaseLive && r.Phase != PhaseReleasing:
		return nil, errors.New("record has an unknown phase")
	case r.Phase == PhaseLive && len(r.Sessions) == 0:
		return nil, errors.New("record of a live volume has no session")
	}
	for i := range r.Sessions {
		s := &r.Sessions[i]
		token, ok := f.Tokens[s.Number]
		if !ok || token == "" {
			return nil, fmt.Errorf("record has no token for session %d", s.Number)
		}
		s.Token = secret.New(token)
	}
	return r, nil
}

// clone is a copy whose changes do not show in r. Plan, Pod and Group never change and are shared.
func (r *Record) clone() *Record {
	c := *r
	c.Sessions = slices.Clone(r.Sessions)
	c.Leases = slices.Clone(r.Leases)
	c.Retired = slices.Clone(r.Retired)
	if r.Staged != nil {
		s := *r.Staged
		s.Leases = slices.Clone(s.Leases)
		c.Staged = &s
	}
	return &c
}

// session is the session with the given number, or nil.
func (r *Record) session(number int) *Session {
	for i := range r.Sessions {
		if r.Sessions[i].Number == number {
			return &r.Sessions[i]
		}
	}
	return nil
}

// current is the newest session, or nil before the first login.
func (r *Record) current() *Session {
	if len(r.Sessions) == 0 {
		return nil
	}
	return &r.Sessions[0]
}

// lease is the lease of the secret with the given key, or nil.
func (r *Record) lease(key string) *Lease {
	for i := range r.Leases {
		if r.Leases[i].Key == key {
			return &r.Leases[i]
		}
	}
	return nil
}

// failing reports whether there is a failure that is not mended yet.
func (r *Record) failing() bool {
	s := r.current()
	return s != nil && s.Failures > 0 || slices.ContainsFunc(r.Leases, func(l Lease) bool { return l.Failures > 0 })
}

// ends is when the secret of l stops being valid: a Vault lease dies with the session it hangs on, whatever its own
// duration says.
func (r *Record) ends(l *Lease) time.Time {
	if l.ID == "" {
		return l.Expires
	}
	s := r.session(l.Session)
	if s == nil || s.Expires.IsZero() || (!l.Expires.IsZero() && l.Expires.Before(s.Expires)) {
		return l.Expires
	}
	return s.Expires
}

// shift moves every time of the record by d, from the clock of the daemon that wrote it to that of the one that reads.
func (r *Record) shift(d time.Duration) {
	if d == 0 {
		return
	}
	move := func(ts ...*time.Time) {
		for _, t := range ts {
			if !t.IsZero() {
				*t = t.Add(d)
			}
		}
	}
	leases := func(ls []Lease) {
		for i := range ls {
			move(&ls[i].Granted, &ls[i].Expires, &ls[i].Checked, &ls[i].Retry)
		}
	}
	leases(r.Leases)
	if r.Staged != nil {
		leases(r.Staged.Leases)
	}
	for i := range r.Sessions {
		move(&r.Sessions[i].Granted, &r.Sessions[i].Expires, &r.Sessions[i].Retry, &r.Sessions[i].RevokeAt)
	}
	for i := range r.Retired {
		move(&r.Retired[i].At, &r.Retired[i].Expires, &r.Retired[i].Retry)
	}
	move(&r.Swapped, &r.Rotated, &r.Boot)
}
