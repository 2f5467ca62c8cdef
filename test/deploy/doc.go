// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package deploy tests what people install: the Helm chart, as the real helm renders it, and the manifests made from it.
// Whether an API server takes it and a kubelet runs it is the matter of test/e2e.
package deploy
