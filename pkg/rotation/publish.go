// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/mount"
)

// parallelReads is how many secrets of one volume are read at once.
const parallelReads = 8

// Publish makes the volume of req visible at its target with all its files, or leaves nothing behind.
//
// For a volume that is live already it is the kubelet's republish: the pod's newest token is kept, one statx tells
// whether the mount is there, and that is all: no Vault call, no error for a healthy volume.
//
// Errors: ErrBusy, ErrStopped, *ConflictError, *BudgetError, *SizeError, *MountError, *vault.Error,
// *render.MissingKeyError, or the context's.
func (m *Manager) Publish(ctx context.Context, req Request) error {
	v, created, err := m.claim(req)
	if err != nil {
		return err
	}
	if !created {
		return m.republish(v, req)
	}
	defer v.unlock()
	v.token.Store(&req.Token)
	ctx, end := m.begin(ctx, v)
	defer end()

	c := m.reconcile(v)
	err = c.publish(ctx)
	if err != nil {
		c.abandon(ctx)
	}
	e := entry(c.rec, AuditPublish, err)
	e.Generation = c.rec.Generation
	m.Auditor.Audit(e)
	if err != nil {
		return err
	}
	m.wakeLive(v.id, c.rec, m.Clock.Now())
	m.Notifier.Notify(req.Pod, Notice{Reason: SecretsMounted, Message: fmt.Sprintf(
		"%d files from Vault connection %s as role %s are mounted", len(c.rec.Plan.Objects), c.rec.Plan.Connection, c.rec.Plan.Role)})
	return nil
}

// publish is the first reconcile of a volume.
//
//  1. See whether a volume of ours is at the target already: whoever undoes this publish leaves alone what was there before.
//  2. Log in, and record the publish with the token before anything is read with it. Until then there is nothing to undo.
//  3. Read all secrets in parallel.
//  4. Render. A key that is missing or content that is too big ends here.
//  5. Fill a tmpfs that is in no path yet. It was made meanwhile, like the directory for it: that needs nothing of Vault's.
//  6. Attach it at the target: the pod sees all files or none.
//  7. Record that it is live.
func (c *reconcile) publish(ctx context.Context) error {
	mounted, err := c.m.Mounts.Mounted(c.rec.Target) // 1
	if err != nil {
		return &MountError{Step: "looking for a mount", Target: c.rec.Target, Err: err}
	}
	c.rec.Adopted = mounted
	if err := c.connect(); err != nil {
		return err
	}
	opened := make(chan error, 1)
	go func() { opened <- c.open() }()
	err = c.login(ctx) // 2
	var files []mount.File
	if err == nil {
		files, err = c.readAll(ctx) // 3, 4
	}
	if openErr := <-opened; err == nil { // in any case: abandon closes what was opened
		err = openErr
	}
	if err == nil {
		err = c.fill(files) // 5
	}
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the caller gave up or an unpublish came: the last moment to notice
		return err
	}
	if err := c.attach(); err != nil { // 6
		return err
	}
	c.rec.Phase, c.rec.Rotated, c.rec.Adopted = PhaseLive, c.now(), false
	if err := c.save(); err != nil { // 7
		c.rec.Adopted = mounted
		return err
	}
	return nil
}

// readAll reads and renders every source. The first failure ends the others.
func (c *reconcile) readAll(ctx context.Context) ([]mount.File, error) {
	var mu sync.Mutex
	var files []mount.File
	leases := make([]Lease, len(c.sources))
	read := func(ctx context.Context, i int) error {
		l, response, err := c.fetch(ctx, c.sources[i], false)
		if err != nil {
			return err
		}
		leases[i] = l
		rendered, err := c.render(c.sources[i], response)
		mu.Lock()
		defer mu.Unlock()
		files = append(files, rendered...)
		return err
	}
	err := each(ctx, len(c.sources), read)
	for _, l := range leases { // those that were read before another one failed are known to abandon, too
		if l.Key != "" {
			c.rec.Leases = append(c.rec.Leases, l)
		}
	}
	if err != nil {
		return nil, err
	}
	return files, checkSize(c.rec.Plan, files)
}

