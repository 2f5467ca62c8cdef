// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

func TestMain(m *testing.M) {
	if scenario := os.Getenv(scenarioKey); scenario != "" {
		os.Exit(runScenario(scenario))
	}
	mounttest.Main(m)
}

// ways are all that this package has. Linux 6.15 and later offer all of them; what an older one does not is not run, and says so.
var ways = []string{AttachCloneDetached, AttachCloneAttached, AttachBindStaged}

// eachWay runs a test once for each way to attach, with a mounter that is forced to it and a directory to work in.
func eachWay(t *testing.T, do func(t *testing.T, m *Mounter, dir string)) {
	t.Helper()
	for _, attach := range ways {
		t.Run(attach, func(t *testing.T) {
			dir := mounttest.TempDir(t)
			do(t, forced(t, attach, dir), dir)
		})
	}
}

// forced is a mounter that attaches in one way, or "" for the best, with its staging below dir.
func forced(t testing.TB, attach, dir string) *Mounter {
	t.Helper()
	m := New(filepath.Join(dir, "staging"))
	m.force = attach
	support, err := m.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if attach != "" && support.Attach != attach {
		t.Skipf("NOT RUN: this kernel does not offer %s: %v", attach, support.Notes)
	}
	return m
}

// roomy is a shape in which the tests' files fit many times.
var roomy = Shape{Size: 1 << 20, Inodes: 1000}

func create(t testing.TB, m *Mounter, shape Shape) *Volume {
	t.Helper()
	v, err := m.Create(shape)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// set makes files the current generation.
func set(t testing.TB, v interface {
	Stage([]File) (string, bool, error)
	Swap(string) error
}, files []File) string {
	t.Helper()
	gen, _, err := v.Stage(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Swap(gen); err != nil {
		t.Fatal(err)
	}
	return gen
}

// publish makes a volume with files and attaches it at target.
func publish(t testing.TB, m *Mounter, target string, files []File) *Volume {
	t.Helper()
	v := create(t, m, roomy)
	if _, err := v.Fill(files); err != nil {
		t.Fatal(err)
	}
	if err := v.Attach(target); err != nil {
		t.Fatal(err)
	}
	return v
}

// two are sets of files that differ in every way: a byte, a mode, a name more, a name less, a directory.
func two() (old, new []File) {
	old = []File{
		{"same", []byte("same"), 0o444},
		{"bytes", []byte("1"), 0o444},
		{"mode", []byte("mode"), 0o444},
		{"less", []byte("less"), 0o440},
		{"dir/less", []byte("less"), 0o400},
		{"dir/deep/same", []byte("same"), 0o400},
		{"olddir/x", []byte("x"), 0o444},
	}
	new = []File{
		{"same", []byte("same"), 0o444},
		{"bytes", []byte("2"), 0o444},
		{"mode", []byte("mode"), 0o400},
		{"more", []byte("more"), 0o440},
		{"dir/deep/same", []byte("same"), 0o400},
		{"newdir/x", []byte("x"), 0o444},
	}
	return old, new
}

// few are two sets like those of two, of fewer files, for tests that go through every system call.
func few() (old, new []File) {
	return []File{{"bytes", []byte("1"), 0o444}, {"less", []byte("less"), 0o440}, {"dir/x", []byte("x"), 0o400}},
		[]File{{"bytes", []byte("2"), 0o444}, {"more", []byte("more"), 0o440}, {"dir/x", []byte("x"), 0o444}}
}

// seen is what a reader finds in a volume: each file by its path, as "mode content".
type seen map[string]string

func want(files []File) seen {
	w := seen{}
	for _, f := range files {
		w[f.Path] = f.Mode.String() + " " + string(f.Data)
	}
	return w
}

// read walks a volume as an application does, from the names at its top, through the links.
func read(dir string) (seen, error) {
	s := seen{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		if err := readBelow(s, dir, entry.Name()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readBelow adds the file dir/name, or every file below that directory, to s.
func readBelow(s seen, dir, name string) error {
	info, err := os.Stat(dir + "/" + name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		data, err := os.ReadFile(dir + "/" + name)
		s[name] = info.Mode().String() + " " + string(data)
		return err
	}
	entries, err := os.ReadDir(dir + "/" + name)
	for _, entry := range entries {
		err = errors.Join(err, readBelow(s, dir, name+"/"+entry.Name()))
	}
	return err
}

// shows checks that a reader of dir finds exactly files.
func shows(t testing.TB, dir string, files []File) {
	t.Helper()
	got, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want(files), got); diff != "" {
		t.Fatalf("files at %s (-want +got):\n%s", dir, diff)
	}
}

// clean checks that dir holds files as its only generation, the links to them, and nothing else.
func clean(t testing.TB, dir string, files []File) {
	t.Helper()
	shows(t, dir, files)
	gen, err := os.Readlink(filepath.Join(dir, dataName))
	if err != nil {
		t.Fatal(err)
	}
	expected := map[string]bool{dataName: true, gen: true}
	for _, f := range files {
		top, _, _ := strings.Cut(f.Path, "/")
		expected[top] = true
	}
	if diff := cmp.Diff(sorted(expected), listing(t, dir)); diff != "" {
		t.Fatalf("names at the top of %s (-want +got):\n%s", dir, diff)
	}
}

// listing is every name in dir.
func listing(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

// inside is a path to a volume's directory through its handle, by which a test can plant what no pod could.
func inside(v *Volume) string { return descriptorPath(v.handle) }

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// filled is n bytes.
func filled(n int) []byte { return bytes.Repeat([]byte("x"), n) }
