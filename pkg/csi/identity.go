// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"log/slog"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/leasefs/leasefs/pkg/logkey"
)

// identity is the Identity service.
type identity struct {
	spec.UnimplementedIdentityServer

	version string
	ready   func() error
	log     *slog.Logger
}

// GetPluginInfo names the driver.
func (s *identity) GetPluginInfo(context.Context, *spec.GetPluginInfoRequest) (*spec.GetPluginInfoResponse, error) {
	return &spec.GetPluginInfoResponse{Name: DriverName, VendorVersion: s.version}, nil
}

// GetPluginCapabilities has nothing to name: there is no controller, and any node will do.
func (s *identity) GetPluginCapabilities(context.Context, *spec.GetPluginCapabilitiesRequest) (*spec.GetPluginCapabilitiesResponse, error) {
	return &spec.GetPluginCapabilitiesResponse{}, nil
}

// Probe tells whether the driver is ready. Not being ready is an answer, not an error.
func (s *identity) Probe(context.Context, *spec.ProbeRequest) (*spec.ProbeResponse, error) {
	err := s.ready()
	if err != nil {
		s.log.Debug("not ready", logkey.Reason, err)
	}
	return &spec.ProbeResponse{Ready: wrapperspb.Bool(err == nil)}, nil
}
