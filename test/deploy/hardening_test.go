// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestHardening is the checklist of docs/security.md, "What is installed", as far as manifests can be checked: each row
// is a sentence that holds with the least values and with everything turned on.
func TestHardening(t *testing.T) {
	for name, values := range map[string]string{"least": least, "everything": all} {
		m := render(t, values)
		pod, c := m.daemonSet.Spec.Template.Spec, m.container()
		bidirectional, directory, create := corev1.MountPropagationBidirectional, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate
		secure := c.SecurityContext

		for row, holds := range map[string]func(t *testing.T) bool{
			"all that it may do in the cluster is write Events": func(*testing.T) bool {
				return cmp.Equal(m.clusterRole.Rules, []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}}})
			},
			"the ClusterRole is given to the daemon's ServiceAccount alone": func(*testing.T) bool {
				return cmp.Equal(m.clusterBind.Subjects, []rbacv1.Subject{{Kind: "ServiceAccount", Name: m.account.Name, Namespace: namespace}}) &&
					m.clusterBind.RoleRef.Name == m.clusterRole.Name && m.clusterBind.RoleRef.Kind == "ClusterRole"
			},
			"the ServiceAccount's token is mounted only because the pod says so": func(*testing.T) bool {
				return !*m.account.AutomountServiceAccountToken && pod.ServiceAccountName == m.account.Name && *pod.AutomountServiceAccountToken
			},
			"there is one container": func(*testing.T) bool {
				return len(pod.Containers) == 1 && len(pod.InitContainers) == 0 && len(pod.EphemeralContainers) == 0
			},
			"it is privileged, which Bidirectional takes, and nothing is said that would have no effect beside that": func(*testing.T) bool {
				return *secure.Privileged && secure.Capabilities == nil && secure.SeccompProfile == nil && secure.AppArmorProfile == nil &&
					secure.AllowPrivilegeEscalation == nil && pod.SecurityContext == nil
			},
			"the root file system is read-only": func(*testing.T) bool { return *secure.ReadOnlyRootFilesystem },
			"it shares no namespace with the host": func(*testing.T) bool {
				return !pod.HostNetwork && !pod.HostPID && !pod.HostIPC && (pod.ShareProcessNamespace == nil || !*pod.ShareProcessNamespace)
			},
			"it opens no port of the host": func(*testing.T) bool {
				return !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 })
			},
			"three folders of the host, no more, and never all of the kubelet's": func(t *testing.T) bool {
				want := map[string]corev1.HostPathVolumeSource{
					"/var/lib/kubelet/pods":                   {Path: "/var/lib/kubelet/pods", Type: &directory},
					"/var/lib/kubelet/plugins/csi.leasefs.io": {Path: "/var/lib/kubelet/plugins/csi.leasefs.io", Type: &create},
					"/var/lib/kubelet/plugins_registry":       {Path: "/var/lib/kubelet/plugins_registry", Type: &directory},
				}
				return same(t, want, hostPaths(pod))
			},
			"each at the host's path, and only the two with mounts are propagated": func(t *testing.T) bool {
				want := map[string]corev1.MountPropagationMode{
					"/var/lib/kubelet/pods":                   bidirectional,
					"/var/lib/kubelet/plugins/csi.leasefs.io": bidirectional,
					"/var/lib/kubelet/plugins_registry":       "",
				}
				got := map[string]corev1.MountPropagationMode{}
				for _, v := range pod.Volumes {
					if v.HostPath == nil {
						continue
					}
					for _, at := range c.VolumeMounts {
						if at.Name == v.Name {
							got[at.MountPath] = ""
							if at.MountPropagation != nil {
								got[at.MountPath] = *at.MountPropagation
							}
						}
					}
				}
				return same(t, want, got)
			},
			"what is not of the host is the configuration, read-only": func(t *testing.T) bool {
				for _, v := range pod.Volumes {
					if v.HostPath == nil && v.ConfigMap == nil {
						t.Logf("volume %s is neither", v.Name)
						return false
					}
					for _, at := range c.VolumeMounts {
						if at.Name == v.Name && v.ConfigMap != nil && (!at.ReadOnly || at.SubPath != "") { // a subPath never changes
							t.Logf("volume %s is not read-only and whole", v.Name)
							return false
						}
					}
				}
				return true
			},
			"no Secret reaches it, neither as a file nor in its environment": func(*testing.T) bool {
				return len(c.EnvFrom) == 0 && !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.ValueFrom != nil && e.ValueFrom.FieldRef == nil }) &&
					!slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Secret != nil || v.Projected != nil })
			},
			"services of the namespace do not fill its environment": func(*testing.T) bool { return !*pod.EnableServiceLinks },
			"it goes where pods go, and goes last": func(*testing.T) bool {
				return pod.PriorityClassName == "system-node-critical" && cmp.Equal(pod.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}})
			},
			"nodes are updated some at a time, and never with two daemons on one": func(*testing.T) bool {
				u := m.daemonSet.Spec.UpdateStrategy.RollingUpdate
				return *u.MaxUnavailable == intstr.FromString("10%") && *u.MaxSurge == intstr.FromInt32(0)
			},
			"it has time to stop": func(*testing.T) bool { return *pod.TerminationGracePeriodSeconds > 25 }, // cmd/driver: stopTimeout
			"liveness asks for the loop, readiness for the kubelet; neither for Vault": func(*testing.T) bool {
				return c.LivenessProbe.HTTPGet.Path == "/healthz" && c.StartupProbe.HTTPGet.Path == "/healthz" && c.ReadinessProbe.HTTPGet.Path == "/readyz"
			},
			"a daemon that waits 35 s for the one before is not killed for it": func(*testing.T) bool { // cmd/driver: lockWait
				return c.StartupProbe.PeriodSeconds*c.StartupProbe.FailureThreshold > 2*35
			},
			"its memory is bounded, its processor is not": func(*testing.T) bool {
				_, cpu := c.Resources.Limits["cpu"]
				return !c.Resources.Limits.Memory().IsZero() && !c.Resources.Requests.Memory().IsZero() && !cpu
			},
			"all objects but those of the cluster are in the release's namespace": func(*testing.T) bool {
				return m.daemonSet.Namespace == namespace && m.account.Namespace == namespace && m.config.Namespace == namespace
			},
		} {
			t.Run(name+"/"+row, func(t *testing.T) {
				if !holds(t) {
					t.Error("does not hold")
				}
			})
		}
	}
}

