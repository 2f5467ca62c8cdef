// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

func TestAVolumeIsInNoPathUntilItIsAttached(t *testing.T) {
	// The staging of AttachBindStaged is a path, for root alone.
	for _, attach := range []string{AttachCloneDetached, AttachCloneAttached} {
		t.Run(attach, func(t *testing.T) {
			m := forced(t, attach, mounttest.TempDir(t))
			before := mounttest.Mounts(t, "")
			v := create(t, m, roomy)
			old, _ := two()
			set(t, v, old)
			if diff := cmp.Diff(before, mounttest.Mounts(t, "")); diff != "" {
				t.Errorf("list of mounts (-before +after):\n%s", diff)
			}
		})
	}
}

func TestAnAttachedVolumeCanBeReadAndNotWritten(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		old, new := two()
		v := publish(t, m, target, old)
		clean(t, target, old)

		line := mounttest.Lines(t, target)
		if len(line) != 1 {
			t.Fatalf("mounts at the target: %q", line)
		}
		fields := strings.Fields(line[0])
		for _, option := range []string{"ro", "nosuid", "nodev", "noexec"} {
			if !strings.Contains(","+fields[5]+",", ","+option+",") {
				t.Errorf("the mount is not %s: %s", option, line[0])
			}
		}
		if !strings.Contains(line[0], " - tmpfs leasefs rw,") || !strings.Contains(line[0], "size=1024k,nr_inodes=1000") {
			t.Errorf("the tmpfs: %s", line[0])
		}
		if offersNoswap(t, m) && !strings.Contains(line[0], "noswap") {
			t.Errorf("the tmpfs may be swapped: %s", line[0])
		}
		writes := map[string]error{
			"create": os.WriteFile(target+"/new", nil, 0o600),
			"write":  os.WriteFile(target+"/bytes", nil, 0o600),
			"remove": os.Remove(target + "/bytes"),
			"chmod":  os.Chmod(target+"/bytes", 0o777),
			"swap":   os.Rename(target+"/..data", target+"/x"),
		}
		for what, err := range writes {
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v, want EROFS", what, err)
			}
		}
		set(t, v, new)
		must(t, v.Prune())
		clean(t, target, new)
	})
}

func TestAttachIsIdempotentAndNeverCoversSomethingElse(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		old, new := two()
		v := publish(t, m, target, old)
		must(t, v.Attach(target))
		if n := len(mounttest.Mounts(t, target)); n != 1 {
			t.Errorf("%d mounts after a second Attach", n)
		}
		other := create(t, m, roomy)
		set(t, other, new)
		if err := other.Attach(target); !errors.Is(err, ErrOccupied) {
			t.Errorf("Attach over another volume: %v", err)
		}
		shows(t, target, old)
		elsewhere := filepath.Join(dir, "elsewhere")
		must(t, other.Attach(elsewhere)) // a refused Attach spoils nothing
		shows(t, elsewhere, new)

		for path, expected := range map[string]bool{target: true, elsewhere: false, dir: false, dir + "/nothing": false} {
			if at, err := v.At(path); at != expected || err != nil {
				t.Errorf("At(%s): %v, %v", path, at, err)
			}
		}
	})
}

func TestFillIsForAnEmptyVolumeAlone(t *testing.T) {
	old, new := two()
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		v := publish(t, m, target, old)
		if gen, err := v.Fill(new); err == nil {
			t.Fatalf("filled again, as %s", gen)
		}
		shows(t, target, old)
	})
}

func TestWhatDoesNotFitIsNotFilledIn(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, _ string) {
		for name, files := range map[string][]File{
			"content": {{"big", filled(2 << 20), 0o444}},
			"path":    {{"../out", nil, 0o444}},
		} {
			want := map[string]error{"content": ErrNoSpace, "path": ErrInvalid}[name]
			if _, err := create(t, m, roomy).Fill(files); !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Attach makes the directory, but who has time before may have it made.
func TestPrepareMakesTheTargetsDirectory(t *testing.T) {
	old, _ := two()
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		must(t, m.Prepare(target))
		must(t, m.Prepare(target))
		publish(t, m, target, old)
		must(t, m.Prepare(target)) // a republish that failed half way
		shows(t, target, old)
		must(t, m.Remove(target))
		must(t, m.Prepare(target))
		must(t, m.Remove(target))
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
		for _, wrong := range []string{dir + "/no/parent", "mount", dir + "/../mount", "/"} {
			if err := m.Prepare(wrong); err == nil {
				t.Errorf("prepared %s", wrong)
			}
		}
	})
}

func TestAFailedAttachLeavesNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		v := create(t, m, roomy)
		old, new := two()
		set(t, v, old)
		must(t, os.WriteFile(dir+"/file", nil, 0o600))
		must(t, os.Symlink(t.TempDir(), dir+"/link"))
		before := mounttest.Mounts(t, "")
		for _, target := range []string{"", "relative", "/", dir + "/../x", dir + "/x/", dir + "/no/parent", dir + "/file", dir + "/link"} {
			if target == dir+"/x/" {
				continue // a slash at the end is fine
			}
			if err := v.Attach(target); err == nil {
				t.Errorf("attached at %q", target)
			}
		}
		if diff := cmp.Diff(before, mounttest.Mounts(t, "")); diff != "" {
			t.Errorf("list of mounts (-before +after):\n%s", diff)
		}
		set(t, v, new) // still writable
		must(t, v.Attach(dir+"/mount"))
		shows(t, dir+"/mount", new)
	})
}

// Someone unmounts a live target. The next Attach brings the same tmpfs back, so containers that still have it and new ones see
// the same files.
func TestAVolumeThatWasUnmountedFromOutsideComesBack(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target, container := filepath.Join(dir, "mount"), filepath.Join(dir, "container")
		old, new := two()
		v := publish(t, m, target, old)
		must(t, os.Mkdir(container, 0o755))
		must(t, unix.Mount(target, container, "", unix.MS_BIND, ""))

		for range 2 {
			must(t, unix.Unmount(target, 0))
			if at, err := v.At(target); at || err != nil {
				t.Fatalf("At: %v, %v", at, err)
			}
			must(t, v.Attach(target))
		}
		set(t, v, new)
		must(t, v.Prune())
		for _, path := range []string{target, container} {
			clean(t, path, new)
			if err := os.WriteFile(path+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s can be written: %v", path, err)
			}
		}
	})
}

func TestAClosedVolumeStaysMountedAndCanBeAdopted(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		old, new := two()
		v := publish(t, m, target, old)
		must(t, v.Close())
		must(t, v.Close())
		_, _, err := v.Stage(new)
		for what, err := range map[string]error{
			"Stage": err, "Swap": v.Swap("..2026_01_02_03_04_05.1"), "Attach": v.Attach(target), "Prune": v.Prune(),
		} {
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s of a closed volume: %v", what, err)
			}
		}
		clean(t, target, old)

		again := forced(t, m.force, dir) // as after a restart
		w, err := again.Adopt(target)
		must(t, err)
		gen, err := w.Current()
		must(t, err)
		if same, changed, err := w.Stage(old); same != gen || changed || err != nil {
			t.Errorf("the same files after a restart: %q, changed %v, %v", same, changed, err)
		}
		set(t, w, new)
		must(t, w.Prune())
		clean(t, target, new)
		if at, err := w.At(target); !at || err != nil {
			t.Errorf("At: %v, %v", at, err)
		}
		if err := os.WriteFile(target+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("adopting made the target writable: %v", err)
		}
		must(t, again.Remove(target))
		must(t, w.Close())
	})
}

func TestAdoptCleansWhatAKillLeft(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		old, new := two()
		v := publish(t, m, target, old)
		set(t, v, new)
		_, _, err := v.Stage(old)
		must(t, err)
		partial(t, inside(v)+"/..2026_01_02_03_04_05.1")
		must(t, os.Symlink("..2026_01_02_03_04_05.1", inside(v)+"/..data_tmp"))
		must(t, os.Symlink("..data/gone", inside(v)+"/gone"))
		must(t, v.Close())

		w, err := m.Adopt(target)
		must(t, err)
		clean(t, target, new)
		must(t, w.Close())
	})
}

