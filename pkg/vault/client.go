// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
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
	orphans sync.WaitGroup
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
	if cfg.RequestRate > 0 {
		c.limit = rate.NewLimiter(rate.Limit(cfg.RequestRate), cfg.RequestBurst)
	}
	return c, nil
}

// Name is the connection's name.
func (c *Client) Name() string { return c.cfg.Name }

// Close gives back what the client holds: idle connections and cached responses. Exchanges under way finish, and a
// caller that still has the client may go on using it, only not faster than a new one.
func (c *Client) Close() {
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
