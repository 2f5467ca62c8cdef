// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/mount/mounttest"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// TestAnySequenceOfEventsKeepsThePromise plays random sequences of what kubelet, Vault, administrators and the kernel do to a
// node, with the real tmpfs of each volume, and compares with a model after each: which volumes are published. The promise:
//
//   - a published volume shows all its files, each valid in Vault, unless Vault was in trouble lately;
//   - of an unpublished one nothing is mounted;
//   - and when all are unpublished and Vault answers, nothing is left, neither here nor there.
func TestAnySequenceOfEventsKeepsThePromise(t *testing.T) {
	mounter := mount.New(filepath.Join(mounttest.TempDir(t), "staging"))
	if _, err := mounter.Probe(context.Background()); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(anyStep), 1, 40).Draw(rt, "steps")
		dir := mounttest.TempDir(t)
		var failure string
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(t, realMounts{mounter}, dir)
			defer m.halt()
			for i, s := range steps {
				if failure = m.play(s); failure != "" {
					failure = fmt.Sprintf("step %d, %s: %s", i, s, failure)
					return
				}
			}
			failure = m.end()
		})
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// step is one event; volume is the one that it concerns, amount how much of it.
type step struct {
	what   string
	volume int
	amount int
}

func (s step) String() string { return fmt.Sprintf("%s(%d, %d)", s.what, s.volume, s.amount) }

const machineVolumes = 3

func anyStep(t *rapid.T) step {
	return step{
		what: rapid.SampledFrom([]string{
			"publish", "publish", "republish", "republish", "unpublish", "wait", "wait", "wait",
			"kill", "kill mid-call", "restart", "vault down", "vault up", "revoke lease", "revoke token", "unmount", "change value", "wipe records",
		}).Draw(t, "what"),
		volume: rapid.IntRange(0, machineVolumes-1).Draw(t, "volume"),
		amount: rapid.IntRange(1, 200).Draw(t, "amount"),
	}
}

// machine is a node with a model beside it.
type machine struct {
	*node
	dir       string
	mounts    realMounts
	published [machineVolumes]bool
	trouble   time.Time // last moment at which files may be wrong through no fault of the daemon
	killable  *killable
}

func newMachine(t *testing.T, mounts realMounts, dir string) *machine {
	n := newNode(t)
	n.vault.leaseTTL, n.vault.leaseMax, n.vault.tokenTTL, n.vault.tokenMax = time.Minute, 4*time.Minute, 5*time.Minute, 15*time.Minute
	m := &machine{node: n, dir: dir, mounts: mounts, killable: &killable{memory: n.records}}
	m.boot()
	return m
}