func TestAdoptRefusesWhatIsNotAVolume(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		mountAt := func(fstype string) string {
			path := dir + "/" + fstype
			must(t, os.Mkdir(path, 0o755))
			must(t, unix.Mount("other", path, fstype, 0, ""))
			must(t, os.WriteFile(path+"/precious", nil, 0o600))
			return path
		}
		other := mountAt("tmpfs")
		link := dir + "/link"
		must(t, os.Symlink(other, link))
		bound := dir + "/bound"
		must(t, os.Mkdir(bound, 0o755))
		must(t, unix.Mount(t.TempDir(), bound, "", unix.MS_BIND, ""))
		before := mounttest.Mounts(t, "")
		for path, expected := range map[string]error{
			dir + "/nothing": ErrNotMounted,
			dir:              ErrNotMounted,
			link:             ErrNotMounted,
			other:            ErrForeign,
			bound:            ErrForeign,
		} {
			if _, err := m.Adopt(path); !errors.Is(err, expected) {
				t.Errorf("Adopt(%s): %v, want %v", path, err, expected)
			}
		}
		if _, err := m.Adopt(dir + "/nothing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Adopt of nothing: %v", err)
		}
		if names := listing(t, other); len(names) != 1 || names[0] != "precious" {
			t.Errorf("the other tmpfs: %v", names)
		}
		if diff := cmp.Diff(before, mounttest.Mounts(t, "")); diff != "" {
			t.Errorf("list of mounts (-before +after):\n%s", diff)
		}
	})
}

// What someone mounts below a target stays there: the handle does not see it, pruning does not enter it, and the volume goes on.
func TestAMountBelowTheTargetIsNotEntered(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
		must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
		victim, target := t.TempDir(), filepath.Join(dir, "mount")
		must(t, os.WriteFile(victim+"/keep", nil, 0o600))
		old, new := two()
		v := publish(t, m, target, old)
		w, err := m.Adopt(target)
		must(t, err)
		defer w.Close()
		must(t, unix.Mount(victim, target+"/..data/dir", "", unix.MS_BIND, ""))

		for _, volume := range []*Volume{v, w} {
			if data, err := volume.ReadFile("dir/deep/same"); err != nil || string(data) != "same" {
				t.Errorf("the handle sees the mount: %q, %v", data, err)
			}
		}
		gen, err := v.Current()
		must(t, err)
		set(t, v, new)
		if err := v.Prune(); !errors.Is(err, unix.EBUSY) {
			t.Errorf("Prune: %v", err)
		}
		var left []string
		must(t, filepath.WalkDir(inside(v)+"/"+gen, func(path string, entry fs.DirEntry, err error) error {
			if !entry.IsDir() {
				left = append(left, path)
			}
			return err
		}))
		if len(left) != 0 {
			t.Errorf("files of the old generation: %v", left)
		}
		x, err := m.Adopt(target)
		must(t, err)
		set(t, x, old)
		must(t, x.Close())
		shows(t, target, old)
		if names := listing(t, victim); len(names) != 1 {
			t.Errorf("the victim's directory: %v", names)
		}
		must(t, unix.Unmount(target+"/"+gen+"/dir", 0))
		must(t, v.Prune())
		clean(t, target, old)
	})
}

func TestAShapeThatCannotBeIsRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		for name, change := range map[string]func(*Shape){
			"no size":         func(s *Shape) { s.Size = 0 },
			"negative size":   func(s *Shape) { s.Size = -1 },
			"no inodes":       func(s *Shape) { s.Inodes = 0 },
			"negative inodes": func(s *Shape) { s.Inodes = math.MinInt64 },
			"gid -1":          func(s *Shape) { gid := uint32(math.MaxUint32); s.GID = &gid },
		} {
			shape := roomy
			change(&shape)
			if v, err := m.Create(shape); err == nil {
				t.Errorf("%s: created", name)
				must(t, v.Close())
			}
		}
	})
}

