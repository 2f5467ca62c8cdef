// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

func TestAChangedValueArrivesWithinTheRefreshInterval(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value))
		n.wantFile("value", "v1")
		n.vault.set(func(f *fakeVault) { f.kv["kv/app"] = "v2" })
		after(61 * time.Second)
		n.wantFile("value", "v2")
		if got := n.seen.noticed(rotation.SecretsRotated); got != 1 {
			t.Fatalf("%d SecretsRotated events, want 1", got)
		}
	})
}

func TestAnUnchangedValueIsReadAndNotSwapped(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value))
		after(10 * time.Minute)
		if reads := n.vault.count(vault.OpRead); reads < 9 || reads > 13 {
			t.Fatalf("%d reads in ten minutes with a refresh interval of one", reads)
		}
		if n.seen.swapped != 0 {
			t.Fatalf("%d swaps of an unchanged value", n.seen.swapped)
		}
	})
}

// The first trap of other drivers: new credentials at every poll.
func TestRenewingALeaseMakesNoNewCredentials(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username, password))
		user := n.wantWorking("username")
		for range 28 { // the lease's maximum is five minutes
			after(10 * time.Second)
			n.wantFile("username", user)
			n.wantWorking("username")
		}
		if reads := n.vault.count(vault.OpRead); reads != 1 {
			t.Fatalf("%d reads; renewing must not read", reads)
		}
	})
}

func TestNoMomentWithoutAWorkingCredential(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.leaseMax, n.vault.tokenMax = 3*time.Minute, 20*time.Minute
		n.publish(request(username, password, fixed))
		users := map[string]bool{}
		for range 3600 { // an hour: twenty maximum TTLs of the lease, three of the token
			after(time.Second)
			users[n.wantWorking("username")] = true
			n.wantWorking("fixed")
			if got, _ := n.mounts.file("/pods/1/mount", "password"); got != "p-"+n.wantWorking("username") {
				t.Fatalf("password %q is of another lease", got)
			}
		}
		if len(users) < 20 || len(users) > 40 {
			t.Fatalf("%d users in an hour with a maximum TTL of 3 minutes", len(users))
		}
		if tokens, leases := n.vault.live(); tokens > 2 || leases > 6 {
			t.Fatalf("%d tokens and %d leases for one volume", tokens, leases)
		}
		if n.seen.late > time.Second {
			t.Fatalf("a step was %v late", n.seen.late)
		}
		n.unpublish(request())
		after(time.Second)
		n.wantNothingLeft()
	})
}

func TestReplacedCredentialsAreRevokedAfterTheGraceAndNotBefore(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.settings.CredentialGrace = 20 * time.Second
		n.vault.leaseTTL, n.vault.leaseMax = 10*time.Minute, 10*time.Minute
		n.vault.tokenMax = 100 * time.Hour
		n.publish(request(fixed))
		first := n.wantWorking("fixed")
		for n.wantWorking("fixed") == first {
			after(time.Second)
		}
		after(15 * time.Second)
		if !n.vault.valid(first) {
			t.Fatal("the old credential was revoked within the grace")
		}
		after(10 * time.Second)
		if n.vault.valid(first) {
			t.Fatal("the old credential outlived the grace")
		}
	})
}

func TestCredentialsOfARoleThatMayNotRevokeEndByThemselves(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.denied["sys/leases/revoke"] = true
		n.publish(request(fixed))
		after(time.Hour)
		n.wantWorking("fixed")
		if n.seen.noticed(rotation.RotationFailing) != 0 {
			t.Fatal("a policy that does not allow revocation is not a failure of rotation")
		}
	})
}

func TestALeaseThatIsRevokedBehindOurBackIsReplacedWithinAThirdOfItsTTL(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username))
		after(5 * time.Second)
		old := n.wantWorking("username")
		n.vault.set(func(f *fakeVault) { delete(f.leases, old) })
		after(20 * time.Second)
		if n.wantWorking("username") == old {
			t.Fatal("still the revoked one")
		}
	})
}

func TestASessionThatIsRevokedBehindOurBackIsFollowedByOneLogin(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username, fixed, value))
		after(5 * time.Second)
		n.vault.set(func(f *fakeVault) { clear(f.tokens) })
		after(25 * time.Second)
		n.wantWorking("username")
		n.wantWorking("fixed")
		if logins := n.vault.count(vault.OpLogin); logins != 2 {
			t.Fatalf("%d logins, want the first and one more", logins)
		}
	})
}

func TestARoleThatMayNotLookLeasesUpIsCheckedByItsSession(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.denied["sys/leases/lookup"] = true
		n.publish(request(username))
		after(5 * time.Second)
		n.vault.set(func(f *fakeVault) { clear(f.tokens) })
		after(20 * time.Second)
		n.wantWorking("username")
	})
}