func same(t *testing.T, want, got any) bool {
	t.Helper()
	d := cmp.Diff(want, got)
	if d != "" {
		t.Log(d)
	}
	return d == ""
}

// hostPaths are the host's folders of a pod, by the path at which its first container has them.
func hostPaths(pod corev1.PodSpec) map[string]corev1.HostPathVolumeSource {
	paths := map[string]corev1.HostPathVolumeSource{}
	for _, v := range pod.Volumes {
		for _, at := range pod.Containers[0].VolumeMounts {
			if v.HostPath != nil && at.Name == v.Name {
				paths[at.MountPath] = *v.HostPath
			}
		}
	}
	return paths
}

func TestWithoutEventsItIsNobodyToTheCluster(t *testing.T) {
	m := render(t, least+"events: {enabled: false}")
	if m.clusterRole != nil || m.clusterBind != nil || m.role != nil || m.binding != nil {
		t.Error("there is a role")
	}
	if *m.daemonSet.Spec.Template.Spec.AutomountServiceAccountToken || *m.account.AutomountServiceAccountToken {
		t.Error("a token is mounted")
	}
	if !slices.Contains(m.container().Args, "--events=false") {
		t.Errorf("arguments are %q", m.container().Args)
	}
}

func TestAnotherKubeletFolderIsUsedEverywhere(t *testing.T) {
	m := render(t, least+"kubeletDir: /var/lib/k0s/kubelet")
	for at, source := range hostPaths(m.daemonSet.Spec.Template.Spec) {
		if at != source.Path || !strings.HasPrefix(at, "/var/lib/k0s/kubelet/") {
			t.Errorf("%s of the host is at %s", source.Path, at)
		}
	}
	if !slices.Contains(m.container().Args, "--kubelet-dir=/var/lib/k0s/kubelet") {
		t.Errorf("arguments are %q", m.container().Args)
	}
	if got := m.env("LEASEFS_ADMIN_SOCKET"); got != "/var/lib/k0s/kubelet/plugins/csi.leasefs.io/admin/admin.sock" {
		t.Errorf("leasefs volumes would ask %s", got)
	}
}

