// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TokensKey is the key that the kubelet puts the pod's tokens under.
const TokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

// Transport is where the kubelet puts the pod's tokens.
type Transport int

const (
	// InSecrets is CSIDriver.spec.serviceAccountTokenInSecrets: true (Kubernetes 1.36 and later).
	InSecrets Transport = iota
	// InContext is the volume context, as always before.
	InContext
)

// publishTimeout is the kubelet's limit for one call to a plugin.
const publishTimeout = 2 * time.Minute

// Kubelet plays the kubelet towards one CSI plugin. Its fields are set before the first use; its methods may be called
// from many goroutines, but as the kubelet does, for different volumes.
type Kubelet struct {
	Root   string // the kubelet's root folder, /var/lib/kubelet on a real node; absolute
	Socket string // the plugin's CSI socket
	Issuer *Issuer
	// Transport, Audiences and TokenTTL are what the CSIDriver object says. The zero values stand for
	// InSecrets, "vault" and an hour. A real API server gives no token for less than ten minutes; this one does.
	Transport Transport
	Audiences []string
	TokenTTL  time.Duration

	mu     sync.Mutex
	tokens map[string]token // by pod UID and audience
}

// token is a token in the kubelet's cache.
type token struct {
	jwt             string
	issued, expires time.Time
}

// Publish publishes a volume for the first time or, like the kubelet's about once a minute (requiresRepublish), again:
//
//  1. ask the plugin for its capabilities: only one that says VOLUME_MOUNT_GROUP is told the pod's fsGroup;
//  2. make the target's parent folder, but not the target;
//  3. call NodePublishVolume, on a connection of its own;
//  4. if a first publish fails for good, remove the parent folder: with an error if the plugin left something in it.
//
// The error is the gRPC status.
func (k *Kubelet) Publish(ctx context.Context, v Volume) (err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	client, err := Dial(k.Socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	group, err := client.TakesMountGroup(ctx)
	if err != nil {
		return err
	}
	req, err := k.PublishRequest(v)
	if err != nil {
		return err
	}
	if !group {
		req.VolumeCapability.GetMount().VolumeMountGroup = ""
	}
	parent := filepath.Dir(req.TargetPath)
	_, statErr := os.Stat(parent)
	first := errors.Is(statErr, fs.ErrNotExist)
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return fmt.Errorf("making the folder of the volume: %w", err)
	}
	_, err = client.Node.NodePublishVolume(ctx, req)
	if first && final(err) {
		if err := os.Remove(parent); err != nil {
			return fmt.Errorf("the plugin left something behind after a failed publish: %w", err)
		}
	}
	return err
}

// final tells whether the kubelet takes an error as the end of a volume, so that NodeUnpublishVolume may never come.
func final(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	default:
		return true
	}
}

// PublishRequest returns the request of Publish, with the fsGroup if there is one.
func (k *Kubelet) PublishRequest(v Volume) (*csi.NodePublishVolumeRequest, error) {
	tokens, err := k.podTokens(v.Pod)
	if err != nil {
		return nil, err
	}
	mount := &csi.VolumeCapability_MountVolume{FsType: v.FSType}
	if v.FSGroup != nil {
		mount.VolumeMountGroup = strconv.FormatInt(*v.FSGroup, 10)
	}
	req := &csi.NodePublishVolumeRequest{
		VolumeId:   v.ID(),
		TargetPath: v.Target(k.Root),
		Readonly:   v.ReadOnly,
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: mount},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
		VolumeContext: map[string]string{},
	}
	// The kubelet's own keys win over an author's.
	maps.Copy(req.VolumeContext, v.Attributes)
	maps.Copy(req.VolumeContext, map[string]string{
		"csi.storage.k8s.io/ephemeral":           "true",
		"csi.storage.k8s.io/pod.name":            v.Pod.Name,
		"csi.storage.k8s.io/pod.namespace":       v.Pod.Namespace,
		"csi.storage.k8s.io/pod.uid":             v.Pod.UID,
		"csi.storage.k8s.io/serviceAccount.name": v.Pod.ServiceAccount,
	})
	if k.Transport == InContext {
		req.VolumeContext[TokensKey] = tokens
	} else {
		req.Secrets = map[string]string{TokensKey: tokens} // an author's attribute of this name stays in the context
	}
	return req, nil
}

// podTokens returns the JSON object of the pod's tokens, from the cache like the kubelet until 80 % of a token's life.
func (k *Kubelet) podTokens(p Pod) (string, error) {
	type entry struct {
		Token               string    `json:"token"`
		ExpirationTimestamp time.Time `json:"expirationTimestamp"`
	}
	audiences := k.Audiences
	if len(audiences) == 0 {
		audiences = []string{"vault"}
	}
	ttl := k.TokenTTL
	if ttl == 0 {
		ttl = time.Hour
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tokens == nil {
		k.tokens = map[string]token{}
	}
	now := time.Now()
	out := map[string]entry{}
	for _, audience := range audiences {
		key := p.UID + "\x00" + audience
		t, ok := k.tokens[key]
		if !ok || now.Sub(t.issued) > t.expires.Sub(t.issued)*8/10 {
			claims := p.Claims(audience, now, ttl)
			jwt, err := k.Issuer.Sign(claims)
			if err != nil {
				return "", err
			}
			t = token{jwt: jwt, issued: now, expires: claims.Expiry.Time().UTC()}
			k.tokens[key] = t
		}
		out[audience] = entry{Token: t.jwt, ExpirationTimestamp: t.expires}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return "", fmt.Errorf("encoding the pod's tokens: %w", err)
	}
	return string(data), nil
}

// ForgetTokens empties the token cache, as a restart of the kubelet does: the next publish has a new token.
func (k *Kubelet) ForgetTokens() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.tokens)
}

// Unpublish calls NodeUnpublishVolume and then removes the volume's folder. A target that the plugin has left is an error.
func (k *Kubelet) Unpublish(ctx context.Context, v Volume) (err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	client, err := Dial(k.Socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	target := v.Target(k.Root)
	if _, err := client.Node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID(), TargetPath: target}); err != nil {
		return err
	}
	// Not the plugin's: the folder that Publish made, and above it the pod's.
	if err := os.Remove(filepath.Dir(target)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the plugin left something behind after an unpublish: %w", err)
	}
	return nil
}
