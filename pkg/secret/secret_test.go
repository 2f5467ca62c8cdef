// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/leasefs/leasefs/pkg/secret"
)

const canary = "hvs.canary-7c1e"

// Every sink in which a value could be printed, with the content that must not be in it.
func TestValueNeverPrintsItsContent(t *testing.T) {
	type holder struct {
		Token  secret.Value
		Ptr    *secret.Value
		hidden secret.Value
	}
	v := secret.New(canary)
	h := holder{Token: v, Ptr: &v, hidden: v}

	sinks := map[string]func() string{
		"%v":           func() string { return fmt.Sprintf("%v", v) },
		"%+v":          func() string { return fmt.Sprintf("%+v", v) },
		"%#v":          func() string { return fmt.Sprintf("%#v", v) },
		"%s":           func() string { return fmt.Sprintf("%s", v) },
		"%q":           func() string { return fmt.Sprintf("%q", v) },
		"%x":           func() string { return fmt.Sprintf("%x", v) },
		"%d":           func() string { return fmt.Sprintf("%d", v) },
		"struct %+v":   func() string { return fmt.Sprintf("%+v", h) },
		"struct %#v":   func() string { return fmt.Sprintf("%#v", holder{Token: v}) },
		"map":          func() string { return fmt.Sprint(map[string]secret.Value{"a": v}) },
		"print":        func() string { return fmt.Sprint(v) },
		"error":        func() string { return fmt.Errorf("login with %v: %w", v, errors.New("no")).Error() },
		"json":         func() string { return string(must(json.Marshal(h))) },
		"json map key": func() string { return string(must(json.Marshal(map[secret.Value]int{v: 1}))) },
		"yaml":         func() string { return string(must(yaml.Marshal(h))) },
		"slog text": func() string {
			return logged(t, func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }, v, h)
		},
		"slog json": func() string {
			return logged(t, func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }, v, h)
		},
		"string method": func() string { return v.String() },
	}
	for name, print := range sinks {
		t.Run(name, func(t *testing.T) {
			out := print()
			if strings.Contains(out, canary) || strings.Contains(out, fmt.Sprintf("%x", canary)) {
				t.Fatalf("content leaked: %s", out)
			}
			if !strings.Contains(out, secret.Redacted) {
				t.Fatalf("want %s in the output, got %s", secret.Redacted, out)
			}
		})
	}
}

func TestRevealReturnsTheContent(t *testing.T) {
	if got := secret.New(canary).Reveal(); got != canary {
		t.Fatalf("Reveal() = %q", got)
	}
	if !(secret.Value{}).IsZero() || secret.New("x").IsZero() {
		t.Fatal("IsZero must tell whether there is content")
	}
}

func TestEqualComparesContents(t *testing.T) {
	if !secret.New(canary).Equal(secret.New(canary)) || secret.New(canary).Equal(secret.New("other")) || !(secret.Value{}).Equal(secret.New("")) {
		t.Fatal("Equal must compare contents")
	}
}

func logged(t *testing.T, handler func(*bytes.Buffer) slog.Handler, args ...any) string {
	t.Helper()
	var b bytes.Buffer
	slog.New(handler(&b)).Info("message", "value", args[0], "struct", args[1])
	return b.String()
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
