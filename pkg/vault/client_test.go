// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

// sent is what a server has seen of a request.
type sent struct {
	Method, URI, Token, Namespace, Request, Body string
	Encoding                                     string // that the client accepts: none, or the cap on a body's size is no cap on memory
}

func recorder(got *sent, status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		*got = sent{r.Method, r.URL.RequestURI(), r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace"), r.Header.Get("X-Vault-Request"), string(b), r.Header.Get("Accept-Encoding")}
		answer(status, body)(w, r)
	}
}

func TestEveryOperationSendsItsRequestAndReadsItsAnswer(t *testing.T) {
	granted := `{"request_id":"r","lease_id":"db/creds/x/1","renewable":true,"lease_duration":19,"data":null,` +
		`"warnings":["TTL of \"20s\" exceeded the effective max_ttl of \"19s\"; TTL value is capped accordingly"]}`
	for name, c := range map[string]struct {
		answer string
		call   func(*vault.Client) (any, error)
		sent   sent
		want   any
	}{
		"login": {
			loggedIn,
			func(c *vault.Client) (any, error) {
				s, err := c.Login(t.Context(), vault.Login{Method: "kubernetes", Mount: "k8s/prod", Role: "app", JWT: secret.New(jwt)})
				return []any{s.Token.Reveal(), s.Accessor, s.TTL, s.Renewable, s.Batch, len(s.Identity)}, err
			},
			sent{"POST", "/v1/auth/k8s/prod/login", "", "", "true", `{"role":"app","jwt":"` + jwt + `"}`, ""},
			[]any{token, "a", 20 * time.Second, true, false, 43},
		},
		"login with a batch token, role and mount left out": {
			`{"auth":{"client_token":"hvb.x","lease_duration":60}}`,
			func(c *vault.Client) (any, error) {
				s, err := c.Login(t.Context(), vault.Login{Namespace: "team/a", Method: "jwt", JWT: secret.New(jwt)})
				return []any{s.Token.Reveal(), s.Accessor, s.TTL, s.Renewable, s.Batch, len(s.Identity)}, err
			},
			sent{"POST", "/v1/auth/jwt/login", "", "team/a", "true", `{"jwt":"` + jwt + `"}`, ""},
			[]any{"hvb.x", "", time.Minute, false, true, 43},
		},
		"renew session": {
			strings.Replace(loggedIn, `"data":null`, `"data":null,"warnings":["TTL of \"20s\" exceeded the effective max_ttl of \"3s\"; TTL value is capped accordingly"]`, 1),
			func(c *vault.Client) (any, error) { return c.RenewSession(t.Context(), session) },
			sent{"POST", "/v1/auth/token/renew-self", token, "", "true", "{}", ""},
			vault.Grant{TTL: 20 * time.Second, Renewable: true, Capped: true},
		},
		"lookup session": {
			`{"data":{"ttl":17,"renewable":true,"id":"x"}}`,
			func(c *vault.Client) (any, error) { return c.LookupSession(t.Context(), session) },
			sent{"GET", "/v1/auth/token/lookup-self", token, "", "true", "", ""},
			vault.Grant{TTL: 17 * time.Second, Renewable: true},
		},
		"revoke session": {
			"",
			func(c *vault.Client) (any, error) { return nil, c.RevokeSession(t.Context(), session) },
			sent{"POST", "/v1/auth/token/revoke-self", token, "", "true", "{}", ""},
			nil,
		},
		"read": {
			`{"lease_id":"l","lease_duration":20,"renewable":true,"data":{"n":1.50},"warnings":["w"]}`,
			func(c *vault.Client) (any, error) {
				r, err := c.Read(t.Context(), session, vault.Request{Path: "secret/data/a b?c", Query: map[string][]string{"version": {"2"}}}, vault.ReadOptions{})
				return []any{r.LeaseID, r.LeaseDuration, r.Renewable, r.Data, r.Warnings}, err
			},
			sent{"GET", "/v1/secret/data/a%20b%3Fc?version=2", token, "", "true", "", ""},
			[]any{"l", 20 * time.Second, true, map[string]any{"n": json.Number("1.50")}, []string{"w"}},
		},
		"issue": {
			`{"data":{"certificate":"x"}}`,
			func(c *vault.Client) (any, error) {
				r, err := c.Read(t.Context(), session, vault.Request{Path: "pki/issue/web", Method: "PUT", Args: map[string]any{"ttl": "20s", "common_name": "a"}}, vault.ReadOptions{})
				return r.Data, err
			},
			sent{"PUT", "/v1/pki/issue/web", token, "", "true", `{"common_name":"a","ttl":"20s"}`, ""},
			map[string]any{"certificate": "x"},
		},
		"issue without arguments": {
			`{"data":{"certificate":"x"}}`,
			func(c *vault.Client) (any, error) {
				r, err := c.Read(t.Context(), session, vault.Request{Path: "pki/issue/web", Method: "POST"}, vault.ReadOptions{})
				return r.Data, err
			},
			sent{"POST", "/v1/pki/issue/web", token, "", "true", `{}`, ""},
			map[string]any{"certificate": "x"},
		},
		"renew lease": {
			granted,
			func(c *vault.Client) (any, error) { return c.RenewLease(t.Context(), session, "db/creds/x/1", 0) },
			sent{"PUT", "/v1/sys/leases/renew", token, "", "true", `{"lease_id":"db/creds/x/1"}`, ""},
			vault.Grant{TTL: 19 * time.Second, Renewable: true, Capped: true},
		},
		"renew lease by an increment": {
			strings.Replace(granted, "warnings", "unknown", 1),
			func(c *vault.Client) (any, error) {
				return c.RenewLease(t.Context(), session, "db/creds/x/1", 19100*time.Millisecond)
			},
			sent{"PUT", "/v1/sys/leases/renew", token, "", "true", `{"lease_id":"db/creds/x/1","increment":20}`, ""},
			vault.Grant{TTL: 19 * time.Second, Renewable: true},
		},
		"lookup lease": {
			`{"data":{"id":"db/creds/x/1","ttl":7,"renewable":true}}`,
			func(c *vault.Client) (any, error) { return c.LookupLease(t.Context(), session, "db/creds/x/1") },
			sent{"PUT", "/v1/sys/leases/lookup", token, "", "true", `{"lease_id":"db/creds/x/1"}`, ""},
			vault.Grant{TTL: 7 * time.Second, Renewable: true},
		},
		"revoke lease": {
			"",
			func(c *vault.Client) (any, error) { return nil, c.RevokeLease(t.Context(), session, "db/creds/x/1") },
			sent{"PUT", "/v1/sys/leases/revoke", token, "", "true", `{"lease_id":"db/creds/x/1","sync":true}`, ""},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got sent
			result, err := c.call(connect(t, serve(t, recorder(&got, 200, c.answer)).URL))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.sent, got); d != "" {
				t.Errorf("sent (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.want, result); d != "" {
				t.Errorf("result (-want +got):\n%s", d)
			}
		})
	}
}

