// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package strictyaml reads small YAML documents written by people who deserve to hear of all their mistakes at once.
//
// A document is read into values that know the path of the key they stand at and their line. Whoever walks them asks for
// what it expects; whatever differs becomes a Fault, and the walk goes on. Unknown keys, duplicate keys, wrong types,
// anchors, aliases, tags and further documents are faults, and a document has a bounded size, depth and number of
// values, so that no input of a few bytes costs more than a few bytes.
//
// A fault names keys, never the value of one: a document may hold passwords and keys.
package strictyaml

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Fault is one mistake in a document.
type Fault struct {
	Key     string // path of the key: "connections[0].address"; "" where there is none, as for a syntax error
	Line    int    // from 1; 0: unknown
	Problem string
}

// Limits bound a document. All must be set.
type Limits struct {
	Bytes  int // of the text
	Depth  int // of nested lists and mappings
	Values int // scalars, lists and mappings together, keys included
}

// Document collects the faults of one text.
type Document struct {
	faults []Fault
	limits Limits
	values int
}

// Value is one place in a document.
type Value struct {
	Key  string // path of the key
	doc  *Document
	node *yaml.Node
}

// Parse reads text, whose keys are named below prefix ("" for none). The Value is valid only if the text is sound: with
// a false result the faults are complete and there is nothing to walk.
//
//  1. too long, not YAML, empty, or several documents: one fault, the end;
//  2. anchors, aliases, tags, and more depth or values than allowed: one fault each, the end.
func Parse(text []byte, prefix string, limits Limits) (Value, *Document, bool) {
	d := &Document{limits: limits}
	root := Value{Key: prefix, doc: d}
	node, fault := decode(text, limits.Bytes) // 1
	if fault != nil {
		fault.Key = prefix
		d.faults = append(d.faults, *fault)
		return root, d, false
	}
	root.node = node
	d.check(root, limits.Depth) // 2
	return root, d, len(d.faults) == 0
}

// Faults returns what was found so far, in the order it was found.
func (d *Document) Faults() []Fault { return d.faults }

// decode finds the one document of text.
func decode(text []byte, limit int) (node *yaml.Node, fault *Fault) {
	if len(text) > limit {
		return nil, &Fault{Problem: fmt.Sprintf("is %d bytes long; at most %d are read", len(text), limit)}
	}
	// The library turns its own panics into errors; this catches those that it does not expect itself.
	defer func() {
		if recover() != nil {
			node, fault = nil, &Fault{Problem: "is not valid YAML"}
		}
	}()
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if strings.TrimSpace(string(text)) == "" || err.Error() == "EOF" {
			return nil, &Fault{Problem: "is empty"}
		}
		line, problem := syntaxError(err)
		return nil, &Fault{Line: line, Problem: "is not valid YAML: " + problem}
	}
	if dec.Decode(&next) == nil {
		return nil, &Fault{Line: next.Line, Problem: "holds several YAML documents; only one is read"}
	}
	if len(doc.Content) != 1 {
		return nil, &Fault{Problem: "is empty"}
	}
	return doc.Content[0], nil
}

var (
	syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// What the library says of a syntax error comes from a fixed list of sentences; some end in a piece of the text.
	syntaxText = regexp.MustCompile(`^[a-z][a-z ,':-]*`)
)

// syntaxError takes the line and the fixed part of the library's message: the rest may quote the document.
func syntaxError(err error) (line int, problem string) {
	text := err.Error()
	m := syntaxLine.FindStringSubmatch(text)
	if m == nil {
		return 0, "syntax error"
	}
	line, _ = strconv.Atoi(m[1])
	problem = strings.TrimSpace(strings.ReplaceAll(text[len(m[0]):], "\n", " "))
	if strings.HasPrefix(problem, "unknown anchor") {
		return line, "anchors and aliases are not supported"
	}
	if problem = strings.TrimRight(syntaxText.FindString(problem), " ,':-"); problem == "" {
		problem = "syntax error"
	}
	return line, problem
}

// check walks all values once and reports what no reader would ask for.
func (d *Document) check(v Value, depth int) {
	d.values++
	switch n := v.node; {
	case d.values > d.limits.Values:
		if d.values == d.limits.Values+1 {
			v.Faultf("too many values: at most %d are read", d.limits.Values)
		}
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		v.Faultf("anchors and aliases are not supported: write the value out")
		return
	case n.Style&yaml.TaggedStyle != 0:
		v.Faultf("tags (!...) are not supported: write the plain value")
		return
	case depth == 0 && len(n.Content) > 0:
		v.Faultf("nested too deeply: at most %d levels are read", d.limits.Depth)
		return
	}
	if v.node.Kind != yaml.MappingNode {
		for i, c := range v.node.Content {
			d.check(v.at(i, c), depth-1)
		}
		return
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, value := v.node.Content[i], v.node.Content[i+1]
		d.checkKey(Value{Key: v.Key, doc: d, node: key})
		d.check(v.below(Name(key.Value), value), depth-1)
	}
}

