// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e installs leasefs from its own chart on a real Kubernetes node (tools/node), beside a real Vault and a real
// PostgreSQL, and looks at it from inside real containers. Its tests have the build tag e2e and run in the node's
// network and process namespaces: test/e2e/run.sh builds what they need, starts the node, runs them and takes the node
// down again.
package e2e
