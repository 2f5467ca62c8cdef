// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
)

// values are what the chart is told about this node: which image, which Vault, and short periods, since nobody wants to
// wait for long ones. JSON is YAML.
func values(ca string, tokensInSecrets bool) (string, error) {
	transport := "secrets"
	if !tokensInSecrets {
		transport = "volumeContext"
	}
	data, err := json.Marshal(map[string]any{
		"image": map[string]any{"repository": daemonRepository, "tag": "e2e", "pullPolicy": "Never"},
		"connections": []map[string]any{
			{"name": "default", "address": vaultURL, "caPEM": ca, "authMethod": "kubernetes"},
		},
		"defaults": map[string]any{
			"minRefreshInterval": "1s", "credentialGrace": "5s", "generationGrace": "2s", "tokenTransport": transport,
		},
		"log": map[string]any{"level": "debug"},
	})
	if err != nil {
		return "", fmt.Errorf("writing the chart's values: %w", err)
	}
	return string(data), nil
}
