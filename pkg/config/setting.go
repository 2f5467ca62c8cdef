// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// Setting describes one key for people; the tables of docs/configuration.md are made from these.
type Setting struct {
	Key     string
	Default string // as one would write it; "" is none
	Bound   string // what values are accepted
	Start   bool   // a change takes effect only when the daemon starts again
	Doc     string
}

// setting is one key of a section T: its description, its default and how to read it, in one place.
type setting[T any] struct {
	Setting
	required bool
	init     func(*T)                   // sets the default
	read     func(strictyaml.Value, *T) // sets the value, or reports why not
	pin      func(old, next *T) bool    // where Start: gives next the value of old, and reports whether it differed
}

// readSection fills into from a mapping and returns the values that were given.
func readSection[T any](v strictyaml.Value, settings []setting[T], into *T) (map[string]strictyaml.Value, bool) {
	keys := make([]string, len(settings))
	for i, s := range settings {
		keys[i] = s.Key
		s.init(into)
	}
	values, ok := v.Mapping(keys, nil)
	if !ok {
		return nil, false
	}
	for _, s := range settings {
		if value, given := values[s.Key]; given {
			s.read(value, into)
		} else if s.required {
			v.Child(s.Key).Faultf("is required")
		}
	}
	return values, true
}

// place is where to report a fault of key: at its value, or at the section when it was not given.
func place(section strictyaml.Value, values map[string]strictyaml.Value, key string) strictyaml.Value {
	if v, given := values[key]; given {
		return v
	}
	return section.Child(key)
}

// text is a setting of text; check refuses what is wrong.
func text[T any](key string, field func(*T) *string, def string, check func(string) error, bound, doc string) setting[T] {
	s := setting[T]{Setting: Setting{Key: key, Bound: bound, Doc: doc}}
	if def != "" {
		s.Default = "`" + def + "`"
	}
	s.init = func(t *T) { *field(t) = def }
	s.read = func(v strictyaml.Value, t *T) {
		if value, ok := v.Str(); ok {
			if err := check(value); err != nil {
				v.Faultf("%v", err)
				return
			}
			*field(t) = value
		}
	}
	return s
}

func require[T any](s setting[T]) setting[T] {
	s.required = true
	s.Default = "required"
	return s
}

// word is a setting that takes one of a few words; the first is the default.
func word[T any](key string, field func(*T) *string, doc string, words ...string) setting[T] {
	return text(key, field, words[0], func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("must be %s, not %s", strings.Join(words, " or "), strictyaml.Echo(s))
		}
		return nil
	}, "`"+strings.Join(words, "` or `")+"`", doc)
}

// span bounds a number, a duration or a size. zero says what 0 means where it is allowed beside the span.
type span[N int | int64 | float64 | time.Duration] struct {
	least, most N
	zero        string
}

func (s span[N]) check(n N, print func(N) string) error {
	if (n == 0 && s.zero != "") || (n >= s.least && n <= s.most) {
		return nil
	}
	return fmt.Errorf("must be from %s, not %s", s.bound(print), print(n))
}

func (s span[N]) bound(print func(N) string) string {
	text := print(s.least) + " to " + print(s.most)
	if s.zero != "" {
		text += ", or 0 (" + s.zero + ")"
	}
	return text
}

func number[T any, N int | int64 | float64 | time.Duration](key string, field func(*T) *N, def N, s span[N],
	what string, parse func(strictyaml.Value) (N, bool), print func(N) string, doc string,
) setting[T] {
	return setting[T]{
		Setting: Setting{Key: key, Default: "`" + print(def) + "`", Bound: what + " from " + s.bound(print), Doc: doc},
		init:    func(t *T) { *field(t) = def },
		read: func(v strictyaml.Value, t *T) {
			n, ok := parse(v)
			if !ok {
				return
			}
			if err := s.check(n, print); err != nil {
				v.Faultf("%v", err)
				return
			}
			*field(t) = n
		},
	}
}

func duration[T any](key string, field func(*T) *time.Duration, def time.Duration, s span[time.Duration], doc string) setting[T] {
	return number(key, field, def, s, "duration", func(v strictyaml.Value) (time.Duration, bool) {
		return parsed(v, func(text string) (time.Duration, error) {
			if text == "0" { // the one duration that needs no unit
				return 0, nil
			}
			return attributes.ParseDuration(text)
		})
	}, printDuration, doc)
}

func size[T any](key string, field func(*T) *int64, def int64, s span[int64], doc string) setting[T] {
	return number(key, field, def, s, "quantity", func(v strictyaml.Value) (int64, bool) {
		return parsed(v, attributes.ParseSize)
	}, printSize, doc)
}

func whole[T any](key string, field func(*T) *int, def int, s span[int], doc string) setting[T] {
	return number(key, field, def, s, "whole number", strictyaml.Value.Int, strconv.Itoa, doc)
}

func rate[T any](key string, field func(*T) *float64, def float64, s span[float64], doc string) setting[T] {
	return number(key, field, def, s, "number", strictyaml.Value.Float,
		func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }, doc)
}

// flag is a setting that is off unless someone writes `true`.
func flag[T any](key string, field func(*T) *bool, doc string) setting[T] {
	return setting[T]{
		Setting: Setting{Key: key, Default: "`false`", Bound: "`true` or `false`", Doc: doc},
		init:    func(t *T) { *field(t) = false },
		read: func(v strictyaml.Value, t *T) {
			if b, ok := v.Bool(); ok {
				*field(t) = b
			}
		},
	}
}

// list is a setting of several texts; clean checks each and returns how it is kept.
func list[T any](key string, field func(*T) *[]string, clean func(string) (string, error), bound, doc string) setting[T] {
	return setting[T]{
		Setting: Setting{Key: key, Default: "none", Bound: bound, Doc: doc},
		init:    func(t *T) { *field(t) = nil },
		read: func(v strictyaml.Value, t *T) {
			elements, _ := v.List()
			for _, e := range elements {
				value, ok := e.Str()
				if !ok {
					continue
				}
				kept, err := clean(value)
				if err != nil {
					e.Faultf("%v", err)
					continue
				}
				*field(t) = append(*field(t), kept)
			}
		},
	}
}

// parsed reads a scalar in the notation of parse, quoted or not.
func parsed[N any](v strictyaml.Value, parse func(string) (N, error)) (N, bool) {
	var none N
	text, ok := v.Text()
	if !ok {
		return none, false
	}
	n, err := parse(text)
	if err != nil {
		v.Faultf("%v", err)
		return none, false
	}
	return n, true
}

// printDuration writes d without the zero units that Duration.String has: 1h, not 1h0m0s.
func printDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func printSize(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }
