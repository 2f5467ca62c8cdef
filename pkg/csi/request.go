// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"errors"
	"fmt"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// faults collects everything that is wrong with a request.
type faults struct{ list []attributes.Fault }

func (f *faults) addf(key, format string, args ...any) {
	f.list = append(f.list, attributes.Fault{Key: key, Problem: fmt.Sprintf(format, args...)})
}

// merge adds the faults of another, or any other error under a key.
func (f *faults) merge(key string, err error) {
	var others *attributes.Faults
	switch {
	case err == nil:
	case errors.As(err, &others):
		f.list = append(f.list, others.List...)
	default:
		f.addf(key, "%v", err)
	}
}

func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	return &attributes.Faults{List: f.list}
}

// readPublish turns a publish request into what the domain wants, checking every field. It does no I/O.
//
//  1. the volume, its target and its capability are such as the kubelet gives an inline volume;
//  2. the volume context comes apart into the kubelet's keys and the author's;
//  3. the kubelet's keys must be there and complete, and none may be there that only an author can have put;
//  4. the author's are read and resolved against the configuration;
//  5. the token for the resolved audience must speak of the pod that the kubelet's keys name.
//
// The error is an *attributes.Faults with the faults of all steps. Only the token's claims wait for the steps before
// them: without pod info or audience there is nothing to compare them with.
//
// Whether the pod asked for readOnly makes no difference: a volume is attached read-only always.
func readPublish(req *spec.NodePublishVolumeRequest, settings Settings, specs *specs, now time.Time) (rotation.Request, error) {
	var f faults
	f.volumeID(req.GetVolumeId())
	group := f.capability(req.GetVolumeCapability())

	info, attrs := f.split(req.GetVolumeContext())
	pod := f.podInfo(info)
	f.target(req.GetTargetPath(), settings.PodsDir, pod.UID)
	tokens := f.tokens(req, settings.Tokens)

	mark := fingerprint(attrs)
	plan, planned := f.plan(attrs, mark, settings, specs)
	var token rotation.Token
	if planned && tokens != "" && complete(pod) {
		token, pod.ServiceAccountUID = f.token(tokens, plan.Audience, pod, now)
	}
	if err := f.err(); err != nil {
		return rotation.Request{}, err
	}
	return rotation.Request{
		VolumeID:    req.GetVolumeId(),
		Target:      req.GetTargetPath(),
		Pod:         pod,
		Token:       token,
		Plan:        plan,
		Group:       group,
		Fingerprint: mark,
	}, nil
}

// plan reads the author's attributes and resolves them; false: they have faults.
func (f *faults) plan(attrs map[string]string, fingerprint string, settings Settings, specs *specs) (rotation.Plan, bool) {
	parsed, err := specs.parse(fingerprint, attrs)
	if err != nil {
		f.merge("volumeAttributes", err)
		f.planOfRest(attrs, err, settings)
		return rotation.Plan{}, false
	}
	plan, err := settings.Resolve(parsed)
	f.merge("volumeAttributes", err)
	return plan, err == nil
}

// planOfRest tells what the configuration has against those attributes that could be read, when others could not:
//
//  1. leave out the attributes that have faults; objects, of which there must be one, are stood in for, for the
//     configuration has no say in them;
//  2. resolve the rest;
//  3. drop what follows from leaving out: faults of the same attributes. Without a readable choice of connection there is
//     nothing to resolve against.
func (f *faults) planOfRest(attrs map[string]string, err error, settings Settings) {
	var known *attributes.Faults
	if !errors.As(err, &known) {
		return
	}
	faulty := map[string]bool{}
	for _, fault := range known.List {
		key, _, _ := strings.Cut(fault.Key, "[")
		faulty[key] = true
	}
	if faulty["connection"] || faulty["vaultAddress"] {
		return
	}
	rest := map[string]string{"objects": `[{"objectName": "file", "secretPath": "path"}]`} // 1
	for _, key := range attributes.VolumeKeys() {
		if value, given := attrs[key.Name]; given && !faulty[key.Name] && key.Name != "objects" {
			rest[key.Name] = value
		}
	}
	parsed, err := attributes.Parse(rest)
	if err != nil {
		return
	}
	_, err = settings.Resolve(parsed) // 2
	var more *attributes.Faults
	if errors.As(err, &more) {
		for _, fault := range more.List { // 3
			if !faulty[fault.Key] {
				f.list = append(f.list, fault)
			}
		}
	}
}
