// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

func TestMain(m *testing.M) { mounttest.Main(m) }

func eachWay(t *testing.T, do func(t *testing.T, m *Mounter)) {
	for _, attach := range []string{AttachCloneDetached, AttachCloneAttached, AttachBindStaged} {
		t.Run(attach, func(t *testing.T) {
			m := New(mounttest.TempDir(t))
			m.force = attach
			support, err := m.Probe(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if support.Attach != attach {
				t.Fatalf("this kernel does not offer it: %v", support.Notes)
			}
			t.Logf("%+v", support)
			do(t, m)
		})
	}
}

func TestSmoke(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Mounter) {
		target := filepath.Join(mounttest.TempDir(t), "mount")
		v, err := m.Create(Shape{Size: 1 << 20, Inodes: 100})
		if err != nil {
			t.Fatal(err)
		}
		gen, changed, err := v.Stage([]File{{"a", []byte("1"), 0o444}, {"b/c/d", []byte("2"), 0o400}})
		if err != nil || !changed {
			t.Fatal(gen, changed, err)
		}
		if err := v.Swap(gen); err != nil {
			t.Fatal(err)
		}
		if err := v.Attach(target); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(target + "/b/c/d"); err != nil || string(data) != "2" {
			t.Fatal(data, err)
		}
		if err := os.WriteFile(target+"/x", nil, 0o600); err == nil {
			t.Fatal("writable")
		}
		if at, err := v.At(target); !at || err != nil {
			t.Fatal(at, err)
		}
		w, err := m.Adopt(target)
		if err != nil {
			t.Fatal(err)
		}
		gen2, changed, err := w.Stage([]File{{"a", []byte("3"), 0o444}})
		if err != nil || !changed {
			t.Fatal(err)
		}
		if err := w.Swap(gen2); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(target + "/a"); err != nil || string(data) != "3" {
			t.Fatal(data, err)
		}
		if err := m.Remove(target); err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := m.Private(target, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := m.Private(target, 1<<20); err != nil {
			t.Fatal(err)
		}
	})
}
