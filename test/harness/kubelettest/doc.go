// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kubelettest plays the parts of Kubernetes that leasefs meets on a node, for tests and for the demo:
//
//   - [Issuer] is the API server as far as it signs pods' service account tokens;
//   - [Kubelet] is the kubelet towards a CSI plugin: the same requests, in the same form, over the real socket, with
//     the same folders around the target (as seen with kubelet 1.37; older ones differ only in where the tokens are);
//   - [Driver] is the container runtime: it runs the real leasefs program as a process of its own, kills it and starts
//     it again.
package kubelettest
