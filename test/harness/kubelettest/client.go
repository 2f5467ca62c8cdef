// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Client is a connection to a plugin's CSI socket.
type Client struct {
	Identity csi.IdentityClient
	Node     csi.NodeClient
	conn     *grpc.ClientConn
}

// Dial returns a client of the plugin at the socket (an absolute path). It connects with the first call. The kubelet
// makes a connection for each operation; one that is kept is for measuring.
func Dial(socket string) (*Client, error) {
	conn, err := dial(socket)
	if err != nil {
		return nil, err
	}
	return &Client{Identity: csi.NewIdentityClient(conn), Node: csi.NewNodeClient(conn), conn: conn}, nil
}

func dial(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", socket, err)
	}
	return conn, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Ready asks the plugin's Probe. A plugin that says nothing of its readiness is ready.
func (c *Client) Ready(ctx context.Context) error {
	resp, err := c.Identity.Probe(ctx, &csi.ProbeRequest{})
	if err == nil && resp.Ready != nil && !resp.Ready.Value {
		err = fmt.Errorf("the plugin says that it is not ready")
	}
	return err
}

// TakesMountGroup tells whether the plugin has the capability VOLUME_MOUNT_GROUP.
func (c *Client) TakesMountGroup(ctx context.Context) (bool, error) {
	resp, err := c.Node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(resp.Capabilities, func(c *csi.NodeServiceCapability) bool {
		return c.GetRpc().GetType() == csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP
	}), nil
}

// Registered is what the kubelet learns about a plugin when it registers.
type Registered struct {
	Type, Name, Endpoint string
	Versions             []string
	NodeID               string
}

// Register does what the kubelet's plugin watcher does when a socket appears in plugins_registry: it asks what the plugin
// is, asks for the node's info at the plugin's endpoint, and tells the plugin that it is registered.
func Register(ctx context.Context, socket string) (Registered, error) {
	conn, err := dial(socket)
	if err != nil {
		return Registered{}, err
	}
	defer func() { _ = conn.Close() }()
	watcher := registration.NewRegistrationClient(conn)
	info, err := watcher.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return Registered{}, fmt.Errorf("asking a plugin what it is: %w", err)
	}
	r := Registered{Type: info.Type, Name: info.Name, Endpoint: info.Endpoint, Versions: info.SupportedVersions}
	client, err := Dial(info.Endpoint)
	if err != nil {
		return r, err
	}
	defer func() { _ = client.Close() }()
	node, err := client.Node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return r, fmt.Errorf("asking for the node's info: %w", err)
	}
	r.NodeID = node.NodeId
	_, err = watcher.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{PluginRegistered: true})
	if err != nil {
		return r, fmt.Errorf("telling the plugin that it is registered: %w", err)
	}
	return r, nil
}
