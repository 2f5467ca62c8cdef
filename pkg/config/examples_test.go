// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/config"
	"github.com/leasefs/leasefs/pkg/render"
)

const examples = "../../deploy/examples"

// Every example is accepted: the configuration as it stands, and each pod by that configuration.
func TestExamplesAreAccepted(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(examples, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca, _ := certificate(t)
	write(t, filepath.Join(dir, "ca.pem"), ca)
	c, err := config.Parse(text, dir)
	if err != nil {
		t.Fatal(err)
	}
	requests := map[string]int{"pod-kv.yaml": 2, "pod-certificate.yaml": 1, "pod-database.yaml": 1} // to Vault, by pod
	files, err := filepath.Glob(filepath.Join(examples, "pod-*.yaml"))
	if err != nil || len(files) != len(requests) {
		t.Fatalf("%d pods, want %d: %v", len(files), len(requests), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r := resolve(t, c, file)
			distinct := map[string]bool{}
			for _, o := range r.Objects {
				distinct[render.RequestOf(o).Key()] = true
			}
			if want := requests[filepath.Base(file)]; len(distinct) != want {
				t.Errorf("%d requests to Vault, want %d", len(distinct), want)
			}
		})
	}
}

func resolve(t *testing.T, c *config.Config, file string) config.Resolved {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(text, &pod); err != nil {
		t.Fatal(err)
	}
	spec, err := attributes.Parse(pod.Spec.Volumes[0].CSI.VolumeAttributes)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Resolve(spec)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
