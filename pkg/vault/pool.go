// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
)

// Pool holds a client for each connection and follows the configuration. Make one with NewPool.
type Pool struct {
	obs Observer

	mu      sync.RWMutex
	clients map[string]pooled
}

type pooled struct {
	config Config
	client *Client
}

// NewPool makes an empty pool, whose clients tell obs.
func NewPool(obs Observer) *Pool { return &Pool{obs: obs} }

// Update makes the pool hold the clients of these configurations and no others. Clients whose configuration is the same
// stay, with their connections, breaker and cache. It is all or nothing: after an error, which lists everything that is
// wrong, the pool is as it was. Clients that fall out of the pool finish what is under way.
func (p *Pool) Update(configs []Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[string]pooled, len(configs))
	var fresh []*Client
	var faults []error
	for _, cfg := range configs {
		if _, twice := next[cfg.Name]; twice {
			faults = append(faults, fmt.Errorf("vault connection %q: there are two of that name", cfg.Name))
			continue
		}
		if old, ok := p.clients[cfg.Name]; ok && reflect.DeepEqual(old.config, cfg) {
			next[cfg.Name] = old
			continue
		}
		client, err := NewClient(cfg, p.obs)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		fresh = append(fresh, client)
		next[cfg.Name] = pooled{cfg, client}
	}
	if err := errors.Join(faults...); err != nil {
		for _, c := range fresh {
			c.Close()
		}
		return err
	}
	for name, old := range p.clients {
		if next[name].client != old.client {
			old.client.release()
		}
	}
	p.clients = next
	return nil
}

// Client is the client of a connection. *UnknownConnectionError.
func (p *Pool) Client(name string) (*Client, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if e, ok := p.clients[name]; ok {
		return e.client, nil
	}
	return nil, &UnknownConnectionError{Name: name, Known: slices.Sorted(maps.Keys(p.clients))}
}

// Close empties the pool and closes its clients, see Client.Close.
func (p *Pool) Close() {
	p.mu.Lock()
	clients := p.clients
	p.clients = nil
	p.mu.Unlock()
	var wait sync.WaitGroup
	for _, e := range clients {
		wait.Go(e.client.Close)
	}
	wait.Wait()
}
