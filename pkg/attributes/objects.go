// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes

import (
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// objectLimits bound the YAML of `objects`.
var objectLimits = strictyaml.Limits{Bytes: 128 << 10, Depth: 16, Values: 16 << 10}

const maxSecretPath = 2048 // bytes, query included

var (
	methods   = []string{"GET", "PUT", "POST"}
	encodings = []string{string(UTF8), string(Base64), string(Hex)}
)

// objects reads the YAML list of files:
//
//  1. the text as YAML, with its bounds;
//  2. each element by itself;
//  3. the names against each other.
func (p *parser) objects(key string) []Object {
	text := p.attrs[key]
	if strings.TrimSpace(text) == "" {
		p.faultf(key, "is required: the list of files to make")
		return nil
	}
	root, doc, ok := strictyaml.Parse([]byte(text), key, objectLimits) // 1
	if ok {
		list := objectList(root)
		objects := make([]Object, len(list))
		names := make([]string, len(list))
		for i, element := range list {
			objects[i] = readObject(element) // 2
			names[i] = objects[i].Name
		}
		reportClashes(list, names) // 3
		p.adopt(doc)
		return objects
	}
	p.adopt(doc)
	return nil
}

// adopt takes over the faults of a document. Its line numbers count from the attribute's own first line, which is of no
// use to someone who reads the pod's manifest; the keys say the place.
func (p *parser) adopt(doc *strictyaml.Document) {
	for _, f := range doc.Faults() {
		p.faults = append(p.faults, Fault{Key: f.Key, Problem: f.Problem})
	}
}

func objectList(root strictyaml.Value) []strictyaml.Value {
	list, ok := root.List()
	switch {
	case !ok:
		return nil
	case len(list) == 0:
		root.Faultf("is empty: list at least one file")
	case len(list) > MaxObjects:
		root.Faultf("has %d objects; at most %d are allowed", len(list), MaxObjects)
		return nil
	}
	return list
}

func reportClashes(list []strictyaml.Value, names []string) {
	problems := clashes(names)
	for i, element := range list {
		if problem := problems[i]; problem != "" && names[i] != "" {
			element.Child("objectName").Faultf("%s", problem)
		}
	}
}

// readObject reads one element of `objects`. Its fields are empty where the element is wrong.
func readObject(element strictyaml.Value) Object {
	values, ok := element.Mapping(names(ObjectKeys()), refusedObjectKeys)
	if !ok {
		return Object{}
	}
	r := objectReader{element, values}
	o := Object{
		Name:       r.required("objectName", ValidatePath),
		Key:        r.text("secretKey", ValidateName),
		Method:     r.oneOf("method", methods),
		Encoding:   Encoding(r.oneOf("encoding", encodings)),
		Permission: r.permission("filePermission"),
		Args:       r.args("secretArgs"),
	}
	o.Path, o.Query = r.secretPath("secretPath")
	if o.Key == "" && o.Encoding != UTF8 {
		r.value("encoding").Faultf("needs secretKey: the whole response is JSON, which is not encoded in %s", o.Encoding)
	}
	if len(o.Args) > 0 && o.Method == "GET" {
		r.value("secretArgs").Faultf("are the body of a PUT or POST and have no effect on a GET: set method, or add them to secretPath as ?name=value")
	}
	return o
}

type objectReader struct {
	element strictyaml.Value
	values  map[string]strictyaml.Value
}

// value is where to report a fault of key, present or not.
func (r objectReader) value(key string) strictyaml.Value {
	if v, ok := r.values[key]; ok {
		return v
	}
	return r.element.Child(key)
}

// text reads a scalar as written: `secretKey: 1` means "1", as in the standard provider.
func (r objectReader) text(key string, check func(string) error) string {
	v, given := r.values[key]
	if !given {
		return ""
	}
	s, ok := v.Text()
	if !ok || s == "" {
		return ""
	}
	if err := check(s); err != nil {
		v.Faultf("%v", err)
		return ""
	}
	return s
}

// required reads text that must be there.
func (r objectReader) required(key string, check func(string) error) string {
	if v, given := r.values[key]; !given || v.IsEmpty() {
		r.value(key).Faultf("is required")
	}
	return r.text(key, check)
}

func (r objectReader) oneOf(key string, words []string) string {
	s := r.text(key, ValidateName)
	if s == "" {
		return words[0]
	}
	if !slices.Contains(words, s) {
		r.value(key).Faultf("must be %s, not %s", strings.Join(words, ", "), strictyaml.Echo(s))
		return words[0]
	}
	return s
}

func (r objectReader) permission(key string) fs.FileMode {
	s := r.text(key, ValidateName)
	if s == "" {
		return 0
	}
	mode, err := ParsePermission(s)
	if err != nil {
		r.value(key).Faultf("%v", err)
	}
	return mode
}

func (r objectReader) args(key string) map[string]any {
	v, given := r.values[key]
	if !given {
		return nil
	}
	if !v.IsMapping() {
		v.Mapping(nil, nil) // reports it
		return nil
	}
	args, _ := v.JSON()
	m, _ := args.(map[string]any)
	return m
}

// secretPath reads the path of a secret and its query:
//
//  1. cut at the first "?";
//  2. drop what people put before the path: "/", "v1/", "/v1/";
//  3. refuse what would be another path once it is cleaned on its way; the client escapes the rest.
func (r objectReader) secretPath(key string) (string, url.Values) {
	s := r.required(key, func(string) error { return nil })
	if s == "" {
		return "", nil
	}
	v := r.value(key)
	if len(s) > maxSecretPath {
		v.Faultf("is %d bytes long; at most %d are allowed", len(s), maxSecretPath)
		return "", nil
	}
	path, rawQuery, _ := strings.Cut(s, "?")                        // 1
	path = strings.TrimPrefix(strings.TrimPrefix(path, "/"), "v1/") // 2
	if err := validateParts(path); err != nil {                     // 3
		v.Faultf("%v", err)
		return "", nil
	}
	if !printable(s) {
		v.Faultf("must be UTF-8 text without control or invisible characters")
		return "", nil
	}
	if rawQuery == "" {
		return path, nil
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		v.Faultf("has a query that is not of the form name=value&name=value") // err would repeat it
		return "", nil
	}
	return path, query
}
