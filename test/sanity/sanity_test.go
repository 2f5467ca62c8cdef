// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package sanity

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"

	"github.com/leasefs/leasefs/pkg/mount/mounttest"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

func TestMain(m *testing.M) { mounttest.Main(m) }

// The specs that must have run and passed: all that csi-test 5.6.0 has for the Identity and the Node service, but for
// those of the capabilities that leasefs does not have. A focus that matches nothing, a spec that is skipped for another
// reason, or a new version of the suite with other specs is a failure here.
var wantPassed = []string{
	"Identity Service GetPluginCapabilities should return appropriate capabilities",
	"Identity Service GetPluginInfo should return appropriate information",
	"Identity Service Probe should return appropriate information",
	"Node Service NodeGetCapabilities should return appropriate capabilities",
	"Node Service NodeGetInfo should return appropriate values",
	"Node Service NodeGetVolumeStats should fail when no volume id is provided",
	"Node Service NodeGetVolumeStats should fail when no volume path is provided",
	"Node Service NodeGetVolumeStats should fail when volume does not exist on the specified path",
	"Node Service NodeGetVolumeStats should fail when volume is not found",
	"Node Service NodePublishVolume should fail when no target path is provided",
	"Node Service NodePublishVolume should fail when no volume capability is provided",
	"Node Service NodePublishVolume should fail when no volume id is provided",
	"Node Service NodeUnpublishVolume should fail when no target path is provided",
	"Node Service NodeUnpublishVolume should fail when no volume id is provided",
	"Node Service NodeUnpublishVolume should remove target path",
	"Node Service should be idempotent",
	"Node Service should work",
}

// The reasons for which a spec may be skipped: leasefs does not have the capability that it is about.
var mayBeSkipped = []string{
	"Node Service NodeExpandVolume ",
	"Node Service NodeGetStorageHealth ",
	"Node Service NodeGetVolumeHealth ",
	"Node Service NodePublishVolume with single node multi writer capability ",
	"Node Service NodeStageVolume ",
	"Node Service NodeUnstageVolume ",
}

const repeats = 10 // of each call, where the specification asks for idempotency

func TestSanity(t *testing.T) {
	ctx := t.Context()
	issuer, err := kubelettest.NewIssuer()
	if err != nil {
		t.Fatal(err)
	}
	password := rand.Text()
	vault := startVault(t, issuer, password)
	driver := kubelettest.StartDriver(t, kubelettest.DriverOptions{Config: fmt.Sprintf(`
connections:
- name: default
  address: %s
  authMethod: jwt
`, vault.Addr)})
	client, err := kubelettest.Dial(driver.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })

	play := &player{kubelet: driver.Kubelet(issuer), password: password, attributes: map[string]string{
		"roleName": "sanity",
		"objects":  `[{objectName: db/password, secretPath: secret/data/db, secretKey: password}]`,
	}}
	dir := t.TempDir()
	config := sanity.NewTestConfig()
	config.Address = "unix://" + driver.Socket
	config.DialOptions = append(config.DialOptions, grpc.WithUnaryInterceptor(play.intercept))
	config.ControllerAddress = startController(t, shortDir(t), client.Identity)
	config.TargetPath, config.StagingPath = filepath.Join(dir, "target"), filepath.Join(dir, "staging")
	config.CreateTargetDir, config.RemoveTargetPath, config.CheckPath = play.newPod, play.removePod, checkPath
	config.IdempotentCount = repeats

	passed, skipped := runSuite(t, &config)
	if diff := cmp.Diff(wantPassed, passed); diff != "" {
		t.Errorf("specs that passed, -want +got:\n%s", diff)
	}
	for _, spec := range skipped {
		if !slices.ContainsFunc(mayBeSkipped, func(about string) bool { return strings.HasPrefix(spec, about) }) {
			t.Errorf("skipped: %s", spec)
		}
	}
	published, wrong := play.result()
	if want := repeats + 3; published != want { // the idempotent spec, and three that publish once
		t.Errorf("%d publishes went well, want %d", published, want)
	}
	for _, w := range wrong {
		t.Error(w)
	}
	t.Logf("%d specs passed, %d are about capabilities that the driver does not have; the secret was read after each of %d publishes",
		len(passed), len(skipped), published)
	nothingIsLeft(ctx, t, driver, vault)
}

// runSuite runs the specs of the two services and returns their names, sorted.
func runSuite(t *testing.T, config *sanity.TestConfig) (passed, skipped []string) {
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite := sanity.GinkgoTest(config)
	defer suite.Finalize()
	ginkgo.ReportAfterSuite("names of specs", func(report types.Report) {
		for _, spec := range report.SpecReports {
			focused := strings.HasPrefix(spec.FullText(), "Identity Service") || strings.HasPrefix(spec.FullText(), "Node Service")
			switch {
			case spec.LeafNodeType != types.NodeTypeIt || !focused:
			case spec.State == types.SpecStatePassed:
				passed = append(passed, spec.FullText())
			case spec.State == types.SpecStateSkipped:
				skipped = append(skipped, spec.FullText())
			}
		}
	})
	suiteConfig, reporterConfig := ginkgo.GinkgoConfiguration()
	suiteConfig.FocusStrings = []string{" Identity Service ", " Node Service "} // the name of the suite stands before them
	suiteConfig.FailOnEmpty = true
	reporterConfig.NoColor, reporterConfig.Succinct = true, true
	ginkgo.RunSpecs(t, "csi-sanity", suiteConfig, reporterConfig)
	slices.Sort(passed)
	slices.Sort(skipped)
	return passed, skipped
}

// startVault runs a Vault in which pods of the service account sanity/sanity may read one secret.
func startVault(t *testing.T, issuer *kubelettest.Issuer, password string) *vaulttest.Server {
	t.Helper()
	ctx := t.Context()
	vault := vaulttest.Start(t)
	for _, err := range []error{
		vault.WriteKV2(ctx, "secret", "db", map[string]any{"password": password}),
		vault.Policy(ctx, "sanity", `path "secret/data/db" { capabilities = ["read"] }`),
		vault.EnableJWT(ctx, "jwt", issuer.PublicPEM()),
		vault.JWTRole(ctx, "jwt", "sanity", vaulttest.Role{
			Namespaces: []string{"sanity"}, ServiceAccounts: []string{"sanity"}, Policies: []string{"sanity"}, TTL: time.Hour,
		}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return vault
}

// nothingIsLeft: every volume was unpublished, so no mount is left on the node and no token in Vault.
func nothingIsLeft(ctx context.Context, t *testing.T, driver *kubelettest.Driver, vault *vaulttest.Server) {
	t.Helper()
	if mounts := mounttest.Mounts(t, filepath.Join(driver.KubeletDir, "pods")); len(mounts) > 0 {
		t.Errorf("mounts are left: %v", mounts)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := vault.AwaitEmpty(ctx); err != nil {
		t.Error(err)
	}
}

// shortDir is a folder with a name short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sanity") //nolint:usetesting // its folder has the name of the test in its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
