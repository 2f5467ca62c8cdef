// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

// Waiting is how many callers wait for a shared read: there is nothing else to see of one.
func (c *Client) Waiting() int {
	c.flights.mu.Lock()
	defer c.flights.mu.Unlock()
	n := 0
	for _, f := range c.flights.flying {
		n += f.callers
	}
	return n
}
