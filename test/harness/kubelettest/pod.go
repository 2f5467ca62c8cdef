// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"path/filepath"
)

// Pod is the identity of a pod on this node.
type Pod struct {
	Namespace, Name, UID              string
	ServiceAccount, ServiceAccountUID string
	Node, NodeUID                     string
}

// NewPod returns a pod with new UIDs. Two pods of one service account share its UID: copy that field.
func NewPod(namespace, name, serviceAccount string) Pod {
	return Pod{
		Namespace: namespace, Name: name, UID: newUID(),
		ServiceAccount: serviceAccount, ServiceAccountUID: newUID(),
		Node: "node-1", NodeUID: newUID(),
	}
}

// newUID returns a random (version 4) UUID.
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Volume is one inline CSI volume of a pod: what its author writes, and what the kubelet makes of it.
type Volume struct {
	Pod  Pod
	Name string // of the volume in the pod
	// Attributes are the author's volumeAttributes.
	Attributes map[string]string
	// ReadOnly is the author's csi.readOnly.
	ReadOnly bool
	// FSType is the author's csi.fsType.
	FSType string
	// FSGroup is the pod's securityContext.fsGroup; nil: none.
	FSGroup *int64
}

// ID is the volume_id, which the kubelet derives from the pod's UID and the volume's name.
func (v Volume) ID() string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.Pod.UID+v.Name)))
}

// Target is the target_path below the kubelet's root folder.
func (v Volume) Target(root string) string {
	return filepath.Join(root, "pods", v.Pod.UID, "volumes", "kubernetes.io~csi", v.Name, "mount")
}
