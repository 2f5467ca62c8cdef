// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// node is the Node service. Calls that it does not have (staging, expansion, health) answer Unimplemented.
type node struct {
	spec.UnimplementedNodeServer

	id         string
	maxVolumes int64
	volumes    Volumes
	config     Configuration
	specs      *specs
	log        *slog.Logger
}

// NodePublishVolume makes a pod's volume appear, or takes the pod's newest token when it is there already.
//
// The kubelet repeats the call about once a minute for each pod (CSIDriver.spec.requiresRepublish). Whatever is wrong
// with such a repeated call - a connection that the administrator has removed, a parser that has become stricter, a
// token that has expired - must not become an error while the pod has its files: kubelets before 1.36.3 take the volume
// away from a running pod then (kubernetes/kubernetes#121271). It is logged, and counted by its code, instead; rotation goes
// on as it can.
func (n *node) NodePublishVolume(ctx context.Context, req *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	_, err := n.volumes.Usage(ctx, req.GetVolumeId(), req.GetTargetPath())
	alive := err == nil
	if alive {
		callOf(ctx).method = Republish
	}
	settings := n.config.Current()
	request, err := readPublish(req, settings, n.specs, time.Now())
	if err == nil {
		err = n.publish(ctx, request, settings.PublishTimeout)
	} else if alive {
		n.log.Warn("a volume that is mounted would be refused today; its files stay, and its token is not renewed from this call",
			logkey.Volume, req.GetVolumeId(), logkey.Pod, podOf(req), logkey.Error, clean(err.Error()))
		callOf(ctx).masked, err = err, nil
	}
	if err != nil {
		return nil, err
	}
	return &spec.NodePublishVolumeResponse{}, nil
}

// publish bounds the first fetch as the administrator says, but never beyond the call's own bound.
func (n *node) publish(ctx context.Context, request rotation.Request, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return n.volumes.Publish(ctx, request)
}

// NodeUnpublishVolume takes a volume away. One that is not there is gone already.
func (n *node) NodeUnpublishVolume(ctx context.Context, req *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	var f faults
	f.volumeID(req.GetVolumeId())
	f.target(req.GetTargetPath(), n.config.Current().PodsDir, "")
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := n.volumes.Unpublish(ctx, req.GetVolumeId(), req.GetTargetPath()); err != nil {
		return nil, err
	}
	return &spec.NodeUnpublishVolumeResponse{}, nil
}

// NodeGetVolumeStats tells how full a volume's tmpfs is, in bytes and inodes.
func (n *node) NodeGetVolumeStats(ctx context.Context, req *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	var f faults
	f.volumeID(req.GetVolumeId())
	if req.GetVolumePath() == "" {
		f.addf("volume_path", "is missing")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	usage, err := n.volumes.Usage(ctx, req.GetVolumeId(), req.GetVolumePath())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, mount.ErrNotMounted) {
		err = rotation.ErrUnknownVolume
	}
	if err != nil {
		return nil, err
	}
	return &spec.NodeGetVolumeStatsResponse{Usage: usageOf(usage)}, nil
}

func usageOf(u mount.Usage) []*spec.VolumeUsage {
	return []*spec.VolumeUsage{
		{Unit: spec.VolumeUsage_BYTES, Total: u.TotalBytes, Used: u.UsedBytes, Available: u.AvailableBytes},
		{Unit: spec.VolumeUsage_INODES, Total: u.TotalInodes, Used: u.UsedInodes, Available: u.AvailableInodes},
	}
}

// NodeGetCapabilities: the kubelet passes the pod's fsGroup instead of changing owners itself, and may ask for usage.
func (n *node) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	has := func(t spec.NodeServiceCapability_RPC_Type) *spec.NodeServiceCapability {
		return &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: t}}}
	}
	return &spec.NodeGetCapabilitiesResponse{Capabilities: []*spec.NodeServiceCapability{
		has(spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP),
		has(spec.NodeServiceCapability_RPC_GET_VOLUME_STATS),
	}}, nil
}

// NodeGetInfo names the node.
func (n *node) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: n.id, MaxVolumesPerNode: n.maxVolumes}, nil
}
