// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

// tmpfs is an unattached volume and a path to it.
func tmpfs(t *testing.T, shape Shape) (*Volume, string) {
	t.Helper()
	v := create(t, forced(t, "", mounttest.TempDir(t)), shape)
	return v, inside(v)
}

func TestAGenerationHasTheKubeletsLayout(t *testing.T) {
	v, dir := tmpfs(t, roomy)
	files, _ := two()
	gen := set(t, v, files)
	clean(t, dir, files)
	if current, err := v.Current(); err != nil || current != gen || !generationName.MatchString(gen) {
		t.Fatalf("Current: %q, %v, want %q", current, err, gen)
	}
	for link, target := range map[string]string{dataName: gen, "bytes": "..data/bytes", "dir": "..data/dir"} {
		if got, err := os.Readlink(dir + "/" + link); err != nil || got != target {
			t.Errorf("link %s leads to %q, %v, want %q", link, got, err, target)
		}
	}
	data, err := v.ReadFile("dir/deep/same")
	if err != nil || string(data) != "same" {
		t.Errorf("ReadFile: %q, %v", data, err)
	}
	for _, missing := range []string{"nothing", "dir/nothing", "same/x"} {
		if _, err := v.ReadFile(missing); err == nil {
			t.Errorf("ReadFile(%q) read something", missing)
		}
	}
	if _, err := v.ReadFile("../x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("ReadFile of a bad path: %v", err)
	}
}

func TestAnEmptyVolumeHasNoCurrentGeneration(t *testing.T) {
	v, dir := tmpfs(t, roomy)
	if gen, err := v.Current(); gen != "" || err != nil {
		t.Errorf("Current: %q, %v", gen, err)
	}
	if _, err := v.ReadFile("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile: %v", err)
	}
	must(t, v.Prune())
	must(t, v.repair())
	if names := listing(t, dir); len(names) != 0 {
		t.Errorf("names: %v", names)
	}
}

func TestASetOfNoFilesIsAGeneration(t *testing.T) {
	v, dir := tmpfs(t, roomy)
	files, _ := two()
	set(t, v, files)
	gen := set(t, v, nil)
	must(t, v.Prune())
	clean(t, dir, nil)
	if again, changed, err := v.Stage(nil); again != gen || changed || err != nil {
		t.Errorf("Stage: %q, %v, %v", again, changed, err)
	}
}

// The usual implementation ignores a change of a mode alone.
func TestStageWritesOnlyWhatDiffers(t *testing.T) {
	base := func() []File {
		return []File{{"a", []byte("1"), 0o444}, {"d/b", []byte("2"), 0o440}, {"d/e/c", []byte("3"), 0o400}}
	}
	for name, row := range map[string]struct {
		change  func(f []File) []File
		changed bool
	}{
		"nothing":          {func(f []File) []File { return f }, false},
		"order":            {func(f []File) []File { slices.Reverse(f); return f }, false},
		"a byte":           {func(f []File) []File { f[0].Data = []byte("9"); return f }, true},
		"a byte more":      {func(f []File) []File { f[0].Data = []byte("11"); return f }, true},
		"emptied":          {func(f []File) []File { f[0].Data = nil; return f }, true},
		"a mode":           {func(f []File) []File { f[1].Mode = 0o400; return f }, true},
		"a mode, deep":     {func(f []File) []File { f[2].Mode = 0o444; return f }, true},
		"a name":           {func(f []File) []File { f[0].Path = "z"; return f }, true},
		"a file more":      {func(f []File) []File { return append(f, File{"z", nil, 0o444}) }, true},
		"a file less":      {func(f []File) []File { return f[1:] }, true},
		"a directory less": {func(f []File) []File { return f[:2] }, true},
		"moved":            {func(f []File) []File { f[0].Path = "d/a"; return f }, true},
		"file to directory": {func(f []File) []File {
			f[0].Path = "a/a"
			return f
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			v, dir := tmpfs(t, roomy)
			first := set(t, v, base())
			files := row.change(base())
			gen, changed, err := v.Stage(files)
			must(t, err)
			if changed != row.changed || (gen == first) == row.changed {
				t.Fatalf("Stage: %q, changed %v; the current one is %q", gen, changed, first)
			}
			must(t, v.Swap(gen))
			must(t, v.Prune())
			clean(t, dir, files)
		})
	}
}

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o777))
	v, dir := tmpfs(t, roomy)
	files := []File{{"a", []byte("1"), 0o666}, {"d/e/b", []byte("2"), 0o444}}
	gen := set(t, v, files)
	clean(t, dir, files)
	for _, d := range []string{gen, gen + "/d", gen + "/d/e"} {
		if info, err := os.Stat(dir + "/" + d); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("mode of %s: %v, %v", d, info.Mode(), err)
		}
	}
	if _, changed, err := v.Stage(files); changed || err != nil {
		t.Errorf("the same files again: changed %v, %v", changed, err)
	}
}

