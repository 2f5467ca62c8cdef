// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Client speaks to the Vault of one connection, for many callers at once; it holds no token of its own. Make one with
// NewClient.
type Client struct {
	cfg     Config
	base    *url.URL
	http    *http.Transport   // the pool of connections
	send    http.RoundTripper // the pool, behind the policy of redirects
	limit   *rate.Limiter     // nil: no limit
	breaker breaker
	obs     Observer
	flights flights
	cache   *cache // nil: off

	life context.Context // ends with Close
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool
	logins sync.WaitGroup // each until its caller has the token, or it is revoked; Add only while not closed
}

// NewClient makes a client. It opens no connection and starts nothing. An error names the connection and all that is
// wrong with its configuration. A nil observer observes nothing.
func NewClient(cfg Config, obs Observer) (*Client, error) {
	cfg = cfg.withDefaults()
	base, allowed, err := cfg.origins()
	if err != nil {
		return nil, err
	}
	transport, err := cfg.newTransport()
	if err != nil {
		return nil, err
	}
	if obs == nil {
		obs = nobody{}
	}
	c := &Client{
		cfg: cfg, base: base, obs: obs,
		http: transport, send: &redirects{next: transport, allowed: allowed},
		breaker: breaker{spread: rand.Float64},
		cache:   newCache(cfg.CacheSize, cfg.CacheTTL),
	}
	c.life, c.end = context.WithCancel(context.Background())
	if cfg.RequestRate > 0 {
		c.limit = rate.NewLimiter(rate.Limit(cfg.RequestRate), cfg.RequestBurst)
	}
	return c, nil
}

// Name is the connection's name.
func (c *Client) Name() string { return c.cfg.Name }

// closeGrace is how long Close waits for the revocation of tokens that nobody took.
const closeGrace = 3 * time.Second

// Close ends the client, for good: what is under way but a login is not waited for. It waits, for a few seconds at most,
// until the token of each login whose caller gave up is revoked.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	grace := time.AfterFunc(closeGrace, c.end)
	c.logins.Wait()
	grace.Stop()
	c.end()
	c.release()
}

// background runs a login in a goroutine of its own, or tells that the client is closed.
func (c *Client) background(login func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.logins.Go(login)
	return true
}

// release gives back what the client holds without a need: idle connections and cached responses. What is under way
// goes on, and a caller that still has the client may go on using it.
func (c *Client) release() {
	c.cache.close()
	c.http.CloseIdleConnections()
}

// namespace is the Vault namespace of a call that asks for ns.
func (c *Client) namespace(ns string) string {
	if ns == "" {
		return c.cfg.Namespace
	}
	return ns
}

// seconds is a duration in whole seconds from Vault, kept within what a time.Duration can hold.
func seconds(n int64) time.Duration {
	const most = int64(100 * 365 * 24 * time.Hour / time.Second)
	return time.Duration(min(max(n, 0), most)) * time.Second
}
