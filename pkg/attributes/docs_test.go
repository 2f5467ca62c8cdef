// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/leasefs/leasefs/pkg/attributes"
)

var update = flag.Bool("update", false, "write the tables of the documents")

const document = "../../docs/volume-attributes.md"

// The tables of the document are those of the code: every key with its default and bound, and nothing else.
func TestDocsListEveryKey(t *testing.T) {
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	want := withTable(t, string(data), "volume", attributes.VolumeKeys())
	want = withTable(t, want, "object", attributes.ObjectKeys())
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(data) {
		t.Fatalf("%s is not what the code says; run: go test ./pkg/attributes -run TestDocs -update", document)
	}
	rows := len(regexp.MustCompile("(?m)^\\| `").FindAllString(want, -1))
	if n := len(attributes.VolumeKeys()) + len(attributes.ObjectKeys()); rows != n {
		t.Errorf("%d rows of tables for %d keys", rows, n)
	}
}

func withTable(t *testing.T, text, section string, keys []attributes.KeyDoc) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| key | default | values | |\n|---|---|---|---|\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, cmp.Or(k.Default, "none"), k.Bound, k.Doc)
	}
	begin := strings.Index(text, "<!-- "+section+":")
	if begin < 0 {
		t.Fatalf("%s has no place for the table of %s", document, section)
	}
	begin += strings.Index(text[begin:], "\n") + 1
	end := begin + strings.Index(text[begin:], "<!-- end -->")
	return text[:begin] + b.String() + text[end:]
}

// A documented key is read, and one that is read is documented: an unknown key is a fault, and each key refuses something.
func TestDocumentedKeysAreTheKeys(t *testing.T) {
	const bad = "\x00"
	for _, k := range attributes.VolumeKeys() {
		attrs := valid()
		delete(attrs, "vaultAuthMountPath") // so that its older name is not a second voice
		attrs[k.Name] = bad
		if f := faultsOf(t, attrs); len(f) != 1 || f[0].Key != k.Name || strings.Contains(f[0].Problem, "unknown") {
			t.Errorf("%s: %v", k.Name, f)
		}
	}
	for _, k := range attributes.ObjectKeys() {
		object := map[string]string{"objectName": "a", "secretPath": "b"}
		object[k.Name] = `"\0"`
		text := "- {"
		for key, value := range object {
			text += key + ": " + value + ", "
		}
		f := faultsOf(t, map[string]string{"objects": text + "}"})
		if len(f) != 1 || f[0].Key != "objects[0]."+k.Name || strings.Contains(f[0].Problem, "unknown") {
			t.Errorf("%s: %v", k.Name, f)
		}
	}
}
