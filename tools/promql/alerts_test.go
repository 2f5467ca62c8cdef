// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package promql

import (
	"slices"
	"testing"
)

// Each row is what a node's daemon shows over ten minutes, and the summaries that people then read.
var rows = []struct {
	alert, when, series string
	summaries           []string
}{
	{"LeasefsSecretExpired", "nothing has ended", `leasefs_volumes_expired{instance="a"} 0x10`, nil},
	{"LeasefsSecretExpired", "volumes of one of two nodes have", `
		leasefs_volumes_expired{instance="a"} 0x10
		leasefs_volumes_expired{instance="b"} 0x8 2 2`,
		[]string{"2 volumes on b hold a secret that has ended"}},

	{"LeasefsSecretExpiresSoon", "nothing ends ever", `leasefs_volumes_expired{instance="a"} 0x10`, nil},
	{"LeasefsSecretExpiresSoon", "the first ends in an hour", `leasefs_next_expiry_timestamp_seconds{instance="a"} 4200x10`, nil},
	{"LeasefsSecretExpiresSoon", "the first ends in half a minute", `leasefs_next_expiry_timestamp_seconds{instance="a"} 630x10`,
		[]string{"a secret on a ends in 30s"}},

	{"LeasefsVaultFailing", "there was no request", ``, nil},
	{"LeasefsVaultFailing", "all is well", `leasefs_vault_requests_total{instance="a",connection="default",operation="read",code="200"} 0+60x10`, nil},
	{"LeasefsVaultFailing", "a tenth fails", `
		leasefs_vault_requests_total{instance="a",connection="default",operation="read",code="200"} 0+90x10
		leasefs_vault_requests_total{instance="a",connection="default",operation="read",code="503"} 0+10x10`, nil},
	{"LeasefsVaultFailing", "pods ask for what they may not have", `
		leasefs_vault_requests_total{instance="a",connection="default",operation="read",code="200"} 0+10x10
		leasefs_vault_requests_total{instance="a",connection="default",operation="read",code="403"} 0+90x10`, nil},
	{"LeasefsVaultFailing", "a third fails, of two kinds, at one of two Vaults", `
		leasefs_vault_requests_total{instance="a",connection="default",operation="read",code="200"} 0+200x10
		leasefs_vault_requests_total{instance="a",connection="default",operation="read",code="503"} 0+50x10
		leasefs_vault_requests_total{instance="a",connection="default",operation="login",code="timeout"} 0+50x10
		leasefs_vault_requests_total{instance="a",connection="other",operation="read",code="200"} 0+300x10`,
		[]string{"more than a fifth of a's requests to Vault default fail"}},
	{"LeasefsVaultFailing", "Vault cannot be reached", `
		leasefs_vault_requests_total{instance="a",connection="default",operation="login",code="error"} 0+1x10
		leasefs_vault_requests_total{instance="a",connection="default",operation="login",code="breaker"} 0+9x10`,
		[]string{"more than a fifth of a's requests to Vault default fail"}},

	{"LeasefsConfigRefused", "the configuration is sound", `leasefs_config_refused{instance="a"} 0x10`, nil},
	{"LeasefsConfigRefused", "it has a fault", `leasefs_config_refused{instance="a"} 1x10`,
		[]string{"a goes on with its old configuration: the edited file has a fault, which the log names"}},

	{"LeasefsRepublishRefused", "all is well, but for one that was busy", `
		leasefs_csi_calls_total{instance="a",method="Republish",code="OK"} 0+60x10
		leasefs_csi_calls_total{instance="a",method="Republish",code="Aborted"} 0+1x10`, nil},
	{"LeasefsRepublishRefused", "publishes are refused", `
		leasefs_csi_calls_total{instance="a",method="NodePublishVolume",code="InvalidArgument"} 0+60x10`, nil},
	{"LeasefsRepublishRefused", "a running pod would be refused", `
		leasefs_csi_calls_total{instance="a",method="Republish",code="OK"} 0+60x10
		leasefs_csi_calls_total{instance="a",method="Republish",code="InvalidArgument"} 0+1x10`,
		[]string{"a would refuse running pods today (InvalidArgument): their files stay, their next login has no fresh token"}},

	{"LeasefsNotRegistered", "the kubelet knows the driver", `leasefs_kubelet_registered{instance="a"} 1x10`, nil},
	{"LeasefsNotRegistered", "it does not", `leasefs_kubelet_registered{instance="a"} 0x10`,
		[]string{"the kubelet of a does not know the driver: pods with leasefs volumes do not start there"}},
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	all := alerts(t)
	for _, row := range rows {
		t.Run(row.alert+"/"+row.when, func(t *testing.T) {
			rule, there := all[row.alert]
			if !there {
				t.Fatal("there is no such alert")
			}
			var got []string
			for _, element := range evaluate(t, rule.Expr, series(t, row.series)) {
				got = append(got, expand(t, rule.Annotations["summary"], element))
				for _, annotation := range rule.Annotations {
					expand(t, annotation, element)
				}
			}
			if !slices.Equal(got, row.summaries) {
				t.Errorf("summaries are %q, want %q", got, row.summaries)
			}
		})
	}
}

func TestEveryAlertIsSeenToFireAndNotToFire(t *testing.T) {
	for name := range alerts(t) {
		fires, rests := false, false
		for _, row := range rows {
			if row.alert == name {
				fires, rests = fires || len(row.summaries) > 0, rests || len(row.summaries) == 0
			}
		}
		if !fires || !rests {
			t.Errorf("%s has a row in which it fires: %t, in which it does not: %t", name, fires, rests)
		}
	}
}
