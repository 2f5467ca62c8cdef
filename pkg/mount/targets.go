// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	mountutils "k8s.io/mount-utils"
)

// Targets lists, each once, the paths below prefix at which a volume of ours is mounted. It reads the whole list of mounts, which
// takes tens of milliseconds on a busy node: for recovery, never for a request.
func (m *Mounter) Targets(prefix string) ([]string, error) {
	infos, err := mountutils.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the list of mounts: %w", err)
	}
	return targets(infos, prefix)
}

// targets picks ours. The kernel lists real paths, while prefix may lead through a link, as a kubelet's root directory sometimes
// does; what is returned begins with prefix as it was given.
func targets(infos []mountutils.MountInfo, prefix string) ([]string, error) {
	prefix = filepath.Clean(prefix)
	actual, err := filepath.EvalSymlinks(prefix)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", prefix, err)
	}
	var found []string
	for _, info := range infos {
		path := unescape(info.MountPoint)
		if info.FsType == "tmpfs" && unescape(info.Source) == source && below(path, actual) {
			found = append(found, filepath.Join(prefix, strings.TrimPrefix(path, actual)))
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// unescape undoes the kernel's octal escapes of blanks, tabs, newlines and backslashes, which mount-utils leaves in.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}