func TestARoleThatMayLookNothingUpIsServedAllTheSame(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.denied["sys/leases/lookup"], n.vault.denied["auth/token/lookup-self"] = true, true
		n.publish(request(username, fixed))
		for range 600 {
			after(time.Second)
			n.wantWorking("username")
			n.wantWorking("fixed")
		}
		if n.seen.noticed(rotation.RotationFailing) != 0 {
			t.Fatal("a policy that does not allow lookups is not a failure of rotation")
		}
	})
}

// A proxy before Vault that lets no lookup through answers whatever it likes.
func TestLookupsThatAlwaysFailDoNotStandInTheWayOfRenewals(t *testing.T) {
	for _, class := range []vault.Class{vault.Transient, vault.NotFound, vault.BadRequest, vault.BadResponse} {
		onNode(t, func(t *testing.T, n *node) {
			n.vault.set(func(f *fakeVault) { f.broken = map[string]vault.Class{"sys/leases/lookup": class} })
			n.publish(request(username, fixed))
			for range 600 {
				after(time.Second)
				n.wantWorking("username")
				n.wantWorking("fixed")
			}
		})
	}
}

func TestARoleThatMayNotRenewGetsNewCredentialsBeforeTheEnd(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.denied["sys/leases/renew"] = true
		n.publish(request(username))
		for range 600 {
			after(time.Second)
			n.wantWorking("username")
		}
	})
}

// Whatever Vault, or a proxy before it, has against renewals: what cannot be renewed is replaced before its end, the session too.
func TestARenewalThatIsRefusedIsFollowedByAReplacementInTime(t *testing.T) {
	for _, class := range []vault.Class{vault.Denied, vault.NotRenewable, vault.NotFound, vault.BadRequest, vault.BadResponse} {
		onNode(t, func(t *testing.T, n *node) {
			n.vault.set(func(f *fakeVault) {
				f.tokenTTL = 3 * time.Minute
				f.broken = map[string]vault.Class{"sys/leases/renew": class, "auth/token/renew-self": class}
			})
			n.publish(request(username, fixed))
			for range 1200 {
				after(time.Second)
				n.wantWorking("username")
				n.wantWorking("fixed")
			}
		})
	}
}

func TestLeasesUnderABatchTokenAreReplacedBeforeItEnds(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.batch, n.vault.tokenTTL, n.vault.tokenMax = true, 2*time.Minute, 2*time.Minute
		n.publish(request(username))
		for range 1200 {
			after(time.Second)
			n.wantWorking("username")
		}
		n.unpublish(request())
		after(3 * time.Minute) // a batch token cannot be revoked
		n.wantNothingLeft()
	})
}

func TestLeasesUnderABatchTokenAreRevokedWithTheVolumeThoseInTheirGraceToo(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.batch, n.vault.tokenTTL, n.vault.tokenMax = true, time.Hour, time.Hour
		n.publish(request(fixed))
		first := n.wantWorking("fixed")
		for n.wantWorking("fixed") == first {
			after(time.Second)
		}
		if _, leases := n.vault.live(); leases != 2 {
			t.Fatalf("%d leases within the grace, want the old one and the new", leases)
		}
		n.unpublish(request())
		after(time.Second)
		if _, leases := n.vault.live(); leases != 0 {
			t.Fatalf("%d leases are left", leases)
		}
	})
}

// A wall clock that is put right after the daemon has started (by a time server, after a virtual machine was stopped for a while)
// leaves the daemon's own clock as it is. Certificates and tokens are stamped with wall time all the same.
func TestCertificatesAndTokensAreJudgedByTheWallClock(t *testing.T) {
	for name, clock := range map[string]skewed{
		"right from the start":     {},
		"it had been ahead":        {by: 10 * time.Hour},
		"it had been behind":       {by: -10 * time.Hour},
		"it was far behind (1970)": {by: -50 * 365 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *node) {
				n.clock = clock
				n.restart()
				n.vault.tokenTTL, n.vault.tokenMax = 100*time.Hour, 100*time.Hour
				req := request(certificate)
				req.Token.Expires = time.Now().Add(time.Hour)
				n.publish(req)
				seen := map[string]bool{}
				for range 300 {
					after(time.Minute)
					text, _ := n.mounts.file(req.Target, "certificate")
					if ends := notAfter(t, text); !time.Now().Before(ends) {
						t.Fatalf("the certificate ended %v ago", time.Since(ends))
					}
					seen[text] = true
				}
				if len(seen) < 7 || len(seen) > 10 {
					t.Fatalf("%d certificates of an hour in five hours", len(seen))
				}
				logins := n.vault.count(vault.OpLogin)
				n.vault.set(func(f *fakeVault) { clear(f.tokens) })
				after(2 * time.Hour)
				if n.vault.count(vault.OpLogin) != logins {
					t.Fatal("a token that has expired hours ago was sent")
				}
			})
		})
	}
}

