// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package kubelettest

const raceEnabled = false
