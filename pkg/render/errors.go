// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// maxHave bounds how many names a message lists.
const maxHave = 20

// MissingKeyError says that the secret has no such key. It lists those that it has, by name only.
type MissingKeyError struct {
	Object string   // file
	Path   string   // in Vault
	Key    string   // that was asked for
	Have   []string // that there are, sorted
}

func (e *MissingKeyError) Error() string {
	have := "it has none"
	if n := len(e.Have); n > maxHave {
		have = fmt.Sprintf("it has %s and %d more", join(e.Have[:maxHave]), n-maxHave)
	} else if n > 0 {
		have = "it has " + join(e.Have)
	}
	return fmt.Sprintf("object %s: the secret at %s has no key %s; %s", e.Object, e.Path, e.Key, have)
}

// join lists the names of keys. Whoever writes the secret chooses them, so they are quoted where they are no plain
// names, and bounded.
func join(keys []string) string {
	names := make([]string, len(keys))
	for i, key := range keys {
		if names[i] = key; strictyaml.Name(key) != key {
			names[i] = strictyaml.Echo(key)
		}
	}
	return strings.Join(names, ", ")
}

// EncodingError says that the value is not encoded as the object says.
type EncodingError struct {
	Object   string // file
	Path     string // in Vault
	Key      string
	Encoding attributes.Encoding
	Problem  string // without the value
}

func (e *EncodingError) Error() string {
	return fmt.Sprintf("object %s: the value of key %s at %s is not %s: %s", e.Object, e.Key, e.Path, e.Encoding, e.Problem)
}

// MissingResponseError says that a file was to be rendered whose secret was not read. That is a fault of the caller.
type MissingResponseError struct {
	Object string // file
	Path   string // in Vault
}

func (e *MissingResponseError) Error() string {
	return fmt.Sprintf("object %s: the secret at %s was not read", e.Object, e.Path)
}
