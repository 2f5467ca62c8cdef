// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"strings"
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
	c := exampleConfig(t)
	requests := map[string]int{"pod-kv.yaml": 2, "pod-certificate.yaml": 1, "pod-database.yaml": 1} // to Vault, by pod
	files, err := filepath.Glob(filepath.Join(examples, "pod-*.yaml"))
	if err != nil || len(files) != len(requests) {
		t.Fatalf("%d pods, want %d: %v", len(files), len(requests), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r := resolve(t, c, readText(t, file))
			if got, want := requestsOf(r), requests[filepath.Base(file)]; got != want {
				t.Errorf("%d requests to Vault, want %d", got, want)
			}
		})
	}
}

// So is the pod of the README: three files of secrets, of which two have a second file from the same answer.
func TestThePodOfTheREADMEIsAccepted(t *testing.T) {
	_, rest, _ := strings.Cut(readText(t, "../../README.md"), "```yaml\n")
	text, _, closed := strings.Cut(rest, "```")
	if !closed {
		t.Fatal("the README has no pod")
	}
	r := resolve(t, exampleConfig(t), text)
	if got := requestsOf(r); got != 3 || len(r.Objects) != 5 {
		t.Errorf("%d files from %d requests to Vault, want 5 from 3", len(r.Objects), got)
	}
}

// exampleConfig reads the example of a configuration.
func exampleConfig(t *testing.T) *config.Config {
	t.Helper()
	dir := t.TempDir()
	ca, _ := certificate(t)
	write(t, filepath.Join(dir, "ca.pem"), ca)
	c, err := config.Parse([]byte(readText(t, filepath.Join(examples, "config.yaml"))), dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// requestsOf counts the requests to Vault that a volume makes.
func requestsOf(r config.Resolved) int {
	distinct := map[string]bool{}
	for _, o := range r.Objects {
		distinct[render.RequestOf(o).Key()] = true
	}
	return len(distinct)
}

// resolve reads the manifest of a pod and resolves its first volume.
func resolve(t *testing.T, c *config.Config, text string) config.Resolved {
	t.Helper()
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict([]byte(text), &pod); err != nil {
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
