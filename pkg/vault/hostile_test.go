// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

// calls are all operations, each as one call.
func calls(c *vault.Client) map[vault.Op]func(context.Context) error {
	return map[vault.Op]func(context.Context) error{
		vault.OpLogin:         func(ctx context.Context) error { _, err := c.Login(ctx, login); return err },
		vault.OpRenewSession:  func(ctx context.Context) error { _, err := c.RenewSession(ctx, session); return err },
		vault.OpLookupSession: func(ctx context.Context) error { _, err := c.LookupSession(ctx, session); return err },
		vault.OpRevokeSession: func(ctx context.Context) error { return c.RevokeSession(ctx, session) },
		vault.OpRead:          func(ctx context.Context) error { _, err := c.Read(ctx, session, app, vault.ReadOptions{}); return err },
		vault.OpRenewLease:    func(ctx context.Context) error { _, err := c.RenewLease(ctx, session, "db/creds/x/1", 0); return err },
		vault.OpLookupLease:   func(ctx context.Context) error { _, err := c.LookupLease(ctx, session, "db/creds/x/1"); return err },
		vault.OpRevokeLease:   func(ctx context.Context) error { return c.RevokeLease(ctx, session, "db/creds/x/1") },
	}
}

// tap is a server that counts every byte that anybody sends to it.
func tap(t *testing.T) (address string, received *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received = &atomic.Int64{}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer func() { _ = conn.Close() }()
				n, _ := io.Copy(io.Discard, conn)
				received.Add(n + 1)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wait.Wait() })
	return "http://" + l.Addr().String(), received
}

// The stock client sends token and pod token after any redirect, to any host.
func TestRedirectToAForeignHostGetsNoByte(t *testing.T) {
	foreign, received := tap(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, foreign+r.URL.Path, status) })
		for op := range calls(nil) {
			t.Run(fmt.Sprint(status, " ", op), func(t *testing.T) {
				e := wantClass(t, calls(connect(t, s.URL))[op](t.Context()), vault.Transient)
				if !strings.Contains(e.Error(), foreign) {
					t.Errorf("the text does not name the address to allow: %v", e)
				}
			})
		}
	}
	if n := received.Load(); n != 0 {
		t.Errorf("the foreign host was sent %d bytes", n)
	}
}

func TestRedirectIsNotFollowedWhereItLooksAllowedButIsNot(t *testing.T) {
	foreign, received := tap(t)
	port := foreign[strings.LastIndex(foreign, ":"):]
	for name, location := range map[string]string{
		"another port":     foreign,
		"scheme-relative":  "//127.0.0.1" + port + "/v1/x",
		"user":             "http://127.0.0.1@127.0.0.1" + port + "/v1/x",
		"https":            "https://127.0.0.1" + port + "/v1/x",
		"other scheme":     "gopher://127.0.0.1" + port + "/v1/x",
		"no location":      "",
		"broken location":  "http://[::1",
		"metadata service": "http://169.254.169.254/latest",
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(307)
			})
			_, err := connect(t, s.URL).Login(t.Context(), login)
			wantClass(t, err, vault.Transient)
		})
	}
	if n := received.Load(); n != 0 {
		t.Errorf("the foreign host was sent %d bytes", n)
	}
}

func TestRedirectOfAStandbyToItsAllowedLeaderKeepsMethodBodyAndToken(t *testing.T) {
	type seen struct{ method, path, body, token, namespace string }
	var got seen
	leader := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.URL.RequestURI(), string(body), r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace")}
		answer(200, kv2)(w, r)
	})
	for _, status := range []int{301, 302, 307, 308} {
		standby := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, leader.URL+r.URL.RequestURI(), status)
		})
		c := connect(t, standby.URL, func(cfg *vault.Config) { cfg.AllowedRedirects = []string{leader.URL + "/"} })
		_, err := c.Read(t.Context(), vault.Auth{Namespace: "team", Token: secret.New(token)},
			vault.Request{Path: "pki/issue/web", Method: "PUT", Args: map[string]any{"common_name": "a"}}, vault.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := seen{"PUT", "/v1/pki/issue/web", `{"common_name":"a"}`, token, "team"}
		if got != want {
			t.Errorf("%d: the leader saw %+v, want %+v", status, got, want)
		}
	}
}

