// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

// The promise of an upgrade: the same token, the same leases, the same generation, and not one call.
func TestARestartAsksVaultNothingBeforeItsTime(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.leaseTTL, n.vault.leaseMax, n.vault.tokenMax = time.Hour, 10*time.Hour, 10*time.Hour
		n.settings.GenerationGrace = time.Second
		req := request(username, value)
		req.Plan.Refresh = time.Hour
		n.publish(req)
		after(time.Minute)
		before, calls := n.Volumes(), n.calls()
		n.restart()
		after(time.Second)
		if n.calls() != calls {
			t.Fatalf("%d calls by a restart", n.calls()-calls)
		}
		if got := n.seen.recovered[rotation.RecoveredLive]; got != 1 {
			t.Fatalf("recovered %v", n.seen.recovered)
		}
		now := n.Volumes()
		if now[0].Generation != before[0].Generation || !now[0].Next.Equal(before[0].Next) || !now[0].Expires.Equal(before[0].Expires) {
			t.Fatalf("before %+v\nafter %+v", before[0], now[0])
		}
		after(3 * time.Hour)
		n.wantWorking("username")
		if logins := n.vault.count(vault.OpLogin); logins != 1 {
			t.Fatalf("%d logins", logins)
		}
	})
}

// A kill at every write of the record and every step on the volume: whatever the daemon was doing, the next one brings it to
// a good end.
func TestAKillAtAnyStepOfAPublishIsUndone(t *testing.T) {
	for point := range 2 {
		onNode(t, func(t *testing.T, n *node) {
			n.killAt(point, func() { _ = n.Publish(context.Background(), request(username, value)) })
			after(time.Minute)
			if point == 0 { // between Vault's answer and the record: the one window, and the token's TTL closes it
				after(n.vault.tokenTTL)
			}
			n.wantNothingLeft()
			n.publish(request(username, value))
			n.wantWorking("username")
		})
	}
}

// killAt runs a call on a daemon whose record store stops taking writes, and whose world is frozen, after the given
// number of writes; then a new daemon starts on what is there.
func (n *node) killAt(writes int, call func()) {
	frozen := &frozenRecords{memory: n.records, left: writes}
	n.stop()
	dead := rotation.NewManager(rotation.Options{
		Vaults: n.vault, Mounts: n.mounts, Records: frozen, Observer: n.seen, Auditor: n.seen, Clock: skewed{},
		Settings: func() rotation.Settings { return n.settings }, Log: discard(),
	})
	n.Manager = dead
	frozen.run(call)
	n.mounts.mu.Lock()
	clear(n.mounts.fail)
	n.mounts.mu.Unlock()
	n.start()
}

func TestAKillDuringASwapLeavesLeasesThatMatchTheFiles(t *testing.T) {
	for _, happened := range []bool{false, true} {
		onNode(t, func(t *testing.T, n *node) {
			n.vault.leaseTTL, n.vault.leaseMax, n.vault.tokenMax = 10*time.Minute, 10*time.Minute, 100*time.Hour
			n.publish(request(fixed))
			old := n.wantWorking("fixed")
			// A record in which the next generation is staged, as it stands before the swap.
			if !happened {
				n.mounts.fail["Swap"] = errors.New("killed before the rename")
			}
			var staged []byte
			for staged == nil {
				after(time.Second)
				staged = n.records.staged()
			}
			n.stop()
			n.records.restore(staged)
			delete(n.mounts.fail, "Swap")
			if !happened {
				n.wantFile("fixed", old)
			}
			n.start()
			for range 120 {
				after(time.Second)
				n.wantWorking("fixed")
			}
			if _, leases := n.vault.live(); leases > 2 {
				t.Fatalf("%d leases for one file", leases)
			}
			n.unpublish(request())
			after(time.Second)
			n.wantNothingLeft()
		})
	}
}

func TestAKillDuringAnUnpublishIsCarriedOn(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username))
		n.killAt(2, func() { // one for the recovery, one for the unpublish
			_ = n.Recover(context.Background())
			n.mounts.fail["Remove"] = errors.New("killed before the unmount")
			_ = n.Unpublish(context.Background(), "csi-1", "/pods/1/mount")
		})
		after(time.Minute)
		n.unpublish(request()) // the kubelet repeats it
		after(time.Second)
		n.wantNothingLeft()
	})
}

