// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
)

// controllers are those that a node's life needs, pods of every kind of owner included.
var controllers = []string{
	"serviceaccount-controller", "serviceaccount-token-controller", "root-ca-certificate-publisher-controller",
	"namespace-controller", "garbage-collector-controller", "daemonset-controller", "replicaset-controller",
	"deployment-controller", "job-controller", "node-lifecycle-controller", "pod-garbage-collector-controller",
	"ttl-after-finished-controller", "clusterrole-aggregation-controller",
}

// inNode are the units that live in the node's own namespaces, beside the pods; the others are the control plane.
var inNode = map[string]bool{"containerd": true, "kubelet": true}

// units are all programs of a run. Why a flag is there is said beside it when it is not the ordinary one.
func units(l layout) []unit {
	etcd, peer := "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []unit{
		{Name: "etcd", Args: []string{
			l.bin("etcd"), "--name=node", "--data-dir=" + l.path("etcd"),
			"--unsafe-no-fsync", // a run is thrown away
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=node=" + peer,
		}},
		{Name: "kube-apiserver", Args: []string{
			l.bin("kube-apiserver"), "--etcd-servers=" + etcd,
			"--bind-address=0.0.0.0", "--secure-port=443", // so that the service's address, which the machine has, answers
			"--advertise-address=" + nodeIP, "--service-cluster-ip-range=" + services,
			"--tls-cert-file=" + l.pki("apiserver.crt"), "--tls-private-key-file=" + l.pki("apiserver.key"),
			"--client-ca-file=" + l.pki("ca.crt"),
			"--kubelet-client-certificate=" + l.pki("apiserver-kubelet.crt"), "--kubelet-client-key=" + l.pki("apiserver-kubelet.key"),
			"--kubelet-certificate-authority=" + l.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=" + apiURL, // where its discovery document really is
			"--service-account-signing-key-file=" + l.pki("sa.key"), "--service-account-key-file=" + l.pki("sa.pub"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction,PodSecurity",
			"--allow-privileged=true", "--profiling=false",
		}},
		{Name: "kube-controller-manager", Args: []string{
			l.bin("kube-controller-manager"), "--kubeconfig=" + l.config("controller-manager.kubeconfig"),
			"--leader-elect=false", "--bind-address=127.0.0.1",
			"--use-service-account-credentials=true", // without it RBAC forbids the root CA's publisher to work
			"--root-ca-file=" + l.pki("ca.crt"), "--service-account-private-key-file=" + l.pki("sa.key"),
			"--controllers=" + strings.Join(controllers, ","),
		}},
		{Name: "kube-scheduler", Args: []string{
			l.bin("kube-scheduler"), "--kubeconfig=" + l.config("scheduler.kubeconfig"),
			"--leader-elect=false", "--bind-address=127.0.0.1",
		}},
		{Name: "containerd", Args: []string{l.debian("usr/bin/containerd"), "--config=" + l.config("containerd.toml")}},
		{Name: "kubelet", Args: []string{
			l.bin("kubelet"), "--config=" + l.config("kubelet.yaml"), "--kubeconfig=" + l.config("kubelet.kubeconfig"),
			"--hostname-override=" + nodeName, "--node-ip=" + nodeIP, "--root-dir=/var/lib/kubelet",
		}},
	}
}

// writeConfigs writes the units' configuration files.
func writeConfigs(l layout) error {
	for name, text := range map[string]string{
		"containerd.toml":    containerdConfig(l),
		"kubelet.yaml":       kubeletConfig(l),
		"cni/10-bridge.conf": cniConfig(),
	} {
		if err := os.WriteFile(l.config(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// containerdConfig: restrict_oom_score_adj because a shell without CAP_SYS_RESOURCE, as containers give it, may not lower
// a process's score, and every container would fail to start.
func containerdConfig(l layout) string {
	return fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = %q
SystemdCgroup = false
`, pauseImage, l.debian("usr/lib/cni"), l.config("cni"), l.debian("usr/sbin/runc"))
}

// kubeletConfig: failCgroupV1 and cgroupDriver for machines without systemd; the eviction thresholds and the image
// collection off, since the disk is not the node's; maxPods for the test that starts a hundred at once.
func kubeletConfig(l layout) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[2]q}
authorization: {mode: Webhook}
tlsCertFile: %[3]q
tlsPrivateKeyFile: %[4]q
cgroupDriver: cgroupfs
cgroupRoot: /%[5]s
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [%[6]s]
clusterDomain: cluster.local
resolvConf: ""
evictionHard: {memory.available: 50Mi, nodefs.available: 1%%, imagefs.available: 1%%}
imageGCHighThresholdPercent: 100
maxPods: 250
syncFrequency: %[7]s
`, nodeIP, l.pki("ca.crt"), l.pki("kubelet.crt"), l.pki("kubelet.key"), l.cgroup(), dnsIP, l.Sync)
}

// cniConfig: a bridge without masquerading, which needs no iptables. Pods reach each other, the API server and whatever
// listens on the machine's own addresses.
func cniConfig() string {
	return fmt.Sprintf(`{"cniVersion":"0.4.0","name":"bridge","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,
"ipam":{"type":"host-local","subnet":%q,"gateway":%q,"routes":[{"dst":"0.0.0.0/0"}]}}
`, pods, gateway)
}
