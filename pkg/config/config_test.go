// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/config"
)

func TestParseFillsInDefaults(t *testing.T) {
	c, err := config.Parse([]byte("connections:\n- name: default\n  address: https://Vault.example.com:443/\n"), ".")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Connections[0]; got.Address != "https://vault.example.com" || got.AuthMount != "kubernetes" || got.Audience != "vault" {
		t.Fatalf("connection = %+v", got)
	}
	if c.Defaults.PublishTimeout != 90*time.Second || c.Defaults.TokenTransport != config.TokenInSecrets {
		t.Fatalf("defaults = %+v", c.Defaults)
	}
}
