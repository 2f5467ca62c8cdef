// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"cmp"
	"slices"
	"time"
)

// VolumeStatus is one volume as a person wants to see it. It holds no value and no token.
type VolumeStatus struct {
	VolumeID   string        `json:"volumeID"`
	Target     string        `json:"target"`
	Pod        Pod           `json:"pod"`
	Phase      Phase         `json:"phase"`
	Connection string        `json:"connection"`
	Role       string        `json:"role"`
	Generation string        `json:"generation,omitempty"`
	Rotated    time.Time     `json:"rotated,omitzero"` // last change of the files
	Files      []string      `json:"files"`
	Session    *TermStatus   `json:"session,omitempty"`
	Leases     []LeaseStatus `json:"leases,omitempty"`
	Next       time.Time     `json:"next,omitzero"`    // next look at the volume
	Expires    time.Time     `json:"expires,omitzero"` // the earliest end of one of its secrets
	Expired    bool          `json:"expired,omitempty"`
	Problem    string        `json:"problem,omitempty"` // the last failure that is not mended yet
}

// LeaseStatus is the state of one secret of a volume.
type LeaseStatus struct {
	Path  string   `json:"path"`
	Files []string `json:"files"`
	Kind  Kind     `json:"kind"`
	TermStatus
}

// TermStatus is a validity and what happens next to it.
type TermStatus struct {
	Expires    time.Time `json:"expires,omitzero"` // zero: does not end by itself
	NextAction Action    `json:"nextAction,omitempty"`
	NextAt     time.Time `json:"nextAt,omitzero"`
	Problem    string    `json:"problem,omitempty"`
}

// Volumes is the state of every volume, ordered by pod and volume, those last that are being released.
func (m *Manager) Volumes() []VolumeStatus {
	m.mu.Lock()
	records := make([]*Record, 0, len(m.volumes)+len(m.releases))
	for _, v := range m.volumes {
		records = append(records, v.record.Load())
	}
	var released []VolumeStatus
	for _, job := range m.releases {
		s := m.status(job.record)
		s.Phase, s.Session, s.Leases = PhaseReleasing, nil, nil
		s.Next, s.Problem = job.Retry, job.Problem
		released = append(released, s)
	}
	m.mu.Unlock()

	all := make([]VolumeStatus, 0, len(records)+len(released))
	for _, r := range records {
		all = append(all, m.liveStatus(r))
	}
	byPod := func(a, b VolumeStatus) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name), cmp.Compare(a.VolumeID, b.VolumeID))
	}
	slices.SortFunc(all, byPod)
	slices.SortFunc(released, byPod)
	return append(all, released...)
}

// status is what of a record never changes.
func (m *Manager) status(r *Record) VolumeStatus {
	s := VolumeStatus{
		VolumeID: r.VolumeID, Target: r.Target, Pod: r.Pod, Phase: r.Phase, Connection: r.Plan.Connection, Role: r.Plan.Role,
		Files: make([]string, len(r.Plan.Objects)),
	}
	for i, o := range r.Plan.Objects {
		s.Files[i] = o.Name
	}
	return s
}

func (m *Manager) liveStatus(r *Record) VolumeStatus {
	s := m.status(r)
	s.Generation, s.Rotated = r.Generation, r.Rotated
	session := r.current()
	if session == nil {
		return s
	}
	policy := m.policy(r)
	step := NextSession(*session, policy)
	s.Session = &TermStatus{Expires: session.Expires, NextAction: step.Action, NextAt: step.At, Problem: session.Problem}
	s.Problem = session.Problem
	files := map[string][]string{}
	for _, src := range r.Plan.sources() {
		files[src.Key] = src.fileNames()
	}
	for i := range r.Leases {
		l := &r.Leases[i]
		step, ends := Next(*l, policy), r.ends(l)
		s.Leases = append(s.Leases, LeaseStatus{Path: l.Path, Files: files[l.Key], Kind: l.Kind,
			TermStatus: TermStatus{Expires: ends, NextAction: step.Action, NextAt: step.At, Problem: l.Problem}})
		if !ends.IsZero() && (s.Expires.IsZero() || ends.Before(s.Expires)) {
			s.Expires = ends
		}
		s.Expired = s.Expired || l.Ended
		s.Problem = cmp.Or(s.Problem, l.Problem)
	}
	if r.Phase == PhaseLive {
		s.Next = m.nextAt(r)
	}
	return s
}

// Totals are the figures of all volumes together, for metrics.
type Totals struct {
	ByPhase    map[Phase]int
	Expired    int       // volumes with a secret that has expired
	Failing    int       // volumes with a failure that is not mended yet
	NextExpiry time.Time // the earliest end of any secret; zero: none ends
	BudgetUsed int64     // bytes
	Budget     int64     // bytes; 0: no limit
}

// Totals counts the volumes. It makes no VolumeStatus: metrics are scraped often, on nodes with thousands of volumes.
func (m *Manager) Totals() Totals {
	t := Totals{ByPhase: map[Phase]int{PhasePublishing: 0, PhaseLive: 0, PhaseReleasing: 0}, Budget: m.Settings().NodeBudget}
	m.mu.Lock()
	defer m.mu.Unlock()
	t.ByPhase[PhaseReleasing] = len(m.releases)
	t.BudgetUsed = m.reserved
	for _, v := range m.volumes {
		r := v.record.Load()
		t.ByPhase[r.Phase]++
		if ends := r.nextEnd(); !ends.IsZero() && (t.NextExpiry.IsZero() || ends.Before(t.NextExpiry)) {
			t.NextExpiry = ends
		}
		t.Expired += btoi(slices.ContainsFunc(r.Leases, func(l Lease) bool { return l.Ended }))
		t.Failing += btoi(r.failing())
	}
	return t
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
