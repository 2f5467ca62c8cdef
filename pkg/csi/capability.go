// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// Bounds of strings of the protocol, in bytes.
const (
	maxVolumeID = 128  // the CSI specification's bound; the kubelet's ids have 68
	maxTarget   = 4095 // PATH_MAX without the closing NUL
)

// volumeID checks the id that names the volume for its life. The kubelet's is csi-<hex SHA-256 of pod UID and name>.
func (f *faults) volumeID(id string) {
	switch {
	case id == "":
		f.addf("volume_id", "is missing")
	case len(id) > maxVolumeID:
		f.addf("volume_id", "has %d bytes; at most %d are allowed", len(id), maxVolumeID)
	case !printable(id):
		f.addf("volume_id", "has characters that cannot be printed")
	}
}

// target checks the path at which the volume is to appear, or to disappear. Below podsDir the kubelet keeps a directory
// for each pod, named by its UID: <podsDir>/<uid>/volumes/kubernetes.io~csi/<volume>/mount. A target in another pod's
// directory would put one pod's secrets before another's eyes. An empty uid is not compared.
func (f *faults) target(target, podsDir, uid string) {
	const key = "target_path"
	switch {
	case target == "":
		f.addf(key, "is missing")
	case len(target) > maxTarget:
		f.addf(key, "has %d bytes; at most %d are allowed", len(target), maxTarget)
	case !printable(target):
		f.addf(key, "has characters that cannot be printed")
	case !filepath.IsAbs(target), filepath.Clean(target) != target, target == "/":
		f.addf(key, `%s is not an absolute path without ".", ".." and doubled or trailing slashes`, strconv.Quote(target))
	case podsDir != "":
		f.targetBelow(target, filepath.Clean(podsDir), uid)
	}
}

func (f *faults) targetBelow(target, podsDir, uid string) {
	const key = "target_path"
	rest, below := strings.CutPrefix(target, strings.TrimSuffix(podsDir, "/")+"/")
	owner, inside, deeper := strings.Cut(rest, "/")
	switch {
	case !below:
		f.addf(key, "%s is not below the kubelet's directory of pods, %s; if the kubelet has another --root-dir, tell the daemon", strconv.Quote(target), podsDir)
	case !deeper || !strings.Contains(inside, "/"):
		f.addf(key, "%s is not the place of a volume in a pod's directory", strconv.Quote(target))
	case uid != "" && owner != uid:
		f.addf(key, "%s is in the directory of another pod; this one's UID is %s", strconv.Quote(target), strictyaml.Echo(uid))
	}
}

// capability checks that a file system for one node is asked for, and returns the group that is to own its files.
func (f *faults) capability(c *spec.VolumeCapability) *uint32 {
	if c == nil {
		f.addf("volume_capability", "is missing")
		return nil
	}
	f.accessMode(c.GetAccessMode().GetMode())
	mount := c.GetMount()
	if mount == nil {
		f.addf("volume_capability.access_type", "must be mount: a volume of secrets is no block device")
		return nil
	}
	if fs := mount.GetFsType(); fs != "" && fs != "tmpfs" {
		f.addf("volume_capability.mount.fs_type", "must be empty or tmpfs, not %s: leave csi.fsType out", strictyaml.Echo(fs))
	}
	for _, flag := range mount.GetMountFlags() {
		if !slices.Contains(mountFlags(), flag) {
			f.addf("volume_capability.mount.mount_flags", "%s is not among the flags that may be given: %s",
				strictyaml.Name(flag), strings.Join(mountFlags(), ", "))
		}
	}
	return f.group(mount.GetVolumeMountGroup())
}

// mountFlags may be asked for because every volume has them anyway. All else is refused rather than passed on: the
// options of a tmpfs include its size, its owner and its SELinux label.
func mountFlags() []string { return []string{"ro", "nosuid", "nodev", "noexec"} }

// accessMode accepts what means one node. The kubelet gives an inline volume SINGLE_NODE_WRITER always.
func (f *faults) accessMode(mode spec.VolumeCapability_AccessMode_Mode) {
	switch mode {
	case spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
	default:
		f.addf("volume_capability.access_mode", "must be one of the SINGLE_NODE modes, not %s: a volume belongs to one pod", mode)
	}
}

// group reads the pod's fsGroup, which the kubelet passes because the driver has the capability VOLUME_MOUNT_GROUP.
func (f *faults) group(text string) *uint32 {
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 || strconv.FormatUint(n, 10) != text {
		f.addf("volume_capability.mount.volume_mount_group", "must be a group id from 0 to 4294967294 in decimal, not %s", strictyaml.Echo(text))
		return nil
	}
	gid := uint32(n)
	return &gid
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
