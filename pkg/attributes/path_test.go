// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes_test

import (
	"path"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/attributes"
)

func TestValidatePath(t *testing.T) {
	name255 := strings.Repeat("n", 255)
	longest := strings.TrimSuffix(strings.Repeat(name255+"/", 16), "/")
	if len(longest) != attributes.MaxPathBytes {
		t.Fatalf("the longest path by depth and name has %d bytes; MaxPathBytes is %d", len(longest), attributes.MaxPathBytes)
	}
	rows := []struct{ name, path, want string }{ // want "": accepted
		{"one name", "a", ""},
		{"several names", "db/main/password", ""},
		{"a hidden file", ".pgpass", ""},
		{"dots inside a name", "a..b", ""},
		{"dots at the end of a name", "a..", ""},
		{"a space", "my file", ""},
		{"letters of other scripts", "пароль/密码", ""},
		{"a backslash is a letter", `a\..\b`, ""},
		{"name of 255 bytes", name255, ""},
		{"name of 256 bytes", name255 + "n", "256 bytes"},
		{"inner name of 256 bytes", "a/" + name255 + "n/b", "256 bytes"},
		{"name of 256 bytes in 128 letters", strings.Repeat("ä", 128), "256 bytes"},
		{"the longest", longest, ""},
		{"one byte more", longest + "n", "4096 bytes"},
		{"16 levels", strings.Repeat("a/", 15) + "a", ""},
		{"17 levels", strings.Repeat("a/", 16) + "a", "17 levels"},

		{"empty", "", "empty"},
		{"absolute", "/etc/passwd", "relative"},
		{"slash only", "/", "relative"},
		{"slash at the end", "a/", "end"},
		{"two slashes", "a//b", "two slashes"},
		{"dot", ".", `"."`},
		{"dot first", "./a", `"."`},
		{"dot inside", "a/./b", `"."`},
		{"dot last", "a/.", `"."`},
		{"dots", "..", `".."`},
		{"dots first", "../a", `".."`},
		{"dots inside", "a/../../b", `".."`},
		{"dots last", "a/..", `".."`},
		{"the link to the current generation", "..data", `".."`},
		{"the link on its way", "..data_tmp", `".."`},
		{"a generation", "..2026_01_02_03_04_05.123456/a", `".."`},
		{"dots before a name inside", "a/..b", `".."`},
		{"NUL", "a\x00b", "control"},
		{"line break", "a\nb", "control"},
		{"delete", "a\x7f", "control"},
		{"C1 control", "a\u0085b", "control"},
		{"right-to-left override", "a\u202etxt.exe", "invisible"},
		{"zero width space", "a\u200bb", "invisible"},
		{"byte order mark", "\ufeffa", "invisible"},
		{"not UTF-8", "a\xffb", "UTF-8"},
		{"half of a letter", "a\xc3", "UTF-8"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			err := attributes.ValidatePath(row.path)
			switch {
			case row.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Fatalf("want an error with %q, got %v", row.want, err)
			}
		})
	}
}

// What must be true of an accepted path, said without the rules that make it so.
func checkAccepted(t interface{ Fatalf(string, ...any) }, p string) {
	joined := filepath.Join("/volume", p)
	switch {
	case !strings.HasPrefix(joined, "/volume/"):
		t.Fatalf("%q leaves the volume", p)
	case path.Clean(p) != p || !filepath.IsLocal(p):
		t.Fatalf("%q is not the plain name of a file in the volume", p)
	case strings.HasPrefix(strings.Split(p, "/")[0], ".."):
		t.Fatalf("%q is one of the volume's own names", p)
	case !utf8.ValidString(p) || strings.ContainsAny(p, "\x00\n\r"):
		t.Fatalf("%q would break a log line", p)
	case len(p) > 4095:
		t.Fatalf("%d bytes are more than Linux opens", len(p))
	}
	for name := range strings.SplitSeq(p, "/") {
		if len(name) > 255 {
			t.Fatalf("a name of %d bytes is more than Linux allows", len(name))
		}
	}
}

func TestAcceptedPathsStayInTheVolume(t *testing.T) {
	part := rapid.OneOf(rapid.SampledFrom([]string{"", ".", "..", "..data", "...", "a", "b.c", "é", "\x00", " "}), rapid.String())
	rapid.Check(t, func(rt *rapid.T) {
		p := strings.Join(rapid.SliceOfN(part, 0, 20).Draw(rt, "parts"), "/")
		if attributes.ValidatePath(p) == nil {
			checkAccepted(rt, p)
		}
	})
}

// Property: the names of accepted objects can all be made, in any order: none is a directory of another.
func TestAcceptedNamesFitIntoOneTree(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "a-", "A"})
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfN(rapid.Map(rapid.SliceOfN(part, 1, 3), func(p []string) string { return strings.Join(p, "/") }), 1, 6).Draw(rt, "names")
		var objects strings.Builder
		for _, n := range names {
			objects.WriteString("- {objectName: " + n + ", secretPath: kv/a}\n")
		}
		_, err := attributes.Parse(map[string]string{"objects": objects.String()})
		if fits := fitsIntoOneTree(names); fits != (err == nil) {
			rt.Fatalf("names %q: fits %v, error %v", names, fits, err)
		}
	})
}

// fitsIntoOneTree compares each name with each other one.
func fitsIntoOneTree(names []string) bool {
	for i, a := range names {
		for j, b := range names {
			if i != j && (a == b || strings.HasPrefix(b, a+"/")) {
				return false
			}
		}
	}
	return true
}
