// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package sanity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"

	"github.com/leasefs/leasefs/test/harness/kubelettest"
)

// player makes of the suite's requests such as a kubelet would send. Each spec has a pod of its own.
type player struct {
	kubelet    *kubelettest.Kubelet
	attributes map[string]string
	password   string // what the file must hold after each publish

	mu        sync.Mutex
	pod       kubelettest.Pod
	published int      // publishes that went well, repeated ones included
	wrong     []string // what was found in volumes that should not be
}

// newPod is sanity's CreateTargetDir: a new pod for each spec, and the folder in which the kubelet makes the target's
// parent. sanity itself adds the target's last element.
func (p *player) newPod(string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pod = kubelettest.NewPod("sanity", "sanity-0", "sanity")
	dir := filepath.Dir(kubelettest.Volume{Pod: p.pod, Name: "vault"}.Target(p.kubelet.Root))
	return dir, os.MkdirAll(dir, 0o750)
}

// removePod is sanity's RemoveTargetPath. It fails, as the kubelet would, when the driver has left something.
func (p *player) removePod(dir string) error {
	err := os.Remove(dir)
	if err != nil {
		p.mu.Lock()
		p.wrong = append(p.wrong, fmt.Sprintf("left behind after the spec: %v", err)) // sanity does not look at the error
		p.mu.Unlock()
	}
	return err
}

// checkPath is sanity's CheckPath.
func checkPath(path string) (sanity.PathKind, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sanity.PathIsNotFound, nil
	case err != nil:
		return "", err
	case info.IsDir():
		return sanity.PathIsDir, nil
	default:
		return sanity.PathIsOther, nil
	}
}

// intercept adds to a publish what a kubelet always sends and the suite does not know: readonly, the pod info, the
// author's attributes, the pod's token. It adds nothing that a spec may leave out on purpose: id, target, capability.
// To the driver's capabilities it adds the controller that stands beside it.
func (p *player) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	publish, isPublish := req.(*csi.NodePublishVolumeRequest)
	if isPublish {
		if err := p.complete(publish); err != nil {
			return err
		}
	}
	if err := invoke(ctx, method, req, reply, conn, opts...); err != nil {
		return err
	}
	if capabilities, ok := reply.(*csi.GetPluginCapabilitiesResponse); ok {
		capabilities.Capabilities = append(capabilities.Capabilities, &csi.PluginCapability{Type: &csi.PluginCapability_Service_{
			Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
		}})
	}
	if isPublish {
		p.look(publish.GetTargetPath())
	}
	return nil
}

func (p *player) complete(req *csi.NodePublishVolumeRequest) error {
	p.mu.Lock()
	pod := p.pod
	p.mu.Unlock()
	real, err := p.kubelet.PublishRequest(kubelettest.Volume{Pod: pod, Name: "vault", Attributes: p.attributes, ReadOnly: true})
	if err != nil {
		return err
	}
	req.Readonly = real.Readonly
	req.Secrets = real.Secrets
	if req.VolumeContext == nil {
		req.VolumeContext = map[string]string{}
	}
	maps.Copy(req.VolumeContext, real.VolumeContext)
	return nil
}

// look reads what the driver has published.
func (p *player) look(target string) {
	got, err := os.ReadFile(filepath.Join(target, "db", "password"))
	write := os.WriteFile(filepath.Join(target, "x"), nil, 0o600)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published++
	if err != nil || string(got) != p.password {
		p.wrong = append(p.wrong, fmt.Sprintf("the secret in %s: %d bytes, %v", target, len(got), err))
	}
	if write == nil {
		p.wrong = append(p.wrong, fmt.Sprintf("%s can be written", target))
	}
}

// result is what was seen in all specs.
func (p *player) result() (published int, wrong []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.published, p.wrong
}
