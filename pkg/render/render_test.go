// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/render"
	"github.com/leasefs/leasefs/pkg/vault"
)

// object is a file of one key of kv/x.
func object() attributes.Object {
	return attributes.Object{Name: "file", Path: "kv/x", Method: "GET", Key: "key", Encoding: attributes.UTF8}
}

// data decodes what Vault answers, as the client does.
func data(t testing.TB, text string) map[string]any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

// one renders o from a response with this data.
func one(t testing.TB, o attributes.Object, text string) (string, error) {
	t.Helper()
	r := &vault.Response{Data: data(t, text)}
	files, err := render.Files([]attributes.Object{o}, 0o440, func(key string) (*vault.Response, bool) {
		return r, key == render.RequestOf(o).Key()
	})
	if err != nil {
		if files != nil {
			t.Fatal("files beside an error")
		}
		return "", err
	}
	return string(files[0].Data), nil
}

const metadata = `{"version":3,"created_time":"2026-01-02T03:04:05Z","deletion_time":"","destroyed":false,"custom_metadata":null}`

func TestContentOfAKey(t *testing.T) {
	rows := []struct{ name, data, want string }{
		{"text", `{"key":"secret"}`, "secret"},
		{"text with a line break at its end", `{"key":"secret\n"}`, "secret\n"},
		{"text that looks like JSON", `{"key":"{\"a\": 1}"}`, `{"a": 1}`},
		{"empty text", `{"key":""}`, ""},
		{"whole number", `{"key":12345678901234567890}`, "12345678901234567890"},
		{"fraction as Vault wrote it", `{"key":1.50}`, "1.50"},
		{"boolean", `{"key":true}`, "true"},
		{"null", `{"key":null}`, "null"},
		{"list", `{"key":["a","b"]}`, `["a","b"]`},
		{"mapping, keys sorted", `{"key":{"b":1,"a":"x"}}`, `{"a":"x","b":1}`},
		{"JSON is not made fit for HTML", `{"key":{"url":"<a>&b"}}`, `{"url":"<a>&b"}`},

		{"KV v2", `{"data":{"key":"secret"},"metadata":` + metadata + `}`, "secret"},
		{"KV v2, key called data", `{"data":{"key":"secret","data":{"key":"inner"}},"metadata":` + metadata + `}`, "secret"},
		{"KV v1, key called data with a mapping", `{"data":{"key":"inner"},"key":"secret"}`, "secret"},
		{"KV v1, keys called data and metadata", `{"data":{"key":"inner"},"metadata":"x","key":"secret"}`, "secret"},
		{"KV v1, a third key beside KV v2's two", `{"data":{"key":"inner"},"metadata":` + metadata + `,"key":"secret"}`, "secret"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := one(t, object(), row.data)
			if err != nil || got != row.want {
				t.Fatalf("got %q, %v; want %q", got, err, row.want)
			}
		})
	}
}

func TestKVVersion1IsNotTakenForVersion2(t *testing.T) {
	for name, text := range map[string]string{
		"data alone":                     `{"data":{"key":"inner"}}`,
		"data that is text":              `{"data":"x","metadata":` + metadata + `}`,
		"metadata without a version":     `{"data":{"key":"inner"},"metadata":{"created_time":"x"}}`,
		"metadata with a text version":   `{"data":{"key":"inner"},"metadata":{"version":"3","created_time":"x"}}`,
		"metadata without a time":        `{"data":{"key":"inner"},"metadata":{"version":3}}`,
		"metadata that is a list":        `{"data":{"key":"inner"},"metadata":[3]}`,
		"another key beside the two":     `{"data":{"key":"inner"},"metadata":` + metadata + `,"x":1}`,
		"metadata beside null (deleted)": `{"data":null,"metadata":` + metadata + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := one(t, object(), text)
			var missing *render.MissingKeyError
			if !errors.As(err, &missing) {
				t.Fatalf("unwrapped: %q, %v", got, err)
			}
			o := object()
			o.Key = "data"
			if name != "metadata that is a list" {
				if _, err := one(t, o, text); err != nil {
					t.Fatalf("the key data itself: %v", err)
				}
			}
		})
	}
}

