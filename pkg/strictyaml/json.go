// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package strictyaml

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// jsonNumber is the grammar of RFC 8259, section 6.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

func isJSONNumber(n *yaml.Node) bool {
	tag := n.ShortTag()
	return (tag == "!!int" || tag == "!!float") && jsonNumber.MatchString(n.Value)
}

// JSON returns v as what encoding/json would make of it with UseNumber: map[string]any, []any, string, json.Number,
// bool, nil. A date stays the text that was written. A number that YAML reads and JSON does not (0123, 1_000, .inf) is a
// fault: what was meant by it differs between readers.
func (v Value) JSON() (any, bool) {
	switch v.node.Kind {
	case yaml.MappingNode:
		return v.jsonObject()
	case yaml.SequenceNode:
		list := make([]any, 0, len(v.node.Content))
		all := true
		for i, n := range v.node.Content {
			e, ok := v.at(i, n).JSON()
			list, all = append(list, e), all && ok
		}
		return list, all
	}
	switch v.node.ShortTag() {
	case "!!null":
		return nil, true
	case "!!bool":
		b, ok := v.Bool()
		return b, ok
	case "!!int", "!!float":
		if !isJSONNumber(v.node) {
			v.Faultf("is a number in a notation that JSON has not: quote it if it is text, write it in decimal if it is a number")
			return nil, false
		}
		return json.Number(v.node.Value), true
	}
	return v.node.Value, true
}

func (v Value) jsonObject() (any, bool) {
	values, all := v.Mapping(nil, nil)
	object := make(map[string]any, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) { // sorted, so that faults come in the same order each time
		e, ok := values[key].JSON()
		object[key], all = e, all && ok
	}
	return object, all
}