// boot starts a daemon on what is there.
func (m *machine) boot() {
	m.killable.arm(-1)
	m.Manager = rotation.NewManager(rotation.Options{
		Vaults: m.vault, Mounts: m.mounts, Records: m.killable, Observer: m.seen, Auditor: m.seen, Clock: skewed{},
		Settings: func() rotation.Settings { return m.settings }, Log: discard(),
	})
	if err := m.Recover(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	m.stop = func() { cancel(); <-done }
}

// halt ends the daemon that runs, whose handles go with it.
func (m *machine) halt() {
	m.stop()
	m.CloseHandles()
}

func (m *machine) request(i int) rotation.Request {
	req := request(value, username, password, fixed)
	req.VolumeID, req.Target = fmt.Sprintf("csi-%d", i), filepath.Join(m.dir, fmt.Sprint(i))
	req.Plan.Size = 64 << 10
	if i == 1 {
		req.Plan.OnExpiry = attributes.Remove
	}
	return req
}

// play does one step and checks the promise.
func (m *machine) play(s step) string {
	req := m.request(s.volume)
	switch s.what {
	case "publish", "republish":
		if s.what == "republish" && !m.published[s.volume] {
			break
		}
		err := m.Publish(context.Background(), req)
		if err != nil && !m.vault.isDown() {
			return "publish: " + err.Error()
		}
		if err != nil && m.published[s.volume] && m.knows(req.VolumeID) {
			return "republish of a live volume: " + err.Error()
		}
		m.published[s.volume] = m.published[s.volume] || err == nil
	case "unpublish":
		if err := m.Unpublish(context.Background(), req.VolumeID, req.Target); err != nil {
			return "unpublish: " + err.Error()
		}
		m.published[s.volume] = false
	case "wait":
		time.Sleep(time.Duration(s.amount) * time.Second)
	case "kill", "restart":
		m.halt()
		m.boot()
		m.republishAll()
	case "kill mid-call":
		m.killMidCall(s, req)
	case "vault down", "vault up":
		m.vault.set(func(f *fakeVault) { f.down = s.what == "vault down" })
		m.republishAll() // what nobody knows any longer (wiped records) waits for it
	case "revoke lease":
		m.vault.set(func(f *fakeVault) { clear(f.leases) })
	case "revoke token":
		m.vault.set(func(f *fakeVault) { clear(f.tokens) })
	case "unmount":
		if m.published[s.volume] {
			if err := m.mounts.Remove(req.Target); err != nil {
				return err.Error()
			}
			m.republishAll()
		}
	case "change value":
		m.vault.set(func(f *fakeVault) { f.kv["kv/app"] = fmt.Sprint(s.amount) })
	case "wipe records":
		m.halt()
		clear(m.records.data)
		m.boot()
		m.republishAll()
	}
	switch s.what {
	case "vault up", "revoke lease", "revoke token", "kill mid-call", "wipe records", "kill", "restart", "unmount", "change value":
		m.trouble = time.Now()
	}
	synctest.Wait()
	return m.check()
}

// republishAll is the kubelet's next round: it brings tokens, and mounts again what is lost.
func (m *machine) republishAll() {
	for i := range m.published {
		if m.published[i] {
			_ = m.Publish(context.Background(), m.request(i)) // fails while Vault is down and the volume is lost
		}
	}
}

// killMidCall kills the daemon at one of the writes of its record, in a publish, an unpublish or a rotation.
func (m *machine) killMidCall(s step, req rotation.Request) {
	m.killable.arm(s.amount % 5)
	done := make(chan struct{})
	switch s.amount % 3 {
	case 0:
		go func() { defer close(done); _ = m.Publish(context.Background(), req) }()
	case 1:
		go func() { defer close(done); _ = m.Unpublish(context.Background(), req.VolumeID, req.Target) }()
	default:
		close(done)
		time.Sleep(time.Duration(s.amount) * time.Second)
	}
	<-done
	synctest.Wait()
	m.halt()
	m.boot()
	// The kubelet never heard how its call ended; it makes sure by what it does next.
	switch s.amount % 3 {
	case 0:
		err := m.Publish(context.Background(), req)
		m.published[s.volume] = m.published[s.volume] || err == nil
	case 1:
		_ = m.Unpublish(context.Background(), req.VolumeID, req.Target)
		m.published[s.volume] = false
	}
	m.republishAll()
}

func (m *machine) knows(volumeID string) bool {
	for _, v := range m.Volumes() {
		if v.VolumeID == volumeID && v.Phase == rotation.PhaseLive {
			return true
		}
	}
	return false
}

// settled is how long after trouble everything must be right again: a refresh interval, the longest wait between two checks or
// attempts, and the kubelet's next token, which comes with republishAll here.
const settled = 3 * time.Minute

func (m *machine) check() string {
	if m.vault.isDown() {
		m.trouble = time.Now()
	}
	for i, published := range m.published {
		target := m.request(i).Target
		mounted, err := m.mounts.Mounted(target)
		if err != nil {
			return err.Error()
		}
		if !published {
			if mounted {
				return target + " is mounted though nothing is published there"
			}
			continue
		}
		if time.Since(m.trouble) < settled {
			continue
		}
		user, err1 := os.ReadFile(filepath.Join(target, "username"))
		pass, err2 := os.ReadFile(filepath.Join(target, "password"))
		other, err3 := os.ReadFile(filepath.Join(target, "fixed"))
		plain, err4 := os.ReadFile(filepath.Join(target, "value"))
		if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
			return fmt.Sprint(err1, err2, err3, err4)
		}
		if !m.vault.valid(string(user)) || !m.vault.valid(string(other)) || string(pass) != "p-"+string(user) {
			return fmt.Sprintf("volume %d shows %s, %s, %s: not all valid, %v after the last trouble", i, user, pass, other, time.Since(m.trouble))
		}
		if now := m.vault.value("kv/app"); string(plain) != now {
			return fmt.Sprintf("volume %d shows %q, Vault has %q", i, plain, now)
		}
	}
	return ""
}

// end mends Vault, sees everything come right, and takes all volumes away.
func (m *machine) end() string {
	m.vault.set(func(f *fakeVault) { f.down = false })
	m.trouble = time.Now()
	m.republishAll()
	time.Sleep(settled + time.Second)
	synctest.Wait()
	if failure := m.check(); failure != "" {
		return "after Vault was mended: " + failure
	}
	for i := range m.published {
		req := m.request(i)
		if err := m.Unpublish(context.Background(), req.VolumeID, req.Target); err != nil {
			return err.Error()
		}
		if _, err := os.Stat(req.Target); !os.IsNotExist(err) {
			return fmt.Sprintf("%s is still there: %v", req.Target, err)
		}
	}
	time.Sleep(10 * time.Minute) // longer than any wait between two attempts, and than the TTL of a token nobody knows
	synctest.Wait()
	tokens, leases := m.vault.live()
	if records, _ := m.records.List(); tokens+leases+len(records) != 0 {
		return fmt.Sprintf("left: %d tokens, %d leases, %d records", tokens, leases, len(records))
	}
	return ""
}

func (f *fakeVault) isDown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

func (f *fakeVault) value(path string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kv[path]
}

// realMounts is mount.Mounter as the domain sees it.
type realMounts struct{ *mount.Mounter }

func (m realMounts) Create(s mount.Shape) (rotation.Volume, error) {
	v, err := m.Mounter.Create(s)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (m realMounts) Adopt(target string) (rotation.Volume, error) {
	v, err := m.Mounter.Adopt(target)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// killable is a record store at whose n-th write the goroutine that writes is gone, as after kill -9, and every later one of that
// daemon with it.
type killable struct {
	*memory
	lock sync.Mutex
	left int // -1: never
}

func (k *killable) arm(writes int) {
	k.lock.Lock()
	defer k.lock.Unlock()
	k.left = writes
}

func (k *killable) Put(name string, data []byte) error {
	k.lock.Lock()
	if k.left == 0 {
		k.lock.Unlock()
		runtime.Goexit()
	}
	if k.left > 0 {
		k.left--
	}
	k.lock.Unlock()
	return k.memory.Put(name, data)
}
