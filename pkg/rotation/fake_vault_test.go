// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

// fakeVault behaves like a Vault with tokens, leases under tokens, and values, in the time of a synctest bubble. Paths:
// kv/NAME is a value, db/NAME a renewable lease, fixed/NAME one that cannot be renewed, static/NAME a static role, pki/issue/NAME
// a certificate.
type fakeVault struct {
	mu     sync.Mutex
	down   bool // nothing answers
	gone   bool // the connection was taken out of the configuration
	denied map[string]bool
	broken map[string]vault.Class // paths that fail, and how
	hang   chan struct{}          // not nil: reads wait for it, or for their context
	mute   bool                   // requests are taken and never answered
	// muteBut: so are all but those of this operation.
	muteBut vault.Op
	stuck   map[string]bool // so are reads of these paths, and renewals and lookups of their leases

	tokenTTL, tokenMax time.Duration
	leaseTTL, leaseMax time.Duration
	staticPeriod       time.Duration
	certTTL            time.Duration
	batch              bool

	serial int
	tokens map[string]*fakeToken
	leases map[string]*fakeLease
	kv     map[string]string
	calls  []string // "op path", in order
}

type fakeToken struct {
	granted, expires, max time.Time
	batch                 bool
}

type fakeLease struct {
	token        string
	expires, max time.Time
	renewable    bool
}

// requestTimeout is how long a client waits for an answer.
const requestTimeout = 10 * time.Second

func newFakeVault() *fakeVault {
	return &fakeVault{
		denied:   map[string]bool{},
		tokenTTL: 10 * time.Minute, tokenMax: time.Hour, leaseTTL: time.Minute, leaseMax: 5 * time.Minute, staticPeriod: time.Minute, certTTL: time.Hour,
		tokens: map[string]*fakeToken{}, leases: map[string]*fakeLease{}, kv: map[string]string{"kv/app": "v1"},
	}
}

func (f *fakeVault) Client(connection string) (rotation.Vault, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if connection != "default" || f.gone {
		return nil, errors.New("not configured")
	}
	return f, nil
}

func fail(op vault.Op, path string, class vault.Class, status int) *vault.Error {
	return &vault.Error{Op: op, Connection: "default", Path: path, Class: class, Status: status, Messages: []string{class.String()}}
}

// enter counts a call and fails it where Vault does not answer.
func (f *fakeVault) enter(ctx context.Context, op vault.Op, path string) error {
	f.calls = append(f.calls, string(op)+" "+path)
	if f.mute || f.muteBut != "" && op != f.muteBut || f.stuck[path] {
		f.mu.Unlock()
		waiting, give := context.WithTimeoutCause(ctx, requestTimeout, errors.New("no answer in time"))
		defer give()
		<-waiting.Done()
		f.mu.Lock()
		if ctx.Err() == nil {
			e := fail(op, path, vault.Transient, 0)
			e.Err = context.Cause(waiting)
			return e
		}
	}
	if ctx.Err() != nil {
		e := fail(op, path, vault.Transient, 0)
		e.Err = fmt.Errorf("%w: %w", ctx.Err(), context.Cause(ctx))
		return e
	}
	if f.down {
		return fail(op, path, vault.Transient, 0)
	}
	if f.denied[path] {
		return fail(op, path, vault.Denied, http.StatusForbidden)
	}
	if class, ok := f.broken[path]; ok {
		return fail(op, path, class, http.StatusBadGateway)
	}
	return nil
}

// alive finds a token that is still valid.
func (f *fakeVault) alive(op vault.Op, path string, a vault.Auth) (*fakeToken, error) {
	f.reap()
	t, ok := f.tokens[a.Token.Reveal()]
	if !ok {
		return nil, fail(op, path, vault.InvalidToken, http.StatusForbidden)
	}
	return t, nil
}

// reap ends what is over: tokens, and leases with them.
func (f *fakeVault) reap() {
	now := time.Now()
	for name, t := range f.tokens {
		if !now.Before(t.expires) {
			delete(f.tokens, name)
		}
	}
	for id, l := range f.leases {
		if _, ok := f.tokens[l.token]; !ok || !now.Before(l.expires) {
			delete(f.leases, id)
		}
	}
}

func (f *fakeVault) Login(ctx context.Context, l vault.Login) (vault.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpLogin, l.Mount); err != nil {
		return vault.Session{}, err
	}
	if l.JWT.Reveal() != "jwt" {
		return vault.Session{}, fail(vault.OpLogin, l.Mount, vault.Denied, http.StatusForbidden)
	}
	f.serial++
	name, now := fmt.Sprintf("hvs.token-%d", f.serial), time.Now()
	f.tokens[name] = &fakeToken{granted: now, expires: now.Add(f.tokenTTL), max: now.Add(f.tokenMax), batch: f.batch}
	return vault.Session{Token: secret.New(name), Accessor: "accessor", TTL: f.tokenTTL, Renewable: !f.batch, Batch: f.batch, Identity: "id"}, nil
}

func (f *fakeVault) RenewSession(ctx context.Context, a vault.Auth) (vault.Grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpRenewSession, "auth/token/renew-self"); err != nil {
		return vault.Grant{}, err
	}
	t, err := f.alive(vault.OpRenewSession, "auth/token/renew-self", a)
	if err != nil {
		return vault.Grant{}, err
	}
	if t.batch {
		return vault.Grant{}, fail(vault.OpRenewSession, "auth/token/renew-self", vault.NotRenewable, http.StatusBadRequest)
	}
	var g vault.Grant
	t.expires, g = extend(f.tokenTTL, t.max)
	return g, nil
}

