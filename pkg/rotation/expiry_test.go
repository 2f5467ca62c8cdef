// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

// instant is the time that nothing takes in a bubble, but for the order of things.
const instant = time.Millisecond

// A Vault that is down answers at once. One that takes requests and answers none must not delay what is said of an end.
func TestAnEndIsSaidAtItsMomentWhateverVaultDoesNotAnswer(t *testing.T) {
	for _, object := range []attributes.Object{username, fixed, certificate} {
		for muteAfter := time.Duration(0); muteAfter < time.Minute; muteAfter += 1300 * time.Millisecond {
			onNode(t, func(t *testing.T, n *node) {
				n.vault.certTTL = time.Minute
				req := request(object)
				req.Plan.OnExpiry = attributes.Remove
				n.publish(req)
				after(muteAfter)
				n.vault.set(func(f *fakeVault) { f.mute = true })
				ends := n.Volumes()[0].Expires // a request that is under way has been answered or never will be
				after(time.Until(ends) - instant)
				if n.seen.noticed(rotation.SecretsExpired) != 0 {
					t.Fatalf("%s, mute after %v: said before its end", object.Name, muteAfter)
				}
				after(2 * instant)
				if _, there := n.mounts.file("/pods/1/mount", object.Name); there || n.seen.noticed(rotation.SecretsExpired) != 1 {
					t.Fatalf("%s, mute after %v: not said at its end; file is there: %t", object.Name, muteAfter, there)
				}
				n.vault.set(func(f *fakeVault) { f.mute = false })
				after(2 * time.Minute)
				if _, there := n.mounts.file("/pods/1/mount", object.Name); !there {
					t.Fatalf("%s, mute after %v: not replaced when Vault was back", object.Name, muteAfter)
				}
			})
		}
	}
}

// Three hundred volumes whose requests wait for Vault are as many as may be rotated at once, and more.
func TestEndsDoNotWaitForRotations(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		const volumes = 300
		for i := range volumes {
			req := request(username)
			req.VolumeID, req.Target = "csi-"+itoa(int64(i)), "/pods/"+itoa(int64(i))+"/mount"
			n.publish(req)
			after(time.Millisecond)
		}
		n.vault.set(func(f *fakeVault) { f.mute = true })
		for range 120 {
			after(time.Second)
			now, want := time.Now(), 0
			for _, v := range n.Volumes() {
				if !now.Before(v.Expires) {
					want++
				}
			}
			if got := n.seen.noticed(rotation.SecretsExpired); got != want {
				t.Fatalf("%d volumes are said to have expired, %d have", got, want)
			}
		}
		if got := n.seen.noticed(rotation.SecretsExpired); got != volumes {
			t.Fatalf("%d of %d volumes are said to have expired", got, volumes)
		}
	})
}

func TestASecretThatEndedWhileTheDaemonWasAwayIsReplacedBeforeAnybodyIsAlarmed(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		req := request(fixed)
		req.Plan.OnExpiry = attributes.Remove
		n.publish(req)
		old := n.wantWorking("fixed")
		n.stop()
		after(2 * time.Minute)
		n.start()
		after(instant)
		if n.wantWorking("fixed") == old || n.seen.noticed(rotation.SecretsExpired) != 0 {
			t.Fatalf("notices: %v", n.seen.notices)
		}
	})
}

func TestASecretThatEndedWhileTheDaemonWasAwayIsSaidToHaveWhereVaultDoesNotAnswer(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(fixed))
		n.stop()
		after(2 * time.Minute)
		n.vault.set(func(f *fakeVault) { f.mute = true })
		n.start()
		after(time.Second + instant)
		if n.seen.noticed(rotation.SecretsExpired) != 1 {
			t.Fatalf("notices: %v", n.seen.notices)
		}
	})
}

// Somebody revokes a lease or the session, and Vault stops answering when that is found.
func TestARevocationIsSaidSoonThoughVaultAnswersNothingElse(t *testing.T) {
	for _, revoke := range []struct {
		name string
		do   func(f *fakeVault)
	}{
		{"lease", func(f *fakeVault) { clear(f.leases) }},
		{"session", func(f *fakeVault) { clear(f.tokens) }},
	} {
		t.Run(revoke.name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *node) {
				n.publish(request(username))
				checks := n.vault.count(vault.OpLookupLease)
				n.vault.set(func(f *fakeVault) {
					revoke.do(f)
					f.muteBut = vault.OpLookupLease
				})
				for n.vault.count(vault.OpLookupLease) == checks {
					after(100 * time.Millisecond)
				}
				after(time.Second + instant)
				if n.seen.noticed(rotation.SecretsExpired) != 1 {
					t.Fatalf("notices: %v", n.seen.notices)
				}
			})
		})
	}
}

func TestWhatWasNotAnsweredInTimeSaysWhyItWasGivenUp(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(fixed))
		n.vault.set(func(f *fakeVault) { f.mute = true })
		after(time.Minute + instant)
		if problem := n.Volumes()[0].Problem; !strings.Contains(problem, "no answer before a secret of the volume ended") {
			t.Fatalf("problem: %q", problem)
		}
	})
}
