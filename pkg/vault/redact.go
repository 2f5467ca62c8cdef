// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/leasefs/leasefs/pkg/secret"
)

// Bounds of what is taken over from an answer into an error.
const (
	maxMessages   = 5
	maxMessageLen = 300 // in bytes
)

// tokenLike matches what looks like a credential: JSON Web Tokens, Vault's tokens of today (hvs., hvb., hvr.) and of old
// (s., b., r.), and the password of a URL.
var tokenLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){0,2}` +
	`|\bhv[sbr]\.[A-Za-z0-9_.-]+` +
	`|\b[sbr]\.[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9]+)?` +
	`|://[^\s/@:]*:[^\s/@]+@`)

// clean makes a text of another's fit for an error: one line, nothing like a token in it, none of the given secrets,
// of limited length.
func clean(text string, secrets ...secret.Value) string {
	for _, s := range secrets {
		// What is shorter is no token but a word that may stand in any text.
		if v := s.Reveal(); len(v) >= 8 {
			text = strings.ReplaceAll(text, v, secret.Redacted)
		}
	}
	text = tokenLike.ReplaceAllStringFunc(text, func(m string) string {
		if strings.HasPrefix(m, "://") {
			return "://" + secret.Redacted + "@"
		}
		return secret.Redacted
	})
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if len(text) > maxMessageLen {
		// Cut after redaction, so that no half of a token is left that nothing matches.
		text = strings.ToValidUTF8(text[:maxMessageLen], "") + "..."
	}
	return text
}

// countOfErrors is how a packed list of errors begins, alone or after what failed.
var countOfErrors = regexp.MustCompile(`(?:^|\s*)\d+ errors? occurred:$`)

// messages takes Vault's list of errors apart, as it packs several into one text ("2 errors occurred:\n\t* ...").
func messages(texts []string, secrets ...secret.Value) []string {
	var out []string
	for _, text := range texts {
		for _, line := range strings.Split(text, "\n") {
			line = strings.TrimPrefix(strings.TrimSpace(line), "* ")
			if line = countOfErrors.ReplaceAllString(line, ""); line == "" {
				continue
			}
			if len(out) == maxMessages {
				return append(out, "...")
			}
			out = append(out, clean(line, secrets...))
		}
	}
	return out
}