func TestBatchTokensAreNeitherRenewedNorRevoked(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	c, batch := connect(t, s.URL), vault.Auth{Token: secret.New("hvb.AAAA")}
	if err := c.RevokeSession(t.Context(), batch); err != nil {
		t.Error(err)
	}
	_, err := c.RenewSession(t.Context(), batch)
	wantClass(t, err, vault.NotRenewable)
}

func TestRevokingWhatIsGoneIsNoError(t *testing.T) {
	gone := serve(t, answer(403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`))
	if err := connect(t, gone.URL).RevokeSession(t.Context(), session); err != nil {
		t.Error(err)
	}
	batch := serve(t, answer(400, `{"errors":["1 error occurred:\n\t* batch tokens cannot be revoked\n\n"]}`))
	if err := connect(t, batch.URL).RevokeSession(t.Context(), session); err != nil {
		t.Error(err)
	}
	lease := serve(t, answer(400, `{"errors":["invalid lease"]}`))
	if err := connect(t, lease.URL).RevokeLease(t.Context(), session, "x"); err != nil {
		t.Error(err)
	}
	denied := serve(t, answer(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`))
	wantClass(t, connect(t, denied.URL).RevokeLease(t.Context(), session, "x"), vault.Denied)
	wantClass(t, connect(t, denied.URL).RevokeSession(t.Context(), session), vault.Denied)
}

