// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

func TestAPanicLeavesTheProcessAliveAndTellsNoSecret(t *testing.T) {
	const canary = "hunter22-canary"
	panics := map[string]func(){
		"with a secret":          func() { panic(canary) },
		"with an error":          func() { panic(errors.New(canary)) },
		"of the runtime":         func() { _ = []string{canary}[len(canary)] },
		"with a nil dereference": func() { var v *volumes; _ = v.unmounted },
	}
	for name, do := range panics {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, nil)
			e.volumes.publish = func(context.Context, rotation.Request) error { do(); return nil }
			_, err := e.node.NodePublishVolume(t.Context(), publishRequest(t))
			if status.Code(err) != codes.Internal {
				t.Fatalf("got %v, want Internal", err)
			}
			text := e.logs.String()
			assertNone(t, "message or log", err.Error()+text, canary)
			if !strings.Contains(text, "a call panicked") || !strings.Contains(text, "intercept_test.go:") || !strings.Contains(text, "NodePublishVolume") {
				t.Errorf("the log does not say where:\n%s", text)
			}
			if strings.Contains(text, "0x") {
				t.Errorf("the log has arguments or addresses:\n%s", text)
			}
			e.volumes.mu.Lock()
			e.volumes.publish = nil
			e.volumes.mu.Unlock()
			if _, err := e.node.NodePublishVolume(t.Context(), publishRequest(t)); err != nil {
				t.Errorf("the next call: %v", err)
			}
			if got := e.observed.taken(); !slices.Equal(got, []string{"NodePublishVolume Internal", "NodePublishVolume OK"}) {
				t.Errorf("observed %v", got)
			}
		})
	}
}

func TestOthersAreServedWhileOneCallPanics(t *testing.T) {
	e := newEdge(t, nil)
	e.volumes.publish = func(_ context.Context, r rotation.Request) error {
		if strings.HasSuffix(r.VolumeID, "0") {
			panic("x")
		}
		return nil
	}
	var wg sync.WaitGroup
	failed := make([]error, 40)
	for i := range failed {
		req := publishRequest(t)
		req.VolumeId += string(rune('0' + i%10))
		wg.Go(func() { _, failed[i] = e.node.NodePublishVolume(t.Context(), req) })
	}
	wg.Wait()
	for i, err := range failed {
		if want := map[bool]codes.Code{true: codes.Internal, false: codes.OK}[i%10 == 0]; status.Code(err) != want {
			t.Errorf("call %d: %v, want %s", i, err, want)
		}
	}
}

func TestCallsAreBoundedInTime(t *testing.T) {
	untilOver := func(ctx context.Context, _ rotation.Request) error { <-ctx.Done(); return ctx.Err() }
	bounds := map[string]func(*Options, *config){
		"by the server":        func(o *Options, _ *config) { o.CallTimeout = 20 * time.Millisecond },
		"by the configuration": func(_ *Options, c *config) { c.change(func(s *Settings) { s.PublishTimeout = 20 * time.Millisecond }) },
	}
	for name, bound := range bounds {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, func(o *Options) { bound(o, o.Configuration.(*config)) })
			e.volumes.publish = untilOver
			_, err := e.node.NodePublishVolume(t.Context(), publishRequest(t))
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v, want DeadlineExceeded", err)
			}
		})
	}
	t.Run("by default below the kubelet's two minutes", func(t *testing.T) {
		e := newEdge(t, nil)
		left := make(chan time.Duration, 1)
		e.volumes.publish = func(ctx context.Context, _ rotation.Request) error {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			return nil
		}
		if _, err := e.node.NodePublishVolume(t.Context(), publishRequest(t)); err != nil {
			t.Fatal(err)
		}
		if got := <-left; got < 85*time.Second || got > 90*time.Second {
			t.Errorf("a publish has %s, want 90s", got)
		}
	})
}

