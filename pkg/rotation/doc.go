// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rotation is the domain of leasefs: it publishes volumes, keeps their files true and takes them away again.
//
// Everything that happens to a volume is the same reconcile, called from four places: make the session valid, make each
// secret fresh, render, swap if anything differs, say when to come back.
//
//   - publish.go: the first reconcile of a volume, and republish, which is one statx;
//   - rotate.go: the reconcile of a live volume, driven by the queues of queue.go; step.go: what it does on one secret;
//   - expiry.go: what is said when a secret ends though all that, on time whatever Vault does;
//   - unpublish.go: the way out, whose revocations (release.go) outlive the volume;
//   - recover.go: what a restarted daemon does with its records.
//
// lease.go, schedule.go and record.go decide and do no I/O: what a response means, when to act, what to remember.
package rotation