// A label is one option, whatever is in it. (This kernel has no SELinux, which refuses the option itself; the rest is the kernel's.)
func TestALabelCannotSmuggleInAnotherOption(t *testing.T) {
	label := option{key: "context", value: `u:r:t:s0:c1,c2",size=1,mode=0777,x="`}
	if _, err := newTmpfs(source, []option{label}); err == nil || !strings.Contains(err.Error(), `"context"`) {
		t.Errorf("fsconfig: %v", err)
	}
	if err := mountTmpfs(source, t.TempDir(), []option{label}); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("mount: %v", err)
	}
	p := &probed{selinux: true}
	shape := roomy
	shape.SELinuxContext = "system_u:object_r:container_file_t:s0"
	options, err := p.options(shape)
	must(t, err)
	if last := options[len(options)-1]; last.key != "context" || last.value != shape.SELinuxContext {
		t.Errorf("options: %v", options)
	}
	p.selinux = false
	options, err = p.options(shape)
	must(t, err)
	for _, o := range options {
		if o.key == "context" {
			t.Error("a kernel without SELinux would refuse the label")
		}
	}
}

func TestOwnerAndGroupComeWithTheMount(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		shape := roomy
		group := uint32(0)
		if !mounttest.InUserNamespace() {
			group, shape.UID = 4321, 1234
		}
		shape.GID = &group
		v := create(t, m, shape)
		old, new := two()
		set(t, v, old)
		set(t, v, new)
		must(t, v.Prune())
		must(t, v.Attach(target))
		clean(t, target, new)

		must(t, filepath.WalkDir(target, func(path string, entry fs.DirEntry, err error) error {
			must(t, err)
			var st unix.Stat_t
			must(t, unix.Lstat(path, &st))
			if entry.Type() == fs.ModeSymlink {
				return nil
			}
			if st.Gid != group {
				t.Errorf("%s has group %d", path, st.Gid)
			}
			if mode := st.Mode & 0o7777; entry.IsDir() && mode != 0o2750 {
				t.Errorf("%s has mode %#o", path, mode)
			}
			return nil
		}))
	})
}

func TestNoDescriptorIsLeftOpen(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		old, new := two()
		round := func() {
			v, err := m.Create(roomy)
			must(t, err)
			set(t, v, old)
			_, _, err = v.Stage([]File{{"big", filled(2 << 20), 0o444}})
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			if err := v.Attach(dir + "/no/parent"); err == nil {
				t.Fatal("attached")
			}
			must(t, v.Attach(target))
			set(t, v, new)
			_, err = v.ReadFile("bytes")
			must(t, err)
			w, err := m.Adopt(target)
			must(t, err)
			if err := w.Attach(target); err != nil {
				t.Fatal(err)
			}
			_, err = m.Adopt(dir)
			if !errors.Is(err, ErrNotMounted) {
				t.Fatal(err)
			}
			_, err = m.Usage(target)
			must(t, err)
			must(t, m.Remove(target))
			must(t, v.Close())
			must(t, w.Close())
			gid := uint32(math.MaxUint32)
			if _, err := m.Create(Shape{Size: 1, Inodes: 1, GID: &gid}); err == nil {
				t.Fatal("created")
			}
		}
		round() // whatever the runtime opens once
		descriptors, mounts := openDescriptors(t), mounttest.Mounts(t, "")
		for range 15 {
			round()
		}
		if diff := cmp.Diff(descriptors, openDescriptors(t)); diff != "" {
			t.Errorf("open descriptors (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(mounts, mounttest.Mounts(t, "")); diff != "" {
			t.Errorf("list of mounts (-before +after):\n%s", diff)
		}
	})
}

func TestALiveVolumeHoldsOneDescriptor(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		old, _ := two()
		before := len(openDescriptors(t))
		for i := range 20 {
			publish(t, m, fmt.Sprintf("%s/mount%d", dir, i), old)
		}
		if n := len(openDescriptors(t)) - before; n != 20 {
			t.Errorf("20 volumes hold %d descriptors", n)
		}
	})
}

func offersNoswap(t *testing.T, m *Mounter) bool {
	t.Helper()
	support, err := m.Probe(t.Context())
	must(t, err)
	return support.Noswap
}

// openDescriptors is what each descriptor of this process leads to, by number.
func openDescriptors(t *testing.T) map[string]string {
	t.Helper()
	open := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, entry := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil { // not the one that listed them
			open[entry.Name()] = to
		}
	}
	return open
}
