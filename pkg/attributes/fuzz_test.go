// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/attributes"
)

// Whatever the text: no panic, no spec beside faults, and an accepted spec keeps its promises.
func FuzzParse(f *testing.F) {
	v := valid()
	f.Add(v["objects"], "refreshInterval", "5m")
	f.Add(many(3), "size", "1Mi")
	f.Add("- {objectName: a, secretPath: kv/a, method: PUT, secretArgs: {a: [1, {b: .inf}], <<: *x}}", "filePermission", "0o440")
	f.Add("- &a [*a]", "vaultAddress", "https://[::1]:8200")
	f.Add("!!binary YQ==", "templates", "")
	f.Add("- ? {a: b}\n  : c\n", "\x00", "\xff")
	f.Add("--- \n...\n--- a", "vaultNamespace", "/a/b/")
	f.Add("- objectName: |\n    a\n  secretPath: >-\n    kv/a?version=1\n", "onExpiry", "keep")
	f.Fuzz(func(t *testing.T, objects, key, value string) {
		spec, err := attributes.Parse(map[string]string{"objects": objects, key: value})
		if err != nil {
			var faults *attributes.Faults
			if !errors.As(err, &faults) || len(faults.List) == 0 || faults.Error() == "" {
				t.Fatalf("the error is not *Faults with faults: %v", err)
			}
			if !cmp.Equal(spec, attributes.Spec{}) {
				t.Fatal("a spec beside faults")
			}
			return
		}
		checkSpec(t, spec)
	})
}

func checkSpec(t *testing.T, spec attributes.Spec) {
	t.Helper()
	if len(spec.Objects) == 0 || len(spec.Objects) > attributes.MaxObjects || spec.RefreshInterval < 0 || spec.Size < 0 {
		t.Fatalf("spec out of bounds: %+v", spec)
	}
	names := map[string]bool{}
	for _, o := range spec.Objects {
		checkAccepted(t, o.Name)
		if names[o.Name] {
			t.Fatalf("%q twice", o.Name)
		}
		names[o.Name] = true
		if o.Permission&^0o664 != 0 || spec.FilePermission&^0o664 != 0 {
			t.Fatalf("mode %o, volume %o", o.Permission, spec.FilePermission)
		}
		if o.Path == "" || o.Method == "" || o.Encoding == "" {
			t.Fatalf("incomplete object: %+v", o)
		}
	}
	data, err := json.Marshal(spec.Objects)
	if err != nil {
		t.Fatalf("an object that cannot be recorded: %v", err)
	}
	var again []attributes.Object
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if data2, _ := json.Marshal(again); string(data) != string(data2) {
		t.Fatalf("an object that comes back as another:\n%s\n%s", data, data2)
	}
}

func FuzzValidatePath(f *testing.F) {
	for _, p := range []string{"a", "a/b", "../a", "..data", "a/./b", "a//b", "/a", "a/", "", "a\x00", "é/\u202e", "a/../..", ".a", "a\xff"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if attributes.ValidatePath(p) == nil {
			checkAccepted(t, p)
		}
	})
}