func TestNamespaceOfTheCallPrevailsOverTheConnections(t *testing.T) {
	var got sent
	c := connect(t, serve(t, recorder(&got, 200, kv2)).URL, func(cfg *vault.Config) { cfg.Namespace = "admin" })
	for ns, want := range map[string]string{"": "admin", "team": "team"} {
		if _, err := c.Read(t.Context(), vault.Auth{Namespace: ns, Token: secret.New(token)}, app, vault.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		if got.Namespace != want {
			t.Errorf("namespace %q was asked as %q, want %q", ns, got.Namespace, want)
		}
	}
}

// A pod's author could otherwise leave /v1/, or ask for another path than the one that was checked.
func TestPathsThatAreNotWhatTheySeemAreNotSent(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was asked for", r.URL) })
	c := connect(t, s.URL)
	for _, path := range []string{"", "/secret/x", "../sys/health", "secret/../../x", "secret//x", "secret/./x", "secret/x/", "a\x00b"} {
		_, err := c.Read(t.Context(), session, vault.Request{Path: path}, vault.ReadOptions{})
		if vault.ClassOf(err) != vault.BadRequest {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, mount := range []string{"../sys", "a//b", ".."} {
		_, err := c.Login(t.Context(), vault.Login{Method: "jwt", Mount: mount, JWT: secret.New(jwt)})
		if vault.ClassOf(err) != vault.BadRequest {
			t.Errorf("mount %q: %v", mount, err)
		}
	}
}

// A caller who gives up while Vault makes the token would leave it behind until its TTL ends.
func TestTokenOfAnAbandonedLoginIsRevoked(t *testing.T) {
	var revoked atomic.Value
	asked, left := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/revoke-self") {
			revoked.Store(r.Header.Get("X-Vault-Token"))
			w.WriteHeader(204)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		close(asked)
		<-left
		answer(200, loggedIn)(w, r)
	})
	c := connect(t, s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, err := c.Login(ctx, login)
	wantClass(t, err, vault.Transient)
	close(left)
	c.Close() // waits for the revocation
	if got := revoked.Load(); got != token {
		t.Fatalf("the token that was revoked is %v, want %v", got, token)
	}
	_, err = c.Login(t.Context(), login)
	if wantClass(t, err, vault.Transient); !strings.Contains(err.Error(), "closed") {
		t.Errorf("login after Close: %v", err)
	}
}

func TestLoginOfACallerWhoHasGivenUpIsNotSent(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := connect(t, s.URL).Login(ctx, login)
	wantClass(t, err, vault.Transient)

	// The same while it waits for the request rate.
	var n atomic.Int64
	s = serve(t, func(w http.ResponseWriter, r *http.Request) { n.Add(1); answer(200, loggedIn)(w, r) })
	c := connect(t, s.URL, func(cfg *vault.Config) { cfg.RequestRate, cfg.RequestBurst = 0.1, 1 })
	if _, err := c.Login(t.Context(), login); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { time.Sleep(20 * time.Millisecond); cancel() }()
	_, err = c.Login(ctx, login)
	wantClass(t, err, vault.Transient)
	c.Close()
	if n.Load() != 1 {
		t.Errorf("%d logins were sent", n.Load())
	}
}

// Shared state for a token would show here: all speak at once, each as itself.
func Test110SessionsAtOnceShareOneWarmPoolAndNoToken(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ JWT string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		if strings.HasSuffix(r.URL.Path, "/login") {
			answer(200, fmt.Sprintf(`{"auth":{"client_token":"token-of-%s","lease_duration":60}}`, in.JWT))(w, r)
			return
		}
		answer(200, fmt.Sprintf(`{"data":{"token":%q,"namespace":%q}}`, r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace")))(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := connect(t, s.URL)
	round := func() {
		var wait sync.WaitGroup
		for i := range 110 {
			wait.Go(func() {
				pod, ns := fmt.Sprint("pod", i), fmt.Sprint("ns", i)
				got, err := c.Login(t.Context(), vault.Login{Method: "jwt", Namespace: ns, JWT: secret.New(pod)})
				if err != nil || got.Token.Reveal() != "token-of-"+pod {
					t.Errorf("%s logged in as %q, %v", pod, got.Token.Reveal(), err)
					return
				}
				r, err := c.Read(t.Context(), vault.Auth{Namespace: ns, Token: got.Token, Identity: got.Identity}, app, vault.ReadOptions{})
				if err != nil || r.Data["token"] != "token-of-"+pod || r.Data["namespace"] != ns {
					t.Errorf("%s read as %v, %v", pod, r, err)
				}
			})
		}
		wait.Wait()
	}
	round()
	for range 5 {
		round()
	}
	// That none was closed and made anew shows in their number: the pool has room for 128.
	if n := conns.Load(); n > 128 {
		t.Errorf("%d connections for 1320 requests of 110 sessions", n)
	}
}

// Reads over and over on a warm connection make no new ones: a body that is not read to its end costs its connection.
func TestOneConnectionServesAllOfACallersRequests(t *testing.T) {
	var conns atomic.Int64
	n := 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n++; n % 4 {
		case 0:
			answer(200, kv2)(w, r)
		case 1:
			answer(404, `{"errors":[]}`)(w, r)
		case 2:
			answer(204, "")(w, r)
		case 3:
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := connect(t, s.URL)
	for range 100 {
		_, _ = c.Read(t.Context(), session, app, vault.ReadOptions{})
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}

func tlsServer(t *testing.T, h http.HandlerFunc, change func(*tls.Config)) (address string, ca []byte) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{}
	if change != nil {
		change(s.TLS)
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func TestTLSIsVerifiedBeforeAnythingIsSent(t *testing.T) {
	var requests atomic.Int64
	var proto atomic.Value
	h := func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		proto.Store(r.Proto)
		answer(200, loggedIn)(w, r)
	}
	address, ca := tlsServer(t, h, nil)
	old, oldCA := tlsServer(t, h, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 })
	for name, c := range map[string]struct {
		change func(*vault.Config)
		ok     bool
	}{
		"its CA":                    {func(c *vault.Config) { c.CAPEM = ca }, true},
		"another name that it has":  {func(c *vault.Config) { c.CAPEM, c.ServerName = ca, "example.com" }, true},
		"a name that it has not":    {func(c *vault.Config) { c.CAPEM, c.ServerName = ca, "vault.example.org" }, false},
		"the system's roots":        {func(*vault.Config) {}, false},
		"TLS 1.1":                   {func(c *vault.Config) { c.Address, c.CAPEM = old, oldCA }, false},
		"http to a server of https": {func(c *vault.Config) { c.Address = strings.Replace(address, "https", "http", 1) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := requests.Load()
			_, err := connect(t, address, c.change).Login(t.Context(), login)
			if (err == nil) != c.ok {
				t.Errorf("got %v, want ok %v", err, c.ok)
			}
			if !c.ok && requests.Load() != before {
				t.Error("the request was sent")
			}
		})
	}
	if proto.Load() != "HTTP/2.0" {
		t.Errorf("the protocol over TLS is %v, want HTTP/2.0", proto.Load())
	}
}

// One request that is answered decides nothing: the environment may break the client, or redirect it, or give it a token.
func TestNothingOfTheEnvironmentMatters(t *testing.T) {
	foreign, received := tap(t)
	for k, v := range map[string]string{
		"VAULT_ADDR": foreign, "VAULT_AGENT_ADDR": foreign, "VAULT_TOKEN": "hvs.of-the-environment", "VAULT_NAMESPACE": "environment",
		"VAULT_HEADERS": `{"X-Evil":"1"}`, "VAULT_SKIP_VERIFY": "true", "VAULT_CACERT": "/does/not/exist", "VAULT_CLIENT_TIMEOUT": "not a number",
		"VAULT_MAX_RETRIES": "7", "VAULT_RATE_LIMIT": "0.001:1", "VAULT_PROXY_ADDR": foreign, "VAULT_HTTP_PROXY": foreign, "VAULT_WRAP_TTL": "60",
		"VAULT_TLS_SERVER_NAME": "evil", "VAULT_SRV_LOOKUP": "true", "VAULT_DISABLE_REDIRECTS": "false",
		"HTTP_PROXY": foreign, "HTTPS_PROXY": foreign, "ALL_PROXY": foreign, "http_proxy": foreign,
	} {
		t.Setenv(k, v)
	}
	var header http.Header
	c := connect(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		answer(200, loggedIn)(w, r)
	}).URL)
	for range 3 {
		if _, err := c.Login(t.Context(), login); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Evil", "X-Vault-Wrap-Ttl"} {
		if header.Get(name) != "" {
			t.Errorf("the header %s is sent", name)
		}
	}
	address, _ := tlsServer(t, answer(200, loggedIn), nil)
	if _, err := connect(t, address).Login(t.Context(), login); err == nil {
		t.Error("an unknown certificate is accepted")
	}
	if n := received.Load(); n != 0 {
		t.Errorf("the environment's address was sent %d bytes", n)
	}
}

func TestRequestRateIsKept(t *testing.T) {
	var n atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { n.Add(1); answer(200, kv2)(w, r) })
	c := connect(t, s.URL, func(cfg *vault.Config) { cfg.RequestRate, cfg.RequestBurst = 100, 5 })
	start := time.Now()
	var wait sync.WaitGroup
	for range 25 {
		wait.Go(func() {
			if _, err := c.Read(t.Context(), vault.Auth{Token: secret.New(token)}, app, vault.ReadOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if took := time.Since(start); took < 190*time.Millisecond {
		t.Errorf("25 requests took %v at 100 a second after a burst of 5", took)
	}
	c = connect(t, s.URL, func(cfg *vault.Config) { cfg.RequestRate, cfg.RequestBurst = 0.01, 1 })
	if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	before, start := n.Load(), time.Now()
	_, err := c.RenewSession(ctx, session)
	wantClass(t, err, vault.Transient)
	if n.Load() != before || time.Since(start) > 10*time.Second {
		t.Errorf("a request that must wait longer than its caller was sent, or waited for %v", time.Since(start))
	}
}

func TestSealedVaultIsAskedOnlyForItsHealthUntilItIsBack(t *testing.T) {
	var sealed atomic.Bool
	var logins, health atomic.Int64
	sealed.Store(true)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/sys/health" {
			health.Add(1)
			if r.Header.Get("X-Vault-Token") != "" {
				t.Error("a token goes along with the question for health")
			}
		} else {
			logins.Add(1)
		}
		if sealed.Load() {
			answer(503, `{"errors":["Vault is sealed"]}`)(w, r)
			return
		}
		answer(200, loggedIn)(w, r)
	})
	obs := &events{}
	c := observe(t, s.URL, obs)
	start := time.Now()
	for range 200 {
		_, err := c.Login(t.Context(), login)
		wantClass(t, err, vault.Transient)
	}
	// One question for health at first, and one after each cool-down of at least a second.
	if most := 1 + int64(time.Since(start)/time.Second); logins.Load() != 5 || health.Load() < 1 || health.Load() > most {
		t.Errorf("%d logins and %d questions for health were sent, want 5 and at most %d", logins.Load(), health.Load(), most)
	}
	_, err := c.Login(t.Context(), login)
	e := wantClass(t, err, vault.Transient)
	if e.RetryAfter <= 0 || e.RetryAfter > 40*time.Second || !strings.Contains(e.Error(), "Vault is sealed") {
		t.Errorf("while it is known to be sealed: %v, ask again after %v", e, e.RetryAfter)
	}
	if obs.count("main login breaker") < 100 || obs.count("main health 503") == 0 {
		t.Errorf("observed %q", obs.all())
	}
	sealed.Store(false)
	eventually(t, "it is taken back", func() bool { _, err := c.Login(t.Context(), login); return err == nil })
}

// Who asks for Vault's health on behalf of all still has a deadline of his own, and leaves the question to the next.
func TestCallerWhoAsksForTheHealthIsLetGoAtHisDeadline(t *testing.T) {
	var frozen atomic.Bool
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/health" {
			answer(503, `{"errors":["Vault is sealed"]}`)(w, r)
		} else if frozen.Load() {
			<-r.Context().Done()
		}
	})
	frozen.Store(true)
	obs := &events{}
	c := observe(t, s.URL, obs)
	for range 5 {
		wantClass(t, c.RevokeSession(t.Context(), session), vault.Transient)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		start := time.Now()
		err := c.RevokeSession(ctx, session)
		cancel()
		if wantClass(t, err, vault.Transient); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2500*time.Millisecond {
			t.Errorf("let go after %v with %v", time.Since(start), err)
		}
	}
	if n := obs.count("main health error"); n != 2 {
		t.Errorf("%d questions for the health, want one by each", n)
	}
	frozen.Store(false)
	if err := c.RevokeSession(t.Context(), session); err == nil || failure(t, err).Status != 503 {
		t.Errorf("Vault that answers the question is not asked: %v", err)
	}
}

