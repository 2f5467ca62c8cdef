// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/render"
	"github.com/leasefs/leasefs/pkg/vault"
)

// reconcile is one pass over one volume, by the holder of its guard: what publish and rotate have in common. It works on
// a copy of the record and saves it at each point from which a restarted daemon could go on.
type reconcile struct {
	m       *Manager
	v       *volume
	rec     *Record
	vault   Vault
	sources []source
	log     *slog.Logger

	relogged bool             // a login was tried in this rotation
	fetched  map[string]fetch // what was read in this rotation and is not swapped in yet, by key
}

func (m *Manager) reconcile(v *volume) *reconcile {
	r := v.record.Load().clone()
	return &reconcile{m: m, v: v, rec: r, sources: r.Plan.sources(), log: m.logger(r)}
}

// connect finds the client of the volume's connection.
func (c *reconcile) connect() error {
	client, err := c.m.Vaults.Client(c.rec.Plan.Connection)
	if err != nil {
		return fmt.Errorf("connection %q: %w", c.rec.Plan.Connection, err)
	}
	c.vault = client
	return nil
}

func (c *reconcile) now() time.Time { return c.m.Clock.Now() }

// wall is the time by which others stamp: the API server its tokens, Vault its certificates.
func (c *reconcile) wall() time.Time { return c.m.Clock.Now().Add(c.m.Clock.Drift()) }

func (c *reconcile) save() error { return c.m.save(c.v, c.rec) }

func (c *reconcile) auth(s *Session) vault.Auth {
	return vault.Auth{Namespace: c.rec.Plan.Namespace, Token: s.Token, Identity: s.Identity, Role: c.rec.Plan.Role}
}

// login makes a new session the current one and records it at once: from Vault's answer to the end of save is the one window
// in which a kill leaves a token behind, until its TTL.
func (c *reconcile) login(ctx context.Context) error {
	token := c.v.token.Load()
	if token == nil || (!token.Expires.IsZero() && !c.wall().Before(token.Expires)) {
		return ErrNoToken
	}
	p := c.rec.Plan
	answer, err := c.vault.Login(ctx, vault.Login{
		Namespace: p.Namespace, Method: p.AuthMethod, Mount: p.AuthMount, Role: p.Role, JWT: token.JWT,
		ServiceAccountUID: c.rec.Pod.ServiceAccountUID,
	})
	if err == nil {
		s := Session{
			Number: 1, Token: answer.Token, Accessor: answer.Accessor, Identity: answer.Identity, Batch: answer.Batch,
			Term: grant(c.now(), answer.TTL, answer.Renewable && !answer.Batch),
		}
		if old := c.rec.current(); old != nil {
			s.Number = old.Number + 1
		}
		c.rec.Sessions = append([]Session{s}, c.rec.Sessions...)
		err = c.save()
	}
	e := entry(c.rec, AuditLogin, err)
	e.Kind, e.Expires = KindSession, expiryOf(c.rec.current())
	c.m.Auditor.Audit(e)
	return err
}

// fetch reads one source with the current session.
func (c *reconcile) fetch(ctx context.Context, s source, fresh bool) (Lease, *vault.Response, error) {
	session := c.rec.current()
	response, err := c.vault.Read(ctx, c.auth(session), s.Request, vault.ReadOptions{Fresh: fresh})
	var l Lease
	if err == nil {
		l = Classify(s.Request, response, c.now(), c.wall())
		l.Key, l.Session = s.Key, session.Number
		if l.Kind == KindCertificate && l.TTL <= 0 {
			err = &vault.Error{Op: vault.OpRead, Connection: c.rec.Plan.Connection, Path: s.Request.Path, Class: vault.BadResponse, Err: errEnded}
		}
	}
	e := entry(c.rec, AuditRead, err)
	e.Path, e.Files, e.LeaseID, e.Kind, e.Expires = s.Request.Path, s.fileNames(), l.ID, l.Kind, l.Expires
	c.m.Auditor.Audit(e)
	return l, response, err
}

// render makes the files of one source from its response.
func (c *reconcile) render(s source, r *vault.Response) ([]mount.File, error) {
	rendered, err := render.Files(s.Objects, c.rec.mode(), func(string) (*vault.Response, bool) { return r, true })
	if err != nil {
		return nil, err
	}
	files := make([]mount.File, len(rendered))
	for i, f := range rendered {
		files[i] = mount.File(f)
	}
	return files, nil
}

// retire plans the revocation of a lease that no file needs any longer. One that ends before the revocation would happen
// is left to do so.
func (c *reconcile) retire(l Lease, at time.Time) {
	if l.ID == "" || (!l.Expires.IsZero() && !at.Before(l.Expires)) {
		return
	}
	c.rec.Retired = append(c.rec.Retired, Retired{ID: l.ID, Path: l.Path, Session: l.Session, At: at, Expires: l.Expires})
}

func expiryOf(s *Session) time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.Expires
}

// logSaveError reports a record that could not be written while a live volume goes on: its files matter more.
func (c *reconcile) logSaveError(err error) {
	if err != nil {
		c.log.Error("Record not written; a restart of the driver would not know the newest leases of this volume",
			logkey.Error, err)
	}
}
