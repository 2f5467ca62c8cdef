// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/sync/errgroup"
)

// floor is the least that anybody can do to get a volume's secrets: one login, then all reads at once, over one warm pool of
// connections. It writes no file and remembers nothing.
type floor struct {
	address string
	http    *http.Client
}

func newFloor(address string) *floor {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxIdleConns = 256, 256
	return &floor{address: address, http: &http.Client{Transport: transport}}
}

// get makes one volume's requests with the pod's token.
func (f *floor) get(ctx context.Context, jwt string, count int) error {
	body, err := json.Marshal(map[string]string{"role": "app", "jwt": jwt})
	if err != nil {
		return err
	}
	var login struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	if err := f.call(ctx, http.MethodPost, "auth/jwt/login", "", body, &login); err != nil {
		return err
	}
	reads, ctx := errgroup.WithContext(ctx)
	for i := range count {
		reads.Go(func() error {
			var secret struct{ Data map[string]any }
			return f.call(ctx, http.MethodGet, fmt.Sprintf("secret/data/s%d", i), login.Auth.ClientToken, nil, &secret)
		})
	}
	return reads.Wait()
}

func (f *floor) call(ctx context.Context, method, path, token string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, f.address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := f.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, data)
	}
	return json.Unmarshal(data, into)
}