// What has waited for the request rate must not go to a Vault that was found dead meanwhile.
func TestRequestsThatWaitForTheRateAreNotSentToADeadVault(t *testing.T) {
	var logins atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/health" {
			logins.Add(1)
		}
		answer(503, `{"errors":["Vault is sealed"]}`)(w, r)
	})
	c := connect(t, s.URL, func(cfg *vault.Config) { cfg.RequestRate, cfg.RequestBurst = 20, 1 })
	var wait sync.WaitGroup
	for range 20 { // all are let into the queue at once, and through it within a second
		wait.Go(func() {
			_, err := c.Login(t.Context(), login)
			wantClass(t, err, vault.Transient)
		})
	}
	wait.Wait()
	if n := logins.Load(); n > 10 {
		t.Errorf("%d of 20 logins were sent", n)
	}
}

// One engine that hangs, or one database that is down, must not stop the other pods.
func TestOneFailingEngineDoesNotStopTheOthers(t *testing.T) {
	for name, broken := range map[string]http.HandlerFunc{
		"hangs":     func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"fails":     answer(500, `{"errors":["dial tcp: connection refused"]}`),
		"too large": answer(200, strings.Repeat("x", 2048)),
	} {
		t.Run(name, func(t *testing.T) {
			var health atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/sys/health" {
					health.Add(1)
				}
				if strings.HasPrefix(r.URL.Path, "/v1/database/") {
					broken(w, r)
					return
				}
				answer(200, kv2)(w, r)
			})
			c := connect(t, s.URL, func(cfg *vault.Config) { cfg.RequestTimeout, cfg.MaxResponseBytes = time.Second, 1024 })
			for range 3 {
				var wait sync.WaitGroup
				for range 10 {
					wait.Go(func() {
						if _, err := c.Read(t.Context(), vault.Auth{Token: secret.New(token)}, vault.Request{Path: "database/creds/x"}, vault.ReadOptions{}); err == nil {
							t.Error("the broken engine answered")
						}
					})
				}
				wait.Wait()
				if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
					t.Errorf("another engine: %v", err)
				}
			}
			if name != "hangs" && health.Load() != 0 {
				t.Errorf("Vault was asked for its health %d times though it answers", health.Load())
			}
		})
	}
}