func TestRedirectsInACircleEnd(t *testing.T) {
	var n atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	})
	_, err := connect(t, s.URL).Login(t.Context(), login)
	wantClass(t, err, vault.Transient)
	if n.Load() > 3 {
		t.Errorf("%d requests were made", n.Load())
	}
}

// The stock client took 2.4 GB for this answer.
func TestAnswerOf300MiBTakesBoundedMemory(t *testing.T) {
	const size = 300 << 20
	chunk := []byte(strings.Repeat("x", 1<<20))
	for _, status := range []int{200, 400, 500} {
		for name, announced := range map[string]bool{"announced": true, "chunked": false} {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				var sent atomic.Int64
				s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					if announced {
						w.Header().Set("Content-Length", fmt.Sprint(size))
					}
					w.WriteHeader(status)
					for range size / len(chunk) {
						n, err := w.Write(chunk)
						sent.Add(int64(n))
						if err != nil {
							return
						}
					}
				})
				c := connect(t, s.URL)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, err := c.Read(t.Context(), session, app, vault.ReadOptions{})
				runtime.ReadMemStats(&after)
				wantClass(t, err, vault.BadResponse)
				// All that was ever allocated meanwhile, by the server too: growing a buffer to 4 MiB takes less than 16.
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 20<<20 {
					t.Errorf("%d MiB were allocated for an answer capped at 4", grown>>20)
				}
				if n := sent.Load(); n > 32<<20 {
					t.Errorf("%d MiB of it were read", n>>20)
				}
			})
		}
	}
}

func TestAnswerJustWithinTheCapIsTaken(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"announced": answer(200, kv2),
		"chunked": func(w http.ResponseWriter, _ *http.Request) {
			for i := range len(kv2) {
				_, _ = io.WriteString(w, kv2[i:i+1])
				w.(http.Flusher).Flush()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, h)
			limited := func(limit int) error {
				c := connect(t, s.URL, func(cfg *vault.Config) { cfg.MaxResponseBytes = int64(limit) })
				_, err := c.Read(t.Context(), session, app, vault.ReadOptions{})
				return err
			}
			for _, more := range []int{0, 1, 1000} {
				if err := limited(len(kv2) + more); err != nil {
					t.Errorf("%d bytes more than it has: %v", more, err)
				}
			}
			for _, less := range []int{1, 2, 100} {
				wantClass(t, limited(len(kv2)-less), vault.BadResponse)
			}
		})
	}
}

// What is small on the wire may be large in memory.
func TestAnswerThatGrowsWhenDecodedIsRefusedBeforeItGrows(t *testing.T) {
	for name, body := range map[string]string{
		"a million keys":    `{"data":{` + strings.Repeat(`"k":1,`, 500_000) + `"k":1}}`,
		"a million numbers": `{"data":{"a":[` + strings.Repeat("1,", 1_000_000) + `1]}}`,
		"deep":              `{"data":` + strings.Repeat(`{"a":`, 400_000),
		"deep, closed":      `{"data":{"a":` + strings.Repeat(`[`, 9_000) + strings.Repeat(`]`, 9_000) + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer(200, body))
			c := connect(t, s.URL)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Read(t.Context(), session, app, vault.ReadOptions{})
			runtime.ReadMemStats(&after)
			wantClass(t, err, vault.BadResponse)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 24<<20 {
				t.Errorf("%d MiB were allocated for it", grown>>20)
			}
		})
	}
}

// drip writes a byte now and then until the client goes away.
func drip(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, `{"data":{"a":"`)
	for {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(5 * time.Millisecond):
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

func TestSlowAnswersEndWithTheRequestTimeout(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"nothing":    func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() },
		"slow drip":  drip,
		"after head": func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, h)
			for op := range calls(nil) {
				obs := &events{}
				c := observe(t, s.URL, obs, func(cfg *vault.Config) { cfg.RequestTimeout = 50 * time.Millisecond })
				start := time.Now()
				err := calls(c)[op](t.Context())
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("%s took %v", op, took)
				}
				wantClass(t, err, vault.Transient)
				if errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: the client's own timeout looks like the caller's deadline", op)
				}
				if obs.count("main "+string(op)+" timeout") != 1 {
					t.Errorf("observed %q", obs.all())
				}
			}
		})
	}
}

func TestCallerWhoGivesUpIsLetGoAtOnce(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() })
	for op := range calls(nil) {
		obs := &events{}
		c := observe(t, s.URL, obs, func(cfg *vault.Config) { cfg.RequestTimeout = 20 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		start := time.Now()
		err := calls(c)[op](ctx)
		cancel()
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: let go after %v", op, took)
		}
		wantClass(t, err, vault.Transient)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the caller's deadline is not in %v", op, err)
		}
	}
}

