// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/secret"
)

func TestNothingLikeATokenIsLeftInATakenOverText(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	jwt := b64([]byte(`{"alg":"RS256","kid":"x"}`)) + "." + b64([]byte(`{"sub":"system:serviceaccount:shop:web"}`)) + "." + b64([]byte("signature-bytes"))
	for name, token := range map[string]string{
		"pod token":             jwt,
		"pod token cut":         jwt[:len(jwt)/2],
		"service token":         "hvs.CAESIJRM-x_8rL4Zk0Qw3",
		"batch token":           "hvb.AAAAAQJ_9x-8rL4Zk0Qw3",
		"recovery token":        "hvr.CAESIJRM_8rL4Zk0Qw3",
		"old service token":     "s.Kd8f7sJ2lq9ZxT1mWc4Yb6Nv",
		"old batch token":       "b.AAAAAQKd8f7sJ2lq9ZxT1mWc4Yb6Nv",
		"old token, namespaced": "s.Kd8f7sJ2lq9ZxT1mWc4Yb6Nv.nsid1",
	} {
		for form, text := range map[string]string{
			"alone":     token,
			"quoted":    `invalid token "` + token + `" given`,
			"in a URL":  "https://x/?jwt=" + token + "&y",
			"in JSON":   `{"jwt":"` + token + `"}`,
			"with line": "error:\n\t* " + token + "\n",
		} {
			if got := clean(text); strings.Contains(got, token) || strings.Contains(got, token[4:]) {
				t.Errorf("%s, %s: left as %q", name, form, got)
			}
		}
	}
}

func TestOtherTextsAreTakenOverAsTheyAre(t *testing.T) {
	for _, text := range []string{
		"permission denied",
		`service account name not authorized`,
		`role "app" could not be found`,
		"https://vault.example.com:8200 is sealed",
		"pods.example is bad",
	} {
		if got := clean(text); got != text {
			t.Errorf("clean(%q) = %q", text, got)
		}
	}
}

func TestPasswordOfAURLIsRedacted(t *testing.T) {
	got := clean("dial postgres://vault:s3cr3t-pw@db:5432/x failed")
	if strings.Contains(got, "s3cr3t-pw") || !strings.Contains(got, "db:5432") {
		t.Fatalf("got %q", got)
	}
}

func TestVaultsPackedErrorsAreTakenApart(t *testing.T) {
	got := messages([]string{"2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"})
	if len(got) != 2 || got[0] != "permission denied" || got[1] != "invalid token" {
		t.Fatalf("got %q", got)
	}
	got = messages([]string{"failed to renew entry: err: 1 error occurred:\n\t* connection refused\n\n"})
	if len(got) != 2 || got[0] != "failed to renew entry: err:" || got[1] != "connection refused" {
		t.Fatalf("got %q", got)
	}
	if got := messages([]string{strings.Repeat("x\n", 100)}); len(got) != maxMessages+1 {
		t.Fatalf("%d messages were taken over", len(got))
	}
}

// The session's own token is stripped whatever it looks like and wherever it stands, also across the cut.
func TestOwnTokenIsStrippedWhereverItStands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.StringMatching(`[!-~]{8,40}`).Draw(t, "token")
		text := rapid.StringN(0, 400, -1).Draw(t, "before") + token + rapid.String().Draw(t, "after")
		got := clean(text, secret.New(token))
		if strings.Contains(got, token) {
			t.Fatalf("left in %q", got)
		}
		if !utf8.ValidString(got) && utf8.ValidString(text) || len(got) > maxMessageLen+3 {
			t.Fatalf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	})
}