func TestConfigurationsThatCannotWorkAreRefusedWithAllTheirFaults(t *testing.T) {
	valid := vault.Config{Name: "main", Address: "https://vault.example.com:8200/prefix/", AllowedRedirects: []string{"https://vault-1:8200"}}
	c, err := vault.NewClient(valid, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for name, mutate := range map[string]func(*vault.Config){
		"name":                  func(c *vault.Config) { c.Name = "" },
		"address":               func(c *vault.Config) { c.Address = "" },
		"address 2":             func(c *vault.Config) { c.Address = "vault:8200" },
		"address 3":             func(c *vault.Config) { c.Address = "https://" },
		"address 4":             func(c *vault.Config) { c.Address = "https://user:s3cr3t@vault" },
		"address 5":             func(c *vault.Config) { c.Address = "https://vault?x=1" },
		"address 6":             func(c *vault.Config) { c.Address = "unix:///run/vault.sock" },
		"address 7":             func(c *vault.Config) { c.Address = "https://va ult:s3cr3t" },
		"redirect":              func(c *vault.Config) { c.AllowedRedirects = []string{"vault"} },
		"downgrade by redirect": func(c *vault.Config) { c.AllowedRedirects = []string{"http://vault.example.com"} },
		"CA":                    func(c *vault.Config) { c.CAPEM = []byte("no certificate") },
		"timeout":               func(c *vault.Config) { c.RequestTimeout = -1 },
		"rate":                  func(c *vault.Config) { c.RequestRate = -1 },
		"cap":                   func(c *vault.Config) { c.MaxResponseBytes = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := valid
			mutate(&cfg)
			if _, err := vault.NewClient(cfg, nil); err == nil || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("got %v", err)
			}
		})
	}
	_, err = vault.NewClient(vault.Config{Address: "x", RequestTimeout: -1}, nil)
	for _, part := range []string{"name", "https://", "timeout"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
}

