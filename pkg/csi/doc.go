// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package csi is the edge to the kubelet: the Identity and Node services of the Container Storage Interface (CSI 1.13)
// on a unix socket, and the registration of that socket with the kubelet.
//
// A call passes through four rooms:
//
//   - server.go: how serving begins and ends (who may connect is package socket's business);
//   - intercept.go: what every call has in common - a deadline, a log line without secrets, a metric, survival of a
//     panic, and the one place where an error becomes a gRPC code (code.go);
//   - node.go and identity.go: the services;
//   - request.go and its neighbours: a publish request, checked to the last field with every fault told at once, becomes
//     a rotation.Request.
//
// Nothing here knows Vault or a mount: what a volume is and how it is kept true is the business of package rotation.
package csi

// DriverName is the name of the CSI driver: the CSIDriver object's name and what pods write into volumes[].csi.driver.
const DriverName = "csi.leasefs.io"
