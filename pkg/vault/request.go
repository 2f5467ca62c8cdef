// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/leasefs/leasefs/pkg/secret"
)

// Request is one read. "Read" means: ask for a secret; with PUT or POST Vault makes one.
type Request struct {
	Path   string         // no leading slash, no query, not escaped
	Query  url.Values     // as ?version=2
	Method string         // GET, PUT or POST; "": GET
	Args   map[string]any // the JSON body of a PUT or POST
}

func (r Request) method() string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}

// Key is the same for requests that ask Vault for the same, and differs when anything differs: method, path, query or
// arguments. It reads well in a log and holds no argument: those are in it as a hash.
func (r Request) Key() string {
	var b strings.Builder
	// What is escaped has no ? and no # in it, so that nothing of the path can be taken for a query or a hash.
	fmt.Fprintf(&b, "%s %s", url.PathEscape(r.method()), strings.ReplaceAll(url.PathEscape(r.Path), "%2F", "/"))
	if query := r.Query.Encode(); query != "" {
		b.WriteString("?" + query)
	}
	if len(r.Args) > 0 {
		// encoding/json writes maps sorted by key. What it cannot write is never sent, see check.
		args, err := json.Marshal(r.Args)
		if err != nil {
			args = fmt.Appendf(nil, "\x00%#v", r.Args)
		}
		sum := sha256.Sum256(args)
		b.WriteString("#" + base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	return b.String()
}

// check finds what cannot be sent.
func (r Request) check() error {
	if err := checkPath(r.Path); err != nil {
		return err
	}
	switch r.method() {
	case http.MethodPut, http.MethodPost:
		if _, err := json.Marshal(r.Args); err != nil {
			return fmt.Errorf("its arguments are no JSON: %w", err)
		}
		return nil
	case http.MethodGet:
		if len(r.Args) > 0 {
			return errors.New("vault ignores the arguments of a GET: set the method to PUT, or use a query")
		}
		return nil
	}
	return fmt.Errorf("method %q is none of GET, PUT, POST", clean(r.Method))
}

// checkPath refuses what would be another path once it is cleaned, on its way or by Vault.
func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty")
	case strings.ContainsFunc(path, unicode.IsControl):
		return errors.New("the path has a control character in it")
	}
	for _, part := range strings.Split(path, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("the path must not begin or end with /, nor have //, . or .. in it: %q", clean(path))
		}
	}
	return nil
}

// Response is one secret as Vault gave it. It may be shared: never modify it. It prints as redacted.
type Response struct {
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
	Data          map[string]any // numbers are json.Number
	Warnings      []string
}

// Format implements fmt.Formatter: nothing of the content, whatever the verb.
func (r Response) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(secret.Redacted)) }

// LogValue implements slog.LogValuer.
func (r Response) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }

// MarshalJSON implements json.Marshaler.
func (r Response) MarshalJSON() ([]byte, error) { return json.Marshal(secret.Redacted) }
