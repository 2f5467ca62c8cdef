// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestShapeOfAnAnswerIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		ok   bool
	}{
		"usual":                      {`{"data":{"a":"1","b":[1,2,{"c":null}]}}`, true},
		"as deep as allowed":         {strings.Repeat("[", maxJSONDepth) + strings.Repeat("]", maxJSONDepth), true},
		"deeper":                     {strings.Repeat("[", maxJSONDepth+1) + strings.Repeat("]", maxJSONDepth+1), false},
		"deep, never closed":         {strings.Repeat(`{"a":`, 1<<20), false},
		"a million keys":             {`{"data":{` + strings.Repeat(`"k":1,`, 1_000_000) + `"k":1}}`, false},
		"a million numbers":          {`{"data":{"a":[` + strings.Repeat("1,", 1_000_000) + `1]}}`, false},
		"a million empty maps":       {`{"data":{"a":[` + strings.Repeat("{}", 1_000_000) + `]}}`, false},
		"brackets within a string":   {`{"data":{"a":"` + strings.Repeat("[{,", 1_000_000) + `"}}`, true},
		"quotes within a string":     {`{"data":{"a":"\"` + strings.Repeat("[", 1000) + `\\"}}`, true},
		"a string that does not end": {`{"a":"` + strings.Repeat("[", 1000), true}, // the decoder's to find
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkShape([]byte(c.body)); (err == nil) != c.ok {
				t.Errorf("checkShape: %v, want ok %v", err, c.ok)
			}
		})
	}
}

func TestNumbersStayAsTheyWereWritten(t *testing.T) {
	s, err := decode([]byte(`{"data":{"big":12345678901234567890123,"exact":1.10}}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Data["big"] != json.Number("12345678901234567890123") || s.Data["exact"] != json.Number("1.10") {
		t.Fatalf("numbers became %#v", s.Data)
	}
}

func TestAnswerWithoutAnEnvelopeIsItsOwnData(t *testing.T) {
	s, err := decode([]byte(`{"keys":[{"kid":"1"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Data["keys"]; !ok {
		t.Fatalf("data is %v", s.Data)
	}
}

// Whatever a server sends: no panic, no success without the bounds kept.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{``, `null`, `{}`, `[]`, `{"data":{"a":1},"lease_id":"x","lease_duration":-1}`, `{"data":[]}`,
		`{"auth":{"client_token":"x","metadata":{"a":"b"}}}`, `{"errors":["x"]}`, `{"lease_duration":1e400}`, `{"data":{"a":"\ud800"}} {}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := decode(body)
		if (s == nil) == (err == nil) {
			t.Fatalf("decode gave %v and %v", s, err)
		}
		_ = decodeRefusal(body)
		if err == nil {
			_ = plain(&Response{Data: s.Data})
		}
	})
}
