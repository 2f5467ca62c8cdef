// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package attributes reads what a pod author writes: the volumeAttributes of an inline CSI volume. It is pure: no file,
// no network, no clock.
//
// The keys of the standard Vault CSI provider's SecretProviderClass have the same names and meanings, so that moving
// over is a paste; keys.go lists them all, and the tables of docs/volume-attributes.md are made from that list.
package attributes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// Spec is what a volume asks for. Empty fields were not given: the daemon's configuration fills them in.
type Spec struct {
	Connection      string // name of an allowed connection
	VaultAddress    string // as written; only ever compared with the allowed connections' addresses
	Namespace       string // Vault namespace to log in to, without slashes at its ends
	AuthMethod      string // "kubernetes" or "jwt"
	AuthMount       string // path of the auth mount, without "auth/" and slashes at its ends
	Role            string
	Audience        string
	Objects         []Object      // at least one, in the order written
	RefreshInterval time.Duration // 0: default
	Size            int64         // bytes of content; 0: default
	FilePermission  fs.FileMode   // 0: default
	OnExpiry        OnExpiry      // never empty
}

// Object is one file of a volume, and the request to Vault that it comes from. Its JSON form is for the daemon's record.
type Object struct {
	Name       string         `json:"name"`                 // path of the file in the volume; ValidatePath(Name) == nil
	Path       string         `json:"path"`                 // path of the secret in Vault, without "/v1/" and query
	Query      url.Values     `json:"query,omitempty"`      // nil: none
	Method     string         `json:"method"`               // GET, PUT or POST; never empty
	Args       map[string]any `json:"args,omitempty"`       // JSON body of a PUT or POST, numbers as json.Number; nil: none
	Key        string         `json:"key,omitempty"`        // key in the secret's data; "": the whole response, as JSON
	Encoding   Encoding       `json:"encoding"`             // never empty
	Permission fs.FileMode    `json:"permission,omitempty"` // 0: the volume's
}

// UnmarshalJSON keeps the numbers in Args as they were written, so that an object that comes back from the record makes
// the same request as before.
func (o *Object) UnmarshalJSON(data []byte) error {
	type plain Object
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var p plain
	if err := dec.Decode(&p); err != nil {
		return fmt.Errorf("decoding an object: %w", err)
	}
	*o = Object(p)
	return nil
}

// Encoding says how the value in Vault is encoded; the file gets what it decodes to.
type Encoding string

// Encodings, under the names of the standard provider.
const (
	UTF8   Encoding = "utf-8" // as it stands
	Base64 Encoding = "base64"
	Hex    Encoding = "hex"
)

// OnExpiry says what happens to files whose secret has expired and could not be replaced.
type OnExpiry string

// Keep leaves the files as they are, so that an application which is connected can go on. Remove takes them away, so
// that none can start with what no longer works.
const (
	Keep   OnExpiry = "keep"
	Remove OnExpiry = "remove"
)

// Bounds of single values.
const (
	MinSize            = 4 << 10 // bytes: one page, less is never one file
	MaxRefreshInterval = 365 * 24 * time.Hour
	MaxObjects         = 256
)

// Parse reads the attributes of a volume, without the keys that the kubelet adds (csi.storage.k8s.io/...). It reports
// every fault there is: the error, if any, is a *Faults. Faults never repeat a value that could be secret.
func Parse(attrs map[string]string) (Spec, error) {
	p := &parser{attrs: attrs}
	p.unknownKeys()
	s := Spec{
		Connection:      p.name("connection"),
		VaultAddress:    p.address("vaultAddress"),
		Namespace:       p.path("vaultNamespace"),
		AuthMethod:      p.oneOf("authMethod", "", AuthMethods...),
		AuthMount:       p.authMount(),
		Role:            p.name("roleName"),
		Audience:        p.name("audience"),
		RefreshInterval: p.duration("refreshInterval", MaxRefreshInterval),
		Size:            p.size("size"),
		FilePermission:  p.permission("filePermission"),
		OnExpiry:        OnExpiry(p.oneOf("onExpiry", string(Keep), string(Keep), string(Remove))),
		Objects:         p.objects("objects"),
	}
	if len(p.faults) > 0 {
		return Spec{}, &Faults{List: p.faults}
	}
	return s, nil
}

// AuthMethods are the ways to log in that a volume or a connection may name.
var AuthMethods = []string{"kubernetes", "jwt"}

// parser collects the faults of one request. Its readers return the zero value when a key is absent, empty or wrong: an
// empty value means the default, as everywhere in Kubernetes, because templates of manifests produce them.
type parser struct {
	attrs  map[string]string
	faults []Fault
}

func (p *parser) faultf(key, format string, args ...any) {
	p.faults = append(p.faults, Fault{Key: key, Problem: fmt.Sprintf(format, args...)})
}

// unknownKeys reports every key that Parse does not read, with the reason or the nearest one that it does read.
func (p *parser) unknownKeys() {
	known := names(VolumeKeys())
	for _, key := range slices.Sorted(maps.Keys(p.attrs)) {
		switch {
		case slices.Contains(known, key):
		case refusedKeys[key] != "":
			p.faultf(key, "%s", refusedKeys[key])
		case strings.HasPrefix(key, kubernetesPrefix):
			p.faultf(strictyaml.Name(key), "keys that begin with %s are Kubernetes' own and cannot be set", kubernetesPrefix)
		default:
			p.faultf(strictyaml.Name(key), "%s", strictyaml.Unknown(key, known))
		}
	}
}

const kubernetesPrefix = "csi.storage.k8s.io/"

// authMount reads the auth mount under its name and its older name.
func (p *parser) authMount() string {
	mount, older := p.path("vaultAuthMountPath"), p.path("vaultKubernetesMountPath")
	switch {
	case mount == "":
		mount = older
	case older != "" && older != mount:
		p.faultf("vaultKubernetesMountPath", "is the older name of vaultAuthMountPath and says something else; leave it out")
	}
	if strings.HasPrefix(mount, "auth/") {
		p.faultf("vaultAuthMountPath", `is the path of the mount below "auth/"; leave "auth/" out`)
	}
	return mount
}
