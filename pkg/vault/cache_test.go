// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestCacheServesUntilTheTTLAndKeepsNothingAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(8, time.Minute)
		defer c.close()
		key, r := shareKey{"id", "", "GET a"}, &Response{Data: map[string]any{"a": "1"}}
		c.add(key, r)
		time.Sleep(time.Minute - time.Nanosecond)
		if got, ok := c.get(key); !ok || got != r {
			t.Fatalf("within its ttl: %v %v", got, ok)
		}
		time.Sleep(time.Nanosecond)
		if _, ok := c.get(key); ok {
			t.Fatal("served after its ttl")
		}
		synctest.Wait()
		if n := c.entries.Len(); n != 0 {
			t.Fatalf("%d entries are left in memory after the ttl", n)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.sweeper != nil {
			t.Fatal("an empty cache has a timer")
		}
	})
}

func TestCacheForgetsTheLeastRecentlyUsed(t *testing.T) {
	c := newCache(2, time.Minute)
	defer c.close()
	key := func(i int) shareKey { return shareKey{"id", "", fmt.Sprint(i)} }
	c.add(key(1), &Response{})
	c.add(key(2), &Response{})
	c.get(key(1))
	c.add(key(3), &Response{})
	if _, ok := c.get(key(2)); ok {
		t.Error("the least recently used is still there")
	}
	if _, ok := c.get(key(1)); !ok {
		t.Error("the recently used is gone")
	}
}

func TestCacheOffAndClosedHoldNothing(t *testing.T) {
	for name, c := range map[string]*cache{"no size": newCache(0, time.Minute), "no ttl": newCache(8, 0)} {
		if c != nil {
			t.Errorf("%s: there is a cache", name)
		}
		c.add(shareKey{}, &Response{})
		if _, ok := c.get(shareKey{}); ok {
			t.Errorf("%s: served", name)
		}
		c.close()
	}
	before := runtime.NumGoroutine()
	c := newCache(8, time.Minute)
	c.add(shareKey{}, &Response{})
	c.close()
	c.add(shareKey{}, &Response{})
	if _, ok := c.get(shareKey{}); ok || c.sweeper != nil {
		t.Error("a closed cache serves, or has a timer")
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines more than before", n-before)
	}
}

func TestOnlyPlainValuesAreKept(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want bool
	}{
		"kv 1":                    {`{"data":{"password":"x"},"lease_duration":2764800}`, true},
		"kv 2":                    {`{"data":{"data":{"password":"x"},"metadata":{"version":1,"deletion_time":"","destroyed":false}}}`, true},
		"kv 2 with a ttl inside":  {`{"data":{"data":{"ttl":"x"},"metadata":{"version":1}}}`, true},
		"kv 2 to be deleted":      {`{"data":{"data":{"a":"x"},"metadata":{"deletion_time":"2030-01-01T00:00:00Z"}}}`, false},
		"kv 1 with a ttl":         {`{"data":{"password":"x","ttl":"90s"},"lease_duration":90}`, false},
		"lease":                   {`{"lease_id":"database/creds/x/1","data":{"username":"x"}}`, false},
		"static role":             {`{"data":{"username":"x","password":"y","ttl":42,"rotation_period":60}}`, false},
		"static role by schedule": {`{"data":{"username":"x","last_vault_rotation":"2026-01-01T00:00:00Z"}}`, false},
		"certificate":             {`{"data":{"certificate":"-----BEGIN CERTIFICATE-----\nMII"}}`, false},
		"certificate in kv 2":     {`{"data":{"data":{"tls.crt":"-----BEGIN CERTIFICATE-----\nMII"},"metadata":{}}}`, false},
		"certificates in a list":  {`{"data":{"ca_chain":["-----BEGIN CERTIFICATE-----\nMII"]}}`, false},
		"issued, with expiration": {`{"data":{"expiration":1790000000}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var r struct {
				LeaseID string         `json:"lease_id"`
				Data    map[string]any `json:"data"`
			}
			if err := json.Unmarshal([]byte(c.body), &r); err != nil {
				t.Fatal(err)
			}
			if got := plain(&Response{LeaseID: r.LeaseID, Data: r.Data}); got != c.want {
				t.Errorf("plain = %v, want %v", got, c.want)
			}
		})
	}
}
