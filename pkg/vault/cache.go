// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache holds responses for a while. golang-lru's expirable cache would do it too, but it starts a goroutine that never
// ends, one for every client that the configuration ever had; here a timer clears what has expired, so that no secret
// stays in memory because nobody asks any more. A nil cache holds nothing.
type cache struct {
	ttl time.Duration

	mu      sync.Mutex
	entries *simplelru.LRU[shareKey, entry]
	sweeper *time.Timer // set while there are entries
	closed  bool
}

type entry struct {
	resp    *Response
	expires time.Time
}

// newCache makes a cache, nil when it is to be off.
func newCache(size int, ttl time.Duration) *cache {
	if size <= 0 || ttl <= 0 {
		return nil
	}
	entries, _ := simplelru.NewLRU[shareKey, entry](size, nil) // the size is positive, so there is no error
	return &cache{ttl: ttl, entries: entries}
}

func (c *cache) get(key shareKey) (*Response, bool) {
	if c == nil {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries.Get(key)
	if !ok || !time.Now().Before(e.expires) {
		return nil, false
	}
	return e.resp, true
}

func (c *cache) add(key shareKey, r *Response) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.entries.Add(key, entry{r, time.Now().Add(c.ttl)})
	if c.sweeper == nil {
		c.sweeper = time.AfterFunc(c.ttl, c.sweep)
	}
}

// sweep removes what has expired, and comes back while there is anything left.
func (c *cache) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, key := range c.entries.Keys() {
		if e, ok := c.entries.Peek(key); ok && !now.Before(e.expires) {
			c.entries.Remove(key)
		}
	}
	c.sweeper = nil
	if c.entries.Len() > 0 {
		c.sweeper = time.AfterFunc(c.ttl, c.sweep)
	}
}

// close empties the cache for good.
func (c *cache) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.entries.Purge()
	if c.sweeper != nil {
		c.sweeper.Stop()
		c.sweeper = nil
	}
}
