// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/record"
)

func TestPutListDelete(t *testing.T) {
	s := record.New(t.TempDir())
	for name, data := range map[string]string{"a": "1", "b": "2"} {
		if err := s.Put(name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put("a", []byte("3")); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("b"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("absent"); err != nil {
		t.Fatalf("deleting an absent record: %v", err)
	}
	want(t, s, map[string][]byte{"a": []byte("3")})
}

func TestRecordsAreForTheirOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	if err := record.New(dir).Put("a", []byte("hvs.token")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "a.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Fatalf("mode %v, want 0600", info.Mode())
	}
}

// What a kill between the two steps of Put leaves: the old record whole, and a temporary file that the next start clears.
func TestAnInterruptedPutLeavesTheOldRecord(t *testing.T) {
	dir := t.TempDir()
	s := record.New(dir)
	if err := s.Put("a", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.json.tmp"), []byte(`{"ha`), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, s, map[string][]byte{"a": []byte("old")})
	if _, err := os.Stat(filepath.Join(dir, "a.json.tmp")); !os.IsNotExist(err) {
		t.Fatalf("the temporary file is still there: %v", err)
	}
}

func TestListPassesOverWhatIsNotARecord(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	want(t, record.New(dir), map[string][]byte{})
}

func TestNamesThatWouldLeaveTheDirectoryAreRefused(t *testing.T) {
	s := record.New(t.TempDir())
	for _, name := range []string{"", ".", "..", "../a", "a/b", ".hidden", "a\x00b", "ä"} {
		if err := s.Put(name, nil); err == nil {
			t.Errorf("Put(%q) was accepted", name)
		}
		if err := s.Delete(name); err == nil {
			t.Errorf("Delete(%q) was accepted", name)
		}
	}
}

func TestPutSaysWhichRecordCouldNotBeWritten(t *testing.T) {
	err := record.New(filepath.Join(t.TempDir(), "absent")).Put("a", nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "record a") {
		t.Fatalf("got %v", err)
	}
}

func want(t *testing.T, s *record.Store, records map[string][]byte) {
	t.Helper()
	got, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(records, got); diff != "" {
		t.Fatalf("records (-want +got):\n%s", diff)
	}
}
