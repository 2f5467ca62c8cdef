// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package sanity

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// controller makes volumes out of nothing but their name, which is all that an inline volume is to a controller.
type controller struct {
	csi.UnimplementedControllerServer
	csi.UnimplementedIdentityServer
}

func (controller) CreateVolume(_ context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: req.GetName()}}, nil
}

func (controller) DeleteVolume(context.Context, *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, nil
}

func (controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{}, nil
}

// startController serves the controller in dir and returns its address. The suite asks a controller's Identity service
// the same things as the driver's; they go to the driver.
func startController(t *testing.T, dir string, driver csi.IdentityClient) string {
	t.Helper()
	path := filepath.Join(dir, "controller.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterControllerServer(server, controller{})
	csi.RegisterIdentityServer(server, relay{driver: driver})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "unix://" + path
}

// relay passes the Identity service on.
type relay struct {
	csi.UnimplementedIdentityServer
	driver csi.IdentityClient
}

func (r relay) GetPluginInfo(ctx context.Context, req *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return r.driver.GetPluginInfo(ctx, req)
}

func (r relay) GetPluginCapabilities(ctx context.Context, req *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return r.driver.GetPluginCapabilities(ctx, req)
}

func (r relay) Probe(ctx context.Context, req *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return r.driver.Probe(ctx, req)
}
