// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// Volumes is what the edge asks of the domain. *rotation.Manager is one. What its errors mean to the kubelet is in
// code.go.
type Volumes interface {
	// Publish makes the volume appear at its target, or finds that it is there.
	Publish(context.Context, rotation.Request) error
	// Unpublish takes it away; an unknown volume or path is no error.
	Unpublish(ctx context.Context, volumeID, target string) error
	// Usage is how full the volume is; rotation.ErrUnknownVolume when there is none of that id at that path, and some
	// other error when its mount is not there. It is asked at every publish, so it must be cheap and wait for nothing.
	Usage(ctx context.Context, volumeID, target string) (mount.Usage, error)
}

// Configuration gives the settings in force; they may change between calls.
type Configuration interface {
	Current() Settings
}

// Settings are what the administrator decides about requests.
type Settings struct {
	// Tokens is where the kubelet puts the pods' tokens. They are read there and refused anywhere else, because an author
	// can put what he likes in the other place.
	Tokens TokenTransport
	// PodsDir is the kubelet's directory of pods (/var/lib/kubelet/pods): targets must be below it, in the pod's own
	// directory. Empty: targets may be anywhere.
	PodsDir string
	// PublishTimeout bounds a publish; 0: DefaultCallTimeout, which bounds every call.
	PublishTimeout time.Duration
	// Resolve fills in what an author left out and refuses what the administrator does not allow. An error that is an
	// *attributes.Faults is told to the author together with the request's other faults.
	Resolve func(attributes.Spec) (rotation.Plan, error)
}

// TokenTransport is where in a request the kubelet puts the pod's service account tokens, in the words of the
// configuration file.
type TokenTransport string

// Transports.
const (
	// TokensInSecrets: CSIDriver.spec.serviceAccountTokenInSecrets is true (KEP-5538, Kubernetes 1.35 and later).
	TokensInSecrets TokenTransport = "secrets"
	// TokensInContext: it is false or unknown to the cluster; tokens are in the volume context (KEP-1855).
	TokensInContext TokenTransport = "volumeContext"
)

// Observer is told of every call, for metrics. Labels are bounded.
type Observer interface {
	// Call tells of one call: its method, or Republish; the name of its gRPC code; how long it took. The code of a Republish
	// that the kubelet was told nothing of, since the pod has its files, is that of what is wrong with it.
	Call(method, code string, d time.Duration)
	// Registered tells whether the kubelet knows the driver.
	Registered(bool)
}

// Republish is the method under which a NodePublishVolume of a volume that is there already is observed and logged. The
// kubelet makes one about every minute for each pod.
const Republish = "Republish"

type nobody struct{}

func (nobody) Call(string, string, time.Duration) {}
func (nobody) Registered(bool)                    {}
