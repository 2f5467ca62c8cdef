// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sanity runs the Kubernetes project's own conformance tests for CSI drivers (csi-test's csi-sanity) against the
// real leasefs program: a process of its own, real tmpfs mounts, a real Vault behind it.
//
// The suite is made for drivers with a controller. leasefs has none, and its volumes are a pod's: so between the suite and
// the driver's socket a client interceptor plays the part of the kubelet (kubelet_test.go), and beside it a few lines play
// a controller that has nothing to do (controller_test.go). Nothing of this is in the product.
package sanity
