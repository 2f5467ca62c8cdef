// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/leasefs/leasefs/pkg/secret"
)

// call is one request as the operations describe it.
type call struct {
	op        Op
	method    string
	path      string // without /v1/
	query     url.Values
	namespace string
	role      string       // for errors
	login     string       // the method of a login, for the class of a refusal
	token     secret.Value // zero for a login
	jwt       secret.Value // of a login, to strip it from what Vault echoes
	body      any          // nil: none
	finish    bool         // once sent, wait for the answer even if the caller has given up
}

// reply is a complete answer of status 2xx.
type reply struct {
	status int
	size   int         // of the body in bytes
	secret *api.Secret // nil: the body was empty
}

// probeTimeout bounds the question whether Vault is back.
const probeTimeout = 3 * time.Second

// fairChance is how long Vault must have had for an answer before a caller's deadline counts against it.
const fairChance = time.Second

// errTimeout is no context error, so that a caller does not take it for its own deadline.
type errTimeout struct{ after time.Duration }

func (e errTimeout) Error() string { return fmt.Sprintf("no complete answer within %v", e.after) }

// exchange makes one request and returns its answer of 2xx, or an *Error.
//
//  1. Ask the breaker, before and after the wait for the rate limit: what waited must not go to a dead Vault.
//  2. Send, and read the answer up to the cap, within RequestTimeout.
//  3. Tell observer and breaker.
//  4. Turn the answer into a reply or an error.
func (c *Client) exchange(ctx context.Context, q call) (*reply, error) {
	if err := c.admit(ctx, q); err != nil {
		return nil, err
	}
	if c.limit != nil {
		if err := c.limit.Wait(ctx); err != nil {
			c.obs.VaultRequest(c.cfg.Name, q.op, CodeTimeout, 0)
			return nil, c.fail(ctx, q, fmt.Errorf("waiting for the connection's request rate: %w", err))
		}
		if err := c.admit(ctx, q); err != nil {
			return nil, err
		}
	}
	if q.finish {
		var release func()
		ctx, release = c.detach(ctx)
		defer release()
	}
	start := time.Now()
	resp, body, err := c.roundTrip(ctx, q) //nolint:bodyclose // roundTrip has read and closed it
	took := time.Since(start)
	if err != nil {
		c.account(ctx, q.op, err, took)
		return nil, c.fail(ctx, q, err)
	}
	c.obs.VaultRequest(c.cfg.Name, q.op, strconv.Itoa(resp.StatusCode), took)
	r, err := c.judge(q, resp, body)
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c.breaker.failed(err.Error())
	default:
		c.breaker.succeeded()
	}
	return r, err
}

// detach makes a context that ends with the client, and not with ctx.
func (c *Client) detach(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(c.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// admit asks the breaker, and Vault itself when the breaker wants to know whether it is back.
func (c *Client) admit(ctx context.Context, q call) error {
	verdict, after := c.breaker.admit(time.Now())
	if verdict == probe {
		alive := c.alive(ctx)
		if ctx.Err() != nil && !alive {
			c.breaker.abandoned()
			return c.fail(ctx, q, context.Cause(ctx))
		}
		c.breaker.probed(alive, time.Now())
		if alive {
			return nil
		}
		verdict, after = c.breaker.admit(time.Now())
	}
	if verdict == pass {
		return nil
	}
	c.obs.VaultRequest(c.cfg.Name, q.op, CodeBreaker, 0)
	err := c.fail(ctx, q, fmt.Errorf("not asked, as it is known to be down; the last failure was: %s", clean(c.breaker.reason())))
	err.RetryAfter = after
	return err
}

// alive asks Vault for its health. No token goes along, so that none is sent again and again to a Vault in trouble. Any
// answer but those that say "I cannot serve" will do: a gateway may forbid the question.
func (c *Client) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, min(probeTimeout, c.cfg.RequestTimeout))
	defer cancel()
	start := time.Now()
	q := call{op: OpHealth, method: http.MethodGet, path: "sys/health", query: url.Values{"standbyok": {"true"}, "perfstandbyok": {"true"}}}
	resp, _, err := c.roundTrip(ctx, q) //nolint:bodyclose // roundTrip has read and closed it
	if err != nil {
		c.obs.VaultRequest(c.cfg.Name, OpHealth, CodeError, time.Since(start))
		return false
	}
	c.obs.VaultRequest(c.cfg.Name, OpHealth, strconv.Itoa(resp.StatusCode), time.Since(start))
	switch resp.StatusCode {
	case 472, 474, 501, 502, 503, 504: // recovery secondary, standby without a leader, not initialised, sealed
		return false
	}
	return true
}

