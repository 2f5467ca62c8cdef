// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/uuid"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/render"
	"github.com/leasefs/leasefs/pkg/vault"
)

// source is one Vault response that a volume uses, with the objects that are made from it. A certificate and its key
// come from one source, so they always match.
type source struct {
	Key     string
	Request vault.Request
	Objects []attributes.Object
}

// sources are the plan's objects by request, in the order in which the author named them first.
func (p Plan) sources() []source {
	var all []source
	index := map[string]int{}
	for _, o := range p.Objects {
		q := render.RequestOf(o)
		key := q.Key()
		i, ok := index[key]
		if !ok {
			i = len(all)
			index[key] = i
			all = append(all, source{Key: key, Request: q})
		}
		all[i].Objects = append(all[i].Objects, o)
	}
	return all
}

// fileNames are the names of the files that are made from s.
func (s source) fileNames() []string {
	names := make([]string, len(s.Objects))
	for i, o := range s.Objects {
		names[i] = o.Name
	}
	return names
}

// mode is what a file has whose object names no permission: readable by the group alone where the pod has one,
// by all of the pod's users where it has none.
func (r *Record) mode() fs.FileMode {
	switch {
	case r.Plan.FileMode != 0:
		return r.Plan.FileMode
	case r.Group != nil:
		return 0o440
	default:
		return 0o444
	}
}

const (
	page      = 4 << 10  // a file takes whole pages, so each may waste almost one
	sizeSlack = 64 << 10 // directories, links, what a swap needs
)

// room is the size of the volume's tmpfs, in bytes and inodes: two generations of content, as the security model
// and the sizing formula of the documentation say, and inodes for three, the one before the current one included.
func (p Plan) room() (size, inodes int64) {
	files, dirs := int64(len(p.Objects)), int64(0)
	for _, o := range p.Objects {
		dirs += int64(strings.Count(o.Name, "/"))
	}
	return 2*(p.Size+files*page) + sizeSlack, 3*(1+files+dirs) + files + 16
}

// shape is the tmpfs of a volume.
func (r *Record) shape(s Settings) mount.Shape {
	size, inodes := r.Plan.room()
	return mount.Shape{Size: size, Inodes: inodes, GID: r.Group, SELinuxContext: s.SELinuxContext}
}

// checkSize tells whether files fit into what one generation may hold.
func checkSize(p Plan, files []mount.File) error {
	var n int64
	for _, f := range files {
		n += int64(len(f.Data))
	}
	if n > p.Size {
		return &SizeError{Have: n, Limit: p.Size}
	}
	return nil
}

// SizeError says that the files hold more than the volume's size.
type SizeError struct{ Have, Limit int64 } // bytes

func (e *SizeError) Error() string {
	return fmt.Sprintf("the files hold %d bytes and the volume's size is %d bytes; raise the attribute size "+
		"(the administrator sets the maximum)", e.Have, e.Limit)
}

// newRecord is the record of a volume whose publish begins.
func newRecord(req Request) *Record {
	return &Record{
		Name: uuid.NewString(), Phase: PhasePublishing, VolumeID: req.VolumeID, Target: req.Target, Pod: req.Pod,
		Plan: req.Plan, Group: req.Group, Fingerprint: req.Fingerprint,
	}
}
