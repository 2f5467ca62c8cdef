// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/strictyaml"
)

// connectionSettings are the keys of an element of `connections`: the one list of them.
func connectionSettings() []setting[Connection] {
	type c = Connection
	return []setting[c]{
		require(text("name", func(c *c) *string { return &c.Name }, "", checkConnectionName,
			"lower-case letters, digits, `-` and `.`, at most 63",
			"What volumes call it. A volume that names none uses the one called `default`.")),
		require(text("address", func(c *c) *string { return &c.Address }, "", checkAddress,
			"URL; http only to loopback, or with `allowInsecureHTTP`",
			"Where the Vault is, such as `https://vault.example.com:8200`.")),
		text("caFile", func(c *c) *string { return &c.CAFile }, "", attributes.ValidateName,
			"path, relative to the configuration file; at most 1Mi",
			"PEM certificates to trust instead of the system's. The file is followed like the configuration itself."),
		inlineCA(),
		text("serverName", func(c *c) *string { return &c.ServerName }, "", attributes.ValidateName,
			"host name",
			"Name that the server's certificate must have, where it is not the address's host."),
		text("namespace", func(c *c) *string { return &c.Namespace }, "", checkOptionalPath,
			"path of a Vault namespace",
			"Vault namespace of volumes that name none. None is the root namespace."),
		list("allowedNamespaces", func(c *c) *[]string { return &c.AllowedNamespaces }, cleanNamespacePattern,
			"list of namespaces; `a/*` is every one below `a`, `*` every one",
			"Vault namespaces that a volume may name, besides `namespace`."),
		word("authMethod", func(c *c) *string { return &c.AuthMethod },
			"How the pod's service account token is presented to Vault.", attributes.AuthMethods...),
		withDefault("the name of `authMethod`", text("authMount", func(c *c) *string { return &c.AuthMount }, "", checkAuthMount,
			"path without `auth/`",
			"Where the auth method is mounted.")),
		text("audience", func(c *c) *string { return &c.Audience }, "vault", attributes.ValidateName,
			"text; `\"\"` is the API server's own audience",
			"Audience of the token to log in with, of volumes that name none. It must be one of the CSIDriver object's `tokenRequests`."),
		text("role", func(c *c) *string { return &c.Role }, "", attributes.ValidateName,
			"name of a role of the auth mount",
			"Role of volumes that name none. Without it they must."),
		rate("requestRate", func(c *c) *float64 { return &c.RequestRate }, 250, span[float64]{0.1, 100000, "no limit"},
			"Requests per second that this node makes to this Vault at most."),
		whole("requestBurst", func(c *c) *int { return &c.RequestBurst }, 500, span[int]{1, 100000, "one second's worth"},
			"Requests that may be made at once after a pause."),
		duration("requestTimeout", func(c *c) *time.Duration { return &c.RequestTimeout }, 10*time.Second,
			span[time.Duration]{time.Second, time.Minute, ""},
			"Bound of one request and its answer."),
		size("maxResponseSize", func(c *c) *int64 { return &c.MaxResponseSize }, 4<<20, span[int64]{1 << 10, 64 << 20, ""},
			"Bound of one answer; a longer one is an error."),
		duration("cacheTTL", func(c *c) *time.Duration { return &c.CacheTTL }, 0,
			span[time.Duration]{time.Second, time.Hour, "no cache"},
			"How long an answer without a lease may be given again to a volume that starts with the same identity. A secret that was changed may then be old in a new pod for as long. Equal reads at the same moment are made once in any case."),
		whole("cacheSize", func(c *c) *int { return &c.CacheSize }, 1024, span[int]{1, 100000, ""},
			"Answers that the cache holds at most."),
		list("allowedRedirects", func(c *c) *[]string { return &c.AllowedRedirects }, cleanRedirect,
			"list of addresses without a path",
			"Where a redirect may lead, besides the connection's own address: the addresses that a cluster's members announce. Any other is refused, for the pod's token would go with it."),
		flag("proxyFromEnvironment", func(c *c) *bool { return &c.ProxyFromEnvironment },
			"Whether `HTTPS_PROXY` and the like are obeyed."),
		flag("allowInsecureHTTP", func(c *c) *bool { return &c.AllowInsecureHTTP },
			"Whether an http address may be other than loopback. Tokens and secrets then cross the network in the clear."),
	}
}

func withDefault[T any](text string, s setting[T]) setting[T] {
	s.Default = text
	return s
}

