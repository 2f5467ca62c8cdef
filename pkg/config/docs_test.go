// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/config"
)

var update = flag.Bool("update", false, "write the tables of the documents")

const document = "../../docs/configuration.md"

// The tables of the document are those of the code: every key with its default and bound, and nothing else.
func TestDocsListEveryKey(t *testing.T) {
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	connection, defaults := config.Settings()
	want := string(data)
	for section, settings := range map[string][]config.Setting{"connections": connection, "defaults": defaults} {
		want = withTable(t, want, section, settings)
	}
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(data) {
		t.Fatalf("%s is not what the code says; run: go test ./pkg/config -run TestDocs -update", document)
	}
	rows := regexp.MustCompile(`(?m)^\| `).FindAllString(want, -1)
	if n := len(connection) + len(defaults) + 2*2; len(rows)+2 != n { // each table has a head and a rule
		t.Errorf("%d rows of tables for %d keys", len(rows), n-4)
	}
}

func withTable(t *testing.T, text, section string, settings []config.Setting) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| key | default | values | change | |\n|---|---|---|---|---|\n")
	for _, s := range settings {
		change := "live"
		if s.Start {
			change = "*start*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", s.Key, cmp.Or(s.Default, "none"), s.Bound, change, s.Doc)
	}
	begin := strings.Index(text, "<!-- "+section+":")
	if begin < 0 {
		t.Fatalf("%s has no place for the table of %s", document, section)
	}
	begin += strings.Index(text[begin:], "\n") + 1
	end := begin + strings.Index(text[begin:], "<!-- end -->")
	return text[:begin] + b.String() + text[end:]
}

// assign is a configuration that sets one key of a section to the text value.
func assign(section, key, value string) string {
	connection, defaults := "name: default, address: 'https://v'", ""
	switch {
	case section == "defaults":
		defaults = key + ": " + value
	case key == "name":
		connection = "address: 'https://v', name: " + value
	case key == "address":
		connection = "name: default, address: " + value
	default:
		connection += ", " + key + ": " + value
	}
	return "connections: [{" + connection + "}]\ndefaults: {" + defaults + "}"
}

func eachSetting(f func(section string, s config.Setting)) {
	connection, defaults := config.Settings()
	for _, s := range connection {
		f("connections", s)
	}
	for _, s := range defaults {
		f("defaults", s)
	}
}

// A default that is documented as a value is the value that an absent key has.
func TestDocumentedDefaultsAreTheDefaults(t *testing.T) {
	plain, err := config.Parse([]byte(assign("defaults", "volumeSize", "")), ".")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("^`([^`]*)`$")
	checked := 0
	eachSetting(func(section string, s config.Setting) {
		m := quoted.FindStringSubmatch(s.Default)
		if m == nil {
			return
		}
		checked++
		c, err := config.Parse([]byte(assign(section, s.Key, m[1])), ".")
		if err != nil {
			t.Errorf("%s: its default is refused: %v", s.Key, err)
		} else if fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", plain) {
			t.Errorf("%s: with its default written out the configuration is\n%+v\nwithout it\n%+v", s.Key, c, plain)
		}
	})
	if checked < 18 {
		t.Errorf("only %d defaults were checked", checked)
	}
}

// A bound that is documented as a span is the bound: both ends are accepted, and what lies beyond is not.
func TestDocumentedBoundsAreTheBounds(t *testing.T) {
	span := regexp.MustCompile(`^(duration|quantity|number|whole number) from (\S+) to ([^\s,]+)(, or 0)?`)
	checked := 0
	eachSetting(func(section string, s config.Setting) {
		m := span.FindStringSubmatch(s.Bound)
		if m == nil {
			return
		}
		checked++
		accepted := []string{m[2], m[3]}
		refused := []string{beyond(t, m[1], m[2], -1), beyond(t, m[1], m[3], 1)}
		if zero := "0"; m[4] != "" {
			accepted = append(accepted, zero)
		} else {
			refused = append(refused, zero)
		}
		for _, value := range accepted {
			if problem := boundFault(t, section, s.Key, value); problem != "" {
				t.Errorf("%s: %s is refused: %s", s.Key, value, problem)
			}
		}
		for _, value := range refused {
			if boundFault(t, section, s.Key, value) == "" {
				t.Errorf("%s: %s is accepted", s.Key, value)
			}
		}
	})
	if checked != 14 {
		t.Errorf("%d spans were checked, want 14", checked)
	}
}

// beyond is the next value past an end of a span.
func beyond(t *testing.T, kind, end string, step int) string {
	t.Helper()
	switch kind {
	case "duration":
		d, err := attributes.ParseDuration(end)
		if err != nil {
			t.Fatal(err)
		}
		return (d + time.Duration(step)).String()
	case "quantity":
		n, err := attributes.ParseSize(end)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(n + int64(step))
	case "number":
		var f float64
		if _, err := fmt.Sscan(end, &f); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(f + float64(step)*0.001)
	}
	var n int
	if _, err := fmt.Sscan(end, &n); err != nil {
		t.Fatal(err)
	}
	if n += step; n == 0 {
		n = -1 // 0 has a meaning of its own
	}
	return fmt.Sprint(n)
}

// boundFault is the problem of a key's own bound, not of how it fits to others.
func boundFault(t *testing.T, section, key, value string) string {
	t.Helper()
	_, err := config.Parse([]byte(assign(section, key, value)), ".")
	var faults *config.Faults
	if err != nil && !errors.As(err, &faults) {
		t.Fatal(err)
	}
	if faults != nil {
		for _, f := range faults.List {
			if strings.HasSuffix(f.Key, "."+key) && strings.HasPrefix(f.Problem, "must be from") {
				return f.Problem
			}
		}
	}
	return ""
}