func TestWholeResponse(t *testing.T) {
	o := object()
	o.Key = ""
	r := &vault.Response{
		LeaseID: "database/creds/app/x", LeaseDuration: time.Hour, Renewable: true,
		Data: data(t, `{"username":"u<1>","password":"p","n":1.0}`), Warnings: []string{"TTL was capped"},
	}
	files, err := render.Files([]attributes.Object{o}, 0o440, func(string) (*vault.Response, bool) { return r, true })
	if err != nil {
		t.Fatal(err)
	}
	want := `{"lease_id":"database/creds/app/x","lease_duration":3600,"renewable":true,"data":{"n":1.0,"password":"p","username":"u<1>"}}`
	if got := string(files[0].Data); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// People read .data.data of a whole KV v2 response, so the envelope stays.
func TestWholeResponseOfKVVersion2KeepsItsEnvelope(t *testing.T) {
	o := object()
	o.Key = ""
	got, err := one(t, o, `{"data":{"key":"secret"},"metadata":{"version":3,"created_time":"t"}}`)
	want := `{"lease_id":"","lease_duration":0,"renewable":false,"data":{"data":{"key":"secret"},"metadata":{"created_time":"t","version":3}}}`
	if err != nil || got != want {
		t.Fatalf("got %s, %v", got, err)
	}
}

func TestEncodings(t *testing.T) {
	rows := []struct {
		name     string
		encoding attributes.Encoding
		data     string
		want     string // "": an error
	}{
		{"base64", attributes.Base64, `{"key":"AP8K"}`, "\x00\xff\n"},
		{"base64 in lines", attributes.Base64, `{"key":"AP\n8K\n"}`, "\x00\xff\n"},
		{"base64 without padding", attributes.Base64, `{"key":"canaryc"}`, ""},
		{"base64 of other letters", attributes.Base64, `{"key":"canary-canary_ca"}`, ""},
		{"hex", attributes.Hex, `{"key":"00ff0A"}`, "\x00\xff\n"},
		{"hex of odd length", attributes.Hex, `{"key":"00f"}`, ""},
		{"hex of other letters", attributes.Hex, `{"key":"canary"}`, ""},
		{"number", attributes.Hex, `{"key":1234}`, ""},
		{"mapping", attributes.Base64, `{"key":{"canary":"canary"}}`, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			o := object()
			o.Encoding = row.encoding
			got, err := one(t, o, row.data)
			if row.want != "" {
				if err != nil || got != row.want {
					t.Fatalf("got %q, %v", got, err)
				}
				return
			}
			var encoding *render.EncodingError
			if !errors.As(err, &encoding) || encoding.Object != "file" || encoding.Key != "key" {
				t.Fatalf("got %q, %v", got, err)
			}
			if strings.Contains(fmt.Sprintf("%v %#v", err, encoding), "canary") {
				t.Fatalf("leaked: %v", err)
			}
		})
	}
}

