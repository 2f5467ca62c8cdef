// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package secret holds values that must never be printed: Vault tokens, pod tokens, contents of secrets.
//
// Value redacts itself in every way that Go offers to print or encode a value, so that a token which slips into a log
// line, an error, a struct dump or a JSON document appears as "[redacted]". The one way to the content is Reveal, a
// word to search for in a review.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Redacted is what every printed or encoded Value looks like.
const Redacted = "[redacted]"

// Value is a string that redacts itself. The zero Value is empty. Compare with Equal: == compares identities.
//
// The content is behind a pointer because fmt cannot call the methods of an unexported field: of a struct that hides a
// Value in one, it prints an address, not the content.
type Value struct{ p *string }

// New wraps s.
func New(s string) Value { return Value{p: &s} }

// Reveal returns the content. Call it only where the content leaves for Vault, for the volume or for the record.
func (v Value) Reveal() string {
	if v.p == nil {
		return ""
	}
	return *v.p
}

// Equal reports whether both have the same content, in a time that does not depend on where they differ.
func (v Value) Equal(o Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.Reveal()), []byte(o.Reveal())) == 1
}

// IsZero reports whether there is no content.
func (v Value) IsZero() bool { return v.Reveal() == "" }

// String implements fmt.Stringer.
func (v Value) String() string { return Redacted }

// GoString implements fmt.GoStringer (%#v).
func (v Value) GoString() string { return Redacted }

// Format implements fmt.Formatter, which catches every verb, %x and %d of a struct that holds a Value included.
func (v Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler, which YAML encoders and map keys use.
func (v Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }
