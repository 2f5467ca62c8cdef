// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/vault/api"
)

// decode reads the envelope of an answer. Numbers stay as they were written. A JSON object without any part of the
// envelope is taken as the data itself, as some of Vault's endpoints want it.
func decode(body []byte) (*api.Secret, error) {
	if err := checkShape(body); err != nil {
		return nil, err
	}
	var s api.Secret
	if err := unmarshal(body, &s); err != nil {
		return nil, errNotVault
	}
	if s.RequestID == "" && s.Data == nil && s.Auth == nil && s.WrapInfo == nil && s.LeaseID == "" && s.Warnings == nil {
		if err := unmarshal(body, &s.Data); err != nil {
			return nil, errNotVault
		}
	}
	return &s, nil
}

// errNotVault says nothing of the body: what is not Vault's may hold anything, an echo of the request included.
var errNotVault = errors.New("its answer is not the JSON of a Vault; check that the connection's address is a Vault's")

func unmarshal(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// Bounds of a JSON answer within its size: what is decoded takes up to fifty times the room of what was sent, and what
// walks through it later does so by recursion.
const (
	maxJSONDepth  = 128
	maxJSONValues = 50_000
)

// checkShape counts values and depth of a JSON text without decoding it. It leaves the rest of the syntax to the decoder.
func checkShape(body []byte) error {
	depth, values, quoted := 0, 0, false
	for i := 0; i < len(body); i++ {
		b := body[i]
		switch {
		case quoted && b == '\\':
			i++
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{' || b == '[':
			values++
			if depth++; depth > maxJSONDepth {
				return fmt.Errorf("its answer is nested more than %d levels deep", maxJSONDepth)
			}
		case b == '}' || b == ']':
			depth--
		case b == ',':
			values++
		}
		if values > maxJSONValues {
			return fmt.Errorf("its answer holds more than %d values", maxJSONValues)
		}
	}
	return nil
}
