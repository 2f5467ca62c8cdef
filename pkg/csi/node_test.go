// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

func TestIdentity(t *testing.T) {
	ready := errors.New("the kubelet has not registered the driver yet")
	e := newEdge(t, func(o *Options) { o.Ready = func() error { return ready } })
	info, err := e.identity.GetPluginInfo(t.Context(), &spec.GetPluginInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&spec.GetPluginInfoResponse{Name: "csi.leasefs.io", VendorVersion: "v1.2.3"}, info, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	capabilities, err := e.identity.GetPluginCapabilities(t.Context(), &spec.GetPluginCapabilitiesRequest{})
	if err != nil || len(capabilities.GetCapabilities()) != 0 {
		t.Errorf("capabilities %v, %v; there is no controller", capabilities, err)
	}
	for want, state := range map[bool]error{false: ready, true: nil} {
		ready = state
		probe, err := e.identity.Probe(t.Context(), &spec.ProbeRequest{})
		if err != nil || probe.GetReady() == nil || probe.GetReady().GetValue() != want {
			t.Errorf("probe with %v: %v, %v", state, probe, err)
		}
	}
}

func TestNodeInfoAndCapabilities(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.MaxVolumes = 250 })
	info, err := e.node.NodeGetInfo(t.Context(), &spec.NodeGetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&spec.NodeGetInfoResponse{NodeId: "node-1", MaxVolumesPerNode: 250}, info, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	response, err := e.node.NodeGetCapabilities(t.Context(), &spec.NodeGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []spec.NodeServiceCapability_RPC_Type
	for _, c := range response.GetCapabilities() {
		got = append(got, c.GetRpc().GetType())
	}
	want := []spec.NodeServiceCapability_RPC_Type{
		spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP, spec.NodeServiceCapability_RPC_GET_VOLUME_STATS,
	}
	if !slices.Equal(got, want) {
		t.Errorf("capabilities %v, want %v", got, want)
	}
}

func TestCallsThatAreNotThereAreUnimplemented(t *testing.T) {
	e := newEdge(t, nil)
	ctx := t.Context()
	_, stage := e.node.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{})
	_, unstage := e.node.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{})
	_, expand := e.node.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{})
	_, health := e.node.NodeGetVolumeHealth(ctx, &spec.NodeGetVolumeHealthRequest{})
	_, storage := e.node.NodeGetStorageHealth(ctx, &spec.NodeGetStorageHealthRequest{})
	for i, err := range []error{stage, unstage, expand, health, storage} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestPublishRepublishUnpublish(t *testing.T) {
	e := newEdge(t, nil)
	ctx, req := t.Context(), publishRequest(t)
	for range 3 {
		if _, err := e.node.NodePublishVolume(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := e.node.NodeUnpublishVolume(ctx, unpublishRequest(req)); err != nil {
			t.Fatal(err)
		}
	}
	calls, there := e.volumes.taken()
	if want := []string{"publish", "publish", "publish", "unpublish", "unpublish"}; !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	if len(there) != 0 {
		t.Errorf("left behind: %v", there)
	}
	want := []string{"NodePublishVolume OK", "Republish OK", "Republish OK", "NodeUnpublishVolume OK", "NodeUnpublishVolume OK"}
	if got := e.observed.taken(); !slices.Equal(got, want) {
		t.Errorf("observed %v, want %v", got, want)
	}
}

func TestConflictsHaveTheSpecificationsCodes(t *testing.T) {
	e := newEdge(t, nil)
	if _, err := e.node.NodePublishVolume(t.Context(), publishRequest(t)); err != nil {
		t.Fatal(err)
	}
	elsewhere := publishRequest(t)
	elsewhere.TargetPath = strings.Replace(target, "/vault/", "/other/", 1)
	if _, err := e.node.NodePublishVolume(t.Context(), elsewhere); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("another target: %v", err)
	}
	otherwise := publishRequest(t)
	otherwise.VolumeContext["roleName"] = "admin"
	if _, err := e.node.NodePublishVolume(t.Context(), otherwise); status.Code(err) != codes.AlreadyExists {
		t.Errorf("other attributes: %v", err)
	}
}

// kubernetes/kubernetes#121271: an error here costs a running pod its files.
func TestARepublishOfAHealthyVolumeIsNeverRefused(t *testing.T) {
	faults := map[string]func(*edge, *request){
		"the token has expired": func(_ *edge, r *request) {
			retoken(t, r, podUID, "web", "vault", time.Now().Add(-time.Minute))
		},
		"the tokens are missing": func(_ *edge, r *request) { r.Secrets = nil },
		"the administrator removed the connection": func(e *edge, _ *request) {
			e.config.change(func(s *Settings) {
				s.Resolve = func(attributes.Spec) (rotation.Plan, error) {
					return rotation.Plan{}, &attributes.Faults{List: []attributes.Fault{{Key: "connection", Problem: "is gone"}}}
				}
			})
		},
		"a newer driver refuses the attributes": func(_ *edge, r *request) { r.VolumeContext["new"] = "x" },
		"the transport of tokens has changed": func(e *edge, _ *request) {
			e.config.change(func(s *Settings) { s.Tokens = TokensInContext })
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, nil)
			req := publishRequest(t)
			if _, err := e.node.NodePublishVolume(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			token := tokenOf(t, req)
			fault(e, req)
			if _, err := e.node.NodePublishVolume(t.Context(), req); err != nil {
				t.Fatalf("a healthy volume was refused: %v", err)
			}
			e.logs.wait(t, "would be refused today")
			assertNone(t, "the log", e.logs.String(), token)
			if got := e.observed.taken(); !slices.Equal(got, []string{"NodePublishVolume OK", "Republish InvalidArgument"}) {
				t.Errorf("observed %v, want the refusal to be counted though the kubelet was told nothing of it", got)
			}

			elsewhere := publishRequest(t)
			fault(e, elsewhere)
			elsewhere.TargetPath = strings.Replace(target, "/vault/", "/other/", 1)
			if _, err := e.node.NodePublishVolume(t.Context(), elsewhere); status.Code(err) != codes.InvalidArgument {
				t.Errorf("the same at a target where nothing is: %v", err)
			}
			e.volumes.mu.Lock()
			e.volumes.unmounted = true
			e.volumes.mu.Unlock()
			if _, err := e.node.NodePublishVolume(t.Context(), req); status.Code(err) != codes.InvalidArgument {
				t.Errorf("the same when the mount is gone: %v", err)
			}
		})
	}
}