// checkKey allows scalars of any type as keys, for 1 and true are keys of JSON objects too, but none that means anything
// to YAML itself.
func (d *Document) checkKey(k Value) {
	switch {
	case k.node.Kind != yaml.ScalarNode || k.IsNull():
		k.Faultf("a key must be plain text")
	case k.node.ShortTag() == "!!merge":
		k.Faultf("merge keys (<<) are not supported: write the keys out")
	default:
		d.check(k, 1)
	}
}

func (v Value) at(i int, n *yaml.Node) Value {
	return Value{Key: fmt.Sprintf("%s[%d]", v.Key, i), doc: v.doc, node: n}
}

func (v Value) below(key string, n *yaml.Node) Value {
	if v.Key != "" {
		key = v.Key + "." + key
	}
	return Value{Key: key, doc: v.doc, node: n}
}

// Faultf records a fault at v.
func (v Value) Faultf(format string, args ...any) {
	line := 0
	if v.node != nil {
		line = v.node.Line
	}
	v.doc.faults = append(v.doc.faults, Fault{Key: v.Key, Line: line, Problem: fmt.Sprintf(format, args...)})
}

// Line is the line of v, from 1.
func (v Value) Line() int { return v.node.Line }

// Child is a value named key below v that the document does not have, to report a fault at.
func (v Value) Child(key string) Value { return v.below(key, v.node) }

// Mapping returns the values of a mapping by key. Every key must be in known; others are faults that name the nearest
// known one, or the reason in refused, and are left out, as are duplicates and keys without a value (`role:`), which are
// as good as absent. A nil known allows all keys and keeps those without a value.
func (v Value) Mapping(known []string, refused map[string]string) (map[string]Value, bool) {
	if v.node.Kind != yaml.MappingNode {
		v.wrongType("a mapping")
		return nil, false
	}
	values := make(map[string]Value, len(v.node.Content)/2)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		value := v.below(Name(key.Value), v.node.Content[i+1])
		here := Value{Key: value.Key, doc: v.doc, node: key}
		switch before, twice := values[key.Value]; {
		case twice:
			here.Faultf("is given twice")
			if before.IsNull() {
				values[key.Value] = value
			}
		case refused[key.Value] != "":
			here.Faultf("%s", refused[key.Value])
		case known != nil && !slices.Contains(known, key.Value):
			here.Faultf("%s", Unknown(key.Value, known))
		default:
			values[key.Value] = value
		}
	}
	if known != nil {
		maps.DeleteFunc(values, func(_ string, v Value) bool { return v.IsNull() })
	}
	return values, true
}

// IsMapping reports whether v is a mapping.
func (v Value) IsMapping() bool { return v.node.Kind == yaml.MappingNode }

// IsEmpty reports whether v is the empty text.
func (v Value) IsEmpty() bool { return v.node.Kind == yaml.ScalarNode && v.node.Value == "" }

// IsNull reports whether v has no value.
func (v Value) IsNull() bool { return v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!null" }

// List returns the elements of a list.
func (v Value) List() ([]Value, bool) {
	if v.node.Kind != yaml.SequenceNode {
		v.wrongType("a list")
		return nil, false
	}
	values := make([]Value, len(v.node.Content))
	for i, n := range v.node.Content {
		values[i] = v.at(i, n)
	}
	return values, true
}

// Text returns a scalar as it is written, whatever YAML takes it for: 0440, 5m, yes and "yes" alike. Null is a fault.
func (v Value) Text() (string, bool) {
	if v.node.Kind != yaml.ScalarNode || v.IsNull() {
		v.wrongType("text")
		return "", false
	}
	return v.node.Value, true
}

// Str returns a scalar that YAML takes for text.
func (v Value) Str() (string, bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!str" {
		v.wrongType("text")
		return "", false
	}
	return v.node.Value, true
}

// Bool returns true or false.
func (v Value) Bool() (value, ok bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!bool" {
		v.wrongType("true or false")
		return false, false
	}
	return strings.EqualFold(v.node.Value, "true"), true
}

// Float returns a finite number.
func (v Value) Float() (float64, bool) {
	if v.node.Kind == yaml.ScalarNode && isJSONNumber(v.node) {
		if f, err := strconv.ParseFloat(v.node.Value, 64); err == nil {
			return f, true
		}
	}
	v.Faultf("must be a number in decimal notation, not %s", v.kind())
	return 0, false
}

// Int returns a whole number in decimal notation.
func (v Value) Int() (int, bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!int" && isJSONNumber(v.node) {
		if i, err := strconv.Atoi(v.node.Value); err == nil {
			return i, true
		}
	}
	v.Faultf("must be a whole number in decimal notation, not %s", v.kind())
	return 0, false
}

func (v Value) wrongType(want string) {
	v.Faultf("must be %s, not %s", want, v.kind())
}

// kind says in words what stands at v.
func (v Value) kind() string {
	switch v.node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch v.node.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a boolean (quote it if it is text)"
	case "!!int":
		return "a number (quote it if it is text)"
	case "!!float":
		return "a fraction (quote it if it is text)"
	case "!!timestamp":
		return "a date (quote it if it is text)"
	}
	return "text"
}
