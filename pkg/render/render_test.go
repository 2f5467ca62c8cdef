// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"testing"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/render"
	"github.com/leasefs/leasefs/pkg/vault"
)

func TestFileOfAKeyHoldsItsTextAsItStands(t *testing.T) {
	files, err := render.Files([]attributes.Object{{Name: "a", Path: "kv/x", Method: "GET", Key: "k", Encoding: attributes.UTF8}}, 0o440,
		func(string) (*vault.Response, bool) { return &vault.Response{Data: map[string]any{"k": "v\n"}}, true })
	if err != nil {
		t.Fatal(err)
	}
	if string(files[0].Data) != "v\n" || files[0].Mode != 0o440 || files[0].Path != "a" {
		t.Fatalf("files = %+v", files)
	}
}
