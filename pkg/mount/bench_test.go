// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
)

// eachWayB is eachWay for a benchmark.
func eachWayB(b *testing.B, do func(b *testing.B, m *Mounter, dir string)) {
	for _, attach := range ways {
		b.Run(attach, func(b *testing.B) {
			dir := mounttest.TempDir(b)
			do(b, forced(b, attach, dir), dir)
		})
	}
}

// five are the files of a common volume.
func five(i int) (files []File) {
	for n := range 5 {
		files = append(files, File{fmt.Sprint("secret-", n), fmt.Appendf(nil, "value %d of %d", n, i), 0o444})
	}
	return files
}

// BenchmarkPublish makes, fills and attaches a volume of five files; taking it away is not counted.
func BenchmarkPublish(b *testing.B) {
	eachWayB(b, func(b *testing.B, m *Mounter, dir string) {
		files := five(0)
		for i := 0; b.Loop(); i++ {
			target := filepath.Join(dir, fmt.Sprint(i))
			v, err := m.Create(roomy)
			must(b, err)
			_, err = v.Fill(files)
			must(b, err)
			must(b, v.Attach(target))
			b.StopTimer()
			must(b, v.Close())
			must(b, m.Remove(target))
			b.StartTimer()
		}
	})
}

// BenchmarkRotate swaps a live volume of five files to five others and removes the old ones.
func BenchmarkRotate(b *testing.B) {
	eachWayB(b, func(b *testing.B, m *Mounter, dir string) {
		v := publish(b, m, filepath.Join(dir, "mount"), five(0))
		for i := 1; b.Loop(); i++ {
			set(b, v, five(i))
			must(b, v.Prune())
		}
	})
}

// BenchmarkUnchanged stages the same five files again.
func BenchmarkUnchanged(b *testing.B) {
	eachWayB(b, func(b *testing.B, m *Mounter, dir string) {
		v, files := publish(b, m, filepath.Join(dir, "mount"), five(0)), five(0)
		for b.Loop() {
			set(b, v, files)
		}
	})
}

// BenchmarkAdopt takes the handle of a live volume back.
func BenchmarkAdopt(b *testing.B) {
	eachWayB(b, func(b *testing.B, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		must(b, publish(b, m, target, five(0)).Close())
		for b.Loop() {
			v, err := m.Adopt(target)
			must(b, err)
			must(b, v.Close())
		}
	})
}

// BenchmarkRemove unmounts a live volume and removes its directory.
func BenchmarkRemove(b *testing.B) {
	eachWayB(b, func(b *testing.B, m *Mounter, dir string) {
		target, files := filepath.Join(dir, "mount"), five(0)
		for b.Loop() {
			b.StopTimer()
			v, err := m.Create(roomy)
			must(b, err)
			_, err = v.Fill(files)
			must(b, err)
			must(b, v.Attach(target))
			b.StartTimer()
			must(b, v.Close())
			must(b, m.Remove(target))
		}
	})
}

// BenchmarkAt is what a republish costs here.
func BenchmarkAt(b *testing.B) {
	eachWayB(b, func(b *testing.B, m *Mounter, dir string) {
		target := filepath.Join(dir, "mount")
		v := publish(b, m, target, five(0))
		for b.Loop() {
			if at, err := v.At(target); !at || err != nil {
				b.Fatal(at, err)
			}
		}
	})
}
