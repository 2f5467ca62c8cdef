// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"maps"
	"slices"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/leasefs/leasefs/pkg/podtoken"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// Keys that the kubelet adds to the volume context of an inline volume, or to the secrets. An author's attribute of the
// same name is overwritten by the kubelet, but only when it sets the key at all, which depends on the CSIDriver object.
const (
	kubeletPrefix     = "csi.storage.k8s.io/"
	keyEphemeral      = kubeletPrefix + "ephemeral"
	keyPodName        = kubeletPrefix + "pod.name"
	keyPodNamespace   = kubeletPrefix + "pod.namespace"
	keyPodUID         = kubeletPrefix + "pod.uid"
	keyServiceAccount = kubeletPrefix + "serviceAccount.name"
	keyTokens         = kubeletPrefix + "serviceAccount.tokens"
)

func podInfoKeys() []string {
	return []string{keyPodName, keyPodNamespace, keyPodUID, keyServiceAccount}
}

// split takes the volume context apart into the kubelet's keys and the author's. A key with the kubelet's prefix that
// the kubelet does not set is a fault: an author put it there.
func (f *faults) split(volumeContext map[string]string) (info, attrs map[string]string) {
	info, attrs = map[string]string{}, map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(volumeContext)) {
		switch {
		case !strings.HasPrefix(key, kubeletPrefix):
			attrs[key] = volumeContext[key]
		case key == keyEphemeral || slices.Contains(podInfoKeys(), key):
			info[key] = volumeContext[key]
		case key == keyTokens: // see tokens
		default:
			f.addf(strictyaml.Name(key), "is not a key that the kubelet sets, and no other may begin with %s; remove it from volumeAttributes", kubeletPrefix)
		}
	}
	return info, attrs
}

// podInfo reads whom the volume is for. It is the kubelet's word only when the CSIDriver says podInfoOnMount; that it is
// not an author's is confirmed by the token's claims and by the target's path, both of which he cannot choose.
func (f *faults) podInfo(info map[string]string) rotation.Pod {
	var missing []string
	for _, key := range podInfoKeys() {
		switch value := info[key]; {
		case value == "":
			missing = append(missing, key)
		case len(value) > 253 || !printable(value) || strings.ContainsAny(value, "/ "):
			f.addf(key, "is not the name or UID of a Kubernetes object")
		}
	}
	if len(missing) > 0 {
		f.addf("volumeContext", "%s missing: set CSIDriver.spec.podInfoOnMount to true", strings.Join(missing, ", "))
	}
	if value, ok := info[keyEphemeral]; value != "true" {
		problem := "is missing"
		if ok {
			problem = "is not true"
		}
		f.addf(keyEphemeral, "%s: only inline volumes of pods are served; CSIDriver.spec needs podInfoOnMount: true and Ephemeral as its only volumeLifecycleMode", problem)
	}
	return rotation.Pod{
		Namespace:      info[keyPodNamespace],
		Name:           info[keyPodName],
		UID:            info[keyPodUID],
		ServiceAccount: info[keyServiceAccount],
	}
}

func complete(p rotation.Pod) bool {
	return p.Namespace != "" && p.Name != "" && p.UID != "" && p.ServiceAccount != ""
}

// tokens returns the kubelet's tokens from the one place that the administrator has named, and refuses them in any
// other. There is no falling back: with serviceAccountTokenInSecrets the kubelet leaves an author's attribute of the
// same name as it is, and a nodePublishSecretRef of the author's shares the map with the kubelet's tokens.
func (f *faults) tokens(req *spec.NodePublishVolumeRequest, transport TokenTransport) string {
	var tokens string
	places := map[TokenTransport]map[string]string{
		TokensInSecrets:  req.GetSecrets(),
		TokensInContext:  req.GetVolumeContext(),
		"publishContext": req.GetPublishContext(),
	}
	elsewhere := false
	for _, place := range slices.Sorted(maps.Keys(places)) {
		value, ok := places[place][keyTokens]
		switch {
		case !ok:
		case place == transport:
			tokens = value
		default:
			elsewhere = true
			f.addf(string(place)+"["+keyTokens+"]", "is refused: on this node pods' tokens are taken from %s only. If the kubelet put it here, "+
				"CSIDriver.spec.serviceAccountTokenInSecrets and defaults.tokenTransport of the driver's configuration disagree; else remove it from the pod", transport)
		}
	}
	if tokens == "" && !elsewhere {
		f.addf(string(transport)+"["+keyTokens+"]", "is missing: %s", howToSend(transport))
	}
	for _, key := range slices.Sorted(maps.Keys(req.GetSecrets())) {
		if key != keyTokens {
			f.addf("nodePublishSecretRef", "is not read: remove it from the pod (it holds a key %s)", strictyaml.Name(key))
			break
		}
	}
	return tokens
}

// howToSend says what to set so that the kubelet sends tokens.
func howToSend(transport TokenTransport) string {
	const requests = "list the connection's audience in CSIDriver.spec.tokenRequests"
	if transport == TokensInSecrets {
		return requests + " and set serviceAccountTokenInSecrets to true there (Kubernetes 1.35 or later; before, set defaults.tokenTransport of the driver's configuration to " + string(TokensInContext) + ")"
	}
	return requests + " and leave serviceAccountTokenInSecrets unset or false"
}

// token picks the token for the audience, if its claims are the pod's.
func (f *faults) token(tokens, audience string, pod rotation.Pod, now time.Time) (rotation.Token, string) {
	found, err := podtoken.Select(tokens, audience, podtoken.Pod{
		Namespace:      pod.Namespace,
		Name:           pod.Name,
		UID:            pod.UID,
		ServiceAccount: pod.ServiceAccount,
	}, now)
	f.merge(keyTokens, err)
	return rotation.Token{JWT: found.JWT, Expires: found.Expires}, found.ServiceAccountUID
}
