// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

// anyFiles draws a set of files from few names, so that sets overlap, clash and nest.
var anyFiles = rapid.Custom(func(t *rapid.T) []File {
	name := rapid.SampledFrom([]string{"a", "b", "c", ".d", "e..", "ф"})
	path := rapid.Map(rapid.SliceOfN(name, 1, 3), func(names []string) string { return strings.Join(names, "/") })
	file := rapid.Custom(func(t *rapid.T) File {
		return File{
			Path: path.Draw(t, "path"),
			Data: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "data"),
			Mode: rapid.SampledFrom([]os.FileMode{0o400, 0o440, 0o444, 0o640}).Draw(t, "mode"),
		}
	})
	return rapid.SliceOfN(file, 0, 6).Draw(t, "files")
})

// clash says whether two of the files want the same name, told in another way than the product does.
func clash(files []File) bool {
	for i, f := range files {
		for _, g := range files[i+1:] {
			if strings.HasPrefix(f.Path+"/", g.Path+"/") || strings.HasPrefix(g.Path+"/", f.Path+"/") {
				return true
			}
		}
	}
	return false
}

// TestAVolumeBehavesLikeItsModel runs random operations on a real mount and compares what a reader sees, after each, with a map.
func TestAVolumeBehavesLikeItsModel(t *testing.T) {
	dir := mounttest.TempDir(t)
	mounters := map[string]*Mounter{}
	for _, attach := range ways {
		mounters[attach] = forced(t, attach, filepath.Join(dir, attach))
	}
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := mounters[rapid.SampledFrom(ways).Draw(t, "way")]
		target := filepath.Join(dir, fmt.Sprint("mount", run))
		v, err := m.Create(roomy)
		check(t, err)
		model := &model{Mounter: m, volume: v, target: target, staged: map[string][]File{}}
		model.files = anyFiles.Filter(func(f []File) bool { return !clash(f) }).Draw(t, "files")
		model.gen, err = v.Fill(model.files)
		check(t, err)
		check(t, v.Attach(target))
		defer func() {
			check(t, m.Remove(target))
			check(t, model.volume.Close())
		}()
		t.Repeat(rapid.StateMachineActions(model))
	})
}

type model struct {
	*Mounter
	volume *Volume
	target string

	gen    string            // the current generation
	files  []File            // and its files
	staged map[string][]File // every other generation
}

// Check compares the volume with the model after each operation.
func (m *model) Check(t *rapid.T) {
	got, err := read(m.target)
	check(t, err)
	if diff := cmp.Diff(want(m.files), got); diff != "" {
		t.Fatalf("files (-want +got):\n%s", diff)
	}
	current, err := m.volume.Current()
	if err != nil || current != m.gen {
		t.Fatalf("current generation %q, %v, want %q", current, err, m.gen)
	}
	expected := map[string]bool{dataName: true, m.gen: true}
	for gen := range m.staged {
		expected[gen] = true
	}
	for _, f := range m.files {
		top, _, _ := strings.Cut(f.Path, "/")
		expected[top] = true
		if data, err := m.volume.ReadFile(f.Path); err != nil || string(data) != string(f.Data) {
			t.Fatalf("ReadFile(%q): %q, %v", f.Path, data, err)
		}
	}
	entries, err := os.ReadDir(m.target)
	check(t, err)
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if diff := cmp.Diff(sorted(expected), names); diff != "" {
		t.Fatalf("names at the top (-want +got):\n%s", diff)
	}
	if at, err := m.volume.At(m.target); err != nil || !at {
		t.Fatalf("At: %v, %v", at, err)
	}
}

// Stage draws files and stages them.
func (m *model) Stage(t *rapid.T) {
	if len(m.staged) > 5 {
		t.Skip("enough generations")
	}
	files := anyFiles.Draw(t, "files")
	gen, changed, err := m.volume.Stage(files)
	switch {
	case clash(files):
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("a clash: %v", err)
		}
	case err != nil:
		t.Fatal(err)
	case cmp.Equal(want(files), want(m.files)):
		if changed || gen != m.gen {
			t.Fatalf("the same files: %q, changed %v", gen, changed)
		}
	default:
		if !changed || gen == m.gen || m.staged[gen] != nil {
			t.Fatalf("other files: %q, changed %v", gen, changed)
		}
		m.staged[gen] = files
	}
}

// StageTooMuch stages what does not fit, which costs the older generations and changes nothing else.
func (m *model) StageTooMuch(t *rapid.T) {
	files := []File{{"fits", []byte("x"), 0o444}, {"too/much", filled(2 << 20), 0o444}}
	if _, _, err := m.volume.Stage(files); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("Stage: %v", err)
	}
	clear(m.staged)
}

// Swap makes one of the generations current.
func (m *model) Swap(t *rapid.T) {
	gen := m.pick(t)
	check(t, m.volume.Swap(gen))
	if gen == m.gen {
		return
	}
	m.staged[m.gen] = m.files
	m.gen, m.files = gen, m.staged[gen]
	delete(m.staged, gen)
}

// Discard removes one of the generations.
func (m *model) Discard(t *rapid.T) {
	gen := m.pick(t)
	if err := m.volume.Discard(gen); (err == nil) == (gen == m.gen) {
		t.Fatalf("Discard(%q): %v; current is %q", gen, err, m.gen)
	}
	delete(m.staged, gen)
}

func (m *model) Prune(t *rapid.T) {
	check(t, m.volume.Prune())
	clear(m.staged)
}

// Restart gives up the handle, leaves debris as a kill may, and adopts.
func (m *model) Restart(t *rapid.T) {
	dir := inside(m.volume)
	for _, debris := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"tmp", "link", "partial", "lost"}), 0, 4, rapid.ID).Draw(t, "debris") {
		switch debris {
		case "tmp":
			check(t, os.Symlink("..2026_01_02_03_04_05.1", dir+"/..data_tmp"))
		case "link":
			check(t, os.Symlink("..data/zz", dir+"/zz"))
		case "partial":
			check(t, os.MkdirAll(dir+"/..2026_01_02_03_04_05.1/a/b", 0o700))
		case "lost":
			if len(m.files) > 0 {
				top, _, _ := strings.Cut(m.files[0].Path, "/")
				check(t, os.Remove(dir+"/"+top))
			}
		}
	}
	check(t, m.volume.Close())
	v, err := m.Adopt(m.target)
	check(t, err)
	m.volume = v
	clear(m.staged)
}

// Unmount is someone who unmounts the target.
func (m *model) Unmount(t *rapid.T) {
	check(t, unix.Unmount(m.target, 0))
	check(t, m.volume.Attach(m.target))
}

func (m *model) AttachAgain(t *rapid.T) { check(t, m.volume.Attach(m.target)) }

// pick draws one of all generations.
func (m *model) pick(t *rapid.T) string {
	all := append(slices.Sorted(maps.Keys(m.staged)), m.gen)
	return all[rapid.IntRange(0, len(all)-1).Draw(t, "generation")]
}

func check(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
