// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/attributes"
)

func TestParseReadsTheStandardProvidersKeys(t *testing.T) {
	got, err := attributes.Parse(map[string]string{
		"roleName": "app",
		"objects":  "- objectName: db/password\n  secretPath: /v1/secret/data/db?version=3\n  secretKey: password\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := attributes.Spec{
		Role: "app", OnExpiry: attributes.Keep,
		Objects: []attributes.Object{{
			Name: "db/password", Path: "secret/data/db", Query: map[string][]string{"version": {"3"}},
			Key: "password", Method: "GET", Encoding: attributes.UTF8,
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}