// Canaries stand in every place of a request where a secret could be, at the highest verbosity, on every way out.
func TestNoSecretReachesLogOrMessage(t *testing.T) {
	const hidden = "canary-password-0001"
	vaultToken := "hvs.CAESIJ" + strings.Repeat("x1", 40)
	outcomes := map[string]func(context.Context, rotation.Request) error{
		"published": func(context.Context, rotation.Request) error { return nil },
		"an error that quotes the pod's token": func(_ context.Context, r rotation.Request) error {
			return errors.New("post https://vault: " + r.Token.JWT.Reveal())
		},
		"an error that quotes a vault token": func(context.Context, rotation.Request) error {
			return &vault.Error{Op: vault.OpRead, Class: vault.Denied, Messages: []string{"bad token " + vaultToken}}
		},
		"an error that prints the request": func(_ context.Context, r rotation.Request) error {
			return errors.New(strings.Join([]string{r.Token.JWT.String(), r.VolumeID}, " "))
		},
		"a panic with the token": func(_ context.Context, r rotation.Request) error { panic(r.Token.JWT.Reveal()) },
	}
	for name, outcome := range outcomes {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, nil)
			e.volumes.publish = outcome
			req := publishRequest(t)
			req.VolumeContext["objects"] = `[{objectName: a, secretPath: transit/encrypt/k, method: PUT, secretArgs: {plaintext: "` + hidden + `"}}]`
			token := tokenOf(t, req)
			_, err := e.node.NodePublishVolume(t.Context(), req)
			message := status.Convert(err).Message()

			refused := publishRequest(t)
			refused.VolumeId = "another"
			refused.VolumeContext[keyTokens] = req.Secrets[keyTokens]
			refused.VolumeContext["unknown"] = hidden
			refused.VolumeContext["vaultCAPem"] = hidden
			refused.PublishContext = map[string]string{"x": hidden}
			refused.Secrets["password"] = hidden
			_, err = e.node.NodePublishVolume(t.Context(), refused)
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("got %v", err)
			}
			text := message + status.Convert(err).Message() + e.logs.String()
			parts := strings.Split(token, ".")
			assertNone(t, "log or message", text, hidden, vaultToken, token, parts[1], parts[2], tokenOf(t, refused))
			if !strings.Contains(e.logs.String(), `"request":`) || !strings.Contains(e.logs.String(), stripped) {
				t.Error("requests are not logged at all, so this shows nothing")
			}
		})
	}
}

func TestLogLineOfACall(t *testing.T) {
	level := new(slog.LevelVar)
	logs := newLogs()
	e := newEdge(t, func(o *Options) {
		o.Logger = slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: level}))
	})
	req := publishRequest(t)
	if _, err := e.node.NodePublishVolume(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if logs.String() != "" {
		t.Errorf("a call that went well is logged at info:\n%s", logs)
	}
	e.volumes.publish = func(context.Context, rotation.Request) error { return rotation.ErrStopped }
	req.VolumeId = "other"
	_, err := e.node.NodePublishVolume(t.Context(), req)
	if status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(logs.String()), &line); err != nil {
		t.Fatalf("want one line, got %q: %v", logs, err)
	}
	for key, want := range map[string]any{
		"level": "WARN", "msg": "call of the kubelet", "operation": "NodePublishVolume", "volume": "other", "target": target,
		"pod": "shop/web-0", "code": "Unavailable", "error": rotation.ErrStopped.Error(),
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
	if _, there := line["request"]; there {
		t.Error("the request is logged at info")
	}
}

// A name that a pod's author chose must not forge a second log line or break the encoding of a status.
func TestClean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.Byte()).Draw(t, "text")
		got := clean(string(text))
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x00\x1b\u2028") || len(got) > maxMessage+3 {
			t.Fatalf("clean(%q) = %q", text, got)
		}
	})
	for in, want := range map[string]string{
		"role web: denied":                                 "role web: denied",
		"a\nb\tc\x1b[31m":                                  "a b c[31m",
		"token hvs.CAESIJabc-def_ghi is bad":               "token [redacted] is bad",
		"s.abcdefghijklmnopqrstuvwx":                       "[redacted]",
		"jwt eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln, x": "jwt [redacted], x",
		"secret.data.db and pods.name":                     "secret.data.db and pods.name",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := clean(strings.Repeat("é", maxMessage)); len(got) > maxMessage+3 || !utf8.ValidString(got) {
		t.Errorf("%d bytes", len(got))
	}
}

func TestSanitizedRequest(t *testing.T) {
	req := publishRequest(t)
	text := sanitized{req}.LogValue().String()
	for _, want := range []string{req.VolumeId, target, "web-0", podUID, "1000680000", `"roleName":"***stripped***"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	if req.VolumeContext["roleName"] != "web" || tokenOf(t, req) == "" {
		t.Error("sanitizing changed the request")
	}
	if got := (sanitized{struct{ Password string }{"x"}}).LogValue().String(); got != stripped {
		t.Errorf("something that is no message is logged as %s", got)
	}
}

func TestHandlersWithoutInterceptor(t *testing.T) {
	n := &node{volumes: &volumes{usage: func() (mount.Usage, error) { return mount.Usage{}, nil }},
		config: &config{s: Settings{Tokens: TokensInSecrets, Resolve: resolve}}, specs: newSpecs(), log: newLogs().logger(0)}
	if _, err := n.NodePublishVolume(t.Context(), publishRequest(t)); err != nil {
		t.Fatal(err)
	}
}
