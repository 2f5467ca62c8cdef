// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package render makes files of Vault responses. It is pure, and what it makes depends on the secrets alone: the same
// secrets give the same bytes, so that a volume changes only when a secret does.
//
// What a file holds follows the standard Vault CSI provider:
//
//   - with a key, the value of that key in the response's data; in the nested data for KV v2, whose own data is an
//     envelope. Text is written as it stands, anything else as JSON;
//   - without a key, the whole response as JSON.
package render

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/vault"
)

// File is one rendered file. Data is secret.
type File = struct {
	Path string      // in the volume; attributes.ValidatePath(Path) == nil
	Data []byte      // complete content
	Mode fs.FileMode // permission bits
}

// RequestOf is the request to Vault that o comes from. Objects with equal requests share one response.
func RequestOf(o attributes.Object) vault.Request {
	return vault.Request{Path: o.Path, Query: o.Query, Method: o.Method, Args: o.Args}
}

// Files renders objects, in their order. response finds the response to a request by its Key(). Objects without a
// permission of their own get defaultMode.
//
// All files are made or none. The error joins one error per object that has no file: *MissingKeyError, *EncodingError or
// *MissingResponseError. None of them holds a value.
func Files(objects []attributes.Object, defaultMode fs.FileMode, response func(key string) (*vault.Response, bool)) ([]File, error) {
	files := make([]File, 0, len(objects))
	var errs []error
	for _, o := range objects {
		r, ok := response(RequestOf(o).Key())
		if !ok || r == nil {
			errs = append(errs, &MissingResponseError{Object: o.Name, Path: o.Path})
			continue
		}
		data, err := content(o, r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		mode := o.Permission
		if mode == 0 {
			mode = defaultMode
		}
		files = append(files, File{Path: o.Name, Data: data, Mode: mode})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return files, nil
}

// content is what the file of o holds.
func content(o attributes.Object, r *vault.Response) ([]byte, error) {
	if o.Key == "" {
		return whole(o, r)
	}
	data := Unwrap(r.Data)
	value, ok := data[o.Key]
	if !ok {
		return nil, &MissingKeyError{Object: o.Name, Path: o.Path, Key: o.Key, Have: slices.Sorted(maps.Keys(data))}
	}
	text, isText := value.(string)
	if o.Encoding == attributes.UTF8 || o.Encoding == "" {
		if isText {
			return []byte(text), nil
		}
		return marshal(o, value)
	}
	if !isText {
		return nil, &EncodingError{Object: o.Name, Path: o.Path, Key: o.Key, Encoding: o.Encoding, Problem: "it is not text"}
	}
	decoded, err := decode(o.Encoding, text)
	if err != nil { // which may quote the value, so it is not passed on
		return nil, &EncodingError{Object: o.Name, Path: o.Path, Key: o.Key, Encoding: o.Encoding, Problem: "it is something else"}
	}
	return decoded, nil
}

func decode(e attributes.Encoding, text string) ([]byte, error) {
	switch e {
	case attributes.Base64:
		return base64.StdEncoding.DecodeString(text)
	case attributes.Hex:
		return hex.DecodeString(text)
	default:
		return nil, fmt.Errorf("unknown encoding %q", e)
	}
}

// Unwrap returns the keys and values of a secret: data itself, or what is in KV v2's envelope.
//
// KV v2 answers with exactly `data`, a map, and `metadata`, which has at least `version` and `created_time`. All of that
// is asked for, because a KV v1 secret may well have a key called `data` that holds a map, beside others.
func Unwrap(data map[string]any) map[string]any {
	inner, isMap := data["data"].(map[string]any)
	metadata, hasMetadata := data["metadata"].(map[string]any)
	if !isMap || !hasMetadata || len(data) != 2 {
		return data
	}
	_, hasVersion := metadata["version"].(json.Number)
	_, hasTime := metadata["created_time"].(string)
	if !hasVersion || !hasTime {
		return data
	}
	return inner
}

// envelope is the whole response as it is written: the fields of Vault's answer under their names and in their order,
// without those that differ when the secret does not (request_id, warnings) or are never there (auth, wrap_info).
type envelope struct {
	LeaseID       string         `json:"lease_id"`
	LeaseDuration int64          `json:"lease_duration"` // seconds
	Renewable     bool           `json:"renewable"`
	Data          map[string]any `json:"data"`
}

func whole(o attributes.Object, r *vault.Response) ([]byte, error) {
	return marshal(o, envelope{
		LeaseID:       r.LeaseID,
		LeaseDuration: int64(r.LeaseDuration / time.Second),
		Renewable:     r.Renewable,
		Data:          r.Data,
	})
}

// marshal is JSON with sorted keys, numbers as Vault wrote them, and <, > and & as they are: this is no HTML.
func marshal(o attributes.Object, value any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil { // cannot happen to what came from JSON; err may hold the value
		return nil, fmt.Errorf("object %s: the response to %s cannot be written as JSON", o.Name, o.Path)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