func TestAVolumeWhoseMountIsGoneIsReleasedAndPublishedAnew(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username))
		old := n.wantWorking("username")
		n.stop()
		clear(n.mounts.targets)
		n.start()
		after(time.Second)
		if n.vault.valid(old) {
			t.Fatal("the lease of the lost volume is still there")
		}
		n.publish(request(username))
		n.wantWorking("username")
	})
}

// Somebody wiped the records, or they are damaged: the pod's containers hold the tmpfs, so the next publish writes to it.
func TestAVolumeWithoutAReadableRecordIsTakenOverByItsNextPublish(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"truncated":       func(b []byte) []byte { return b[:len(b)/2] },
		"empty":           func([]byte) []byte { return nil },
		"other version":   func(b []byte) []byte { return []byte(strings.Replace(string(b), `"version":1`, `"version":99`, 1)) },
		"not a record":    func([]byte) []byte { return []byte(`{"version":1}`) },
		"without a token": func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "hvs.token-1", "")) },
	} {
		t.Run(name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *node) {
				n.publish(request(value))
				tmpfs := n.mounts.targets["/pods/1/mount"]
				n.stop()
				for key, data := range n.records.data {
					n.records.data[key] = damage(data)
				}
				n.vault.set(func(f *fakeVault) { f.kv["kv/app"] = "v2" })
				n.start()
				n.wantFile("value", "v1")
				if n.seen.recovered[rotation.RecoveredUnreadable] != 1 {
					t.Fatalf("recovered %v", n.seen.recovered)
				}
				n.publish(request(value))
				n.wantFile("value", "v2")
				if n.mounts.targets["/pods/1/mount"] != tmpfs {
					t.Fatal("another file system: containers that run would not see it")
				}
			})
		})
	}
}

func TestAFailedTakeOverLeavesTheMountOfARunningPod(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value))
		n.stop()
		clear(n.records.data)
		n.start()
		n.vault.set(func(f *fakeVault) { f.down = true })
		if err := n.Publish(context.Background(), request(value)); err == nil {
			t.Fatal("published without Vault")
		}
		n.wantFile("value", "v1")
	})
}

// The same at the last step of all, when only the record of the volume could not be written.
func TestATakeOverWithoutARecordLeavesTheMountOfARunningPod(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value))
		tmpfs := n.mounts.targets["/pods/1/mount"]
		n.stop()
		clear(n.records.data)
		n.start()
		n.records.failAfter(1, errors.New("no space left on device")) // the login's is the first
		if err := n.Publish(context.Background(), request(value)); err == nil {
			t.Fatal("published without a record")
		}
		if n.mounts.targets["/pods/1/mount"] != tmpfs {
			t.Fatal("the mount is gone")
		}
		n.records.failAfter(0, nil)
		n.publish(request(value))
		n.wantFile("value", "v1")
		if n.mounts.targets["/pods/1/mount"] != tmpfs {
			t.Fatal("another file system: containers that run would not see it")
		}
	})
}

func TestRecoverFailsWhereRecordsCannotBeListed(t *testing.T) {
	m := rotation.NewManager(rotation.Options{Records: unlisted{}, Settings: func() rotation.Settings { return rotation.Settings{} }})
	if err := m.Recover(context.Background()); !errors.Is(err, errUnlisted) {
		t.Fatalf("got %v", err)
	}
}

var errUnlisted = errors.New("input/output error")

type unlisted struct{ rotation.Records }

func (unlisted) List() (map[string][]byte, error) { return nil, errUnlisted }

// frozenRecords takes a number of writes and then kills the daemon that writes: its goroutine ends there, mid-call.
type frozenRecords struct {
	*memory
	left int
}

func (f *frozenRecords) Put(name string, data []byte) error {
	if f.left == 0 {
		panic(killed{})
	}
	f.left--
	return f.memory.Put(name, data)
}

type killed struct{}

// run makes a call that may be killed.
func (f *frozenRecords) run(call func()) {
	defer func() {
		if r := recover(); r != nil && r != (killed{}) {
			panic(r)
		}
	}()
	call()
}

// staged returns the first record that was ever written with a staged generation, or nil.
func (m *memory) staged() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.firstStaged)
}

// restore puts a record back as the only one.
func (m *memory) restore(data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.data {
		m.data[name] = data
	}
}
