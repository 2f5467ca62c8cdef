// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/leasefs/leasefs/pkg/admin"
	"github.com/leasefs/leasefs/pkg/metrics"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// volumeFigures is what metrics tell of the volumes. Prometheus compares with wall time, so the steady clock's reading is
// turned into it.
func (d *daemon) volumeFigures() metrics.Volumes {
	t := d.manager.Totals()
	v := metrics.Volumes{
		Phases: make(map[string]int, len(t.ByPhase)), Expired: t.Expired, Failing: t.Failing, Used: t.BudgetUsed, Budget: t.Budget,
	}
	for phase, n := range t.ByPhase {
		v.Phases[string(phase)] = n
	}
	if !t.NextExpiry.IsZero() {
		v.NextExpiry = t.NextExpiry.Add(d.clock.Drift())
	}
	return v
}

// wallTime passes audit entries on with their ends in wall time: people compare them with Vault's log.
type wallTime struct {
	rotation.Auditor
	drift func() time.Duration
}

// Audit implements rotation.Auditor.
func (w wallTime) Audit(e rotation.Entry) {
	if !e.Expires.IsZero() {
		e.Expires = e.Expires.Add(w.drift())
	}
	w.Auditor.Audit(e)
}

// adminList answers GET /v1/volumes.
func (d *daemon) adminList() admin.List {
	return adminList(d.manager.Volumes(), d.clock.Now(), d.clock.Drift())
}

// adminList shows volumes, whose times are of a clock that now is the reading of and that is drift behind the wall's.
func adminList(volumes []rotation.VolumeStatus, now time.Time, drift time.Duration) admin.List {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.Add(drift).UTC()
		return &t
	}
	lease := func(path string, files []string, kind rotation.Kind, t rotation.TermStatus) admin.Lease {
		return admin.Lease{
			Path: path, Files: files, Kind: string(kind),
			NextAction: string(t.NextAction), Next: at(t.NextAt), Expires: at(t.Expires), LastError: t.Problem,
		}
	}
	list := admin.List{APIVersion: admin.APIVersion, Version: version, Time: now.Add(drift).UTC(), Volumes: make([]admin.Volume, 0, len(volumes))}
	for _, s := range volumes {
		v := admin.Volume{
			ID: s.VolumeID, Target: s.Target,
			Namespace: s.Pod.Namespace, Pod: s.Pod.Name, PodUID: s.Pod.UID, ServiceAccount: s.Pod.ServiceAccount,
			Connection: s.Connection, Role: s.Role, Phase: string(s.Phase), Generation: s.Generation, Rotated: at(s.Rotated),
			Files: s.Files, Next: at(s.Next), Expires: at(s.Expires), Expired: s.Expired, LastError: s.Problem,
		}
		if s.Session != nil {
			l := lease("", nil, rotation.KindSession, *s.Session)
			v.Session = &l
		}
		for _, l := range s.Leases {
			v.Leases = append(v.Leases, lease(l.Path, l.Files, l.Kind, l.TermStatus))
		}
		list.Volumes = append(list.Volumes, v)
	}
	return list
}
