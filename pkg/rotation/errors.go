// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"errors"
	"fmt"
)

// ErrBusy says that another call for the same volume is under way; the caller may try again.
var ErrBusy = errors.New("another operation on this volume is under way; try again")

// ErrStopped says that the manager is shutting down and takes no new volumes.
var ErrStopped = errors.New("the driver is shutting down; try again when it is back")

// ErrNoToken says that a login is needed and the daemon holds no valid token of the pod. The kubelet brings one with its next
// call, about once a minute.
var ErrNoToken = errors.New("no valid service account token of the pod is at hand; the kubelet brings the next one within about two minutes")

// errEnded is about a certificate that nobody could use.
var errEnded = errors.New("the certificate that it has issued has ended already by this node's clock: compare the clocks, and see the not_after of the request and the role")

// ConflictError says that the volume exists with another target, other attributes or another group.
type ConflictError struct {
	VolumeID string
	What     string // "target path", "volume attributes", "volume mount group", "pod"
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("volume %s is already published with another %s; unpublish it first", e.VolumeID, e.What)
}

// BudgetError says that the volume does not fit into what the administrator allows for all volumes of this node.
type BudgetError struct {
	Want, Used, Budget int64 // bytes
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("a volume of %d bytes does not fit: %d of the node's budget of %d bytes are in use; "+
		"lower the volume's size or raise defaults.nodeBudget", e.Want, e.Used, e.Budget)
}

// MountError says that the kernel or the file system refused.
type MountError struct {
	Step   string // what was being done
	Target string
	Err    error
}

func (e *MountError) Error() string {
	return fmt.Sprintf("%s at %s: %v", e.Step, e.Target, e.Err)
}

func (e *MountError) Unwrap() error { return e.Err }

// ErrUnknownVolume says that no volume of that id is published at that path.
var ErrUnknownVolume = errors.New("no such volume is published at this path")
