// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// machine is the first process of the run's outer namespaces: network, processes, mounts. The control plane lives there,
// as do the servers that tests start beside the node; so nothing of a run outlives this process.
type machine struct{ *supervisor }

func runMachine(l layout) error {
	if err := isolateMounts(); err != nil {
		return err
	}
	m := machine{newSupervisor(l)}
	return m.serve(l.socket("machine"), m.boot, map[string]func(context.Context) error{"reboot": m.reboot})
}

// isolateMounts makes mounts of this namespace its own, and gives it a /proc that shows its own processes.
func isolateMounts() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return nil
}

// boot brings everything up, in the order in which the parts need each other:
//  1. the network: the addresses on loopback;
//  2. etcd, and beside it the node's runtime with its images, which need nothing of the control plane;
//  3. the API server, then the controllers and the scheduler;
//  4. the kubelet, until the node is ready to take a pod.
func (m machine) boot(ctx context.Context) error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", nodeIP + "/32", "dev", "lo"},
		{"addr", "add", serviceIP + "/32", "dev", "lo"},
	} {
		if err := m.run("network", append([]string{m.layout.busybox(), "ip"}, args...)...); err != nil {
			return err
		}
	}
	if err := m.startNamed("etcd"); err != nil {
		return err
	}
	if err := m.startNode(); err != nil {
		return err
	}
	if err := m.waitFor(ctx, "etcd", "etcd", plainGet("http://127.0.0.1:2379/health")); err != nil {
		return err
	}
	m.step("etcd is up")
	if err := m.startNamed("kube-apiserver"); err != nil {
		return err
	}
	api, err := newAPI(m.layout)
	if err != nil {
		return err
	}
	if err := m.waitFor(ctx, "the API server", "kube-apiserver", api.get("/readyz", nil)); err != nil {
		return err
	}
	m.step("API server is ready")
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		if err := m.startNamed(name); err != nil {
			return err
		}
	}
	if err := m.startKubelet(ctx); err != nil {
		return err
	}
	if err := m.waitFor(ctx, "the node", "node", api.nodeReady); err != nil {
		return err
	}
	m.step("node is ready")
	if err := m.waitFor(ctx, "the default service account", "kube-controller-manager",
		api.get("/api/v1/namespaces/default/serviceaccounts/default", nil)); err != nil {
		return err
	}
	if err := api.allowDiscovery(ctx); err != nil {
		return err
	}
	m.step("ready for pods")
	return nil
}

// startNode makes the node's own namespaces. The network is the machine's, as a node's is its host's.
func (m machine) startNode() error {
	return m.start(unit{
		Name:  "node",
		Args:  []string{m.layout.self(), "node", "-run", m.layout.Run},
		Flags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	})
}

func (m machine) startKubelet(ctx context.Context) error {
	socket := m.layout.socket("node")
	if err := m.waitFor(ctx, "the container runtime", "node", func(ctx context.Context) error {
		var s status
		if err := ask(ctx, socket, http.MethodGet, "/status", &s); err != nil {
			return err
		}
		if !s.Ready {
			return fmt.Errorf("containerd is not ready: %s", s.Error)
		}
		return nil
	}); err != nil {
		return err
	}
	m.step("container runtime is ready, its images are there")
	if err := ask(ctx, socket, http.MethodPost, "/start?unit=kubelet", nil); err != nil {
		return err
	}
	return m.waitFor(ctx, "the kubelet", "node", func(ctx context.Context) error {
		err := plainGet("http://127.0.0.1:10248/healthz")(ctx)
		var s status
		if err != nil && ask(ctx, socket, http.MethodGet, "/status", &s) == nil && s.Units["kubelet"] == 0 {
			return fmt.Errorf("%w, see %s", errEnded, m.layout.log("kubelet"))
		}
		return err
	})
}

// reboot is a power cut: every process of the node ends at once, and its mounts, its tmpfs's and /run are gone. What is
// on disk stays: images, the kubelet's folders, the network plugin's addresses. The control plane sees a node come back.
func (m machine) reboot(ctx context.Context) error {
	if err := m.stop(ctx, "node", true); err != nil {
		return err
	}
	// A supervisor that was killed left its socket; the new one must not be taken for the old.
	if err := os.Remove(m.layout.socket("node")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := m.startNode(); err != nil {
		return err
	}
	return m.startKubelet(ctx)
}

func plainGet(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		return do(http.DefaultClient, request, nil)
	}
}

func do(client *http.Client, request *http.Request, into any) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", request.Method, request.URL, response.Status, strings.TrimSpace(string(body)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// api is the little of the Kubernetes API that bringing a node up needs.
type api struct{ client *http.Client }

func newAPI(l layout) (api, error) {
	ca, err := os.ReadFile(l.pki("ca.crt"))
	if err != nil {
		return api{}, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cert, err := tls.LoadX509KeyPair(l.pki("admin.crt"), l.pki("admin.key"))
	if err != nil {
		return api{}, err
	}
	return api{client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
	}}}, nil
}

func (a api) get(path string, into any) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, apiURL+path, nil)
		if err != nil {
			return err
		}
		if into == nil {
			return do(a.client, request, nil)
		}
		return do(a.client, request, into)
	}
}

// nodeReady: the node says that it is ready, and the controller has taken away the taint that keeps pods off until then.
func (a api) nodeReady(ctx context.Context) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := a.get("/api/v1/nodes/"+nodeName, &node)(ctx); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" && c.Status != "True" {
			return fmt.Errorf("node is not ready: %s", c.Message)
		}
	}
	if len(node.Status.Conditions) == 0 || len(node.Spec.Taints) != 0 {
		return fmt.Errorf("node has taints %v", node.Spec.Taints)
	}
	return nil
}

// allowDiscovery lets anybody read the keys of the service account tokens, as clusters do whose tokens are checked
// outside of them.
func (a api) allowDiscovery(ctx context.Context) error {
	const binding = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding",
"metadata":{"name":"service-account-issuer-discovery-for-all"},
"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"system:service-account-issuer-discovery"},
"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"system:unauthenticated"}]}`
	request, err := http.NewRequestWithContext(ctx, http.MethodPost,
		apiURL+"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", strings.NewReader(binding))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	return do(a.client, request, nil)
}
