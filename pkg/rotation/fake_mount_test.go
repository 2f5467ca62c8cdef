// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// fakeMounts are file systems in memory, of which targets hold one each.
type fakeMounts struct {
	mu      sync.Mutex
	targets map[string]*fakeTmpfs
	fail    map[string]error // by method
}

type fakeTmpfs struct {
	generations map[string]map[string]mount.File
	current     string
	serial      int
	size        int64
	open        int // handles
}

type fakeVolume struct {
	m *fakeMounts
	t *fakeTmpfs
}

func newFakeMounts() *fakeMounts {
	return &fakeMounts{targets: map[string]*fakeTmpfs{}, fail: map[string]error{}}
}

func (m *fakeMounts) Prepare(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fail["Prepare"]
}

func (m *fakeMounts) Create(s mount.Shape) (rotation.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail["Create"]; err != nil {
		return nil, err
	}
	return &fakeVolume{m, &fakeTmpfs{generations: map[string]map[string]mount.File{}, size: s.Size, open: 1}}, nil
}

func (m *fakeMounts) Adopt(target string) (rotation.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.targets[target]
	if !ok {
		return nil, mount.ErrNotMounted
	}
	for name := range t.generations {
		if name != t.current {
			delete(t.generations, name)
		}
	}
	t.open++
	return &fakeVolume{m, t}, nil
}

func (m *fakeMounts) Mounted(target string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.targets[target]
	return ok, nil
}

func (m *fakeMounts) Remove(target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail["Remove"]; err != nil {
		return err
	}
	delete(m.targets, target)
	return nil
}

func (m *fakeMounts) Usage(target string) (mount.Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.targets[target]
	if !ok {
		return mount.Usage{}, mount.ErrNotMounted
	}
	return mount.Usage{TotalBytes: t.size}, nil
}

func (v *fakeVolume) Current() (string, error) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	return v.t.current, nil
}

func (v *fakeVolume) ReadFile(path string) ([]byte, error) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	f, ok := v.t.generations[v.t.current][path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return f.Data, nil
}

func (v *fakeVolume) Fill(files []mount.File) (string, error) {
	v.m.mu.Lock()
	err := v.m.fail["Fill"]
	v.m.mu.Unlock()
	if err != nil {
		return "", err
	}
	generation, _, err := v.Stage(files)
	if err == nil {
		err = v.Swap(generation)
	}
	return generation, err
}

func (v *fakeVolume) Stage(files []mount.File) (string, bool, error) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	if err := v.m.fail["Stage"]; err != nil {
		return "", false, err
	}
	set := map[string]mount.File{}
	for _, f := range files {
		set[f.Path] = f
	}
	if v.t.current != "" && equal(set, v.t.generations[v.t.current]) {
		return v.t.current, false, nil
	}
	v.t.serial++
	name := fmt.Sprintf("..%d", v.t.serial)
	v.t.generations[name] = set
	return name, true, nil
}

func equal(a, b map[string]mount.File) bool {
	for path, f := range a {
		if g, ok := b[path]; !ok || f.Mode != g.Mode || !bytes.Equal(f.Data, g.Data) {
			return false
		}
	}
	return len(a) == len(b)
}

func (v *fakeVolume) Swap(generation string) error {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	if err := v.m.fail["Swap"]; err != nil {
		return err
	}
	if _, ok := v.t.generations[generation]; !ok {
		return errors.New("no such generation")
	}
	v.t.current = generation
	return nil
}

func (v *fakeVolume) Discard(generation string) error {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	delete(v.t.generations, generation)
	return nil
}

func (v *fakeVolume) Prune() error {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	for name := range v.t.generations {
		if name != v.t.current {
			delete(v.t.generations, name)
		}
	}
	return nil
}

func (v *fakeVolume) Attach(target string) error {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	if err := v.m.fail["Attach"]; err != nil {
		return err
	}
	if t, ok := v.m.targets[target]; ok && t != v.t {
		return mount.ErrOccupied
	}
	v.m.targets[target] = v.t
	return nil
}

func (v *fakeVolume) At(target string) (bool, error) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	return v.m.targets[target] == v.t, nil
}

func (v *fakeVolume) Close() error {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	v.t.open--
	return nil
}

// file is what a pod sees, or false.
func (m *fakeMounts) file(target, path string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.targets[target]
	if !ok {
		return "", false
	}
	f, ok := t.generations[t.current][path]
	return string(f.Data), ok
}
