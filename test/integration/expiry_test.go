// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"crypto/tls"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/admin"
	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/test/harness/kubelettest"
	"github.com/leasefs/leasefs/test/harness/vaulttest"
)

func TestFilesThatExpireWhileVaultIsAwayAreRemovedAndComeBack(t *testing.T) {
	t.Parallel()
	w, v := worldWithCertificate(t, attributes.Remove)
	ok(t, w.vault.Pause())
	ends := w.certificate(v).Leaf.NotAfter
	w.eventually(soon, "the certificate's files are gone", func() bool {
		return slices.Equal(w.fileNames(v), []string{"greeting"})
	})
	w.wantSaidInTime(ends)
	w.wantSaidToBeExpired(v)
	w.publish(v) // the kubelet's next round
	if got := w.fileNames(v); !slices.Equal(got, []string{"greeting"}) {
		t.Errorf("after a republish there are %q", got)
	}
	w.wantRecovery(v)
}

func TestFilesThatExpireWhileVaultIsAwayStayWhenTheAuthorWantsThatAndAreReplaced(t *testing.T) {
	t.Parallel()
	w, v := worldWithCertificate(t, attributes.Keep)
	ok(t, w.vault.Pause())
	before := w.certificate(v)
	w.eventually(soon, "the volume is said to be expired", func() bool { return w.expiredVolumes() == "1" })
	w.wantSaidInTime(before.Leaf.NotAfter)
	w.wantSaidToBeExpired(v)
	w.publish(v) // the kubelet's next round
	if got := w.certificate(v); !got.Leaf.Equal(before.Leaf) {
		t.Error("the expired certificate was not kept")
	}
	w.wantRecovery(v)
}

// wantSaidInTime checks that it is now the moment of an end, or shortly after it. Vault takes requests all the while and answers
// none, and a request may wait ten seconds for an answer: nobody must wait as long for the truth.
func (w *world) wantSaidInTime(ends time.Time) {
	w.Helper()
	if late := time.Since(ends); late < 0 || late > 2*time.Second {
		w.Errorf("it was said to have expired %v after its end", late)
	} else {
		w.Logf("said within %v of its end", late)
	}
}

// worldWithCertificate is a node with a published volume that holds a plain value and a certificate of 6 s.
func worldWithCertificate(t *testing.T, onExpiry attributes.OnExpiry) (*world, kubelettest.Volume) {
	t.Helper()
	w := newWorld(t, options{})
	w.greet("hello")
	ok(t, w.vault.EnablePKI(t.Context(), "pki"))
	ok(t, w.vault.PKIRole(t.Context(), "pki", "web", vaulttest.PKIRole{TTL: 6 * time.Second}))
	issue := "secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: web.example.com}"
	v := volume("web-0", greeting, "{objectName: tls.crt, "+issue+", secretKey: certificate}",
		"{objectName: tls.key, "+issue+", secretKey: private_key}")
	v.Attributes["onExpiry"] = string(onExpiry)
	w.publish(v)
	if got := w.expiredVolumes(); got != "0" {
		t.Fatalf("%s volumes are expired from the start", got)
	}
	return w, v
}

// certificate is the pair in the volume's files; its key must match.
func (w *world) certificate(v kubelettest.Volume) tls.Certificate {
	w.Helper()
	files := w.generation(v, "tls.crt", "tls.key")
	pair, err := tls.X509KeyPair([]byte(files[0]), []byte(files[1]))
	ok(w, err)
	return pair
}

// fileNames is what a pod sees in its volume, without the links and directories that begin with "..".
func (w *world) fileNames(v kubelettest.Volume) []string {
	w.Helper()
	entries, err := os.ReadDir(w.target(v))
	ok(w, err)
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") {
			names = append(names, e.Name())
		}
	}
	return names
}

// expiredVolumes is the value of the metric.
func (w *world) expiredVolumes() string {
	w.Helper()
	metrics, err := w.driver.Metrics(w.Context())
	ok(w, err)
	_, rest, found := strings.Cut(metrics, "\nleasefs_volumes_expired ")
	value, _, whole := strings.Cut(rest, "\n")
	if !found || !whole {
		w.Fatalf("no leasefs_volumes_expired in\n%s", metrics)
	}
	return value
}

// volumes is what `leasefs volumes -o json` lists.
func (w *world) volumes() []admin.Volume {
	w.Helper()
	out, err := w.driver.Command(w.Context(), "volumes", "-o", "json").Output()
	ok(w, err)
	var list admin.List
	ok(w, json.Unmarshal(out, &list))
	return list.Volumes
}

// wantSaidToBeExpired checks that whoever looks is told that v's certificate has expired, and nothing else: in the metrics, by
// `leasefs volumes`, in the log and in the audit log, there once.
func (w *world) wantSaidToBeExpired(v kubelettest.Volume) {
	w.Helper()
	w.eventually(soon, "the metric of expired volumes is 1", func() bool { return w.expiredVolumes() == "1" })
	if all := w.volumes(); len(all) != 1 || !all[0].Expired || all[0].LastError == "" {
		w.Errorf("leasefs volumes -o json: %+v", all)
	}
	table, err := w.driver.Command(w.Context(), "volumes").Output()
	ok(w, err)
	if !strings.Contains(string(table), v.Pod.Name) || !strings.Contains(string(table), "expired") {
		w.Errorf("leasefs volumes:\n%s", table)
	}
	var lines []string
	for line := range strings.Lines(w.driver.Log()) {
		if strings.Contains(line, "Secret has expired and could not be replaced") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "ERROR") || !strings.Contains(lines[0], "pki/issue/web") {
		w.Errorf("the log says it %d times: %q", len(lines), lines)
	}
	audit, err := w.driver.Audit()
	ok(w, err)
	if expired := audit.Of(rotation.AuditExpire); len(expired) != 1 || expired[0].Path != "pki/issue/web" {
		w.Errorf("the audit log says it %d times: %+v", len(expired), expired)
	}
}

// wantRecovery checks that the value that does not expire was there all the time, and that Vault's return puts everything right.
func (w *world) wantRecovery(v kubelettest.Volume) {
	w.Helper()
	if got := w.file(v, "greeting"); got != "hello" {
		w.Errorf("the value that does not expire is %q", got)
	}
	ok(w, w.vault.Resume())
	w.wantValidCertificate(v)
	w.unpublish(v)
	w.wantNothingLeft()
}

// wantValidCertificate waits for all files of v, with a certificate that is valid, and that nothing calls expired any more.
func (w *world) wantValidCertificate(v kubelettest.Volume) {
	w.Helper()
	w.eventually(soon, "a valid certificate and nothing that is expired", func() bool {
		return slices.Equal(w.fileNames(v), []string{"greeting", "tls.crt", "tls.key"}) &&
			time.Now().Before(w.certificate(v).Leaf.NotAfter) && w.expiredVolumes() == "0"
	})
	if all := w.volumes(); len(all) != 1 || all[0].Expired {
		w.Errorf("leasefs volumes -o json: %+v", all)
	}
}