// hijack takes the connection over, says something and breaks it off.
func hijack(say string, reset bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, say)
		if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
}

func TestBrokenAnswersAreNeverTakenInPart(t *testing.T) {
	half := kv2[:len(kv2)/2]
	for name, h := range map[string]http.HandlerFunc{
		"reset at once":         hijack("", true),
		"closed at once":        hijack("", false),
		"closed in the head":    hijack("HTTP/1.1 200 OK\r\nContent-Le", false),
		"reset in the body":     hijack("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+half, true),
		"closed in the body":    hijack("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+half, false),
		"closed between chunks": hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n", false),
		"no HTTP":               hijack("SSH-2.0-OpenSSH_9.2\r\n", false),
		"100 kB of head":        hijack("HTTP/1.1 200 OK\r\n"+strings.Repeat("X-A: "+strings.Repeat("x", 1000)+"\r\n", 100)+"Content-Length: 0\r\n\r\n", false),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, h)
			for op := range calls(nil) {
				obs := &events{}
				err := calls(observe(t, s.URL, obs))[op](t.Context())
				wantClass(t, err, vault.Transient)
				if obs.count("main "+string(op)+" error") != 1 {
					t.Errorf("%s: observed %q", op, obs.all())
				}
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := httptest.NewServer(nil)
		s.Close()
		for op, call := range calls(connect(t, s.URL)) {
			if e := wantClass(t, call(t.Context()), vault.Transient); op == vault.OpRead && !strings.Contains(e.Error(), "refused") {
				t.Errorf("the text does not say why: %v", e)
			}
		}
	})
}

func TestAnswersThatAreNotASecretAreBadResponses(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"204":             {204, ""},
		"empty 200":       {200, ""},
		"blank 200":       {200, " \n"},
		"HTML":            {200, "<html>hello " + token + "</html>"},
		"null":            {200, "null"},
		"string":          {200, `"x"`},
		"list":            {200, `[1]`},
		"two values":      {200, kv2 + kv2},
		"data is a list":  {200, `{"request_id":"r","data":[1]}`},
		"data is null":    {200, `{"request_id":"r","data":null}`},
		"a login":         {200, loggedIn},
		"wrapped, data":   {200, `{"request_id":"r","data":{"a":1},"wrap_info":{"token":"` + token + `","ttl":60}}`},
		"wrapped":         {200, `{"request_id":"r","wrap_info":{"token":"` + token + `","ttl":60}}`},
		"bad duration":    {200, `{"request_id":"r","lease_duration":"x","data":{"a":1}}`},
		"cut JSON":        {200, kv2[:40]},
		"not even UTF-8":  {200, "\xff\xfe"},
		"endless numbers": {200, `{"lease_duration":1e999999,"data":{"a":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer(c.status, c.body))
			r, err := connect(t, s.URL).Read(t.Context(), session, app, vault.ReadOptions{})
			if r != nil {
				t.Errorf("got %v beside the error", r)
			}
			if e := wantClass(t, err, vault.BadResponse); e.Status != c.status || strings.Contains(e.Error(), token) {
				t.Errorf("status %d, text %v", e.Status, e)
			}
		})
	}
	s := serve(t, answer(204, ""))
	for op, call := range calls(connect(t, s.URL)) {
		switch err := call(t.Context()); op {
		case vault.OpRevokeLease, vault.OpRevokeSession:
			if err != nil {
				t.Errorf("%s: %v", op, err)
			}
		default:
			wantClass(t, err, vault.BadResponse)
		}
	}
}

func TestHugeLeasesAreKeptWithinADuration(t *testing.T) {
	s := serve(t, answer(200, `{"request_id":"r","lease_id":"x","lease_duration":9223372036854775807,"data":{"a":1}}`))
	r, err := connect(t, s.URL).Read(t.Context(), session, app, vault.ReadOptions{})
	if err != nil || r.LeaseDuration <= 0 {
		t.Errorf("got %v, %v", r.LeaseDuration, err)
	}
}

func TestSealedAndBusyVaultsAreTransientWithTheirWait(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header string
		wait   time.Duration
	}{
		"sealed":                    {503, "", 0},
		"sealed, with a wait":       {503, "3", 3 * time.Second},
		"too many requests":         {429, "", 0},
		"too many, with a wait":     {429, "7", 7 * time.Second},
		"an unreasonable wait":      {429, "86400000", time.Hour},
		"behind":                    {412, "", 0},
		"standby without leader":    {474, "", 0},
		"gateway without a backend": {502, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				answer(c.status, `{"errors":["Vault is sealed"]}`)(w, r)
			})
			for op := range calls(nil) {
				e := wantClass(t, calls(connect(t, s.URL))[op](t.Context()), vault.Transient)
				if e.Status != c.status || e.RetryAfter != c.wait {
					t.Errorf("%s: status %d, wait %v", op, e.Status, e.RetryAfter)
				}
			}
		})
	}
}

// A server that echoes what it was sent, in every way in which something of it could come out again.
func TestNoTokenComesOutOfTheClientWhateverVaultEchoes(t *testing.T) {
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	check := func(t *testing.T, what string, v any) {
		t.Helper()
		logger.Info("message", "v", v)
		out := fmt.Sprintf("%v %+v %#v %s %q", v, v, v, v, v) + log.String()
		log.Reset()
		for _, canary := range []string{token, jwt, "canary-of-the-session-token", "canary-signature", "s3cr3t"} {
			if strings.Contains(out, canary) {
				t.Errorf("%s: %q is in %s", what, canary, out)
			}
		}
	}
	echo := fmt.Sprintf(`bad %s and %s, header X-Vault-Token: %s, url https://u:s3cr3t@h/`, jwt, token, token)
	for name, body := range map[string]string{
		"errors":    fmt.Sprintf(`{"errors":[%q]}`, echo),
		"a packed":  fmt.Sprintf(`{"errors":["1 error occurred:\n\t* %s\n\n"]}`, echo),
		"cut":       fmt.Sprintf(`{"errors":[%q]}`, strings.Repeat("x", 290)+" "+token),
		"warnings":  fmt.Sprintf(`{"warnings":[%q]}`, echo),
		"deletion":  fmt.Sprintf(`{"data":{"metadata":{"deletion_time":%q,"version":%q}}}`, token, token),
		"HTML":      "<pre>" + echo + "</pre>",
		"truncated": `{"errors":["` + echo,
	} {
		for _, status := range []int{200, 201, 301, 400, 403, 404, 405, 429, 500, 503} {
			s := serve(t, answer(status, body))
			c := connect(t, s.URL)
			for op, call := range calls(c) {
				if err := call(t.Context()); err != nil {
					check(t, fmt.Sprint(name, " ", status, " ", op), err)
					check(t, fmt.Sprint(name, " ", status, " ", op), *failure(t, err))
				}
			}
		}
	}
	s := serve(t, answer(200, fmt.Sprintf(`{"request_id":"r","data":{"password":"s3cr3t"},"warnings":[%q]}`, echo)))
	r, err := connect(t, s.URL).Read(t.Context(), session, app, vault.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "response", r)
	check(t, "response", *r)
	check(t, "warnings", r.Warnings)
	check(t, "session", vault.Session{Token: secret.New(token)})
	check(t, "auth", session)
	check(t, "login", login)
}

func TestAnswerThatIsNotVaultsIsSaidToBeSo(t *testing.T) {
	_, err := connect(t, serve(t, answer(502, "<html>bad gateway</html>")).URL).Login(t.Context(), login)
	if e := wantClass(t, err, vault.Transient); !strings.Contains(e.Error(), "not the JSON of a Vault") || strings.Contains(e.Error(), "html") {
		t.Errorf("got %v", e)
	}
}

func TestTokenThatNoHeaderMayHoldIsRefusedWithoutShowingIt(t *testing.T) {
	s := serve(t, answer(200, kv2))
	c := connect(t, s.URL)
	for range 10 { // more than open the breaker: it must not be the connection's failure
		_, err := c.Read(t.Context(), vault.Auth{Token: secret.New("canary\nX-Evil: 1")}, app, vault.ReadOptions{})
		if e := wantClass(t, err, vault.BadRequest); strings.Contains(e.Error(), "canary") {
			t.Fatalf("the token is in %v", e)
		}
		_, err = c.Read(t.Context(), vault.Auth{Token: secret.New(token), Namespace: "a\r\nb"}, app, vault.ReadOptions{})
		wantClass(t, err, vault.BadRequest)
	}
	if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
		t.Error(err)
	}
}
