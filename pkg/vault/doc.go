// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package vault is a client of Vault for a daemon that acts for many pods at once: every call takes a context and the
// token of the pod that it acts for, and every failure has a class that tells what to do about it.
//
// From hashicorp/vault/api it takes the construction of requests, the TLS settings and the types of the wire. It does
// not use api.Client: that reads the environment (VAULT_TOKEN, VAULT_ADDR, VAULT_SKIP_VERIFY and more) even when it is
// given a configuration, holds one token for all callers, retries by itself, follows a redirect with token and login
// body to any host, and reads a response of any size into memory.
//
// One exchange with Vault is, in this order (see Client.exchange):
//
//  1. the connection's breaker lets it pass, or refuses it while Vault is known to be down;
//  2. it waits for the connection's rate limit;
//  3. it is sent, once, over the connection's warm pool, bounded by Config.RequestTimeout, headers to last byte;
//     a redirect is followed to the connection's own addresses only;
//  4. the answer is read up to Config.MaxResponseBytes and checked to be JSON of a sane shape;
//  5. breaker and observer are told, and a failure gets its class from the status AND the text, for Vault answers 400
//     when its database is down and 403 when it cannot reach the Kubernetes API.
//
// Long backoff is the caller's. Nothing that the package returns or says holds a token: see redact.go.
package vault
