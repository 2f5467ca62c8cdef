// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package mount keeps the tmpfs of each volume: it makes one, fills it, attaches it to the kubelet's target path, changes
// its files and takes it away again.
//
// A volume is a directory descriptor to write through and a target to attach. The only path to its files is read-only, for
// the pod and on the host, from the first instant on; the daemon alone can write, by a descriptor that is in no path. The
// package therefore has two halves:
//
//   - [Dir] writes generations of files through a directory descriptor. It needs no privileges and makes no system call that
//     needs any, so that it can run in another process to which the descriptor was passed.
//   - [Mounter] and [Volume] make, attach, find and remove mounts. Their system calls are in sys.go, sys_clone.go and
//     sys_bind.go and nowhere else.
//
// No program is run and nothing is written to a disk, except for the empty directories that are mounted on. Linux only.
package mount
