// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/render"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

func TestPublishShowsAllFilesFromOneLoginAndOneReadEach(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value, username, password))
		n.wantFile("value", "v1")
		n.wantFile("password", "p-"+n.wantWorking("username")) // one read gives both
		if logins, reads := n.vault.count(vault.OpLogin), n.vault.count(vault.OpRead); logins != 1 || reads != 2 {
			t.Fatalf("%d logins and %d reads, want 1 and 2", logins, reads)
		}
		n.unpublish(request())
		after(time.Second)
		n.wantNothingLeft()
	})
}

// Every way in which a publish can fail, and nothing is left after any of them.
func TestAFailedPublishLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	for name, row := range map[string]struct {
		spoil func(n *node, req *rotation.Request)
		want  func(error) bool
	}{
		"Vault is down": {
			func(n *node, _ *rotation.Request) { n.vault.down = true }, class(vault.Transient)},
		"login is refused": {
			func(_ *node, req *rotation.Request) { req.Token.JWT = secret.New("stolen") }, class(vault.Denied)},
		"no token came": {
			func(_ *node, req *rotation.Request) { req.Token.Expires = time.Now().Add(-time.Second) }, is(rotation.ErrNoToken)},
		"path is denied, after a lease was read": {
			func(n *node, _ *rotation.Request) { n.vault.denied["kv/app"] = true }, class(vault.Denied)},
		"secret is missing": {
			func(n *node, _ *rotation.Request) { delete(n.vault.kv, "kv/app") }, class(vault.NotFound)},
		"certificate has ended already": {
			func(n *node, req *rotation.Request) {
				req.Plan.Objects = append(req.Plan.Objects, certificate)
				n.vault.certTTL = -time.Second
			}, class(vault.BadResponse)},
		"key is missing": {
			func(_ *node, req *rotation.Request) { req.Plan.Objects[0].Key = "valu" },
			func(err error) bool { return errors.As(err, new(*render.MissingKeyError)) }},
		"content is larger than the volume": {
			func(n *node, _ *rotation.Request) { n.vault.kv["kv/app"] = strings.Repeat("x", 2<<20) },
			func(err error) bool { return errors.As(err, new(*rotation.SizeError)) }},
		"connection is unknown": {
			func(_ *node, req *rotation.Request) { req.Plan.Connection = "gone" }, func(err error) bool { return err != nil }},
		"tmpfs cannot be made": {
			func(n *node, _ *rotation.Request) { n.mounts.fail["Create"] = boom }, is(boom)},
		"target's directory cannot be made": {
			func(n *node, _ *rotation.Request) { n.mounts.fail["Prepare"] = boom }, is(boom)},
		"tmpfs is full": {
			func(n *node, _ *rotation.Request) { n.mounts.fail["Fill"] = mount.ErrNoSpace }, is(mount.ErrNoSpace)},
		"target cannot be attached": {
			func(n *node, _ *rotation.Request) { n.mounts.fail["Attach"] = boom }, is(boom)},
		"record cannot be written": {
			func(n *node, _ *rotation.Request) { n.records.fail = boom }, is(boom)},
	} {
		t.Run(name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *node) {
				req := request(value, username, fixed)
				row.spoil(n, &req)
				err := n.Publish(context.Background(), req)
				if err == nil || !row.want(err) {
					t.Fatalf("got %v", err)
				}
				n.vault.set(func(f *fakeVault) { f.down = false }) // what could not be revoked then is revoked later
				after(time.Minute)
				n.wantNothingLeft()
			})
		})
	}
}

func class(c vault.Class) func(error) bool {
	return func(err error) bool { return vault.ClassOf(err) == c }
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// The pod that failed at first starts by itself once the cause is mended.
func TestAPublishSucceedsAfterAFailedOne(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.down = true
		if err := n.Publish(context.Background(), request(value)); err == nil {
			t.Fatal("published without Vault")
		}
		n.vault.set(func(f *fakeVault) { f.down = false })
		n.publish(request(value))
		n.wantFile("value", "v1")
	})
}

func TestARepublishAsksVaultNothing(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value, username))
		before := n.calls()
		for range 100 {
			n.publish(request(value, username))
		}
		if n.calls() != before {
			t.Fatalf("%d calls by 100 republishes", n.calls()-before)
		}
	})
}

func TestARepublishIsNoErrorWhileVaultIsDown(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username))
		n.vault.set(func(f *fakeVault) { f.down = true })
		after(time.Hour) // even the secret has expired by now
		n.publish(request(username))
	})
}

func TestARepublishWithAnotherRequestIsAConflict(t *testing.T) {
	group := uint32(1000)
	for name, change := range map[string]func(*rotation.Request){
		"target":     func(r *rotation.Request) { r.Target = "/pods/2/mount" },
		"attributes": func(r *rotation.Request) { r.Fingerprint = "other" },
		"group":      func(r *rotation.Request) { r.Group = &group },
		"pod":        func(r *rotation.Request) { r.Pod.UID = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *node) {
				n.publish(request(value))
				req := request(value)
				change(&req)
				req.Token.JWT = secret.New("another's") // or for another audience
				if err := n.Publish(context.Background(), req); !errors.As(err, new(*rotation.ConflictError)) {
					t.Fatalf("got %v", err)
				}
				n.vault.set(func(f *fakeVault) { clear(f.tokens); f.kv["kv/app"] = "v2" })
				after(2 * time.Minute)
				n.wantFile("value", "v2") // by a login with the token that it had before
				n.publish(request(value))
			})
		})
	}
}