func TestDiscardAndPruneLeaveTheCurrentGenerationAlone(t *testing.T) {
	v, dir := tmpfs(t, roomy)
	old, new := two()
	first := set(t, v, old)
	staged, _, err := v.Stage(new)
	must(t, err)
	shows(t, dir, old)

	if err := v.Discard(first); err == nil {
		t.Error("the current generation was discarded")
	}
	for _, name := range []string{"", ".", "..", dataName, "same", "dir", "../" + filepath.Base(dir)} {
		if err := v.Discard(name); err == nil {
			t.Errorf("%q was discarded as a generation", name)
		}
	}
	must(t, v.Discard(staged))
	must(t, v.Discard(staged))
	clean(t, dir, old)

	second := set(t, v, new)
	if names := listing(t, dir); !slices.Contains(names, first) || !slices.Contains(names, second) {
		t.Errorf("the generation before must stay until Prune: %v", names)
	}
	must(t, v.Prune())
	clean(t, dir, new)
}

func TestSwapCanBeRepeatedAndGoBack(t *testing.T) {
	v, dir := tmpfs(t, roomy)
	old, new := two()
	first := set(t, v, old)
	second := set(t, v, new)
	must(t, v.Swap(second))
	shows(t, dir, new)
	must(t, v.Swap(first))
	shows(t, dir, old)
	if err := v.Swap("..2026_01_02_03_04_05.1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("swap to an unknown generation: %v", err)
	}
	for _, name := range []string{"", "same", "dir", dataName, "../x", "/etc"} {
		if err := v.Swap(name); err == nil {
			t.Errorf("swapped to %q", name)
		}
	}
	shows(t, dir, old)
}

// The usual implementation leaks its partial directory when the volume is full, and no later write fits.
func TestAFullVolumeKeepsTheOldFilesAndTakesTheNextThatFit(t *testing.T) {
	page := os.Getpagesize()
	many := func(n int) (files []File) {
		for i := range n {
			files = append(files, File{fmt.Sprintf("d%d/f", i), []byte("x"), 0o444})
		}
		return files
	}
	for name, row := range map[string]struct {
		shape Shape
		big   []File
	}{
		"of bytes":  {Shape{Size: int64(16 * page), Inodes: 1000}, []File{{"a", filled(page), 0o444}, {"big", filled(20 * page), 0o444}}},
		"of inodes": {Shape{Size: 1 << 20, Inodes: 16}, many(20)},
	} {
		t.Run(name, func(t *testing.T) {
			v, dir := tmpfs(t, row.shape)
			old := []File{{"a", []byte("old"), 0o444}}
			set(t, v, old)
			before := usageOf(t, v)
			for range 3 {
				_, _, err := v.Stage(row.big)
				if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("Stage: %v", err)
				}
				if strings.Contains(err.Error(), "xxx") {
					t.Fatalf("the error has data in it: %v", err)
				}
				clean(t, dir, old)
			}
			if diff := cmp.Diff(before, usageOf(t, v)); diff != "" {
				t.Errorf("usage before and after (-before +after):\n%s", diff)
			}
			next := []File{{"b", []byte("new"), 0o444}}
			set(t, v, next)
			must(t, v.Prune())
			clean(t, dir, next)
		})
	}
}

func TestAVolumeThatIsFullOfOldGenerationsMakesRoom(t *testing.T) {
	page := os.Getpagesize()
	v, dir := tmpfs(t, Shape{Size: int64(10 * page), Inodes: 100})
	for i := range 5 { // each takes 4 of 10 pages; the third finds two
		files := []File{{"a", append(filled(4*page-1), byte('0'+i)), 0o444}}
		set(t, v, files)
		shows(t, dir, files)
	}
}

// Without an inode left for a link, a swap that renames first would be half done for good.
func TestASwapWithoutAnInodeLeftChangesNothing(t *testing.T) {
	old := []File{{"a", []byte("1"), 0o444}}
	new := []File{{"b", []byte("2"), 0o444}, {"c", []byte("3"), 0o444}}
	// Root, two generations, the data link, 1 and 2 files and 1 link take 8. From 8 on Stage fits; a swap takes two links more and,
	// for an instant, the new data link.
	for inodes := int64(8); inodes <= 10; inodes++ {
		v, dir := tmpfs(t, Shape{Size: 1 << 20, Inodes: inodes})
		set(t, v, old)
		gen, _, err := v.Stage(new)
		if err != nil {
			t.Fatalf("%d inodes: Stage: %v", inodes, err)
		}
		if err := v.Swap(gen); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("%d inodes: Swap: %v", inodes, err)
		}
		shows(t, dir, old)
		must(t, v.Discard(gen))
		clean(t, dir, old)
	}
	v, dir := tmpfs(t, Shape{Size: 1 << 20, Inodes: 11})
	set(t, v, old)
	set(t, v, new)
	must(t, v.Prune())
	clean(t, dir, new)
}

