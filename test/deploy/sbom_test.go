// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"debug/buildinfo"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sbom has the fields of a CycloneDX document that are looked at here.
type sbom struct {
	BOMFormat   string
	SpecVersion string
	Metadata    struct {
		Timestamp string
		Component struct{ Name, Version string }
	}
	Components []struct {
		Name, Version, PURL string
		Evidence            struct {
			Licenses []struct{ License struct{ ID, Name string } }
		}
	}
}

// `make sbom` must name all that is in the program: what the Go linker has put there, nothing missing and nothing more.
func TestSBOMIsWhatIsInTheProgram(t *testing.T) {
	look(t, "../../cmd", "../../pkg", "../../tools/sbom", "../../Makefile")
	bin := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "--no-print-directory", "sbom", "BIN="+bin, "VERSION=v7.8.9")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got sbom
	if err := json.Unmarshal([]byte(read(t, filepath.Join(bin, "leasefs.cdx.json"))), &got); err != nil {
		t.Fatal(err)
	}
	if got.BOMFormat != "CycloneDX" || got.SpecVersion == "" || got.Metadata.Timestamp == "" {
		t.Errorf("format %q, version %q, time %q", got.BOMFormat, got.SpecVersion, got.Metadata.Timestamp)
	}
	if c := got.Metadata.Component; c.Name != "github.com/leasefs/leasefs" || c.Version != "v7.8.9" {
		t.Errorf("it is of %s %s", c.Name, c.Version)
	}

	info, err := buildinfo.ReadFile(filepath.Join(bin, "leasefs"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"std": info.GoVersion}
	for _, m := range info.Deps {
		want[m.Path] = m.Version
	}
	listed := map[string]string{}
	for _, c := range got.Components {
		listed[c.Name] = c.Version
		if c.PURL == "" {
			t.Errorf("%s has no package URL, by which scanners find it", c.Name)
		}
		if licenses := c.Evidence.Licenses; c.Name != "std" && (len(licenses) == 0 || licenses[0].License.ID+licenses[0].License.Name == "") {
			t.Errorf("%s has no licence", c.Name)
		}
	}
	if d := cmp.Diff(want, listed); d != "" {
		t.Errorf("in the program (-), in the SBOM (+):\n%s", d)
	}
	if want["github.com/hashicorp/vault/api"] == "" || len(want) < 20 {
		t.Errorf("the program has %d modules, Vault's client %q among them: is this the driver?", len(want), want["github.com/hashicorp/vault/api"])
	}
}
