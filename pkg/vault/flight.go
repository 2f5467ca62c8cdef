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

// flights makes identical reads that are under way at the same time once. It differs from x/sync/singleflight in that a
// caller can leave: the read goes on for the others, and ends when the last has left. The zero flights is ready.
type flights struct {
	mu      sync.Mutex
	flying  map[shareKey]*flight
	private *simplelru.LRU[string, struct{}] // requests that give leases, which nobody shares
}

type flight struct {
	done    chan struct{} // closed when resp and err are set
	resp    *Response
	err     error
	callers int // guarded by flights.mu
	cancel  context.CancelFunc
}

// errLeft says that the caller's context ended before the read did.
var errLeft = errors.New("gave up waiting")

// do returns the result of the read under way for key, or starts one; leader tells that this caller did. The read has the
// values of the leader's context but ends only with its last caller's.
func (f *flights) do(ctx context.Context, key shareKey, read func(context.Context) (*Response, error)) (resp *Response, leader bool, err error) {
	f.mu.Lock()
	fl, ok := f.flying[key]
	if !ok {
		flying, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight{done: make(chan struct{}), cancel: cancel}
		if f.flying == nil {
			f.flying = map[shareKey]*flight{}
		}
		f.flying[key] = fl
		go func() {
			defer cancel()
			fl.resp, fl.err = read(flying)
			f.land(key, fl)
			close(fl.done)
		}()
	}
	fl.callers++
	f.mu.Unlock()

	select {
	case <-fl.done:
		return fl.resp, !ok, fl.err
	case <-ctx.Done():
		f.leave(key, fl)
		return nil, !ok, errLeft
	}
}

// leave takes a caller off, and with the last one ends the read.
func (f *flights) leave(key shareKey, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.callers--; fl.callers == 0 {
		if f.flying[key] == fl {
			delete(f.flying, key)
		}
		fl.cancel()
	}
}

// land ends the sharing: who comes from now on reads anew.
func (f *flights) land(key shareKey, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flying[key] == fl {
		delete(f.flying, key)
	}
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