func TestAStaticRoleIsReadWithinTwoSecondsOfItsRotation(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(static))
		wrong := 0
		for range 600 {
			after(time.Second)
			got, _ := n.mounts.file("/pods/1/mount", "static")
			if want := time.Now().UnixNano() / int64(n.vault.staticPeriod); got != itoa(want) {
				wrong++
			}
		}
		if wrong > 2*10 {
			t.Fatalf("wrong for %d of 600 seconds with ten rotations", wrong)
		}
	})
}

func TestAnOutageChangesNoFileAndIsMadeUpFor(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.leaseTTL, n.vault.leaseMax = time.Hour, 10*time.Hour
		n.vault.tokenTTL, n.vault.tokenMax = time.Hour, 10*time.Hour
		n.publish(request(value, username))
		user := n.wantWorking("username")
		n.vault.set(func(f *fakeVault) { f.down = true })
		after(10 * time.Minute)
		n.wantFile("value", "v1")
		n.wantFile("username", user)
		if calls := n.calls(); calls > 40 {
			t.Fatalf("%d calls in ten minutes of outage", calls)
		}
		if n.seen.noticed(rotation.RotationFailing) == 0 {
			t.Fatal("nobody was told")
		}
		n.vault.set(func(f *fakeVault) { f.down = false; f.kv["kv/app"] = "v2" })
		after(90 * time.Second)
		n.wantFile("value", "v2")
		n.wantFile("username", user)
		if problem := n.Volumes()[0].Problem; problem != "" {
			t.Fatalf("still a problem after recovery: %s", problem)
		}
	})
}

func TestAnExpiredSecretIsReportedOnceAndItsFilesStay(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username, value))
		user := n.wantWorking("username")
		n.vault.set(func(f *fakeVault) { f.down = true })
		after(30 * time.Minute)
		n.wantFile("username", user)
		if got := n.seen.noticed(rotation.SecretsExpired); got != 1 {
			t.Fatalf("%d SecretsExpired events, want 1", got)
		}
		if v := n.Volumes()[0]; !v.Expired || v.Problem == "" {
			t.Fatalf("status does not say that the secret has expired: %+v", v)
		}
		if n.Totals().Expired != 1 {
			t.Fatal("totals do not count the expired volume")
		}
		n.vault.set(func(f *fakeVault) { f.down = false })
		after(2 * time.Minute)
		n.wantWorking("username")
		if n.Totals().Expired != 0 {
			t.Fatal("totals still count the volume as expired")
		}
	})
}

func TestFilesOfAnExpiredSecretGoWhereTheVolumeWantsThat(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		req := request(username, value)
		req.Plan.OnExpiry = attributes.Remove
		n.publish(req)
		n.vault.set(func(f *fakeVault) { f.down = true })
		after(30 * time.Minute)
		if got, ok := n.mounts.file(req.Target, "username"); ok {
			t.Fatalf("the expired user %q is still there", got)
		}
		n.wantFile("value", "v1")
		n.vault.set(func(f *fakeVault) { f.down = false })
		after(2 * time.Minute)
		n.wantWorking("username")
		n.wantFile("value", "v1")
	})
}

func TestASecretThatNoLongerRendersKeepsItsFiles(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(value, username))
		n.vault.set(func(f *fakeVault) { delete(f.kv, "kv/app") })
		after(3 * time.Minute)
		n.wantFile("value", "v1")
		n.wantWorking("username")
		if n.seen.noticed(rotation.RotationFailing) == 0 {
			t.Fatal("nobody was told")
		}
	})
}

func TestAFullVolumeKeepsTheOldGenerationAndRevokesWhatItCannotShow(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.tokenMax = 100 * time.Hour
		n.vault.leaseTTL, n.vault.leaseMax = time.Hour, time.Hour
		n.publish(request(fixed))
		old := n.wantWorking("fixed")
		n.mounts.mu.Lock()
		n.mounts.fail["Stage"] = context.DeadlineExceeded
		n.mounts.mu.Unlock()
		after(58 * time.Minute)
		n.wantFile("fixed", old)
		if _, leases := n.vault.live(); leases > 1 {
			t.Fatalf("%d leases for one file", leases)
		}
		n.mounts.mu.Lock()
		delete(n.mounts.fail, "Stage")
		n.mounts.mu.Unlock()
		after(time.Minute)
		if n.wantWorking("fixed") == old {
			t.Fatal("not replaced once there was room")
		}
	})
}

