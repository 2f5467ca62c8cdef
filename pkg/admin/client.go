// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxAnswer is more than the largest bounded List takes with names of usual length.
const maxAnswer = 64 << 20

// Volumes asks the daemon behind the socket at path for its volumes.
func Volumes(ctx context.Context, path string) (List, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://leasefs/v1/volumes", nil)
	if err != nil {
		return List{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return List{}, fmt.Errorf("asking the daemon at %s (is it running, and are you root?): %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 512))
		return List{}, fmt.Errorf("the daemon at %s answered %s: %s", path, res.Status, strings.TrimSpace(string(text)))
	}
	var l List
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&l); err != nil {
		return List{}, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	if l.APIVersion != APIVersion {
		return List{}, fmt.Errorf("the daemon at %s speaks %q, this program %q: use the leasefs of the same release", path, l.APIVersion, APIVersion)
	}
	return l, nil
}