// account tells observer and breaker of an exchange that had no complete answer.
func (c *Client) account(ctx context.Context, op Op, err error, took time.Duration) {
	code := CodeError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		code = CodeCanceled
	case ctx.Err() != nil || errors.As(err, new(errTimeout)):
		code = CodeTimeout
	}
	c.obs.VaultRequest(c.cfg.Name, op, code, took)
	switch {
	case code == CodeCanceled, ctx.Err() != nil && took < fairChance:
		// The caller's doing.
	case errors.As(err, new(*badAnswer)), errors.As(err, new(*badRequest)):
		c.breaker.succeeded()
	default:
		c.breaker.failed(err.Error())
	}
}

// badAnswer is an answer that is complete, or would be too large, but not Vault's.
type badAnswer struct{ text string }

func (e *badAnswer) Error() string { return e.text }

// badRequest is a request that cannot be sent.
type badRequest struct{ text string }

func (e *badRequest) Error() string { return e.text }

// roundTrip sends the request and reads the answer. The response that it returns has its body closed.
func (c *Client) roundTrip(ctx context.Context, q call) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.RequestTimeout, errTimeout{c.cfg.RequestTimeout})
	defer cancel()
	req, err := c.request(ctx, q)
	if err != nil {
		return nil, nil, &badRequest{err.Error()}
	}
	resp, err := c.send.RoundTrip(req)
	if err != nil {
		return nil, nil, cause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := readCapped(resp, c.cfg.MaxResponseBytes)
	if err != nil {
		return nil, nil, cause(ctx, err)
	}
	return resp, body, nil
}

// cause prefers the reason for which ctx ended to the transport's error, which is the consequence.
func cause(ctx context.Context, err error) error {
	if reason := context.Cause(ctx); reason != nil {
		return reason
	}
	return err
}

// request builds the HTTP request, with the token in it: no client-wide state holds one.
func (c *Client) request(ctx context.Context, q call) (*http.Request, error) {
	// An author's namespace that no header may hold must not look like a failure of the connection.
	if !printable(q.namespace) || !printable(q.token.Reveal()) {
		return nil, errors.New("the namespace or the token has characters that a header must not have")
	}
	r := &api.Request{
		Method:      q.method,
		URL:         &url.URL{Scheme: c.base.Scheme, Host: c.base.Host, Path: path.Join(c.base.Path, "/v1", q.path)},
		Host:        c.base.Host,
		Params:      q.query,
		Headers:     http.Header{api.RequestHeaderName: {"true"}, "User-Agent": {"leasefs"}},
		ClientToken: q.token.Reveal(),
	}
	if q.namespace != "" {
		r.Headers.Set(api.NamespaceHeaderName, q.namespace)
	}
	if q.body != nil {
		if err := r.SetJSONBody(q.body); err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		r.Headers.Set("Content-Type", "application/json")
	}
	req, err := r.ToHTTP()
	if err != nil {
		return nil, err
	}
	return req.WithContext(ctx), nil
}

// printable tells whether s is printable ASCII.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// readCapped reads a body of at most limit bytes, and of a larger one no more than that.
func readCapped(resp *http.Response, limit int64) ([]byte, error) {
	tooLarge := &badAnswer{fmt.Sprintf("its answer is larger than the %d bytes that the connection allows", limit)}
	if resp.ContentLength > limit {
		return nil, tooLarge
	}
	// One byte more than is expected or allowed, so that the end is seen without growing for it.
	b := make([]byte, 0, min(max(resp.ContentLength, 1023), limit)+1)
	for {
		n, err := resp.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return nil, tooLarge
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, fmt.Errorf("its answer broke off: %w", err)
		case len(b) == cap(b):
			b = append(make([]byte, 0, min(2*int64(cap(b)), limit+1)), b...)
		}
	}
}

// judge turns a complete answer into a reply or an *Error.
func (c *Client) judge(q call, resp *http.Response, body []byte) (*reply, error) {
	if resp.StatusCode/100 != 2 {
		return nil, c.refused(q, resp, body)
	}
	r := &reply{status: resp.StatusCode, size: len(body)}
	if len(bytes.TrimSpace(body)) == 0 {
		return r, nil
	}
	var err error
	if r.secret, err = decode(body); err != nil {
		e := c.newError(q, BadResponse, err)
		e.Status = resp.StatusCode
		return nil, e
	}
	return r, nil
}
