// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// plugin is a CSI plugin that makes and removes the target, and remembers what it was asked.
type plugin struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	socket string

	mu         sync.Mutex
	group      bool  // advertise VOLUME_MOUNT_GROUP
	fail       error // of a publish
	leave      bool  // leave the target behind
	published  []*csi.NodePublishVolumeRequest
	registered bool
}

func (p *plugin) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	resp := &csi.NodeGetCapabilitiesResponse{}
	if p.group {
		resp.Capabilities = []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{
			Type: csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP}}}}
	}
	return resp, nil
}

func (p *plugin) NodePublishVolume(_ context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = append(p.published, req)
	if p.fail == nil || p.leave {
		if err := os.Mkdir(req.TargetPath, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, p.fail
}

func (p *plugin) NodeUnpublishVolume(_ context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.leave {
		if err := os.Remove(req.TargetPath); err != nil {
			return nil, err
		}
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (p *plugin) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node-1"}, nil
}

func (p *plugin) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: "CSIPlugin", Name: "csi.leasefs.io", Endpoint: p.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.registered = s.PluginRegistered
	return &registration.RegistrationStatusResponse{}, nil
}

// node returns a kubelet and the plugin that it calls.
func node(t *testing.T) (*Kubelet, *plugin) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubelettest-") //nolint:usetesting // a short name, for the socket
	ok(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	issuer, err := NewIssuer()
	ok(t, err)
	p := &plugin{socket: filepath.Join(dir, "csi.sock")}
	listener, err := net.Listen("unix", p.socket)
	ok(t, err)
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, p)
	csi.RegisterNodeServer(server, p)
	registration.RegisterRegistrationServer(server, p)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	t.Cleanup(server.Stop)
	return &Kubelet{Root: dir, Socket: p.socket, Issuer: issuer}, p
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func volume() Volume {
	group := int64(4321)
	return Volume{
		Pod: NewPod("shop", "web-0", "web"), Name: "secrets", ReadOnly: true, FSGroup: &group,
		Attributes: map[string]string{"roleName": "web", "csi.storage.k8s.io/serviceAccount.name": "root"},
	}
}

func TestPublishSendsWhatTheKubeletSends(t *testing.T) {
	k, p := node(t)
	p.group = true
	v := volume()
	ok(t, k.Publish(t.Context(), v))

	got := p.published[0]
	tokens := got.Secrets[TokensKey]
	want := &csi.NodePublishVolumeRequest{
		VolumeId:   v.ID(),
		TargetPath: k.Root + "/pods/" + v.Pod.UID + "/volumes/kubernetes.io~csi/secrets/mount",
		Readonly:   true,
		Secrets:    map[string]string{TokensKey: tokens},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{VolumeMountGroup: "4321"}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
		VolumeContext: map[string]string{
			"roleName":                               "web",
			"csi.storage.k8s.io/ephemeral":           "true",
			"csi.storage.k8s.io/pod.name":            "web-0",
			"csi.storage.k8s.io/pod.namespace":       "shop",
			"csi.storage.k8s.io/pod.uid":             v.Pod.UID,
			"csi.storage.k8s.io/serviceAccount.name": "web",
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(got.VolumeId, "csi-") || len(got.VolumeId) != len("csi-")+64 {
		t.Errorf("volume id %q", got.VolumeId)
	}
}

func TestTokenClaimsAreThoseOfABoundServiceAccountToken(t *testing.T) {
	k, p := node(t)
	k.Audiences, k.TokenTTL = []string{"vault", "other"}, 10*time.Minute
	v := volume()
	ok(t, k.Publish(t.Context(), v))
	var tokens map[string]struct {
		Token               string    `json:"token"`
		ExpirationTimestamp time.Time `json:"expirationTimestamp"`
	}
	ok(t, json.Unmarshal([]byte(p.published[0].Secrets[TokensKey]), &tokens))
	if len(tokens) != 2 {
		t.Fatalf("tokens for %d audiences", len(tokens))
	}
	parsed, err := jwt.ParseSigned(tokens["vault"].Token, []jose.SignatureAlgorithm{jose.ES256})
	ok(t, err)
	var claims Claims
	ok(t, parsed.Claims(k.Issuer.PublicKey(), &claims))
	if left := time.Until(claims.Expiry.Time()); left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("it lives for %s", left)
	}
	if !claims.Expiry.Time().Equal(tokens["vault"].ExpirationTimestamp) {
		t.Errorf("exp %s, expirationTimestamp %s", claims.Expiry.Time(), tokens["vault"].ExpirationTimestamp)
	}
	want := Claims{
		Issuer: IssuerURL, Subject: "system:serviceaccount:shop:web", Audience: []string{"vault"},
		ID: claims.ID, IssuedAt: claims.IssuedAt, NotBefore: claims.NotBefore, Expiry: claims.Expiry,
		Kubernetes: KubernetesClaims{
			Namespace: "shop", Node: Ref{"node-1", v.Pod.NodeUID}, Pod: Ref{"web-0", v.Pod.UID},
			ServiceAccount: Ref{"web", v.Pod.ServiceAccountUID},
		},
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Error(diff)
	}
}

func TestOlderKubeletHasTheTokensInTheContext(t *testing.T) {
	k, p := node(t)
	k.Transport = InContext
	v := volume()
	v.Attributes[TokensKey] = "spoofed"
	ok(t, k.Publish(t.Context(), v))
	got := p.published[0]
	if len(got.Secrets) != 0 || !strings.Contains(got.VolumeContext[TokensKey], `"vault"`) {
		t.Errorf("secrets %v, context %v", got.Secrets, got.VolumeContext)
	}
}

func TestNewerKubeletDoesNotRemoveAnAuthorsTokenKey(t *testing.T) {
	k, p := node(t)
	v := volume()
	v.Attributes[TokensKey] = "spoofed"
	ok(t, k.Publish(t.Context(), v))
	if got := p.published[0].VolumeContext[TokensKey]; got != "spoofed" {
		t.Errorf("context: %q", got)
	}
}

func TestGroupIsOnlyToldToAPluginThatAsksForIt(t *testing.T) {
	k, p := node(t)
	ok(t, k.Publish(t.Context(), volume()))
	if got := p.published[0].VolumeCapability.GetMount().VolumeMountGroup; got != "" {
		t.Errorf("group %q", got)
	}
}

func TestTokenIsReusedUntilItAges(t *testing.T) {
	k, p := node(t)
	v := volume()
	for range 2 {
		ok(t, k.Publish(t.Context(), v))
	}
	k.ForgetTokens()
	ok(t, k.Publish(t.Context(), v))
	k.ForgetTokens()
	k.TokenTTL = 2 * time.Second
	ok(t, k.Publish(t.Context(), v))
	time.Sleep(1700 * time.Millisecond) // more than 80 % of its life
	ok(t, k.Publish(t.Context(), v))
	token := func(i int) string { return p.published[i].Secrets[TokensKey] }
	if token(0) != token(1) || token(1) == token(2) || token(3) == token(4) {
		t.Error("a token was replaced when it should not, or not when it should")
	}
}

func TestFoldersAreTheKubeletsAndTheTargetIsThePlugins(t *testing.T) {
	k, p := node(t)
	v := volume()
	ok(t, k.Publish(t.Context(), v))
	ok(t, k.Publish(t.Context(), v))
	ok(t, k.Unpublish(t.Context(), v))
	if _, err := os.Stat(filepath.Dir(v.Target(k.Root))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the volume's folder: %v", err)
	}

	for _, tc := range []struct {
		name   string
		code   codes.Code
		leave  bool
		exists bool // the volume's folder, afterwards
		ours   bool // the error is the harness's
	}{
		{"final", codes.InvalidArgument, false, false, false},
		{"to be retried", codes.Unavailable, false, true, false},
		{"final, with a target left behind", codes.InvalidArgument, true, true, true},
	} {
		t.Run("a failed publish that is "+tc.name, func(t *testing.T) {
			v := volume()
			p.fail, p.leave = status.Error(tc.code, "no"), tc.leave
			err := k.Publish(t.Context(), v)
			if tc.ours == (status.Code(err) == tc.code) {
				t.Errorf("error = %v", err)
			}
			if _, err := os.Stat(filepath.Dir(v.Target(k.Root))); (err == nil) != tc.exists {
				t.Errorf("the volume's folder: %v", err)
			}
		})
	}
}

func TestUnpublishTellsOfATargetLeftBehind(t *testing.T) {
	k, p := node(t)
	v := volume()
	ok(t, k.Publish(t.Context(), v))
	p.leave = true
	if err := k.Unpublish(t.Context(), v); err == nil {
		t.Error("no error")
	}
}

func TestRegisterAsksTheEndpointAndConfirms(t *testing.T) {
	k, p := node(t)
	got, err := Register(t.Context(), k.Socket)
	ok(t, err)
	want := Registered{Type: "CSIPlugin", Name: "csi.leasefs.io", Endpoint: p.socket, Versions: []string{"1.0.0"}, NodeID: "node-1"}
	if diff := cmp.Diff(want, got); diff != "" || !p.registered {
		t.Errorf("registered %t: %s", p.registered, diff)
	}
}
