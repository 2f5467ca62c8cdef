// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

// TestAKillAtAnySystemCallIsRecovered kills a process at each system call of each operation that changes something, and then does
// what a daemon does after a restart. Nothing is wedged, torn or left behind. With -short it is one call in five.
func TestAKillAtAnySystemCallIsRecovered(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	old, new := few()
	live := func(t *testing.T, m *Mounter, target string) { must(t, publish(t, m, target, old).Close()) }

	for _, row := range []struct {
		scenario string
		before   func(t *testing.T, m *Mounter, target string)
		// recover is what the daemon does after a restart; done: the process got to its end.
		recover func(t *testing.T, m *Mounter, target string, done bool)
	}{
		{
			scenario: "publish",
			recover: func(t *testing.T, m *Mounter, target string, done bool) {
				mounted, err := m.Mounted(target)
				must(t, err)
				if mounted { // then it is complete
					clean(t, target, old)
					adoptAndSwap(t, m, target, new)
				} else if done {
					t.Error("nothing is mounted")
				}
				must(t, m.Remove(target))
				live(t, m, target)
				clean(t, target, old)
			},
		},
		{
			scenario: "rotate", before: live,
			recover: func(t *testing.T, m *Mounter, target string, done bool) {
				oneOf(t, target, old, new)
				v, err := m.Adopt(target)
				must(t, err)
				defer v.Close()
				clean(t, target, oneOf(t, target, old, new))
				if done {
					clean(t, target, new)
				}
				set(t, v, new)
				must(t, v.Prune())
				clean(t, target, new)
			},
		},
		{
			scenario: "discard", before: live,
			recover: func(t *testing.T, m *Mounter, target string, _ bool) {
				shows(t, target, old)
				adoptAndSwap(t, m, target, old)
				clean(t, target, old)
				adoptAndSwap(t, m, target, new)
			},
		},
		{
			scenario: "reattach", before: live,
			recover: func(t *testing.T, m *Mounter, target string, done bool) {
				mounted, err := m.Mounted(target)
				must(t, err)
				if mounted {
					adoptAndSwap(t, m, target, new)
				} else if done {
					t.Error("nothing is mounted")
				}
			},
		},
		{
			scenario: "remove", before: live,
			recover: func(t *testing.T, m *Mounter, target string, done bool) {
				if _, err := os.Lstat(target); done && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the target is still there: %v", err)
				}
				must(t, m.Remove(target))
				live(t, m, target)
				clean(t, target, old)
			},
		},
		{
			scenario: "private",
			recover: func(t *testing.T, m *Mounter, target string, _ bool) {
				must(t, m.Private(target, 1<<20))
				must(t, os.WriteFile(target+"/record", nil, 0o600))
			},
		},
	} {
		t.Run(row.scenario, func(t *testing.T) {
			eachWay(t, func(t *testing.T, m *Mounter, dir string) {
				t.Parallel()
				var calls []string
				for n := 0; ; n += step {
					work := filepath.Join(dir, fmt.Sprint(n))
					must(t, os.Mkdir(work, 0o755))
					target := filepath.Join(work, "mount")
					if row.before != nil {
						row.before(t, forced(t, m.force, work), target)
					}
					var last string
					tr := tracer{
						cmd: scenario(t, row.scenario, arguments{m.force, work, target}),
						at:  func(at int, call string) bool { last = call; return at == n },
					}
					killed := tr.run(t)
					if killed {
						calls = append(calls, last)
					}

					restarted := forced(t, m.force, work)
					row.recover(t, restarted, target, !killed)
					must(t, restarted.Remove(target))
					nothingLeft(t, work)
					if t.Failed() {
						t.Fatalf("killed before call %d, %s, after %v", n, last, calls)
					}
					if !killed {
						break
					}
				}
				t.Logf("killed at %d calls: %s", len(calls), strings.Join(calls, " "))
				if len(calls) < 2 && step == 1 {
					t.Errorf("the tracer saw too few calls")
				}
			})
		})
	}
}

// adoptAndSwap is a daemon that takes a volume back and goes on with it.
func adoptAndSwap(t *testing.T, m *Mounter, target string, files []File) {
	t.Helper()
	v, err := m.Adopt(target)
	must(t, err)
	defer v.Close()
	set(t, v, files)
	must(t, v.Prune())
	clean(t, target, files)
}

