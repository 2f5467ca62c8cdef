// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package discover stands in for hashicorp/go-discover, with which Vault's raft storage finds peers in a cloud
// (retry_join's auto_join). The real one compiles the client libraries of a dozen clouds, a third of the whole build;
// no test joins a cluster that way. Only the names Vault refers to are here. New works, since every raft join calls it;
// whatever would really discover something returns ErrStub.
package discover

import (
	"errors"
	"log"
)

// ErrStub is returned by everything that would need a cloud.
var ErrStub = errors.New("auto_join is not compiled into this test build of Vault: use leader_api_addr")

// Config is the parsed form of an auto_join string.
type Config map[string]string

// String is never reached with content, since Parse never returns any.
func (Config) String() string { return "" }

// Parse always returns ErrStub.
func Parse(string) (Config, error) { return nil, ErrStub }

// Provider looks up the addresses of peers in one cloud.
type Provider interface {
	Addrs(args map[string]string, l *log.Logger) ([]string, error)
	Help() string
}

// Providers is empty: no cloud is known.
var Providers map[string]Provider

// Discover finds no peers.
type Discover struct{}

// Option configures a Discover.
type Option func(*Discover) error

// WithProviders ignores the providers: none of them can be asked.
func WithProviders(map[string]Provider) Option { return func(*Discover) error { return nil } }

// New returns a Discover; it has to succeed for raft joins that name their leader's address.
func New(...Option) (*Discover, error) { return &Discover{}, nil }

// Addrs always returns ErrStub.
func (*Discover) Addrs(string, *log.Logger) ([]string, error) { return nil, ErrStub }
