// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/vault"
)

// swap makes what was fetched visible, all of it at once.
//
//  1. Render what was fetched; the files of the other secrets are those of the current generation. A secret that does not
//     render (a key is missing now) keeps its old files, and its new lease is revoked.
//  2. Stage the new generation. Nothing changed: only the leases are taken over.
//  3. Record the staged generation with its leases: after a kill, the volume itself tells which leases are true.
//  4. Swap: one rename.
//  5. Record it as current; the leases that it replaced are to be revoked after the grace.
func (c *reconcile) swap(expired bool) {
	if len(c.fetched) == 0 && !expired {
		return
	}
	fetched, next, files, err := c.next() // 1
	if err == nil {
		err = checkSize(c.rec.Plan, files)
	}
	var generation string
	var changed bool
	if err == nil {
		generation, changed, err = c.v.handle.Stage(files) // 2
	}
	if err != nil {
		c.reject(fetched, &MountError{Step: "writing the next generation", Target: c.rec.Target, Err: err})
		return
	}
	if changed {
		c.rec.Staged = &Staged{Generation: generation, Leases: next}
		c.logSaveError(c.save())                            // 3
		if err := c.v.handle.Swap(generation); err != nil { // 4
			c.rec.Staged = nil
			c.reject(fetched, &MountError{Step: "swapping to the next generation", Target: c.rec.Target, Err: err})
			return
		}
		c.rec.Swapped, c.rec.Rotated = c.now(), c.now()
	}
	c.adoptLeases(next) // 5
	c.rec.Generation, c.rec.Staged = generation, nil
	c.logSaveError(c.save())
	c.announce(fetched, generation, changed)
}

// next is the leases and files of the next generation, and the fetched secrets that it consists of. Secrets that do not
// render are rejected and left as they are.
func (c *reconcile) next() (accepted []fetch, leases []Lease, files []mount.File, err error) {
	leases = slices.Clone(c.rec.Leases)
	for _, s := range c.sources {
		if f, ok := c.fetched[s.Key]; ok {
			rendered, err := c.render(s, f.response)
			if err == nil {
				files = append(files, rendered...)
				leases = put(leases, f.lease)
				accepted = append(accepted, f)
				continue
			}
			c.reject([]fetch{f}, err)
			leases = put(leases, *c.rec.lease(s.Key))
		}
		kept, err := c.keep(s)
		if err != nil {
			return slices.Collect(maps.Values(c.fetched)), nil, nil, err
		}
		files = append(files, kept...)
	}
	return accepted, leases, files, nil
}

// keep is the files of a source as they stand, or none where they are to go because their secret has expired.
func (c *reconcile) keep(s source) ([]mount.File, error) {
	if l := c.rec.lease(s.Key); l != nil && l.Ended && c.rec.Plan.OnExpiry == attributes.Remove {
		return nil, nil
	}
	var files []mount.File
	for _, o := range s.Objects {
		data, err := c.v.handle.ReadFile(o.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed when it expired, under settings that have changed since
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s of the current generation: %w", o.Name, err)
		}
		mode := o.Permission
		if mode == 0 {
			mode = c.rec.mode()
		}
		files = append(files, mount.File{Path: o.Name, Data: data, Mode: mode})
	}
	return files, nil
}

// reject gives fetched secrets up: their files stay as they are, their new leases are revoked at once.
func (c *reconcile) reject(fetched []fetch, err error) {
	for _, f := range fetched {
		c.m.Observer.Rotation(f.lease.Kind, ActionFetch, failed(err))
		c.retire(f.lease, c.now())
		c.failLease(f.source, err)
	}
}

// adoptLeases makes next the leases of the record. Those that it replaces are retired after the grace.
func (c *reconcile) adoptLeases(next []Lease) {
	at := c.now().Add(c.m.Settings().CredentialGrace)
	for _, old := range c.rec.Leases {
		if !slices.ContainsFunc(next, func(l Lease) bool { return l.ID == old.ID }) {
			c.retire(old, at)
		}
	}
	c.rec.Leases = next
}

// announce tells everybody who wants to know what a rotation has fetched and whether the files changed.
func (c *reconcile) announce(fetched []fetch, generation string, changed bool) {
	result := ResultUnchanged
	if changed {
		result = ResultOK
		c.m.Observer.Swapped()
		e := entry(c.rec, AuditSwap, nil)
		e.Generation = generation
		for _, f := range fetched {
			e.Files = append(e.Files, f.source.fileNames()...)
		}
		c.m.Auditor.Audit(e)
		c.log.Info("Files rotated", logkey.Generation, generation, logkey.Count, len(e.Files))
		if len(fetched) > 0 {
			c.m.Notifier.Notify(c.rec.Pod, Notice{Reason: SecretsRotated, Message: fmt.Sprintf("%d files have new contents", len(e.Files))})
		}
	}
	for _, f := range fetched {
		c.m.Observer.Rotation(f.lease.Kind, ActionFetch, result)
	}
}

// report logs a failure and, when it is not the first in a row, tells the pod's author.
func (c *reconcile) report(kind Kind, path string, t Trouble, err error) {
	c.log.Warn("Rotation failed; files stay as they are", logkey.Kind, kind, logkey.Path, path, logkey.Error, err,
		logkey.Attempt, t.Failures, logkey.Next, t.Retry)
	if t.Failures > 1 || vault.ClassOf(err) != vault.Transient {
		c.m.Notifier.Notify(c.rec.Pod, Notice{Reason: RotationFailing, Warning: true, Message: err.Error()})
	}
}

// put replaces the lease with l's key, or adds l.
func put(leases []Lease, l Lease) []Lease {
	for i := range leases {
		if leases[i].Key == l.Key {
			leases[i] = l
			return leases
		}
	}
	return append(leases, l)
}
