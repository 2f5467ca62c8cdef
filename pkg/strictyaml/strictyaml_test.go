// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package strictyaml_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/strictyaml"
)

var limits = strictyaml.Limits{Bytes: 4096, Depth: 8, Values: 200}

// Rows read a document in a way that finds the faults of want.
func TestFaultsHaveKeyAndLine(t *testing.T) {
	type faults = []strictyaml.Fault
	known := []string{"name", "list"}
	mapping := func(v strictyaml.Value) { v.Mapping(known, map[string]string{"old": "is gone"}) }
	rows := []struct {
		name, text string
		read       func(strictyaml.Value)
		want       faults
	}{
		{"unknown key", "name: a\nnamme: b", mapping, faults{{"doc.namme", 2, "unknown key; did you mean name?"}}},
		{"refused key", "old: a", mapping, faults{{"doc.old", 1, "is gone"}}},
		{"key twice", "name: a\nlist: []\nname: b", mapping, faults{{"doc.name", 3, "is given twice"}}},
		{"key twice in other quotes", "name: a\n'name': b", mapping, faults{{"doc.name", 2, "is given twice"}}},
		{"list for a mapping", "\n- a", mapping, faults{{"doc", 2, "must be a mapping, not a list"}}},
		{"mapping for a list", "a: b", func(v strictyaml.Value) { v.List() }, faults{{"doc", 1, "must be a list, not a mapping"}}},
		{"number for text", "5", func(v strictyaml.Value) { v.Str() }, faults{{"doc", 1, "must be text, not a number (quote it if it is text)"}}},
		{"date for text", "2026-01-02", func(v strictyaml.Value) { v.Str() }, faults{{"doc", 1, "must be text, not a date (quote it if it is text)"}}},
		{"boolean for text", "true", func(v strictyaml.Value) { v.Str() }, faults{{"doc", 1, "must be text, not a boolean (quote it if it is text)"}}},
		{"text for a boolean", "'true'", func(v strictyaml.Value) { v.Bool() }, faults{{"doc", 1, "must be true or false, not text"}}},
		{"yes for a boolean", "yes", func(v strictyaml.Value) { v.Bool() }, faults{{"doc", 1, "must be true or false, not text"}}},
		{"fraction for a whole number", "1.5", func(v strictyaml.Value) { v.Int() }, faults{{"doc", 1, "must be a whole number in decimal notation, not a fraction (quote it if it is text)"}}},
		{"octal for a whole number", "010", func(v strictyaml.Value) { v.Int() }, faults{{"doc", 1, "must be a whole number in decimal notation, not a number (quote it if it is text)"}}},
		{"infinity for a number", ".inf", func(v strictyaml.Value) { v.Float() }, faults{{"doc", 1, "must be a number in decimal notation, not a fraction (quote it if it is text)"}}},
		{"number past the range", "1e999", func(v strictyaml.Value) { v.Float() }, faults{{"doc", 1, "must be a number in decimal notation, not text"}}},
		{"nothing for text", "~", func(v strictyaml.Value) { v.Text() }, faults{{"doc", 1, "must be text, not nothing"}}},
		{"element of a list", "- [a]\n- [b, {c: d}]", func(v strictyaml.Value) {
			outer, _ := v.List()
			inner, _ := outer[1].List()
			inner[1].Str()
		}, faults{{"doc[1][1]", 2, "must be text, not a mapping"}}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			v, doc, ok := strictyaml.Parse([]byte(row.text), "doc", limits)
			if !ok {
				t.Fatal(doc.Faults())
			}
			row.read(v)
			if diff := cmp.Diff(row.want, doc.Faults()); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestUnsoundTextsHaveOneFault(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want strictyaml.Fault
	}{
		"empty":          {"", strictyaml.Fault{Key: "", Line: 0, Problem: "is empty"}},
		"comments":       {"# a\n# b\n", strictyaml.Fault{Problem: "is empty"}},
		"syntax":         {"a: b\nc: [", strictyaml.Fault{Line: 2, Problem: "is not valid YAML: did not find expected node content"}},
		"two documents":  {"a: b\n---\nc: d", strictyaml.Fault{Line: 2, Problem: "holds several YAML documents; only one is read"}},
		"too long":       {strings.Repeat("a", 4097), strictyaml.Fault{Problem: "is 4097 bytes long; at most 4096 are read"}},
		"too deep":       {"a: " + strings.Repeat("[", 8) + "b" + strings.Repeat("]", 8), strictyaml.Fault{Key: "a[0][0][0][0][0][0][0]", Line: 1, Problem: "nested too deeply: at most 8 levels are read"}},
		"too many":       {"a: [" + strings.Repeat("1,", 300) + "]", strictyaml.Fault{Key: "a[197]", Line: 1, Problem: "too many values: at most 200 are read"}},
		"alias":          {"a: &x b\n", strictyaml.Fault{Key: "a", Line: 1, Problem: "anchors and aliases are not supported: write the value out"}},
		"tag":            {"a: !!str 5\n", strictyaml.Fault{Key: "a", Line: 1, Problem: "tags (!...) are not supported: write the plain value"}},
		"tag of its own": {"a: !x 5\n", strictyaml.Fault{Key: "a", Line: 1, Problem: "tags (!...) are not supported: write the plain value"}},
		"merge":          {"a: {<<: {b: c}}\n", strictyaml.Fault{Key: "a", Line: 1, Problem: "merge keys (<<) are not supported: write the keys out"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, doc, ok := strictyaml.Parse([]byte(row.text), "", limits)
			if ok {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff([]strictyaml.Fault{row.want}, doc.Faults()); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestTextIsWhatIsWritten(t *testing.T) {
	for _, text := range []string{"0440", "0o440", "5m", "yes", "null-ish", "1_000", "2026-01-02", "1e3"} {
		v, doc, ok := strictyaml.Parse([]byte(text), "", limits)
		got, isText := v.Text()
		if !ok || !isText || got != text {
			t.Errorf("%s: got %q, faults %v", text, got, doc.Faults())
		}
	}
}

// Property: any JSON document is YAML, and comes out as encoding/json reads it.
func TestJSONDocumentsComeOutTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := jsonValue(2).Draw(rt, "value")
		text, err := json.Marshal(want)
		if err != nil {
			rt.Fatal(err)
		}
		v, doc, ok := strictyaml.Parse(text, "", strictyaml.Limits{Bytes: 1 << 20, Depth: 10, Values: 1 << 12})
		if !ok {
			rt.Fatalf("%s: %v", text, doc.Faults())
		}
		got, ok := v.JSON()
		if !ok {
			rt.Fatalf("%s: %v", text, doc.Faults())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("%s: %s", text, diff)
		}
	})
}

func jsonValue(depth int) *rapid.Generator[any] {
	scalars := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.StringMatching(`[ -~äß密]{0,12}`).AsAny(),
		rapid.Map(rapid.Int64(), func(i int64) any { n, _ := json.Marshal(i); return json.Number(n) }),
		rapid.SampledFrom([]any{json.Number("1.50"), json.Number("-0.25"), json.Number("1e+30")}),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	return rapid.OneOf(append(scalars,
		rapid.Map(rapid.SliceOfN(jsonValue(depth-1), 0, 4), func(s []any) any { return s }),
		rapid.Map(rapid.MapOfN(rapid.StringMatching(`[a-z0-9 ~]{0,6}`), jsonValue(depth-1), 0, 4), func(m map[string]any) any { return m }),
	)...)
}

func TestNearest(t *testing.T) {
	candidates := []string{"roleName", "secretPath", "secretKey", "size", "method"}
	for name, want := range map[string]string{
		"rolename": "roleName", "role_name": "roleName", "secretPaht": "secretPath", "secret_key": "secretKey",
		"sizes": "size", "Method": "method", "x": "", "": "", "connection": "", strings.Repeat("size", 30): "",
	} {
		if got := strictyaml.Nearest(name, candidates); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestNameAndEchoBoundWhatTheyRepeat(t *testing.T) {
	for in, want := range map[string]string{"secretPath": "secretPath", "a b": "(a key of 3 bytes)", "": "(a key of 0 bytes)", strings.Repeat("x", 41): "(a key of 41 bytes)"} {
		if got := strictyaml.Name(in); got != want {
			t.Errorf("Name(%q) = %s", in, got)
		}
	}
	if got := strictyaml.Echo("a\nb"); got != `"a\nb"` {
		t.Errorf("Echo = %s", got)
	}
	if got := strictyaml.Echo(strings.Repeat("x", 65)); got != "a value of 65 bytes" {
		t.Errorf("Echo = %s", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: b", "- [1, {b: c}]", "&a [*a]", "{? [a] : b}", "a: |\n b\n", "%YAML 1.1\n---\na", "\ufeffa: b", "a: \"\\x00\"", "!<tag:a> b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, doc, ok := strictyaml.Parse(text, "p", limits)
		if ok != (len(doc.Faults()) == 0) {
			t.Fatal("sound and faulty at once")
		}
		if !ok {
			return
		}
		if value, ok := v.JSON(); ok {
			if _, err := json.Marshal(value); err != nil {
				t.Fatalf("not JSON: %v", err)
			}
		} else if len(doc.Faults()) == 0 {
			t.Fatal("refused without a fault")
		}
	})
}
