// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/protobuf/proto"

	"github.com/leasefs/leasefs/pkg/secret"
)

// maxMessage bounds what goes to the kubelet in bytes; an Event on the pod holds 1 KiB of it.
const maxMessage = 4 << 10

// tokenLike matches what nobody writes but a token: JSON Web Tokens and Vault's (hvs., hvb., hvr., and s., b., r. of old).
var tokenLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){0,2}` +
	`|\bhv[sbr]\.[A-Za-z0-9_.-]+` +
	`|\b[sbr]\.[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9]+)?`)

// clean makes a text fit for a gRPC status or a log line: printable UTF-8 on one line, of bounded length, and without
// anything that looks like a token. It is the last of several nets: no error is to hold a secret in the first place.
func clean(text string) string {
	text = tokenLike.ReplaceAllString(strings.ToValidUTF8(text, "?"), secret.Redacted)
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	return text
}

// sanitized is a request as a log line may have it. Nothing is done unless the line is written.
type sanitized struct{ request any }

const stripped = "***stripped***"

// LogValue implements slog.LogValuer. Fields that the CSI specification marks as secret are stripped (protosanitizer);
// of the maps, which it does not mark, only the kubelet's word on who the pod is stays: the volume context may hold
// tokens, and an author's secretArgs may hold anything.
func (s sanitized) LogValue() slog.Value {
	message, ok := s.request.(proto.Message)
	if !ok {
		return slog.StringValue(stripped)
	}
	if publish, ok := message.(*spec.NodePublishVolumeRequest); ok {
		scrubbed := proto.CloneOf(publish)
		scrub(scrubbed.VolumeContext)
		scrub(scrubbed.PublishContext)
		message = scrubbed
	}
	return slog.StringValue(clean(protosanitizer.StripSecrets(message).String()))
}

func scrub(m map[string]string) {
	for key := range maps.Keys(m) {
		if key != keyEphemeral && !slices.Contains(podInfoKeys(), key) {
			m[key] = stripped
		}
	}
}

// podOf is whom a request says it is for, for log lines.
func podOf(req any) string {
	publish, ok := req.(*spec.NodePublishVolumeRequest)
	if !ok {
		return ""
	}
	c := publish.GetVolumeContext()
	return clean(c[keyPodNamespace] + "/" + c[keyPodName])
}
