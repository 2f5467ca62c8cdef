// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gcputil stands in for the part of hashicorp/go-gcp-common with which `vault agent` logs in by Google Cloud
// credentials. The real one compiles 8 MB of Compute Engine client; no test logs in that way.
package gcputil

import (
	"context"
	"errors"

	"golang.org/x/oauth2"
)

// GcpCredentials is a service account's key file, as far as Vault reads it.
type GcpCredentials struct{ ClientEmail string }

// FindCredentials always fails.
func FindCredentials(string, context.Context, ...string) (*GcpCredentials, oauth2.TokenSource, error) {
	return nil, nil, errors.New("Google Cloud login is not compiled into this test build of Vault")
}
