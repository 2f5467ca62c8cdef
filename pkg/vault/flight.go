// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxLeased bounds how many requests are remembered to give leases.
const maxLeased = 1024

// flights makes identical reads that are under way at the same time once. It differs from x/sync/singleflight in that nobody is held
// to another's context: who gives up waiting leaves, and when the one who reads gives up, another of those who wait reads. The zero
// flights is ready.
type flights struct {
	mu      sync.Mutex
	flying  map[shareKey]*flight
	private *simplelru.LRU[string, struct{}] // requests that give leases, which nobody shares
}

type flight struct {
	done    chan struct{} // closed when the rest is set
	resp    *Response
	err     error
	given   bool // there is a result; otherwise the leader gave up
	callers int  // who wait for it, the leader included; guarded by flights.mu
}

// errLeft says that the caller's context ended before the read did.
var errLeft = errors.New("gave up waiting")

// do returns the result of the read under way for key, or makes one; leader tells that this caller did.
func (f *flights) do(ctx context.Context, key shareKey, read func(context.Context) (*Response, error)) (resp *Response, leader bool, err error) {
	for {
		fl, leads := f.board(key)
		if leads {
			return f.lead(ctx, key, fl, read)
		}
		select {
		case <-fl.done:
			if fl.given {
				return fl.resp, false, fl.err
			}
		case <-ctx.Done():
			f.mu.Lock()
			fl.callers--
			f.mu.Unlock()
			return nil, false, errLeft
		}
	}
}

// board finds the flight for key, or makes it, to be led by the caller.
func (f *flights) board(key shareKey) (fl *flight, leads bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl, ok := f.flying[key]
	if !ok {
		fl = &flight{done: make(chan struct{})}
		if f.flying == nil {
			f.flying = map[shareKey]*flight{}
		}
		f.flying[key] = fl
	}
	fl.callers++
	return fl, !ok
}

// lead makes the read, and ends the sharing: who comes from then on reads anew. A read that panics is given up, too.
func (f *flights) lead(ctx context.Context, key shareKey, fl *flight, read func(context.Context) (*Response, error)) (*Response, bool, error) {
	defer func() {
		f.mu.Lock()
		delete(f.flying, key)
		f.mu.Unlock()
		close(fl.done)
	}()
	fl.resp, fl.err = read(ctx)
	fl.given = fl.err == nil || ctx.Err() == nil
	return fl.resp, true, fl.err
}

// alone tells whether each caller must make the request by itself.
func (f *flights) alone(request string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.private == nil {
		return false
	}
	_, ok := f.private.Get(request)
	return ok
}

// leased remembers that a request gives leases.
func (f *flights) leased(request string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.private == nil {
		f.private, _ = simplelru.NewLRU[string, struct{}](maxLeased, nil) // the size is positive, so there is no error
	}
	f.private.Add(request, struct{}{})
}
