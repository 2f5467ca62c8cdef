// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

// A login and a read by the client, and the same by net/http alone: the difference is what the client costs.
func BenchmarkLoginAndRead(b *testing.B) {
	s := serve(b, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			answer(200, loggedIn)(w, r)
			return
		}
		answer(200, kv2)(w, r)
	})
	b.Run("client", func(b *testing.B) {
		c := connect(b, s.URL)
		for b.Loop() {
			got, err := c.Login(b.Context(), login)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.Read(b.Context(), vault.Auth{Token: got.Token, Identity: got.Identity}, app, vault.ReadOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		bare := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
		defer bare.CloseIdleConnections()
		do := func(method, path, token string, in any) {
			body, err := json.Marshal(in)
			if err != nil {
				b.Fatal(err)
			}
			req, err := http.NewRequestWithContext(b.Context(), method, s.URL+path, bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("X-Vault-Token", token)
			resp, err := bare.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			raw, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			var out map[string]any
			if err != nil || json.Unmarshal(raw, &out) != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			do("POST", "/v1/auth/kubernetes/login", "", map[string]string{"role": "app", "jwt": jwt})
			do("GET", "/v1/secret/data/app", token, nil)
		}
	})
	b.Run("client, parallel", func(b *testing.B) {
		c := connect(b, s.URL)
		b.SetParallelism(55)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := c.Read(b.Context(), vault.Auth{Token: secret.New(token)}, app, vault.ReadOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
