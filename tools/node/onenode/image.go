// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"
)

// image is a container image of one layer, made from files of this machine: what a Dockerfile's last stage FROM scratch
// makes of COPY lines.
type image struct {
	Ref        string      // full name with a tag, as pods name it
	Files      []imageFile // their parent folders come by themselves, 0755
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	WorkingDir string
}

// imageFile is one file of an image: a copy of Source, or, with Link, a symlink.
type imageFile struct {
	Path   string // absolute in the image
	Source string
	Link   string
}

// The media types and the layout are those of the OCI image specification, version 1.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type ociIndex struct {
	SchemaVersion int          `json:"schemaVersion"`
	Manifests     []descriptor `json:"manifests"`
}

type ociManifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type ociConfig struct {
	Architecture string      `json:"architecture"`
	OS           string      `json:"os"`
	Config       ociSettings `json:"config"`
	RootFS       ociRootFS   `json:"rootfs"`
}

type ociSettings struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
}

type ociRootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// write makes the image's OCI layout as one tar, which `ctr images import` reads. The same files give the same bytes.
//  1. The layer: folders, then files, in order of their paths. It is not compressed: it travels through no network.
//  2. The configuration names the layer, the manifest names both, the index names the manifest and carries the name
//     that containerd gives the image.
func (i image) write(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return fmt.Errorf("making the layer of %s: %w", i.Ref, err)
	}
	out := tar.NewWriter(w)
	layerDescriptor, err := blob(out, "application/vnd.oci.image.layer.v1.tar", layer)
	if err != nil {
		return err
	}
	config, err := blobJSON(out, "application/vnd.oci.image.config.v1+json", ociConfig{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Config:       ociSettings{User: i.User, Env: i.Env, Entrypoint: i.Entrypoint, Cmd: i.Cmd, WorkingDir: i.WorkingDir},
		RootFS:       ociRootFS{Type: "layers", DiffIDs: []string{layerDescriptor.Digest}},
	})
	if err != nil {
		return err
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := blobJSON(out, manifestType, ociManifest{
		SchemaVersion: 2, MediaType: manifestType, Config: config, Layers: []descriptor{layerDescriptor},
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"io.containerd.image.name": i.Ref}
	index, err := json.Marshal(ociIndex{SchemaVersion: 2, Manifests: []descriptor{manifest}})
	if err != nil {
		return err
	}
	if err := add(out, "index.json", index); err != nil {
		return err
	}
	if err := add(out, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return out.Close()
}

func (i image) layer() ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	files := slices.Clone(i.Files)
	slices.SortFunc(files, func(a, b imageFile) int { return strings.Compare(a.Path, b.Path) })
	made := map[string]bool{"/": true}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return nil, fmt.Errorf("%q is not a clean absolute path", f.Path)
		}
		if err := folders(w, path.Dir(f.Path), made); err != nil {
			return nil, err
		}
		if err := f.write(w); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

func folders(w *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := folders(w, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	mode := int64(0o755)
	if dir == "/tmp" {
		mode = 0o1777
	}
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: mode, ModTime: time.Unix(0, 0)})
}

func (f imageFile) write(w *tar.Writer) error {
	header := &tar.Header{Name: f.Path[1:], Mode: 0o777, ModTime: time.Unix(0, 0)}
	if f.Link != "" {
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.Link
		return w.WriteHeader(header)
	}
	data, err := os.ReadFile(f.Source)
	if err != nil {
		return err
	}
	info, err := os.Stat(f.Source)
	if err != nil {
		return err
	}
	header.Typeflag, header.Size, header.Mode = tar.TypeReg, int64(len(data)), 0o644
	if info.Mode()&0o111 != 0 {
		header.Mode = 0o755 // whatever the umask of whoever built it, any user of the image may run it
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

func blobJSON(w *tar.Writer, mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return blob(w, mediaType, data)
}

func blob(w *tar.Writer, mediaType string, data []byte) (descriptor, error) {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	return descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: int64(len(data))}, add(w, "blobs/sha256/"+name, data)
}

func add(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// writeTo makes the image's tar in a file.
func (i image) writeTo(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := i.write(f); err != nil {
		return err
	}
	return f.Close()
}
