// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	securityv1 "github.com/openshift/api/security/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const onOpenShift = least + "openshift: {enabled: true}\nnamespace: {create: true}\n"

// profileLabel is what OpenShift's admission plugin for inline volumes looks at.
const profileLabel = "security.openshift.io/csi-ephemeral-volume-profile"

func TestOpenShiftAllowsTheDaemonWhatItNeedsAndNothingElse(t *testing.T) {
	yes, root := true, int64(0)
	want := securityv1.SecurityContextConstraints{
		AllowPrivilegedContainer: true,
		AllowPrivilegeEscalation: &yes,
		AllowHostDirVolumePlugin: true,
		ReadOnlyRootFilesystem:   true,
		Volumes:                  []securityv1.FSType{securityv1.FSTypeConfigMap, securityv1.FSTypeHostPath, securityv1.FSProjected},
		RunAsUser:                securityv1.RunAsUserStrategyOptions{Type: securityv1.RunAsUserStrategyMustRunAs, UID: &root},
		FSGroup:                  securityv1.FSGroupStrategyOptions{Type: securityv1.FSGroupStrategyRunAsAny},
		SupplementalGroups:       securityv1.SupplementalGroupsStrategyOptions{Type: securityv1.SupplementalGroupsStrategyRunAsAny},
		SELinuxContext:           securityv1.SELinuxContextStrategyOptions{Type: securityv1.SELinuxStrategyRunAsAny},
	}
	got := *render(t, onOpenShift).scc
	if got.Name != "leasefs" {
		t.Errorf("name is %s", got.Name)
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreTypes(metav1.TypeMeta{}, metav1.ObjectMeta{}), cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

func TestOpenShiftLetsTheDaemonAloneUseItsConstraints(t *testing.T) {
	m := render(t, onOpenShift)
	rules := []rbacv1.PolicyRule{{
		APIGroups: []string{"security.openshift.io"}, Resources: []string{"securitycontextconstraints"},
		ResourceNames: []string{m.scc.Name}, Verbs: []string{"use"},
	}}
	if d := cmp.Diff(rules, m.role.Rules); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]rbacv1.Subject{{Kind: "ServiceAccount", Name: m.account.Name, Namespace: namespace}}, m.binding.Subjects); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: m.role.Name}, m.binding.RoleRef); d != "" {
		t.Error(d)
	}
	if m.role.Namespace != namespace || m.binding.Namespace != namespace {
		t.Errorf("the role is in %s, its binding in %s", m.role.Namespace, m.binding.Namespace)
	}
	if got := m.daemonSet.Spec.Template.Annotations["openshift.io/required-scc"]; got != m.scc.Name {
		t.Errorf("the pod requires constraints %q", got)
	}
}

// What the pod asks for must be what its constraints allow: every field that admission would compare.
func TestOpenShiftConstraintsAdmitThePod(t *testing.T) {
	m := render(t, onOpenShift)
	pod, c := m.daemonSet.Spec.Template.Spec, m.container()
	if !m.scc.AllowPrivilegedContainer || !*c.SecurityContext.Privileged {
		t.Error("privileged")
	}
	if *c.SecurityContext.RunAsUser != *m.scc.RunAsUser.UID {
		t.Errorf("the pod runs as %d, allowed is %d", *c.SecurityContext.RunAsUser, *m.scc.RunAsUser.UID)
	}
	if m.scc.ReadOnlyRootFilesystem && !*c.SecurityContext.ReadOnlyRootFilesystem {
		t.Error("the root file system can be written to")
	}
	if len(m.scc.SeccompProfiles) == 0 && c.SecurityContext.SeccompProfile != nil {
		t.Error("the pod names a seccomp profile, and none is allowed")
	}
	allowed := map[securityv1.FSType]bool{}
	for _, v := range m.scc.Volumes {
		allowed[v] = true
	}
	for _, v := range append(pod.Volumes, corev1.Volume{Name: "the token for Events", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}}) {
		kind := map[bool]securityv1.FSType{v.HostPath != nil: securityv1.FSTypeHostPath, v.ConfigMap != nil: securityv1.FSTypeConfigMap, v.Projected != nil: securityv1.FSProjected}[true]
		if !allowed[kind] {
			t.Errorf("volume %s is a %s, which is not allowed", v.Name, kind)
		}
	}
}

func TestOpenShiftLetsRestrictedPodsUseTheDriver(t *testing.T) {
	if got := render(t, onOpenShift).driver.Labels[profileLabel]; got != "restricted" {
		t.Errorf("profile is %q", got)
	}
	if got := render(t, onOpenShift, "openshift: {ephemeralVolumeProfile: baseline}").driver.Labels[profileLabel]; got != "baseline" {
		t.Errorf("profile is %q", got)
	}
	if _, there := render(t, least).driver.Labels[profileLabel]; there {
		t.Error("the label is there without OpenShift")
	}
}

func TestOpenShiftFilesHaveAContextThatContainersMayRead(t *testing.T) {
	for values, want := range map[string]string{
		"": "system_u:object_r:container_file_t:s0",
		`defaults: {selinuxContext: "system_u:object_r:container_file_t:s0:c1,c2"}`: "system_u:object_r:container_file_t:s0:c1,c2",
		`defaults: {selinuxContext: ""}`:                                            "",
	} {
		if got := parse(t, render(t, onOpenShift, values)).Defaults.SELinuxContext; got != want {
			t.Errorf("%q: context is %q, want %q", values, got, want)
		}
	}
	if got := parse(t, render(t, least)).Defaults.SELinuxContext; got != "" {
		t.Errorf("without OpenShift the context is %q", got)
	}
}

func TestOpenShiftNamespaceKeepsItsLabelsAndTakesEveryNode(t *testing.T) {
	got := render(t, onOpenShift).namespace
	if got.Labels["security.openshift.io/scc.podSecurityLabelSync"] != "false" {
		t.Error("OpenShift would set the Pod Security labels itself")
	}
	if selector, there := got.Annotations["openshift.io/node-selector"]; !there || selector != "" {
		t.Errorf("the cluster's node selector applies: %q, %t", selector, there)
	}
}
