// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Defaults of a Config.
const (
	DefaultRequestTimeout   = 10 * time.Second
	DefaultMaxResponseBytes = 4 << 20
)

// Config is one connection as the client needs it. Two configurations that are deeply equal make equal clients.
type Config struct {
	Name             string        // the connection's name in logs, metrics and errors
	Address          string        // http or https, host and port, optionally a path prefix
	AllowedRedirects []string      // further addresses (scheme, host, port) that a redirect may lead to, as a standby's to the leader
	ServerName       string        // TLS server name; "" is the address's host
	Namespace        string        // Vault namespace of a call that names none; "" is the root
	CAPEM            []byte        // PEM certificates of the only accepted roots; empty: the system's roots
	RequestTimeout   time.Duration // bound of one HTTP exchange; 0: DefaultRequestTimeout
	RequestRate      float64       // requests per second of this node to this Vault; 0: no limit
	RequestBurst     int           // requests at once within the rate; 0: one second's worth
	MaxResponseBytes int64         // bound of a response's body in bytes; 0: DefaultMaxResponseBytes

	ProxyFromEnvironment bool // obey HTTPS_PROXY and the like; else no proxy at all

	CacheTTL  time.Duration // how long a response may be served again; 0: no response cache
	CacheSize int           // how many responses the cache holds; 0: no response cache
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.RequestTimeout == 0 {
		c.RequestTimeout = DefaultRequestTimeout
	}
	if c.MaxResponseBytes == 0 {
		c.MaxResponseBytes = DefaultMaxResponseBytes
	}
	if c.RequestRate > 0 && c.RequestBurst == 0 {
		c.RequestBurst = max(1, int(math.Ceil(c.RequestRate)))
	}
	return c
}

// origins checks the configuration and returns its addresses: the connection's own, and every origin that a redirect
// may lead to (the own one included), as `scheme://host:port`.
func (c Config) origins() (*url.URL, map[string]bool, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		fault("it has no name")
	}
	for name, negative := range map[string]bool{
		"request timeout":    c.RequestTimeout < 0,
		"request rate":       c.RequestRate < 0 || math.IsNaN(c.RequestRate) || math.IsInf(c.RequestRate, 0),
		"request burst":      c.RequestBurst < 0,
		"max response bytes": c.MaxResponseBytes < 0,
		"cache ttl":          c.CacheTTL < 0,
		"cache size":         c.CacheSize < 0,
	} {
		if negative {
			fault("%s must be a number that is not negative", name)
		}
	}
	allowed := map[string]bool{}
	base, err := parseAddress(c.Address)
	if err != nil {
		fault("address %w", err)
	} else {
		allowed[originOf(base)] = true
	}
	for _, address := range c.AllowedRedirects {
		u, err := parseAddress(address)
		switch {
		case err != nil:
			fault("allowed redirect %w", err)
		case base != nil && base.Scheme == "https" && u.Scheme != "https":
			fault("allowed redirect %q must be https as the address is", address)
		default:
			allowed[originOf(u)] = true
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, nil, fmt.Errorf("vault connection %q: %w", c.Name, err)
	}
	return base, allowed, nil
}

func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("is no URL") // not shown: what cannot be parsed may hold a password
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q must begin with https:// or http://", address)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q names no host", address)
	case u.User != nil:
		return nil, errors.New("must not hold a user or password")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q must not have a query or fragment", address)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

// originOf is scheme, host and port, the port always said.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// Bounds of the pool of connections to one Vault. 110 pods that start at once log in at once.
const (
	maxConns            = 128
	dialTimeout         = 5 * time.Second
	idleTimeout         = 90 * time.Second
	keepAlive           = 30 * time.Second
	maxHeaderBytes      = 64 << 10
	http2PingAfter      = 15 * time.Second // a frozen Vault must not hold the one HTTP/2 connection of all requests
	http2PingTimeout    = 5 * time.Second
	tlsHandshakeTimeout = 5 * time.Second
)

// newTransport makes the pool of connections. Nothing of the environment has a say in it unless the configuration says
// so. Responses are not decompressed, so that the cap on their size is a cap on memory.
func (c Config) newTransport() (*http.Transport, error) {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    tlsHandshakeTimeout,
		MaxIdleConns:           maxConns,
		MaxIdleConnsPerHost:    maxConns,
		MaxConnsPerHost:        maxConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: http2PingAfter, PingTimeout: http2PingTimeout},
	}
	if c.ProxyFromEnvironment {
		t.Proxy = http.ProxyFromEnvironment
	}
	settings := &api.Config{HttpClient: &http.Client{Transport: t}}
	if err := settings.ConfigureTLS(&api.TLSConfig{CACertBytes: c.CAPEM, TLSServerName: c.ServerName}); err != nil {
		return nil, fmt.Errorf("vault connection %q: reading its CA certificates: %w", c.Name, err)
	}
	return t, nil
}
