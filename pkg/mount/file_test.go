// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesThatCannotBeWrittenAreRefusedWithNothingWritten(t *testing.T) {
	long := strings.Repeat("n", 256)
	for name, files := range map[string][]File{
		"empty path":                   {{"", nil, 0o444}},
		"absolute":                     {{"/etc/passwd", nil, 0o444}},
		"parent":                       {{"..", nil, 0o444}},
		"parent first":                 {{"../x", nil, 0o444}},
		"parent inside":                {{"a/../../x", nil, 0o444}},
		"parent last":                  {{"a/..", nil, 0o444}},
		"self":                         {{".", nil, 0o444}},
		"self inside":                  {{"a/./b", nil, 0o444}},
		"the data link":                {{"..data", nil, 0o444}},
		"the temporary link":           {{"..data_tmp", nil, 0o444}},
		"a generation":                 {{"..2026_01_02_03_04_05.1", nil, 0o444}},
		"below the data link":          {{"..data/x", nil, 0o444}},
		"slash at the end":             {{"a/", nil, 0o444}},
		"two slashes":                  {{"a//b", nil, 0o444}},
		"NUL":                          {{"a\x00b", nil, 0o444}},
		"newline":                      {{"a\nb", nil, 0o444}},
		"not UTF-8":                    {{"a\xffb", nil, 0o444}},
		"name of 256 bytes":            {{long, nil, 0o444}},
		"name of 256 bytes inside":     {{"a/" + long, nil, 0o444}},
		"path of 4096 bytes":           {{strings.Repeat("n/", 2047) + "nn", nil, 0o444}},
		"17 levels":                    {{strings.Repeat("n/", 16) + "n", nil, 0o444}},
		"twice":                        {{"a", nil, 0o444}, {"b", nil, 0o444}, {"a", nil, 0o444}},
		"file and directory":           {{"a", nil, 0o444}, {"a/b", nil, 0o444}},
		"directory and file":           {{"a/b", nil, 0o444}, {"a", nil, 0o444}},
		"file and directory, deep":     {{"x/a/b/c", nil, 0o444}, {"x/a", nil, 0o444}},
		"clash with a name in between": {{"a", nil, 0o444}, {"a-b", nil, 0o444}, {"a/b", nil, 0o444}},
		"no mode":                      {{"a", nil, 0}},
		"executable":                   {{"a", nil, 0o555}},
		"set-user-id":                  {{"a", nil, 0o444 | fs.ModeSetuid}},
		"set-user-id as in chmod":      {{"a", nil, 0o4444}},
		"a link":                       {{"a", nil, 0o444 | fs.ModeSymlink}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := open(t, dir)
			_, _, err := d.Stage(files)
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Stage: %v, want ErrInvalid", err)
			}
			if names := listing(t, dir); len(names) != 0 {
				t.Fatalf("left behind: %v", names)
			}
		})
	}
}

func TestUnusualPathsThatAreFine(t *testing.T) {
	files := []File{
		{"Key", []byte("1"), 0o444},
		{"key", []byte("2"), 0o444},
		{".hidden", []byte("3"), 0o444},
		{"a..b", []byte("4"), 0o444},
		{"a b/c;$(d)/*", []byte("5"), 0o444},
		{"ключ/é", []byte("6"), 0o444},
		{"...", []byte("7"), 0o444},
		{strings.Repeat("n", 255), []byte("8"), 0o444},
		{strings.Repeat("d/", 15) + "n", []byte("9"), 0o444},
		{"empty", nil, 0o444},
		{`back\slash`, []byte("10"), 0o444},
	}
	files = append(files[:6], files[7:]...) // "..." begins with ".."
	dir := t.TempDir()
	set(t, open(t, dir), files)
	clean(t, dir, files)
}

func TestAFilePrintsWithoutItsData(t *testing.T) {
	f := File{Path: "password", Data: []byte("hunter2"), Mode: 0o440}
	var out strings.Builder
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "file", f, "files", []File{f})
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "file", f, "files", []File{f})
	if err := json.NewEncoder(&out).Encode(map[string]any{"f": f, "p": &f}); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb, f)
		fmt.Fprintf(&out, verb, []File{f})
		fmt.Fprintf(&out, verb, &f)
	}
	for _, leak := range []string{"hunter2", "aHVudGVyMg", fmt.Sprintf("%x", "hunter2"), "104 117 110"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is in the output:\n%s", leak, out.String())
		}
	}
	if !strings.Contains(out.String(), "password (7 bytes, 0440)") {
		t.Errorf("the file is not named:\n%s", out.String())
	}
}

// FuzzPath: a path is refused with nothing written, or it becomes one file inside of the volume; nothing is ever outside.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"a", "a/b/c", "..", "../x", "a/../b", "/abs", "..data", "..data/x", "a//b", "a/", ".", "./a", "a\x00b", "é", "..2026_01_02_03_04_05.1/x",
		"a/..b", "\\", "C:\\x", "~", "a\u202eb", strings.Repeat("a/", 20), strings.Repeat("n", 300),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		files := []File{{name, []byte("content"), 0o444}}
		_, refused := newTree(files)
		if refused != nil && !errors.Is(refused, ErrInvalid) {
			t.Fatalf("%q is refused in an unknown way: %v", name, refused)
		}
		if refused == nil && (path.Clean(name) != name || !filepath.IsLocal(name) || strings.HasPrefix(name, "..")) {
			t.Fatalf("%q was accepted as it is", name)
		}
		if refused != nil && len(name)%16 != 0 { // a refusal writes nothing: looked at now and then, because it is slow
			return
		}
		outside := t.TempDir()
		dir := filepath.Join(outside, "volume")
		must(t, os.Mkdir(dir, 0o755))
		d := open(t, dir)
		gen, changed, err := d.Stage(files)
		switch {
		case refused != nil:
			if names := listing(t, dir); err == nil || len(names) != 0 {
				t.Fatalf("%q is refused, %v, but left %v", name, err, names)
			}
		case err != nil || !changed:
			t.Fatalf("%q is accepted but not written: changed %v, %v", name, changed, err)
		default:
			must(t, d.Swap(gen))
			clean(t, dir, files)
		}
		if names := listing(t, outside); len(names) != 1 {
			t.Fatalf("%q wrote outside of the volume: %v", name, names)
		}
	})
}

// open is a Dir on a plain directory: this half of the package needs no mount and no privileges.
func open(t testing.TB, dir string) *Dir {
	t.Helper()
	f, err := openPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := NewDir(f)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}