// oneOf checks that a reader finds one of two sets of files, whole, and returns it. Names at the top may be those of both: a link
// to a file of the other set leads to nothing, and counts as absent.
func oneOf(t *testing.T, target string, old, new []File) []File {
	t.Helper()
	generation := seen{}
	entries, err := os.ReadDir(target + "/..data")
	must(t, err)
	for _, entry := range entries {
		must(t, readBelow(generation, target+"/..data", entry.Name()))
		if _, err := os.Stat(target + "/" + entry.Name()); err != nil {
			t.Errorf("a file of the current generation is not at the top: %v", err)
		}
	}
	for _, files := range [][]File{old, new} {
		if cmp.Equal(want(files), generation) {
			return files
		}
	}
	t.Fatalf("a torn generation: %v", generation)
	return nil
}

// nothingLeft checks that no mount is left below dir but the empty one of the staging, and no directory.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	staging := dir + "/staging/attach"
	for _, mount := range mounttest.Mounts(t, dir) {
		if mount != staging {
			t.Errorf("a mount is left: %s", mount)
		}
	}
	for _, name := range listing(t, dir) {
		if name != "staging" {
			t.Errorf("left in the directory: %s", name)
		}
	}
	if names, err := os.ReadDir(staging); len(names) != 0 {
		t.Errorf("left in the staging: %v, %v", names, err)
	}
}

// outer makes a directory shared, as the kubelet's pods directory is for a driver with Bidirectional propagation. This process
// then sees what the host sees of a daemon that runs in a mount namespace of its own.
func outer(t *testing.T) string {
	t.Helper()
	dir := mounttest.TempDir(t)
	must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	return dir
}

// ownNamespace starts a command in a mount namespace of its own. Mounts go on to propagate, unlike with Unshareflags.
func ownNamespace(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	return cmd
}

// A read-only that is set after attaching does not reach the host's copy, which the kubelet binds into the container. So at each
// system call of the daemon the host sees nothing at the target, or a complete volume that is read-only.
func TestTheHostSeesAReadOnlyVolumeFromTheFirstInstant(t *testing.T) {
	old, new := few()
	for _, attach := range ways {
		t.Run(attach, func(t *testing.T) {
			dir := outer(t)
			inner := mounttest.TempDir(t) // not shared: the staging must not propagate
			target := filepath.Join(dir, "mount")
			looks, found := 0, 0
			look := func(int, string) bool {
				looks++
				for _, line := range mounttest.Lines(t, target) {
					found++
					if options := strings.Fields(line)[5]; !strings.HasPrefix(options, "ro,") {
						t.Errorf("the host sees %s", line)
					}
				}
				if f, err := os.OpenFile(target+"/bytes", os.O_WRONLY, 0); err == nil {
					f.Close()
					t.Error("the host can write")
				}
				return false
			}
			for _, name := range []string{"publish", "rotate", "reattach"} {
				looks, found = 0, 0
				tr := tracer{cmd: ownNamespace(scenario(t, name, arguments{attach, inner, target})), at: look}
				tr.run(t)
				look(0, "")
				if found == 0 || looks < 5 {
					t.Errorf("%s: the host looked %d times and saw %d mounts", name, looks, found)
				}
				if name == "publish" {
					clean(t, target, old)
				} else {
					clean(t, target, new)
				}
				t.Logf("%s: the host looked %d times, the volume was there %d times", name, looks, found)
			}
			runToEnd(t, ownNamespace(scenario(t, "remove", arguments{attach, inner, target})))
			if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the host still sees the target: %v", err)
			}
			if mounts := mounttest.Mounts(t, dir); len(mounts) != 1 {
				t.Errorf("the host still sees mounts: %v", mounts)
			}
		})
	}
}

// TestAnObserverCatchesALateReadOnly shows that the test above would see the mistake: made read-only after attaching, the copy of
// another namespace stays writable for ever.
func TestAnObserverCatchesALateReadOnly(t *testing.T) {
	dir := outer(t)
	target := filepath.Join(dir, "mount")
	must(t, os.Mkdir(target, 0o755))
	runToEnd(t, ownNamespace(scenario(t, "late read-only", arguments{Target: target})))
	lines := mounttest.Lines(t, target)
	if len(lines) != 1 || strings.HasPrefix(strings.Fields(lines[0])[5], "ro,") {
		t.Errorf("the host sees %q", lines)
	}
	must(t, os.WriteFile(target+"/x", nil, 0o600))
}