func TestAKillLeavesNothingThatWedgesTheNextSwap(t *testing.T) {
	old, new := two()
	for name, plant := range map[string]func(t *testing.T, dir string){
		"a stale temporary data link": func(t *testing.T, dir string) { must(t, os.Symlink("..2026_01_02_03_04_05.1", dir+"/..data_tmp")) },
		"a stale temporary link":      func(t *testing.T, dir string) { must(t, os.Symlink("..data/x", dir+"/..link_tmp")) },
		"a temporary that is a file":  func(t *testing.T, dir string) { must(t, os.WriteFile(dir+"/..data_tmp", nil, 0o600)) },
		"an empty generation":         func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/..2026_01_02_03_04_05.1", 0o755)) },
		"a partial generation":        func(t *testing.T, dir string) { partial(t, dir+"/..2026_01_02_03_04_05.1") },
		"a link without its file":     func(t *testing.T, dir string) { must(t, os.Symlink("..data/new", dir+"/new")) },
		"a file without its link":     func(t *testing.T, dir string) { must(t, os.Remove(dir+"/same")) },
		"a link that leads elsewhere": func(t *testing.T, dir string) { relink(t, "..data/dir", dir+"/same") },
		"a file in the place of a link": func(t *testing.T, dir string) {
			must(t, os.Remove(dir+"/same"))
			must(t, os.WriteFile(dir+"/same", nil, 0o600))
		},
		"a generation that is but a link": func(t *testing.T, dir string) { must(t, os.Symlink("dir", dir+"/..2026_01_02_03_04_05.1")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("and the next swap", func(t *testing.T) {
				v, dir := tmpfs(t, roomy)
				set(t, v, old)
				plant(t, dir)
				set(t, v, new)
				shows(t, dir, new)
				must(t, v.Prune())
				clean(t, dir, new)
			})
			t.Run("and a repair", func(t *testing.T) {
				v, dir := tmpfs(t, roomy)
				set(t, v, old)
				plant(t, dir)
				must(t, v.repair())
				clean(t, dir, old)
			})
		})
	}
}

func partial(t *testing.T, gen string) {
	must(t, os.MkdirAll(gen+"/dir/deep", 0o755))
	must(t, os.WriteFile(gen+"/dir/deep/half", []byte("ha"), 0o444))
}

func relink(t *testing.T, target, name string) {
	must(t, os.Remove(name))
	must(t, os.Symlink(target, name))
}

