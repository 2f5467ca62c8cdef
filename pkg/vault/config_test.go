// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// Loopback is never proxied, so that a server of a test cannot show it.
func TestProxyOfTheEnvironmentIsUsedOnlyWhenConfigured(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
	for _, wanted := range []bool{false, true} {
		c, err := NewClient(Config{Name: "main", Address: "https://vault.example.com", ProxyFromEnvironment: wanted}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var proxy *url.URL
		if c.http.Proxy != nil {
			if proxy, err = c.http.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: "vault.example.com"}}); err != nil {
				t.Fatal(err)
			}
		}
		if (proxy != nil) != wanted {
			t.Errorf("with ProxyFromEnvironment %v the proxy is %v", wanted, proxy)
		}
	}
}

func TestDefaultsOfAConfiguration(t *testing.T) {
	got := Config{RequestRate: 2.5}.withDefaults()
	if got.RequestTimeout != 10*time.Second || got.MaxResponseBytes != 4<<20 || got.RequestBurst != 3 {
		t.Errorf("got %+v", got)
	}
	transport, err := Config{}.newTransport()
	if err != nil {
		t.Fatal(err)
	}
	if transport.TLSClientConfig.MinVersion != tls.VersionTLS12 || transport.TLSClientConfig.InsecureSkipVerify || transport.MaxIdleConnsPerHost < 110 {
		t.Errorf("transport %+v", transport)
	}
}

func TestOriginsAreComparedWithTheirPort(t *testing.T) {
	for address, want := range map[string]string{
		"https://Vault.example.com":      "https://vault.example.com:443",
		"https://vault.example.com:443/": "https://vault.example.com:443",
		"http://vault":                   "http://vault:80",
		"https://[::1]:8200/x":           "https://[::1]:8200",
	} {
		u, err := parseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := originOf(u); got != want {
			t.Errorf("originOf(%s) = %s, want %s", address, got, want)
		}
	}
}
