// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"testing"
)

// TestOnANode is the whole of it. The scenarios are in the order of their worth, in two groups: those of the first leave
// each other alone and run side by side; each of the second does something to the node or to Vault that every pod feels,
// so they run one by one, after the first.
func TestOnANode(t *testing.T) {
	n, err := newNode()
	if err != nil {
		t.Fatal(err)
	}
	k, err := newKube(n)
	if err != nil {
		t.Fatal(err)
	}
	s, closeServers, err := startServers(t.Context(), k, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeServers(); err != nil {
			t.Error(err)
		}
	})
	e := &env{kube: k, node: n, servers: s}
	t.Run("ServersAgreeOnTokens", e.testServersAgree)
	if !t.Run("Install", e.testInstall) {
		t.FailNow() // nothing else can be seen
	}
	t.Run("SideBySide", func(t *testing.T) {
		for _, scenario := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"RestrictedPodReadsItsFiles", e.testRestricted},
			{"InotifySeesEachRotation", e.testInotify},
			{"DatabaseUserRotatesWithoutAFailedLogin", e.testDatabase},
			{"CertificateAndKeyAlwaysMatch", e.testPair},
			{"FaultsOfAPodAreToldAndHeal", e.testFaults},
			{"NothingOutlivesItsPod", e.testEnds},
			{"EventsAndVolumes", e.testEvents},
			{"JWTAuthMethods", e.testJWT},
			{"ManifestsAreAccepted", e.testAccepted},
		} {
			t.Run(scenario.name, func(t *testing.T) {
				t.Parallel()
				scenario.run(t)
			})
		}
	})
	for _, scenario := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"DaemonIsReplacedUpgradedAndKilled", e.testDaemon},
		{"VaultSealedAndDown", e.testVaultDown},
		{"KubeletRestartsAndNodeReboots", e.testReboot},
		{"TokensInVolumeContextToo", e.testTransports},
		{"HundredPodsAtOnce", e.testHundred},
	} {
		t.Run(scenario.name, scenario.run)
	}
}
