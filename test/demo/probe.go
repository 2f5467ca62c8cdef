// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// probeEvery is how often the pod looks at its files.
const probeEvery = 100 * time.Millisecond

// snapshot is what the files of one generation say.
type snapshot struct {
	generation         string
	greeting           string
	username, password string
	serial             string // of the certificate
	notAfter           time.Time
}

// probe is the application in the pod: again and again, it uses what stands in its files.
type probe struct {
	target string
	login  func(ctx context.Context, user, password string) error // nil: there is no database

	mu          sync.Mutex
	last        snapshot
	looks       int
	logins      int
	users       map[string]bool
	serials     map[string]bool
	generations map[string]bool
	failures    []string // the first few
	failed      int
}

func newProbe(st *stage) *probe {
	p := &probe{target: st.target, users: map[string]bool{}, serials: map[string]bool{}, generations: map[string]bool{}}
	if st.pg != nil {
		p.login = st.pg.Login
	}
	return p
}

// run looks until ctx ends.
func (p *probe) run(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		p.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look takes one look and notes what is wrong. A look that the end of ctx has cut short does not count.
func (p *probe) look(ctx context.Context) {
	snap, err := p.read(time.Now())
	if err == nil && p.login != nil {
		err = p.login(ctx, snap.username, snap.password)
	}
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	if err != nil {
		p.failed++
		if len(p.failures) < 3 {
			p.failures = append(p.failures, err.Error())
		}
		return
	}
	p.last = snap
	p.generations[snap.generation] = true
	p.serials[snap.serial] = true
	if p.login != nil {
		p.logins++
		p.users[snap.username] = true
	}
}

// read reads all files of the current generation, as an application does that wants them to belong together: it opens
// what ..data points to once, and reads from there. The certificate must match the key, be signed by the authority beside
// it and be valid at now.
func (p *probe) read(now time.Time) (snapshot, error) {
	generation, err := os.Readlink(filepath.Join(p.target, "..data"))
	if err != nil {
		return snapshot{}, fmt.Errorf("the pod's files: %w", err)
	}
	root, err := os.OpenRoot(filepath.Join(p.target, generation))
	if err != nil {
		return snapshot{}, fmt.Errorf("the pod's files: %w", err)
	}
	defer func() { _ = root.Close() }()
	files := map[string]string{"greeting": "", "tls/tls.crt": "", "tls/tls.key": "", "tls/ca.crt": ""}
	if p.login != nil {
		files["db/username"], files["db/password"] = "", ""
	}
	for name := range maps.Clone(files) {
		data, err := root.ReadFile(name)
		if err != nil {
			return snapshot{}, fmt.Errorf("the pod's files: %w", err)
		}
		if len(data) == 0 {
			return snapshot{}, fmt.Errorf("the pod's file %s is empty", name)
		}
		files[name] = string(data)
	}
	cert, err := certificate(files["tls/tls.crt"], files["tls/tls.key"], files["tls/ca.crt"], now)
	if err != nil {
		return snapshot{}, fmt.Errorf("the pod's certificate: %w", err)
	}
	return snapshot{
		generation: generation, greeting: files["greeting"], username: files["db/username"], password: files["db/password"],
		serial: fmt.Sprintf("%x", cert.SerialNumber), notAfter: cert.NotAfter,
	}, nil
}

// certificate returns the certificate if it belongs to the key and is valid at now.
func certificate(cert, key, ca string, now time.Time) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return nil, errors.New("there is no authority beside it")
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// current returns what the last good look saw.
func (p *probe) current() snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// seen returns how many different certificates and database users there have been.
func (p *probe) seen() (certificates, users int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.serials), len(p.users)
}

// verdict is the check of all looks together.
func (p *probe) verdict() check {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := check{what: fmt.Sprintf("%d looks at the files: the certificate was always valid and matched its key (%d certificates)", p.looks, len(p.serials))}
	if p.login != nil {
		c.what += fmt.Sprintf(",\n    and each time the password that stood there logged in to PostgreSQL (%d users)", len(p.users))
	}
	switch {
	case p.failed > 0:
		c.err = fmt.Errorf("%d times not: %s", p.failed, strings.Join(p.failures, "; "))
	case p.looks < 20:
		c.err = errors.New("that is too few")
	}
	return c
}