func TestUnpublishRefuses(t *testing.T) {
	e := newEdge(t, nil)
	tests := map[string]struct {
		mutate func(*spec.NodeUnpublishVolumeRequest)
		want   string
	}{
		"no volume id":            {func(r *spec.NodeUnpublishVolumeRequest) { r.VolumeId = "" }, "volume_id: is missing"},
		"no target path":          {func(r *spec.NodeUnpublishVolumeRequest) { r.TargetPath = "" }, "target_path: is missing"},
		"the root":                {func(r *spec.NodeUnpublishVolumeRequest) { r.TargetPath = "/" }, "target_path:"},
		"a path that climbs":      {func(r *spec.NodeUnpublishVolumeRequest) { r.TargetPath = target + "/../../../.." }, "target_path:"},
		"a path that is not ours": {func(r *spec.NodeUnpublishVolumeRequest) { r.TargetPath = "/var/lib/kubelet/plugins/x/y" }, "not below"},
		"both":                    {func(r *spec.NodeUnpublishVolumeRequest) { r.TargetPath, r.VolumeId = "", "" }, "2 faults: volume_id: is missing; target_path: is missing"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := unpublishRequest(publishRequest(t))
			tt.mutate(req)
			_, err := e.node.NodeUnpublishVolume(t.Context(), req)
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if calls, _ := e.volumes.taken(); len(calls) > 0 {
				t.Errorf("calls %v", calls)
			}
		})
	}
}

func TestVolumeStats(t *testing.T) {
	e := newEdge(t, nil)
	req := publishRequest(t)
	if _, err := e.node.NodePublishVolume(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	stats := func(id, path string) (*spec.NodeGetVolumeStatsResponse, error) {
		return e.node.NodeGetVolumeStats(t.Context(), &spec.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: path})
	}
	got, err := stats(req.VolumeId, target)
	if err != nil {
		t.Fatal(err)
	}
	want := &spec.NodeGetVolumeStatsResponse{Usage: []*spec.VolumeUsage{
		{Unit: spec.VolumeUsage_BYTES, Total: 65536, Used: 4096, Available: 61440},
		{Unit: spec.VolumeUsage_INODES, Total: 16, Used: 6, Available: 10},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	codesOf := map[string]struct {
		id, path string
		usage    func() (mount.Usage, error)
		want     codes.Code
	}{
		"no id":                 {"", target, nil, codes.InvalidArgument},
		"no path":               {req.VolumeId, "", nil, codes.InvalidArgument},
		"an unknown volume":     {"other", target, nil, codes.NotFound},
		"an unknown path":       {req.VolumeId, "some/path", nil, codes.NotFound},
		"the mount is gone":     {req.VolumeId, target, func() (mount.Usage, error) { return mount.Usage{}, &rotation.MountError{Err: mount.ErrNotMounted} }, codes.NotFound},
		"the path is gone":      {req.VolumeId, target, func() (mount.Usage, error) { return mount.Usage{}, &rotation.MountError{Err: fs.ErrNotExist} }, codes.NotFound},
		"the kernel refuses it": {req.VolumeId, target, func() (mount.Usage, error) { return mount.Usage{}, &rotation.MountError{Err: fs.ErrPermission} }, codes.Internal},
	}
	for name, tt := range codesOf {
		t.Run(name, func(t *testing.T) {
			e.volumes.mu.Lock()
			e.volumes.usage = tt.usage
			e.volumes.mu.Unlock()
			if _, err := stats(tt.id, tt.path); status.Code(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestErrorsReachTheKubeletWithCodeAndText(t *testing.T) {
	e := newEdge(t, nil)
	denied := &vault.Error{Op: vault.OpRead, Connection: "default", Path: "secret/data/db", Role: "web", Status: 403, Class: vault.Denied, Messages: []string{"permission denied"}}
	e.volumes.publish = func(context.Context, rotation.Request) error { return fmt.Errorf("publishing: %w", denied) }
	_, err := e.node.NodePublishVolume(t.Context(), publishRequest(t))
	if status.Code(err) != codes.PermissionDenied {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"secret/data/db", `role "web"`, "permission denied"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if n := strings.Count(e.logs.String(), "permission denied"); n != 1 {
		t.Errorf("the error is logged %d times, want once:\n%s", n, e.logs)
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	good := Options{Version: "v1", NodeID: "n", Volumes: &volumes{}, Configuration: &config{}, Logger: newLogs().logger(0)}
	if _, err := NewServer(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no node":          func(o *Options) { o.NodeID = "" },
		"a node too long":  func(o *Options) { o.NodeID = strings.Repeat("n", 193) },
		"negative volumes": func(o *Options) { o.MaxVolumes = -1 },
		"no version":       func(o *Options) { o.Version = "" },
		"no volumes":       func(o *Options) { o.Volumes = nil },
		"no configuration": func(o *Options) { o.Configuration = nil },
		"no logger":        func(o *Options) { o.Logger = nil },
	} {
		o := good
		spoil(&o)
		if _, err := NewServer(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