// A daemon in a container that is restarted gets a new mount namespace, in which the volume is a copy of the host's mount.
func TestARestartedContainerAdoptsTheHostsCopy(t *testing.T) {
	old, new := few()
	for _, attach := range ways {
		t.Run(attach, func(t *testing.T) {
			dir, inner := outer(t), mounttest.TempDir(t)
			target := filepath.Join(dir, "mount")
			a := arguments{attach, inner, target}
			runToEnd(t, ownNamespace(scenario(t, "publish", a)))
			clean(t, target, old)
			runToEnd(t, ownNamespace(scenario(t, "discard", a)))
			clean(t, target, old)
			runToEnd(t, ownNamespace(scenario(t, "rotate", a)))
			clean(t, target, new)
			runToEnd(t, ownNamespace(scenario(t, "remove", a)))
			if mounts := mounttest.Mounts(t, dir); len(mounts) != 1 {
				t.Errorf("the host still sees mounts: %v", mounts)
			}
		})
	}
}

// The daemon's records are on the host's side too, or they would not outlive its container.
func TestThePrivateTmpfsOutlivesTheContainer(t *testing.T) {
	for _, attach := range ways {
		t.Run(attach, func(t *testing.T) {
			dir, inner := outer(t), mounttest.TempDir(t)
			a := arguments{attach, inner, filepath.Join(dir, "records")}
			runToEnd(t, ownNamespace(scenario(t, "private", a)))
			must(t, os.WriteFile(a.Target+"/record", nil, 0o600))
			runToEnd(t, ownNamespace(scenario(t, "private", a)))
			if names := listing(t, a.Target); len(names) != 1 {
				t.Errorf("records: %v", names)
			}
			if mounts := mounttest.Mounts(t, a.Target); len(mounts) != 1 {
				t.Errorf("mounts: %v", mounts)
			}
		})
	}
}

// An older kernel is played by one that answers ENOSYS. (Linux 5.12 to 6.14, which clone no detached mount, cannot be played so;
// AttachCloneAttached is forced in the tests above.)
func TestAnOlderKernelIsRecognisedAndServed(t *testing.T) {
	for name, calls := range map[string]string{
		"before 5.12":              "mount_setattr",
		"before 5.2, or a sandbox": "fsopen,open_tree,move_mount,mount_setattr",
		"a sandbox without clones": "open_tree",
	} {
		t.Run(name, func(t *testing.T) {
			dir := mounttest.TempDir(t)
			runToEnd(t, scenario(t, "old kernel", arguments{Attach: AttachBindStaged, Dir: calls, Target: dir + "/mount"}))
		})
	}
}

// The later split of the daemon: a process without any capability writes through a descriptor that was passed to it. Its files
// get the volume's owner and group all the same.
func TestAProcessWithoutCapabilitiesWritesThroughThePassedDescriptor(t *testing.T) {
	mounttest.NeedRoot(t)
	_, new := few()
	eachWay(t, func(t *testing.T, m *Mounter, dir string) {
		must(t, errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)))
		group, shape := uint32(4321), roomy
		shape.UID, shape.GID = 65532, &group
		v := create(t, m, shape)
		target := filepath.Join(dir, "mount")

		cmd := scenario(t, "write", arguments{})
		cmd.ExtraFiles = []*os.File{v.handle}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		runToEnd(t, copied(t, cmd))
		must(t, v.Attach(target))
		clean(t, target, new)
		for _, f := range new {
			var st unix.Stat_t
			must(t, unix.Stat(target+"/"+f.Path, &st))
			if st.Uid != 65532 || st.Gid != group {
				t.Errorf("%s belongs to %d:%d", f.Path, st.Uid, st.Gid)
			}
		}
		// And who is in the group, like a pod with this fsGroup, reads 0440; who is not, does not.
		for gid, readable := range map[uint32]bool{group: true, 999: false} {
			cat := exec.Command("cat", target+"/more")
			cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: gid}}
			if out, err := cat.CombinedOutput(); (err == nil) != readable {
				t.Errorf("gid %d: %q, %v", gid, out, err)
			}
		}
	})
}

// copied makes a command's program readable for everyone.
func copied(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	must(t, errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)))
	program, err := os.ReadFile(cmd.Path)
	must(t, err)
	cmd.Path = dir + "/program"
	must(t, os.WriteFile(cmd.Path, program, 0o755))
	return cmd
}