func TestPathPrefixOfTheAddressIsKept(t *testing.T) {
	var got sent
	c := connect(t, serve(t, recorder(&got, 200, kv2)).URL+"/vault/")
	if _, err := c.Read(t.Context(), session, app, vault.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if got.URI != "/vault/v1/secret/data/app" {
		t.Errorf("asked for %s", got.URI)
	}
}

func TestKV2ErrorsSayWhyNothingIsThere(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"deleted":   {`{"request_id":"r","data":{"data":null,"metadata":{"deletion_time":"2026-02-03T04:05:06.789Z","destroyed":false,"version":3}}}`, "version 3 was deleted at 2026-02-03T04:05:06Z"},
		"destroyed": {`{"request_id":"r","data":{"data":null,"metadata":{"deletion_time":"","destroyed":true,"version":3}}}`, "version 3 was destroyed"},
		"path":      {`{"request_id":"r","data":null,"warnings":["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."]}`, "secret/data/data/app"},
		"missing":   {`{"errors":[]}`, "nothing is there"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := connect(t, serve(t, answer(404, c.body)).URL).Read(t.Context(), session, app, vault.ReadOptions{})
			if e := wantClass(t, err, vault.NotFound); !strings.Contains(e.Error(), c.want) {
				t.Errorf("%q is not in %v", c.want, e)
			}
		})
	}
}