// No pod can plant anything, because its mount is read-only. If someone could, nothing outside of the volume is read, written or
// removed. The usual implementation removes the directory that a hostile data link names.
func TestPlantedLinksLeadNowhere(t *testing.T) {
	old, new := two()
	type plant struct {
		do      func(t *testing.T, dir, gen, victim string)
		refused bool // the next swap is refused, with the old files whole
	}
	for name, row := range map[string]plant{
		"data link to an absolute path": {do: func(t *testing.T, dir, _, victim string) { relink(t, victim, dir+"/..data") }},
		"data link upwards":             {do: func(t *testing.T, dir, _, _ string) { relink(t, "../../../../../..", dir+"/..data") }},
		"data link to a name":           {do: func(t *testing.T, dir, _, _ string) { relink(t, "dir", dir+"/..data") }},
		"data link to itself":           {do: func(t *testing.T, dir, _, _ string) { relink(t, "..data", dir+"/..data") }},
		"data link to a planted generation": {do: func(t *testing.T, dir, _, victim string) {
			must(t, os.Symlink(victim, dir+"/..2026_01_02_03_04_05.1"))
			relink(t, "..2026_01_02_03_04_05.1", dir+"/..data")
		}},
		"a generation that leads out": {do: func(t *testing.T, dir, _, victim string) {
			must(t, os.Symlink(victim, dir+"/..2026_01_02_03_04_05.1"))
		}},
		"a name that leads out": {do: func(t *testing.T, dir, _, victim string) { relink(t, victim+"/keep", dir+"/same") }},
		"a temporary that leads out": {do: func(t *testing.T, dir, _, victim string) {
			must(t, os.Symlink(victim, dir+"/..data_tmp"))
			must(t, os.Symlink(victim, dir+"/..link_tmp"))
		}},
		"a file of the generation that leads out": {do: func(t *testing.T, dir, gen, victim string) {
			relink(t, victim+"/keep", dir+"/"+gen+"/same")
		}},
		"a directory of the generation that leads out": {do: func(t *testing.T, dir, gen, victim string) {
			must(t, os.RemoveAll(dir+"/"+gen+"/dir/deep"))
			must(t, os.Symlink(victim, dir+"/"+gen+"/dir/deep"))
		}},
		"a directory in the place of a link": {refused: true, do: func(t *testing.T, dir, _, _ string) {
			must(t, os.MkdirAll(dir+"/more/x", 0o755))
		}},
		"a directory in the place of the data link": {refused: true, do: func(t *testing.T, dir, _, _ string) {
			must(t, os.Remove(dir+"/..data"))
			must(t, os.MkdirAll(dir+"/..data/x", 0o755))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			victim := t.TempDir()
			must(t, os.WriteFile(victim+"/keep", []byte("same"), 0o444))
			v, dir := tmpfs(t, roomy)
			gen := set(t, v, old)
			row.do(t, dir, gen, victim)

			if data, err := v.ReadFile("dir/deep/keep"); err == nil {
				t.Errorf("read %q from outside", data)
			}
			staged, changed, err := v.Stage(new)
			must(t, err)
			if !changed {
				t.Error("hostile content was taken for the wanted one")
			}
			err = v.Swap(staged)
			if (err != nil) != row.refused {
				t.Errorf("Swap: %v, want refused %v", err, row.refused)
			}
			if err == nil {
				shows(t, dir, new)
			}
			must(t, v.Prune())
			if err := v.repair(); err != nil && !row.refused {
				t.Error(err)
			}
			if data, err := os.ReadFile(victim + "/keep"); err != nil || string(data) != "same" {
				t.Errorf("the victim's file: %q, %v", data, err)
			}
			if names := listing(t, victim); len(names) != 1 {
				t.Errorf("the victim's directory: %v", names)
			}
		})
	}
}

// A reader that opens ..data once and reads through it sees one generation, whole, at every moment, as long as the generation
// before has its grace: here, until every reader has begun anew after the swap.
func TestReadersSeeOneGeneration(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		v := publish(t, m, target, numbered(0))

		var begun [2]atomic.Int64
		var readers sync.WaitGroup
		stop := make(chan struct{})
		for n := range begun {
			readers.Go(func() {
				for last := 0; ; {
					begun[n].Add(1)
					i, err := readNumbered(target)
					if err != nil || i < last {
						t.Errorf("reader: generation %d after %d: %v", i, last, err)
						return
					}
					last = i
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		for i := 1; i <= 100 && !t.Failed(); i++ {
			set(t, v, numbered(i))
			if i%10 != 0 {
				continue
			}
			for n := range begun {
				for at := begun[n].Load(); begun[n].Load() < at+2 && !t.Failed(); {
					runtime.Gosched()
				}
			}
			must(t, v.Prune())
		}
		close(stop)
		readers.Wait()
		t.Logf("whole generations read: %d and %d", begun[0].Load(), begun[1].Load())
	})
}

var numberedNames = []string{"a", "b", "d/c", "d/e/f", "g"}

// numbered is a set of files that all say i, each of more than one page.
func numbered(i int) (files []File) {
	for _, name := range numberedNames {
		files = append(files, File{name, fmt.Appendf(nil, "%s %d", strings.Repeat("p", 5000), i), 0o444})
	}
	return files
}

// readNumbered opens ..data once, reads every file through it, and returns the number that all of them say.
func readNumbered(target string) (number int, err error) {
	root, err := os.OpenRoot(target + "/..data")
	if err != nil {
		return 0, err
	}
	defer root.Close()
	for n, name := range numberedNames {
		data, err := root.ReadFile(name)
		if err != nil {
			return 0, err
		}
		var i int
		padding, digits, _ := strings.Cut(string(data), " ")
		if _, err := fmt.Sscan(digits, &i); err != nil || len(padding) != 5000 {
			return 0, fmt.Errorf("file %s is torn: %d bytes", name, len(data))
		}
		if n > 0 && i != number {
			return 0, fmt.Errorf("file %s is of generation %d, those before it of %d", name, i, number)
		}
		number = i
	}
	return number, nil
}

func usageOf(t *testing.T, v *Volume) Usage {
	t.Helper()
	u, err := usageAt(inside(v))
	must(t, err)
	return u
}