// extend is what Vault grants: ttl, capped by max, and `renewable: true` whatever the cap.
func extend(ttl time.Duration, limit time.Time) (time.Time, vault.Grant) {
	now := time.Now()
	g := vault.Grant{TTL: ttl, Renewable: true}
	if left := limit.Sub(now); left < ttl {
		g.TTL, g.Capped = left.Truncate(time.Second), true
	}
	return now.Add(g.TTL), g
}

func (f *fakeVault) LookupSession(ctx context.Context, a vault.Auth) (vault.Grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpLookupSession, "auth/token/lookup-self"); err != nil {
		return vault.Grant{}, err
	}
	t, err := f.alive(vault.OpLookupSession, "auth/token/lookup-self", a)
	if err != nil {
		return vault.Grant{}, err
	}
	return vault.Grant{TTL: time.Until(t.expires), Renewable: !t.batch}, nil
}

func (f *fakeVault) RevokeSession(ctx context.Context, a vault.Auth) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpRevokeSession, "auth/token/revoke-self"); err != nil {
		return err
	}
	if t, ok := f.tokens[a.Token.Reveal()]; ok && !t.batch {
		delete(f.tokens, a.Token.Reveal())
	}
	f.reap()
	return nil
}

func (f *fakeVault) Read(ctx context.Context, a vault.Auth, q vault.Request, _ vault.ReadOptions) (*vault.Response, error) {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpRead, q.Path); err != nil {
		return nil, err
	}
	if _, err := f.alive(vault.OpRead, q.Path, a); err != nil {
		return nil, err
	}
	switch engine, _, _ := strings.Cut(q.Path, "/"); engine {
	case "kv":
		v, ok := f.kv[q.Path]
		if !ok {
			return nil, fail(vault.OpRead, q.Path, vault.NotFound, http.StatusNotFound)
		}
		return &vault.Response{Data: map[string]any{"value": v}}, nil
	case "static":
		period, now := f.staticPeriod, time.Now()
		left := period - time.Duration(now.UnixNano())%period
		return &vault.Response{Data: map[string]any{
			"username": "static", "password": fmt.Sprint(now.UnixNano() / int64(period)),
			"ttl": json.Number(fmt.Sprint(int64(left / time.Second))), "rotation_period": json.Number("60"),
		}}, nil
	case "pki":
		return &vault.Response{Data: map[string]any{"certificate": certificatePEM(time.Now(), time.Now().Add(f.certTTL))}}, nil
	default:
		return f.lend(a, q.Path, engine == "db"), nil
	}
}

func (f *fakeVault) lend(a vault.Auth, path string, renewable bool) *vault.Response {
	f.serial++
	id, now := fmt.Sprintf("%s/lease-%d", path, f.serial), time.Now()
	ttl := f.leaseTTL
	if t := f.tokens[a.Token.Reveal()]; t.batch {
		ttl = min(ttl, time.Until(t.expires))
	}
	f.leases[id] = &fakeLease{token: a.Token.Reveal(), expires: now.Add(ttl), max: now.Add(f.leaseMax), renewable: renewable}
	return &vault.Response{LeaseID: id, LeaseDuration: ttl, Renewable: renewable, Data: map[string]any{"username": id, "password": "p-" + id}}
}

func (f *fakeVault) lease(op vault.Op, a vault.Auth, id string) (*fakeLease, error) {
	if _, err := f.alive(op, id, a); err != nil {
		return nil, err
	}
	l, ok := f.leases[id]
	if !ok {
		return nil, fail(op, id, vault.LeaseGone, http.StatusBadRequest)
	}
	return l, nil
}

func (f *fakeVault) RenewLease(ctx context.Context, a vault.Auth, id string, _ time.Duration) (vault.Grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpRenewLease, "sys/leases/renew"); err != nil {
		return vault.Grant{}, err
	}
	l, err := f.lease(vault.OpRenewLease, a, id)
	if err != nil {
		return vault.Grant{}, err
	}
	if !l.renewable {
		return vault.Grant{}, fail(vault.OpRenewLease, id, vault.NotRenewable, http.StatusBadRequest)
	}
	var g vault.Grant
	l.expires, g = extend(f.leaseTTL, l.max)
	return g, nil
}

func (f *fakeVault) LookupLease(ctx context.Context, a vault.Auth, id string) (vault.Grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpLookupLease, "sys/leases/lookup"); err != nil {
		return vault.Grant{}, err
	}
	l, err := f.lease(vault.OpLookupLease, a, id)
	if err != nil {
		return vault.Grant{}, err
	}
	return vault.Grant{TTL: time.Until(l.expires), Renewable: l.renewable}, nil
}

func (f *fakeVault) RevokeLease(ctx context.Context, a vault.Auth, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, vault.OpRevokeLease, "sys/leases/revoke"); err != nil {
		return err
	}
	if _, err := f.alive(vault.OpRevokeLease, id, a); err != nil {
		return err
	}
	delete(f.leases, id)
	return nil
}

// Below: what a test does to Vault, and sees in it.

func (f *fakeVault) set(change func(*fakeVault)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// live counts the tokens and leases that are valid now.
func (f *fakeVault) live() (tokens, leases int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reap()
	return len(f.tokens), len(f.leases)
}

// valid reports whether a user name that was read from db or fixed still works.
func (f *fakeVault) valid(username string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reap()
	_, ok := f.leases[username]
	return ok
}

// count tells how many calls of an operation there were.
func (f *fakeVault) count(op vault.Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if strings.HasPrefix(c, string(op)+" ") {
			n++
		}
	}
	return n
}