// The pod's token is at hand again with the kubelet's next call; the login that waited for it does not wait longer.
func TestALoginThatLacksATokenHappensWithTheNextRepublish(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		req := request(username)
		n.publish(req)
		n.restart() // forgets the token
		after(2 * time.Second)
		n.vault.set(func(f *fakeVault) { clear(f.tokens) })
		after(25 * time.Second)
		if n.seen.rotations["session fetch no-token"] == 0 {
			t.Fatalf("no login was tried: %v", n.seen.rotations)
		}
		n.publish(req)
		after(time.Second)
		n.wantWorking("username")
	})
}

func TestAnExpiredPodTokenIsNotSent(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		req := request(username)
		req.Token.Expires = time.Now().Add(time.Minute)
		n.publish(req)
		after(2 * time.Minute)
		logins := n.vault.count(vault.OpLogin)
		n.vault.set(func(f *fakeVault) { clear(f.tokens) })
		after(time.Minute)
		if n.vault.count(vault.OpLogin) != logins {
			t.Fatal("an expired token was sent to Vault")
		}
	})
}

func TestATokenThatVaultRefusesIsNotSentInATightLoop(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		req := request(username)
		n.publish(req)
		req.Token.JWT = secret.New("stolen")
		n.publish(req)
		n.vault.set(func(f *fakeVault) { clear(f.tokens) })
		logins := n.vault.count(vault.OpLogin)
		after(10 * time.Minute)
		if more := n.vault.count(vault.OpLogin) - logins; more == 0 || more > 12 {
			t.Fatalf("%d logins in ten minutes", more)
		}
	})
}

func TestVolumesThatStartTogetherDoNotReadTogether(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		for i := range 100 {
			req := request(value)
			req.VolumeID, req.Target = "csi-"+itoa(int64(i)), "/pods/"+itoa(int64(i))+"/mount"
			n.publish(req)
		}
		before, busiest := n.vault.count(vault.OpRead), 0
		for range 60 {
			after(time.Second)
			now := n.vault.count(vault.OpRead)
			busiest = max(busiest, now-before)
			before = now
		}
		if busiest > 40 {
			t.Fatalf("%d of 100 volumes read in one second", busiest)
		}
	})
}

// The administrator takes the connection of live volumes out of the configuration, and puts it back.
func TestVolumesWithoutTheirConnectionKeepTheirFilesAndSaySo(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		var log logbook
		n.log = &log
		n.restart()
		n.publish(request(value, username))
		user := n.wantWorking("username")
		n.vault.set(func(f *fakeVault) { f.gone = true })
		before := strings.Count(log.String(), "Rotation failed")
		after(10 * time.Minute)
		n.wantFile("username", user)
		n.wantFile("value", "v1")
		if lines := strings.Count(log.String(), "Rotation failed") - before; lines == 0 || lines > 12 {
			t.Fatalf("%d lines about it in ten minutes", lines)
		}
		if n.seen.noticed(rotation.SecretsExpired) != 1 || n.seen.noticed(rotation.RotationFailing) == 0 {
			t.Fatalf("notices: %v", n.seen.notices)
		}
		n.vault.set(func(f *fakeVault) { f.gone = false; f.kv["kv/app"] = "v2" })
		after(6 * time.Minute)
		n.wantWorking("username")
		n.wantFile("value", "v2")
	})
}

// A rotation that an unpublish interrupts is no failure, and what it has read is not left behind.
func TestAnInterruptedRotationIsNoFailure(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(fixed, value))
		n.vault.set(func(f *fakeVault) { f.hang = make(chan struct{}) })
		after(2 * time.Minute)
		n.unpublish(request())
		after(time.Second)
		if n.seen.noticed(rotation.RotationFailing) > 1 { // the first read that waited for its whole timeout is one
			t.Fatalf("notices: %v", n.seen.notices)
		}
		n.wantNothingLeft()
	})
}

// A secrets engine whose own server hangs (a database, a token for signing) is one team's trouble, not everybody's.
func TestVolumesThatWaitForAnAnswerHoldUpNoOthers(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		const waiting = 400
		for i := range waiting {
			req := request(object("stuck", "fixed/stuck", "username"))
			req.VolumeID, req.Target = "stuck-"+itoa(int64(i)), "/pods/stuck-"+itoa(int64(i))+"/mount"
			n.publish(req)
		}
		n.publish(request(username, fixed))
		n.vault.set(func(f *fakeVault) { f.stuck = map[string]bool{"fixed/stuck": true} })
		for range 6 * 60 { // longer than the maximum TTL of a lease
			after(time.Second)
			n.wantWorking("username")
			n.wantWorking("fixed")
		}
		n.vault.set(func(f *fakeVault) { f.stuck = nil })
		after(6 * time.Minute)
		if totals := n.Totals(); totals.Failing != 0 || totals.Expired != 0 {
			t.Fatalf("once all is answered again: %+v", totals)
		}
	})
}
