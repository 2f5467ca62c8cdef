// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

func TestProbeTellsWhatTheKernelOffers(t *testing.T) {
	m := New(t.TempDir() + "/never-made")
	support, err := m.Probe(t.Context())
	must(t, err)
	t.Logf("%+v", support)
	if support.Kernel == "" || !slices.Contains(ways, support.Attach) {
		t.Errorf("support: %+v", support)
	}
	if support.Noswap && mounttest.InUserNamespace() {
		t.Error("a user namespace has no noswap")
	}
	// What is missing is told.
	notes := strings.Join(support.Notes, "\n")
	for note, missing := range map[string]bool{
		"may be written to swap": !support.Noswap,
		"(Linux 6.15)":           support.Attach != AttachCloneDetached,
		"(Linux 5.12)":           support.Attach == AttachBindStaged,
	} {
		if strings.Contains(notes, note) != missing {
			t.Errorf("note %q: want %v in %q", note, missing, notes)
		}
	}
	again, err := m.Probe(t.Context())
	must(t, err)
	if diff := cmp.Diff(support, again); diff != "" {
		t.Errorf("second Probe (-first +second):\n%s", diff)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New("").Probe(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestProbeSaysWhatIsMissingWhenNothingWorks(t *testing.T) {
	m := New("")
	m.force = AttachBindStaged
	_, err := m.Probe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no staging directory") {
		t.Errorf("without a staging directory: %v", err)
	}
	if _, err := m.Create(roomy); err == nil {
		t.Error("created")
	}
}

func TestMounted(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		old, _ := two()
		publish(t, m, target, old)
		must(t, os.Symlink(target, dir+"/link"))
		must(t, os.WriteFile(dir+"/file", nil, 0o600))
		for path, expected := range map[string]bool{
			target: true, target + "/dir": false, target + "/same": false, dir: false, dir + "/link": false,
			dir + "/nothing": false, dir + "/no/parent": false, dir + "/file/x": false,
		} {
			if mounted, err := m.Mounted(path); mounted != expected || err != nil {
				t.Errorf("Mounted(%s): %v, %v", path, mounted, err)
			}
		}
	})
}

func TestRemove(t *testing.T) {
	old, new := two()
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		gone := func(t *testing.T) {
			t.Helper()
			must(t, m.Remove(target))
			must(t, m.Remove(target))
			if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the target is still there: %v", err)
			}
			if mounts := mounttest.Mounts(t, target); len(mounts) != 0 {
				t.Errorf("still mounted: %v", mounts)
			}
		}
		t.Run("an absent target", func(t *testing.T) { gone(t) })
		t.Run("an absent parent", func(t *testing.T) { must(t, m.Remove(dir+"/no/parent")) })
		t.Run("an empty directory", func(t *testing.T) { must(t, os.Mkdir(target, 0o755)); gone(t) })
		t.Run("a live volume", func(t *testing.T) { publish(t, m, target, old); gone(t) })
		t.Run("a volume whose handle is closed", func(t *testing.T) { must(t, publish(t, m, target, old).Close()); gone(t) })
		t.Run("stacked mounts", func(t *testing.T) {
			publish(t, m, target, old)
			must(t, unix.Mount(target, target, "", unix.MS_BIND, ""))
			must(t, unix.Mount("other", target, "tmpfs", 0, ""))
			if n := len(mounttest.Mounts(t, target)); n != 3 {
				t.Fatalf("%d mounts", n)
			}
			gone(t)
		})
		t.Run("a volume in use", func(t *testing.T) {
			v := publish(t, m, target, old)
			f, err := os.Open(target + "/bytes")
			must(t, err)
			defer f.Close()
			gone(t)
			set(t, v, new)
			if data := make([]byte, 8); true {
				if n, err := f.Read(data); err != nil || string(data[:n]) != "1" {
					t.Errorf("the open file: %q, %v", data, err)
				}
			}
		})
		t.Run("a volume with a mount below it", func(t *testing.T) {
			publish(t, m, target, old)
			must(t, unix.Mount("other", target+"/..data/dir", "tmpfs", 0, ""))
			gone(t)
		})
		t.Run("publish again after it", func(t *testing.T) {
			publish(t, m, target, new)
			clean(t, target, new)
			gone(t)
		})
	})
}

func TestRemoveNeverTakesAFile(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		old, _ := two()
		full := dir + "/full"
		must(t, os.Mkdir(full, 0o755))
		must(t, os.WriteFile(full+"/precious", nil, 0o600))
		file := dir + "/file"
		must(t, os.WriteFile(file, nil, 0o600))
		volume := dir + "/volume"
		publish(t, m, volume, old)
		link := dir + "/link"
		must(t, os.Symlink(volume, link))
		for _, target := range []string{full, file, link, "", "relative", "/", dir + "/x/../full"} {
			if err := m.Remove(target); err == nil {
				t.Errorf("Remove(%q) did not say anything", target)
			}
		}
		for _, path := range []string{full + "/precious", file, link, volume + "/bytes"} {
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
		// A full directory below a volume is the case of a driver that once wrote before it mounted.
		must(t, unix.Mount("other", full, "tmpfs", 0, ""))
		if err := m.Remove(full); !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("Remove: %v", err)
		}
		if mounted, _ := m.Mounted(full); mounted {
			t.Error("still mounted")
		}
		if _, err := os.Stat(full + "/precious"); err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyABrokenMountIsUnmountedBlindly(t *testing.T) {
	for errno, expected := range map[unix.Errno]bool{
		unix.ESTALE: true, unix.ENOTCONN: true, unix.EIO: true, unix.EHOSTDOWN: true, unix.ENAMETOOLONG: false, unix.ELOOP: false,
	} {
		if got := corrupted(&fs.PathError{Op: "statx", Path: "/x", Err: errno}); got != expected {
			t.Errorf("%v: %v", errno, got)
		}
	}
}

func TestUsage(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		page := int64(os.Getpagesize())
		v := create(t, m, Shape{Size: 100 * page, Inodes: 50})
		set(t, v, []File{{"a", filled(int(3*page - 1)), 0o444}, {"d/b", filled(1), 0o444}})
		must(t, v.Attach(target))
		got, err := m.Usage(target)
		must(t, err)
		expected := Usage{
			TotalBytes: 100 * page, UsedBytes: 4 * page, AvailableBytes: 96 * page,
			// The root, the generation, d, a, b, the data link, and two links at the top.
			TotalInodes: 50, UsedInodes: 8, AvailableInodes: 42,
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("usage (-want +got):\n%s", diff)
		}
		for _, path := range []string{dir, dir + "/nothing"} {
			if _, err := m.Usage(path); !errors.Is(err, ErrNotMounted) {
				t.Errorf("Usage(%s): %v", path, err)
			}
		}
	})
}

