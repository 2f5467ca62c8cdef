// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package strictyaml

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// What an error repeats of the input at most. A name is shorter than a line of PEM or a Vault token, either of which a
// slip of indentation can turn into a key.
const (
	maxName = 40
	maxEcho = 64
)

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./-]*$`)

// Name returns key if it looks like the name of a key, else a stand-in: what stands in the place of a key may be
// anything, a misplaced password included.
func Name(key string) string {
	if len(key) > maxName || !plainName.MatchString(key) {
		return fmt.Sprintf("(a key of %d bytes)", len(key))
	}
	return key
}

// Echo returns value in quotes if it is short and printable, else how long it is. For values that are words of a small
// language, such as a method or a duration; never for secrets.
func Echo(value string) string {
	if len(value) > maxEcho {
		return fmt.Sprintf("a value of %d bytes", len(value))
	}
	return fmt.Sprintf("%q", value)
}

// Unknown is the problem of a key that is not in known: with the nearest of them, or all where none is near.
func Unknown(key string, known []string) string {
	if near := Nearest(key, known); near != "" {
		return "unknown key; did you mean " + near + "?"
	}
	sorted := append([]string(nil), known...)
	sort.Strings(sorted)
	return "unknown key; known are " + strings.Join(sorted, ", ")
}

// Nearest returns the candidate with the least edit distance from name, ignoring case, or "" if none is near enough to
// be a likely slip: a third of the longer one's letters, and at least two.
func Nearest(name string, candidates []string) string {
	if len(name) > maxName {
		return ""
	}
	best, least := "", -1
	for _, c := range candidates {
		d := distance(strings.ToLower(name), strings.ToLower(c))
		if d <= max(2, max(len(name), len(c))/3) && d < min(len(name), len(c)) && (least < 0 || d < least) {
			best, least = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two byte strings, with one row of the table in memory.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
