// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// unpack reads a tar into memory: the content of files, the target of links, "" for folders, whose names end with "/".
func unpack(t *testing.T, data []byte) (map[string]string, map[string]int64) {
	t.Helper()
	content, modes := map[string]string{}, map[string]int64{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return content, modes
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		content[h.Name], modes[h.Name] = string(body)+h.Linkname, h.Mode
	}
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestImageHoldsItsFilesAndItsSettings(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	made := image{
		Ref:        "localhost/thing:1",
		Files:      []imageFile{{Path: "/usr/bin/thing", Source: program}, {Path: "/bin", Link: "usr/bin"}},
		Entrypoint: []string{"/bin/thing", "-x"}, User: "65532:65532", Env: []string{"A=b"},
	}
	var first, second bytes.Buffer
	if err := errors.Join(made.write(&first), made.write(&second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two images of the same files differ")
	}

	files, _ := unpack(t, first.Bytes())
	get := func(d descriptor) string {
		t.Helper()
		body, ok := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		sum := sha256.Sum256([]byte(body))
		if !ok || d.Digest != "sha256:"+hex.EncodeToString(sum[:]) || d.Size != int64(len(body)) {
			t.Fatalf("%+v does not describe its blob of %d bytes", d, len(body))
		}
		return body
	}
	index := decode[ociIndex](t, files["index.json"])
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != made.Ref {
		t.Errorf("the image is called %q", got)
	}
	manifest := decode[ociManifest](t, get(index.Manifests[0]))
	config := decode[ociConfig](t, get(manifest.Config))
	if !reflect.DeepEqual(config.Config, ociSettings{User: made.User, Env: made.Env, Entrypoint: made.Entrypoint}) {
		t.Errorf("settings: %+v", config.Config)
	}
	if len(manifest.Layers) != 1 || !reflect.DeepEqual(config.RootFS.DiffIDs, []string{manifest.Layers[0].Digest}) {
		t.Errorf("layers %+v, diff ids %v", manifest.Layers, config.RootFS.DiffIDs)
	}
	content, modes := unpack(t, []byte(get(manifest.Layers[0])))
	want := map[string]string{"bin": "usr/bin", "usr/": "", "usr/bin/": "", "usr/bin/thing": "a program"}
	if !reflect.DeepEqual(content, want) {
		t.Errorf("layer: %q, want %q", content, want)
	}
	if modes["usr/bin/thing"] != 0o755 || modes["usr/"] != 0o755 {
		t.Errorf("modes: %v", modes)
	}
}

func TestImageRefusesAPathThatIsNotAbsoluteAndClean(t *testing.T) {
	for _, path := range []string{"bin/thing", "/bin/../thing", "/bin/", ""} {
		if err := (image{Files: []imageFile{{Path: path, Link: "x"}}}).write(io.Discard); err == nil {
			t.Errorf("%q was taken", path)
		}
	}
}
