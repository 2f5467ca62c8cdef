// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"regexp"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// Defaults are what applies to all volumes of the node.
type Defaults struct {
	RefreshInterval    time.Duration
	MinRefreshInterval time.Duration
	VolumeSize         int64 // bytes of content
	MaxVolumeSize      int64 // bytes of content
	NodeBudget         int64 // bytes of all tmpfs together; 0: no limit
	FileMode           fs.FileMode
	CredentialGrace    time.Duration
	GenerationGrace    time.Duration
	PublishTimeout     time.Duration
	SELinuxContext     string // "": none
	TokenTransport     string // TokenInSecrets or TokenInVolumeContext
}

// volumeOverhead is what the tmpfs of a volume of one file takes beside twice its content, in bytes.
const volumeOverhead = 72 << 10

// Where the kubelet puts the pods' tokens.
const (
	TokenInSecrets       = "secrets"
	TokenInVolumeContext = "volumeContext"
)

// defaultSettings are the keys of `defaults`: the one list of them.
func defaultSettings() []setting[Defaults] {
	type d = Defaults
	publishTimeout := func(d *d) *time.Duration { return &d.PublishTimeout }
	tokenTransport := func(d *d) *string { return &d.TokenTransport }
	return []setting[d]{
		duration("refreshInterval", func(d *d) *time.Duration { return &d.RefreshInterval }, 5*time.Minute,
			span[time.Duration]{time.Second, attributes.MaxRefreshInterval, ""},
			"How often secrets without a lease are read again, of volumes that do not say."),
		duration("minRefreshInterval", func(d *d) *time.Duration { return &d.MinRefreshInterval }, 10*time.Second,
			span[time.Duration]{time.Second, 24 * time.Hour, ""},
			"The shortest `refreshInterval` that a volume may ask for."),
		size("volumeSize", func(d *d) *int64 { return &d.VolumeSize }, 1<<20, span[int64]{attributes.MinSize, 1 << 30, ""},
			"How much content the files of a volume may have together, of volumes that do not say."),
		size("maxVolumeSize", func(d *d) *int64 { return &d.MaxVolumeSize }, 16<<20, span[int64]{attributes.MinSize, 1 << 30, ""},
			"The largest `size` that a volume may ask for."),
		size("nodeBudget", func(d *d) *int64 { return &d.NodeBudget }, 256<<20, span[int64]{1 << 20, 1 << 40, "no limit"},
			"How much memory the tmpfs of all volumes of the node may take together. A volume counts with twice its size, for two generations, 8Ki a file and 64Ki. Past it new volumes are refused."),
		fileMode(),
		duration("credentialGrace", func(d *d) *time.Duration { return &d.CredentialGrace }, time.Minute,
			span[time.Duration]{time.Second, 24 * time.Hour, "revoke at once"},
			"How long replaced dynamic credentials stay valid, so that the application can change over."),
		duration("generationGrace", func(d *d) *time.Duration { return &d.GenerationGrace }, 10*time.Second,
			span[time.Duration]{time.Second, time.Hour, "remove at once"},
			"How long the files of the generation before stay for a reader that is on its way to them."),
		startOnly(publishTimeout, duration("publishTimeout", publishTimeout, 90*time.Second,
			span[time.Duration]{5 * time.Second, 90 * time.Second, ""},
			"Bound of the first fetch of a volume. The kubelet gives up after two minutes.")),
		text("selinuxContext", func(d *d) *string { return &d.SELinuxContext }, "", checkSELinuxContext,
			"user:role:type:level",
			"SELinux context of all files, such as `system_u:object_r:container_file_t:s0`. Set it on hosts that enforce SELinux, and only there."),
		startOnly(tokenTransport, word("tokenTransport", tokenTransport,
			"Where the kubelet puts the pods' tokens: `secrets` with `serviceAccountTokenInSecrets: true` in the CSIDriver object (Kubernetes 1.35 and later), else `volumeContext`. Only this one place is read.",
			TokenInSecrets, TokenInVolumeContext)),
	}
}

// startOnly marks a setting whose change takes effect only when the daemon starts again.
func startOnly[T any, V comparable](field func(*T) *V, s setting[T]) setting[T] {
	s.Start = true
	s.pin = func(old, next *T) bool {
		if *field(old) == *field(next) {
			return false
		}
		*field(next) = *field(old)
		return true
	}
	return s
}

// fileMode has a default that no mode stands for: it depends on the pod's group.
func fileMode() setting[Defaults] {
	return setting[Defaults]{
		Setting: Setting{
			Key: "fileMode", Default: "`0440` for pods with an fsGroup, else `0444`",
			Bound: attributes.PermissionBound,
			Doc:   "Mode of files whose object and volume set none.",
		},
		init: func(d *Defaults) { d.FileMode = 0 },
		read: func(v strictyaml.Value, d *Defaults) {
			if mode, ok := parsed(v, attributes.ParsePermission); ok {
				d.FileMode = mode
			}
		},
	}
}

// readDefaults reads the section, each key by itself, then what must fit together.
func (c *Config) readDefaults(root strictyaml.Value, sections map[string]strictyaml.Value) {
	d := &c.Defaults
	v, given := sections["defaults"]
	if !given {
		for _, s := range defaultSettings() {
			s.init(d)
		}
		return
	}
	values, ok := readSection(v, defaultSettings(), d)
	if !ok {
		return
	}
	at := func(key string) strictyaml.Value { return place(v, values, key) }
	if d.RefreshInterval < d.MinRefreshInterval {
		at("refreshInterval").Faultf("is %s, shorter than minRefreshInterval (%s)", printDuration(d.RefreshInterval), printDuration(d.MinRefreshInterval))
	}
	if d.VolumeSize > d.MaxVolumeSize {
		at("volumeSize").Faultf("is %s, more than maxVolumeSize (%s)", printSize(d.VolumeSize), printSize(d.MaxVolumeSize))
	}
	if d.NodeBudget > 0 && d.NodeBudget < 2*d.MaxVolumeSize+volumeOverhead {
		at("nodeBudget").Faultf("is %s: a volume of maxVolumeSize (%s) takes twice its size and %s, and would never fit",
			printSize(d.NodeBudget), printSize(d.MaxVolumeSize), printSize(volumeOverhead))
	}
}

var selinuxContext = regexp.MustCompile(`^[A-Za-z0-9_]+:[A-Za-z0-9_]+:[A-Za-z0-9_]+:[A-Za-z0-9_.:,-]+$`)

func checkSELinuxContext(s string) error {
	if s != "" && !selinuxContext.MatchString(s) {
		return errors.New("must be user:role:type:level, such as system_u:object_r:container_file_t:s0")
	}
	return nil
}