func TestTargetsFindsOursAndNothingElse(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		old, _ := two()
		pods := dir + "/pods"
		must(t, os.Mkdir(pods, 0o755))
		must(t, os.Mkdir(dir+"/pods2", 0o755))
		for _, target := range []string{pods + "/b", pods + "/a", pods + "/with blank", dir + "/pods2/x"} {
			publish(t, m, target, old)
		}
		must(t, unix.Mount(pods+"/a", pods+"/a", "", unix.MS_BIND, "")) // stacked
		must(t, os.Mkdir(pods+"/other", 0o755))
		must(t, unix.Mount("tmpfs", pods+"/other", "tmpfs", 0, ""))
		must(t, m.Private(pods+"/private", 1<<16))
		must(t, os.Symlink(pods, dir+"/link"))

		for prefix, expected := range map[string][]string{
			pods:              {pods + "/a", pods + "/b", pods + "/with blank"},
			pods + "/":        {pods + "/a", pods + "/b", pods + "/with blank"},
			pods + "/a":       {pods + "/a"},
			dir + "/link":     {dir + "/link/a", dir + "/link/b", dir + "/link/with blank"},
			dir + "/nothing":  nil,
			pods + "/private": nil,
		} {
			got, err := m.Targets(prefix)
			must(t, err)
			if diff := cmp.Diff(expected, got); diff != "" {
				t.Errorf("Targets(%s) (-want +got):\n%s", prefix, diff)
			}
		}
	})
}

func TestTargetsReadsTheKernelsEscapes(t *testing.T) {
	dir := t.TempDir()
	infos := []mountutils.MountInfo{{MountPoint: dir + `/a\040b\134c\011d`, FsType: "tmpfs", Source: "leasefs"}}
	got, err := targets(infos, dir)
	must(t, err)
	if diff := cmp.Diff([]string{dir + "/a b\\c\td"}, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestPrivate(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		private := dir + "/plugin/records"
		must(t, m.Private(private, 1<<20))
		info, err := os.Stat(private)
		must(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("mode %v", info.Mode())
		}
		must(t, os.WriteFile(private+"/record", []byte("kept"), 0o600))
		if err := os.WriteFile(private+"/big", filled(2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("its size is not bounded: %v", err)
		}
		line := mounttest.Lines(t, private)[0]
		for _, option := range []string{"nosuid", "nodev", "noexec", "leasefs-private"} {
			if !strings.Contains(line, option) {
				t.Errorf("not %s: %s", option, line)
			}
		}
		if offersNoswap(t, m) && !strings.Contains(line, "noswap") {
			t.Errorf("may be swapped: %s", line)
		}
		// After a restart, of this version or of another with another size.
		must(t, forced(t, m.force, dir).Private(private, 1<<21))
		if data, err := os.ReadFile(private + "/record"); err != nil || string(data) != "kept" {
			t.Errorf("the record: %q, %v", data, err)
		}
		if n := len(mounttest.Mounts(t, private)); n != 1 {
			t.Errorf("%d mounts", n)
		}
		must(t, os.Symlink(private, dir+"/link"))
		must(t, os.WriteFile(dir+"/file", nil, 0o600))
		must(t, os.Mkdir(dir+"/open", 0o755))
		must(t, unix.Mount("other", dir+"/open", "tmpfs", 0, "mode=0755"))
		for _, path := range []string{dir + "/link", dir + "/file", dir + "/open", "relative"} {
			if err := m.Private(path, 1<<20); err == nil {
				t.Errorf("Private(%s) is content", path)
			}
		}
	})
}

func TestManyVolumesAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, _ *Mounter, dir string) {
		m := New(dir + "/staging")
		m.force = filepath.Base(t.Name()) // not probed yet, so that the first calls race for it
		old, new := two()
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				target := fmt.Sprintf("%s/mount%d", dir, i)
				v, err := m.Create(roomy)
				if err != nil {
					t.Error(err)
					return
				}
				gen, _, err := v.Stage(old)
				errs := []error{err, v.Swap(gen), v.Attach(target)}
				w, err := m.Adopt(target)
				if err != nil {
					t.Error(err)
					return
				}
				gen, _, err = w.Stage(new)
				errs = append(errs, err, w.Swap(gen), w.Prune(), v.Close(), w.Close())
				got, err := read(target)
				errs = append(errs, err, m.Remove(target))
				if err := errors.Join(errs...); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(want(new), got); diff != "" {
					t.Errorf("files at %s (-want +got):\n%s", target, diff)
				}
			})
		}
		all.Wait()
	})
}
