// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

// values are what the chart is told about this node: which image, which Vault, and short periods, since nobody wants to
// wait for long ones.
func values(ca string, tokensInSecrets bool) string {
	return ""
}