func TestNamespaceAllowsTheDaemonAndWarnsOfTheRest(t *testing.T) {
	got := render(t, least+"namespace: {create: true}").namespace
	if got.Name != namespace {
		t.Errorf("name is %s", got.Name)
	}
	for label, want := range map[string]string{"enforce": "privileged", "warn": "restricted", "audit": "restricted"} {
		if value := got.Labels["pod-security.kubernetes.io/"+label]; value != want {
			t.Errorf("%s is %q, want %s", label, value, want)
		}
	}
}

func TestNetworkPolicyLetsThroughWhatIsNeeded(t *testing.T) {
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	port := func(protocol *corev1.Protocol, n int32) networkingv1.NetworkPolicyPort {
		p := intstr.FromInt32(n)
		return networkingv1.NetworkPolicyPort{Protocol: protocol, Port: &p}
	}
	dns := networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{port(&udp, 53), port(&tcp, 53), port(&udp, 5353), port(&tcp, 5353)}}
	api := networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{port(&tcp, 443), port(&tcp, 6443)}}
	metrics := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{port(&tcp, 9808)}}
	const addresses = `
image: {repository: x}
connections:
- {name: default, address: "https://vault.example.com:8200", allowedRedirects: ["https://vault-0.example.com:8210", "https://[2001:db8::1]"]}
- {name: plain, address: "http://vault.example.com", allowInsecureHTTP: true}
networkPolicy: {enabled: true}
`
	t.Run("ports of all addresses", func(t *testing.T) {
		spec := render(t, addresses).networkPolicy.Spec
		vault := networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{port(&tcp, 443), port(&tcp, 80), port(&tcp, 8200), port(&tcp, 8210)}}
		if d := cmp.Diff([]networkingv1.NetworkPolicyEgressRule{dns, vault, api}, spec.Egress); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]networkingv1.NetworkPolicyIngressRule{metrics}, spec.Ingress); d != "" {
			t.Error(d)
		}
	})
	t.Run("no API server without Events", func(t *testing.T) {
		if got := render(t, addresses+"events: {enabled: false}").networkPolicy.Spec.Egress; len(got) != 2 {
			t.Errorf("%d rules of egress, want DNS and Vault", len(got))
		}
	})
	t.Run("peers where they are named", func(t *testing.T) {
		spec := render(t, all).networkPolicy.Spec
		vault := networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24"}}
		if d := cmp.Diff([]networkingv1.NetworkPolicyPeer{vault}, spec.Egress[1].To); d != "" {
			t.Error(d)
		}
		scraper := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": "monitoring"}}}
		if d := cmp.Diff([]networkingv1.NetworkPolicyPeer{scraper}, spec.Ingress[0].From); d != "" {
			t.Error(d)
		}
		if len(spec.Egress) != 4 {
			t.Errorf("%d rules of egress, want the additional one, too", len(spec.Egress))
		}
	})
	t.Run("of the daemon's pods", func(t *testing.T) {
		m := render(t, all)
		for label, value := range m.networkPolicy.Spec.PodSelector.MatchLabels {
			if m.daemonSet.Spec.Template.Labels[label] != value {
				t.Errorf("the pods have no label %s: %s", label, value)
			}
		}
		if d := cmp.Diff([]networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}, m.networkPolicy.Spec.PolicyTypes); d != "" {
			t.Error(d)
		}
	})
}
