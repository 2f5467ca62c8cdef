// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"io/fs"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/secret"
)

// Request is one NodePublishVolume call, validated and resolved against the configuration.
type Request struct {
	VolumeID string // the CSI volume id; the kubelet derives it from pod UID and volume name
	Target   string // absolute path at which the volume is to appear
	Pod      Pod
	Token    Token   // the pod's own token for the connection's audience
	Plan     Plan    // what to fetch, from where, as whom
	Group    *uint32 // the pod's fsGroup; nil: none
	// Fingerprint stands for everything in the request that must not change while the volume lives (attributes as the
	// author wrote them, without the kubelet's keys and tokens). Equal requests have equal fingerprints.
	Fingerprint string
}

// Pod is whom a volume belongs to, as the kubelet says and the pod's token confirms.
type Pod struct {
	Namespace         string `json:"namespace"`
	Name              string `json:"name"`
	UID               string `json:"uid"`
	ServiceAccount    string `json:"serviceAccount"`
	ServiceAccountUID string `json:"serviceAccountUID"`
}

// Token is a pod's service account token. It lives in memory only, never in a record.
type Token struct {
	JWT     secret.Value
	Expires time.Time
}

// Plan is what a volume consists of: the author's attributes with the administrator's defaults filled in.
type Plan struct {
	Connection string              `json:"connection"`
	Namespace  string              `json:"namespace,omitempty"` // Vault namespace
	AuthMethod string              `json:"authMethod"`          // kubernetes | jwt
	AuthMount  string              `json:"authMount"`
	Role       string              `json:"role"`
	Audience   string              `json:"audience,omitempty"`
	Objects    []attributes.Object `json:"objects"`
	Refresh    time.Duration       `json:"refresh"`  // how often plain values are read again
	Size       int64               `json:"size"`     // bytes of content that one generation may have
	FileMode   fs.FileMode         `json:"fileMode"` // for objects without a permission of their own; 0: by Group
	OnExpiry   attributes.OnExpiry `json:"onExpiry"` // what becomes of files whose secret has expired
}