// Somebody unmounts the target behind our back: containers that run see the old tmpfs, so the new mount must be that one.
func TestALostMountComesBackWithTheSameFileSystem(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username))
		n.mounts.mu.Lock()
		before := n.mounts.targets["/pods/1/mount"]
		delete(n.mounts.targets, "/pods/1/mount")
		n.mounts.mu.Unlock()
		calls := n.calls()
		n.publish(request(username))
		if n.mounts.targets["/pods/1/mount"] != before || n.calls() != calls {
			t.Fatal("want the same file system, without a call to Vault")
		}
	})
}

func TestASecondPublishOfAVolumeThatIsUnderWayIsBusy(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.hang = make(chan struct{})
		first := make(chan error)
		go func() { first <- n.Publish(context.Background(), request(value)) }()
		after(time.Second)
		if err := n.Publish(context.Background(), request(value)); !errors.Is(err, rotation.ErrBusy) {
			t.Fatalf("got %v", err)
		}
		close(n.vault.hang)
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		n.wantFile("value", "v1")
	})
}

func TestAnUnpublishInterruptsAPublishThatWaitsForVault(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.hang = make(chan struct{})
		first := make(chan error)
		go func() { first <- n.Publish(context.Background(), request(username)) }()
		after(time.Second)
		start := time.Now()
		n.unpublish(request())
		if took := time.Since(start); took > 0 {
			t.Fatalf("unpublish waited %v for Vault", took)
		}
		if err := <-first; err == nil {
			t.Fatal("the interrupted publish reported success")
		}
		after(time.Minute)
		n.wantNothingLeft()
	})
}

func TestAnUnpublishInterruptsARotationThatWaitsForVault(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value))
		n.vault.set(func(f *fakeVault) { f.hang = make(chan struct{}) })
		after(61 * time.Second)
		start := time.Now()
		n.unpublish(request())
		if took := time.Since(start); took > 0 {
			t.Fatalf("unpublish waited %v for Vault", took)
		}
		after(time.Second)
		n.wantNothingLeft()
	})
}

func TestUnpublishNeverWaitsForVaultAndRevokesWhenItIsBack(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.leaseTTL, n.vault.leaseMax, n.vault.tokenTTL = 10*time.Hour, 10*time.Hour, 10*time.Hour
		n.publish(request(username))
		n.vault.set(func(f *fakeVault) { f.down = true })
		n.unpublish(request())
		if _, ok := n.mounts.file("/pods/1/mount", "username"); ok {
			t.Fatal("still mounted")
		}
		after(time.Hour)
		if got := n.Totals().ByPhase[rotation.PhaseReleasing]; got != 1 {
			t.Fatalf("%d volumes are being released, want 1", got)
		}
		n.restart() // the release outlives the daemon
		n.vault.set(func(f *fakeVault) { f.down = false })
		after(2 * time.Minute)
		n.wantNothingLeft()
	})
}

func TestUnpublishOfWhatIsNotThereIsNoError(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.unpublish(request())
		n.publish(request(value))
		n.unpublish(request())
		n.unpublish(request())
		after(time.Second)
		n.wantNothingLeft()
	})
}

func TestAFailedUnmountIsReportedAndCanBeRepeated(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username))
		n.mounts.fail["Remove"] = errors.New("device or resource busy")
		var mountErr *rotation.MountError
		if err := n.Unpublish(context.Background(), "csi-1", "/pods/1/mount"); !errors.As(err, &mountErr) {
			t.Fatalf("got %v", err)
		}
		if _, leases := n.vault.live(); leases != 1 {
			t.Fatal("the lease was revoked while the files are still there to be read")
		}
		delete(n.mounts.fail, "Remove")
		n.unpublish(request())
		after(time.Second)
		n.wantNothingLeft()
	})
}

func TestTheNodesBudgetBoundsAllVolumesTogether(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.settings.NodeBudget = 5 << 20 // a volume of 1 MiB takes 2 MiB and some
		second, third := request(value), request(value)
		second.VolumeID, second.Target = "csi-2", "/pods/2/mount"
		third.VolumeID, third.Target = "csi-3", "/pods/3/mount"
		n.publish(request(value))
		n.publish(second)
		var budget *rotation.BudgetError
		if err := n.Publish(context.Background(), third); !errors.As(err, &budget) {
			t.Fatalf("got %v", err)
		}
		if n.vault.count(vault.OpLogin) != 2 {
			t.Fatal("the volume that does not fit must not reach Vault")
		}
		n.unpublish(second)
		n.publish(third)
	})
}

// The pages of a tmpfs are charged to the daemon's pod for as long as the volume lives, whichever daemon has written them.
func TestTheNodesBudgetCountsVolumesOfTheDaemonBefore(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.settings.NodeBudget = 5 << 20
		second, third := request(value), request(value)
		second.VolumeID, second.Target = "csi-2", "/pods/2/mount"
		third.VolumeID, third.Target = "csi-3", "/pods/3/mount"
		n.publish(request(value))
		n.publish(second)
		used := n.Totals().BudgetUsed
		n.restart()
		if got := n.Totals().BudgetUsed; got != used {
			t.Fatalf("%d bytes are used after a restart, %d before", got, used)
		}
		if err := n.Publish(context.Background(), third); !errors.As(err, new(*rotation.BudgetError)) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestAStoppedDaemonTakesNoNewVolumes(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value))
		n.stop()
		other := request(value)
		other.VolumeID = "csi-2"
		if err := n.Publish(context.Background(), other); !errors.Is(err, rotation.ErrStopped) {
			t.Fatalf("got %v", err)
		}
		n.wantFile("value", "v1")
	})
}
