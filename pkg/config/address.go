// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strings"
)

// NormalizeAddress writes a Vault address in one form, so that two spellings of an address are the same text: scheme
// and host in lower case, the scheme's own port left out, no slash at the end. It returns "" for what checkAddress refuses.
func NormalizeAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil || checkAddress(address) != nil {
		return ""
	}
	host := strings.ToLower(u.Hostname())
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	if port := u.Port(); port != "" && port != map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)] {
		host = net.JoinHostPort(host, port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return strings.ToLower(u.Scheme) + "://" + host + strings.TrimRight(path.Clean("/"+u.Path), "/")
}

// checkAddress accepts http and https URLs that name a host and perhaps a path. The error does not repeat the address,
// which may hold a password.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("must be a URL such as https://vault.example.com:8200")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must begin with https:// (or http://)")
	case u.User != nil:
		return errors.New("must not hold a user or a password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("must not have a query or a fragment")
	}
	return nil
}

// cleanRedirect checks and normalises an address of which only scheme, host and port count.
func cleanRedirect(address string) (string, error) {
	if err := checkAddress(address); err != nil {
		return "", err
	}
	if u, _ := url.Parse(address); strings.Trim(u.Path, "/") != "" {
		return "", errors.New("must not have a path: a redirect may lead to any path of its host")
	}
	return NormalizeAddress(address), nil
}

// loopback reports whether the normalised address never leaves the node.
func loopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback() || u.Hostname() == "localhost"
}