func TestMissingKeyNamesThoseThereAre(t *testing.T) {
	for name, row := range map[string]struct{ data, want string }{
		"some":          {`{"b":"canary","a":"canary"}`, "object file: the secret at kv/x has no key key; it has a, b"},
		"none":          {`{}`, "object file: the secret at kv/x has no key key; it has none"},
		"KV v2's":       {`{"data":{"a":"canary"},"metadata":` + metadata + `}`, "object file: the secret at kv/x has no key key; it has a"},
		"no plain name": {`{"a\nb":"canary"}`, `object file: the secret at kv/x has no key key; it has "a\nb"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := one(t, object(), row.data)
			var missing *render.MissingKeyError
			if !errors.As(err, &missing) || err.Error() != row.want {
				t.Fatalf("got %v\nwant %s", err, row.want)
			}
		})
	}
	long := map[string]any{}
	for i := range 100 {
		long[fmt.Sprintf("%s%03d", strings.Repeat("k", 100), i)] = "canary"
	}
	_, err := render.Files([]attributes.Object{object()}, 0, func(string) (*vault.Response, bool) { return &vault.Response{Data: long}, true })
	if err == nil || len(err.Error()) > 1024 || !strings.HasSuffix(err.Error(), "and 80 more") {
		t.Fatalf("got %v", err)
	}
}

func TestAllFaultyObjectsAreReportedAndNoFileIsMade(t *testing.T) {
	missing, encoded, unread := object(), object(), object()
	missing.Name, missing.Key = "missing", "other"
	encoded.Name, encoded.Encoding = "encoded", attributes.Hex
	unread.Name, unread.Path = "unread", "kv/y"
	r := &vault.Response{Data: data(t, `{"key":"canary"}`)}
	files, err := render.Files([]attributes.Object{object(), missing, encoded, unread}, 0o440,
		func(key string) (*vault.Response, bool) { return r, key == render.RequestOf(object()).Key() })
	if files != nil || err == nil {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	for _, name := range []string{"object missing:", "object encoded:", "object unread:"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q is not in %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Fatalf("leaked: %v", err)
	}
}

func TestModesAndOrder(t *testing.T) {
	a, b := object(), object()
	a.Name, b.Name, b.Permission = "z", "a", 0o400
	r := &vault.Response{Data: data(t, `{"key":"v"}`)}
	files, err := render.Files([]attributes.Object{a, b}, 0o444, func(string) (*vault.Response, bool) { return r, true })
	if err != nil {
		t.Fatal(err)
	}
	want := []render.File{{Path: "z", Data: []byte("v"), Mode: 0o444}, {Path: "a", Data: []byte("v"), Mode: fs.FileMode(0o400)}}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Fatal(diff)
	}
}

// A certificate and its key are two objects of one request: they must share a response. Whatever differs in the request
// must not: two certificates with other names are two.
func TestRequestsAreSharedOnlyWhenTheyAreTheSame(t *testing.T) {
	issue := func(change func(*attributes.Object)) string {
		o := attributes.Object{
			Name: "tls.crt", Path: "pki/issue/web", Method: "PUT", Key: "certificate", Encoding: attributes.UTF8,
			Query: map[string][]string{"a": {"1"}}, Args: map[string]any{"common_name": "a", "n": json.Number("1")},
		}
		change(&o)
		return render.RequestOf(o).Key()
	}
	base := issue(func(*attributes.Object) {})
	for name, change := range map[string]func(*attributes.Object){
		"name": func(o *attributes.Object) { o.Name = "tls.key" }, "key": func(o *attributes.Object) { o.Key = "private_key" },
		"encoding": func(o *attributes.Object) { o.Encoding = attributes.Hex }, "mode": func(o *attributes.Object) { o.Permission = 0o400 },
	} {
		if issue(change) != base {
			t.Errorf("objects that differ in their %s must share a response", name)
		}
	}
	for name, change := range map[string]func(*attributes.Object){
		"path": func(o *attributes.Object) { o.Path = "pki/issue/x" }, "method": func(o *attributes.Object) { o.Method = "POST" },
		"query": func(o *attributes.Object) { o.Query = nil }, "argument": func(o *attributes.Object) { o.Args["common_name"] = "b" },
		"type of an argument": func(o *attributes.Object) { o.Args["n"] = "1" },
	} {
		if issue(change) == base {
			t.Errorf("objects that differ in their %s must not share a response", name)
		}
	}
}

// Property: rendering is a function of the secret: the same data in another order of its keys gives the same bytes, and
// the response is not changed by it.
func TestRenderingIsStable(t *testing.T) {
	value := rapid.OneOf(rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.Just[any](json.Number("1.0")), rapid.Just[any](nil))
	rapid.Check(t, func(rt *rapid.T) {
		secret := rapid.MapOfN(rapid.StringMatching(`[a-z]{1,4}`), value, 0, 6).Draw(rt, "secret")
		key := ""
		if len(secret) > 0 && rapid.Bool().Draw(rt, "one key") {
			key = rapid.SampledFrom(sortedKeys(secret)).Draw(rt, "key")
		}
		o := object()
		o.Key = key
		again := map[string]any{}
		for k, v := range secret {
			again[k] = v
		}
		first, second := mustRender(rt, o, secret), mustRender(rt, o, again)
		if first != second {
			rt.Fatalf("%q, then %q", first, second)
		}
		if diff := cmp.Diff(again, secret); diff != "" {
			rt.Fatalf("the response was changed: %s", diff)
		}
		if key == "" && !json.Valid([]byte(first)) {
			rt.Fatalf("not JSON: %q", first)
		}
	})
}

func mustRender(rt *rapid.T, o attributes.Object, secret map[string]any) string {
	files, err := render.Files([]attributes.Object{o}, 0, func(string) (*vault.Response, bool) { return &vault.Response{Data: secret}, true })
	if err != nil {
		rt.Fatal(err)
	}
	return string(files[0].Data)
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// Whatever Vault answers: no panic, and either a file or an error.
func FuzzFiles(f *testing.F) {
	f.Add(`{"key":"v"}`, "key", "utf-8")
	f.Add(`{"data":{"key":"AP8K"},"metadata":`+metadata+`}`, "key", "base64")
	f.Add(`{"key":[1,{"a":null}]}`, "key", "hex")
	f.Add(`{"data":null}`, "", "utf-8")
	f.Fuzz(func(t *testing.T, text, key, encoding string) {
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		var secret map[string]any
		if dec.Decode(&secret) != nil {
			return
		}
		o := object()
		o.Key, o.Encoding = key, attributes.Encoding(encoding)
		files, err := render.Files([]attributes.Object{o}, 0o440, func(string) (*vault.Response, bool) { return &vault.Response{Data: secret}, true })
		if (err == nil) != (len(files) == 1) {
			t.Fatalf("%d files, %v", len(files), err)
		}
	})
}
