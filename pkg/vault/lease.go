// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"net/http"
	"time"
)

// RenewLease renews a lease, by increment (rounded up to seconds; it may shorten the lease) or, when that is 0, by the
// default of its role. The answer's Renewable stays true at the maximum TTL: Capped and the TTL tell. *Error; LeaseGone,
// NotRenewable.
func (c *Client) RenewLease(ctx context.Context, auth Auth, leaseID string, increment time.Duration) (Grant, error) {
	q := c.authorised(OpRenewLease, http.MethodPut, "sys/leases/renew", auth)
	q.body = struct {
		LeaseID   string `json:"lease_id"`
		Increment int64  `json:"increment,omitempty"`
	}{leaseID, int64((max(increment, 0) + time.Second - 1) / time.Second)}
	r, err := c.exchange(ctx, q)
	if err != nil {
		return Grant{}, err
	}
	if r.secret == nil || r.secret.LeaseID == "" {
		return Grant{}, c.bad(q, r, "it answered without a lease")
	}
	return Grant{TTL: seconds(int64(r.secret.LeaseDuration)), Renewable: r.secret.Renewable, Capped: capped(r.secret.Warnings)}, nil
}

// LookupLease asks how long a lease lives. *Error; LeaseGone when it is over.
func (c *Client) LookupLease(ctx context.Context, auth Auth, leaseID string) (Grant, error) {
	q := c.authorised(OpLookupLease, http.MethodPut, "sys/leases/lookup", auth)
	q.body = struct {
		LeaseID string `json:"lease_id"`
	}{leaseID}
	return c.lookup(ctx, q)
}

// RevokeLease ends a lease and waits until what it stood for is gone. A lease that is over already is no error. Vault's
// default policy does not allow it: then it is Denied, and the lease ends with its TTL or its session.
func (c *Client) RevokeLease(ctx context.Context, auth Auth, leaseID string) error {
	q := c.authorised(OpRevokeLease, http.MethodPut, "sys/leases/revoke", auth)
	q.body = struct {
		LeaseID string `json:"lease_id"`
		Sync    bool   `json:"sync"`
	}{leaseID, true}
	_, err := c.exchange(ctx, q)
	if ClassOf(err) == LeaseGone {
		return nil
	}
	return err
}