// inlineCA is caPEM, whose text is kept as bytes.
func inlineCA() setting[Connection] {
	return setting[Connection]{
		Setting: Setting{
			Key: "caPEM", Bound: "PEM certificates; not together with `caFile`",
			Doc: "The same, written out.",
		},
		init: func(c *Connection) { c.CAPEM = nil },
		read: func(v strictyaml.Value, c *Connection) {
			value, ok := v.Str()
			if !ok || value == "" {
				return
			}
			if err := checkCAPEM(value); err != nil {
				v.Faultf("%v", err)
				return
			}
			c.CAPEM = []byte(value)
		},
	}
}

// readConnection reads one element of `connections`: each key by itself, then what must fit together.
func readConnection(v strictyaml.Value, dir string) Connection {
	var c Connection
	values, ok := readSection(v, connectionSettings(), &c)
	if !ok {
		return c
	}
	at := func(key string) strictyaml.Value { return place(v, values, key) }

	c.Address = NormalizeAddress(c.Address)
	plain := strings.HasPrefix(c.Address, "http://")
	switch {
	case plain && !c.AllowInsecureHTTP && !loopback(c.Address):
		at("address").Faultf("is http and not loopback: tokens and secrets would cross the network in the clear; use https, or set allowInsecureHTTP: true")
	case plain && (c.CAFile != "" || len(c.CAPEM) > 0 || c.ServerName != ""):
		at("address").Faultf("is http, but caFile, caPEM or serverName is set, which only https uses")
	}
	for i, redirect := range c.AllowedRedirects {
		if strings.HasPrefix(redirect, "http://") && (!plain || !c.AllowInsecureHTTP && !loopback(redirect)) {
			at("allowedRedirects").Faultf("element %d is http, which the address is not or may not be", i)
		}
	}
	c.Namespace = strings.Trim(c.Namespace, "/")
	if c.AuthMount = strings.Trim(c.AuthMount, "/"); c.AuthMount == "" {
		c.AuthMount = c.AuthMethod
	}
	if c.CAFile != "" && len(c.CAPEM) > 0 {
		at("caPEM").Faultf("is given beside caFile; give one of them")
	} else if c.CAFile != "" {
		c.readCAFile(at("caFile"), dir)
	}
	return c
}

func (c *Connection) readCAFile(v strictyaml.Value, dir string) {
	if !filepath.IsAbs(c.CAFile) {
		c.CAFile = filepath.Join(dir, c.CAFile)
	}
	data, err := readFile(c.CAFile, maxCAFile)
	if err == nil {
		err = checkCAPEM(string(data))
	}
	if err != nil {
		v.Faultf("reading it: %v", err)
		return
	}
	c.CAPEM = data
}

var connectionName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// checkConnectionName keeps names fit for a metric's label and a log's field.
func checkConnectionName(s string) error {
	if !connectionName.MatchString(s) {
		return errors.New("must be lower-case letters, digits, '-' and '.', with a letter or digit at both ends, at most 63")
	}
	return nil
}

func checkOptionalPath(s string) error {
	if s = strings.Trim(s, "/"); s == "" {
		return nil
	}
	return attributes.ValidateVaultPath(s)
}

func checkAuthMount(s string) error {
	if strings.HasPrefix(strings.Trim(s, "/"), "auth/") {
		return errors.New(`is the path of the mount below "auth/"; leave "auth/" out`)
	}
	return checkOptionalPath(s)
}

func cleanNamespacePattern(s string) (string, error) {
	clean := strings.Trim(s, "/")
	plain := strings.TrimSuffix(clean, "/*")
	if clean == "*" {
		return clean, nil
	}
	if strings.Contains(plain, "*") {
		return "", errors.New(`may have a "*" only as its last part: a/* or *`)
	}
	return clean, attributes.ValidateVaultPath(plain)
}

// allowsNamespace reports whether a volume may log in to namespace: the connection's own, one that is listed, one below
// a listed "a/*", or any with "*".
func (c *Connection) allowsNamespace(namespace string) bool {
	if namespace == c.Namespace {
		return true
	}
	for _, pattern := range c.AllowedNamespaces {
		below, isPrefix := strings.CutSuffix(pattern, "*")
		if pattern == namespace || isPrefix && strings.HasPrefix(namespace, below) {
			return true
		}
	}
	return false
}

// checkCAPEM accepts PEM certificates and comments between them, and nothing else. The error repeats nothing.
func checkCAPEM(text string) error {
	rest := []byte(text)
	count := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		count++
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return errors.New("holds a private key: only the certificates of authorities belong here")
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("block %d is not a certificate", count)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d cannot be read", count)
		}
	}
	switch begun := bytes.Count([]byte(text), []byte("-----BEGIN ")); {
	case count == 0:
		return errors.New("holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
	case begun != count:
		return fmt.Errorf("holds %d PEM blocks, of which %d can be read", begun, count)
	}
	return nil
}