// each calls do for 0 to n-1, some at once. The first failure ends the others.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	if n == 1 { // the common volume, and a goroutine of its own would have to be waited for, too
		return do(ctx, 0)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelReads)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// fill puts the files into the volume's tmpfs.
func (c *reconcile) fill(files []mount.File) (err error) {
	if c.rec.Adopted {
		c.rec.Generation, err = c.refill(files)
	} else {
		c.rec.Generation, err = c.v.handle.Fill(files)
	}
	if err != nil {
		return &MountError{Step: "writing the files", Target: c.rec.Target, Err: err}
	}
	return nil
}

// refill changes over the files of a volume that containers hold open.
func (c *reconcile) refill(files []mount.File) (string, error) {
	generation, changed, err := c.v.handle.Stage(files)
	if err == nil && changed {
		err = c.v.handle.Swap(generation)
	}
	return generation, err
}

// open makes the volume's tmpfs and the directory for it. Where a volume of ours is mounted at the target already though no record
// knows it (somebody removed the records), that one is taken over: the pod's containers hold it open.
func (c *reconcile) open() error {
	var handle Volume
	var err error
	step := "making the tmpfs"
	if c.rec.Adopted {
		step = "taking over what is mounted"
		c.log.Warn("Target is mounted already and no record knows it; taking its file system over", logkey.Target, c.rec.Target)
		handle, err = c.m.Mounts.Adopt(c.rec.Target)
	} else if err = c.m.Mounts.Prepare(c.rec.Target); err == nil {
		handle, err = c.m.Mounts.Create(c.rec.shape(c.m.Settings()))
	}
	if err != nil {
		return &MountError{Step: step, Target: c.rec.Target, Err: err}
	}
	c.v.handleMu.Lock()
	defer c.v.handleMu.Unlock()
	c.v.handle = handle
	return nil
}

func (c *reconcile) attach() error {
	if c.rec.Adopted {
		return nil
	}
	if err := c.v.handle.Attach(c.rec.Target); err != nil {
		return &MountError{Step: "attaching the tmpfs", Target: c.rec.Target, Err: err}
	}
	return nil
}

// abandon undoes a publish that failed: no mount, no directory, no token and no lease stay. What Vault does not revoke at
// once is revoked in the background, from the record.
func (c *reconcile) abandon(ctx context.Context) {
	c.rec.Phase = PhaseReleasing
	if len(c.rec.Sessions) > 0 {
		c.logSaveError(c.save())
	}
	if err := c.v.closeHandle(); err != nil {
		c.log.Warn("Closing the file system of a failed publish", logkey.Error, err)
	}
	if !c.rec.Adopted {
		if err := c.m.Mounts.Remove(c.rec.Target); err != nil {
			c.log.Error("Removing what a failed publish had mounted", logkey.Error, err)
		}
	}
	c.m.forget(c.v)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseNow)
	defer cancel()
	c.m.release(ctx, c.rec)
}

// republish takes what is new in a kubelet's repeated call.
func (m *Manager) republish(v *volume, req Request) error {
	r := v.record.Load()
	switch {
	case r.Target != req.Target:
		return &ConflictError{v.id, "target path"}
	case r.Pod.UID != req.Pod.UID:
		return &ConflictError{v.id, "pod"}
	case r.Fingerprint != req.Fingerprint:
		return &ConflictError{v.id, "set of volume attributes"}
	case !sameGroup(r.Group, req.Group):
		return &ConflictError{v.id, "volume mount group"}
	}
	v.token.Store(&req.Token)
	if r.current().Failures > 0 { // it may have waited for this token
		v.tokenArrived.Store(true)
		m.wake(troubled, v.id, m.Clock.Now())
	}
	v.handleMu.RLock()
	defer v.handleMu.RUnlock()
	if v.handle == nil {
		return ErrBusy // an unpublish was faster
	}
	if at, err := v.handle.At(r.Target); err == nil && at {
		return nil
	}
	m.logger(r).Warn("Mount is gone from the target; attaching the same file system again", logkey.Target, r.Target)
	if err := v.handle.Attach(r.Target); err != nil {
		return &MountError{Step: "attaching the tmpfs again", Target: r.Target, Err: err}
	}
	return nil
}

func sameGroup(a, b *uint32) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
