// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"fmt"
	"io"
	"net/http"
)

// maxRedirects bounds the hops of one request: a standby to the leader, which a load balancer may lengthen by one.
const maxRedirects = 2

// redirects is a transport that follows redirects to allowed origins only, with method, body and token kept, as a
// standby's to its leader wants it. Any other redirect is an error, and the other host sees nothing of the request.
type redirects struct {
	next    http.RoundTripper
	allowed map[string]bool // origins, see originOf
}

// refusedRedirect is a redirect that was not followed.
type refusedRedirect struct{ origin, why string }

func (e *refusedRedirect) Error() string {
	return fmt.Sprintf("vault answered with a redirect to %s, which was not followed: %s", e.origin, e.why)
}

// RoundTrip implements http.RoundTripper.
func (r *redirects) RoundTrip(req *http.Request) (*http.Response, error) {
	for hop := 0; ; hop++ {
		resp, err := r.next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		// A short body is read to its end so that the connection can be used again.
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		_ = resp.Body.Close()
		if req, err = r.follow(req, resp, hop); err != nil {
			return nil, err
		}
	}
}

// follow is the request that a redirect asks for, or the error that says why it is not made.
func (r *redirects) follow(req *http.Request, resp *http.Response, hop int) (*http.Request, error) {
	location, err := resp.Location()
	if err != nil {
		return nil, &refusedRedirect{"nowhere", "it has no valid Location"}
	}
	origin := originOf(location)
	switch {
	case resp.StatusCode == http.StatusSeeOther:
		return nil, &refusedRedirect{origin, "303 would change the request's method"}
	case !r.allowed[origin]:
		return nil, &refusedRedirect{origin, "it is no address of this connection; if it is the leader of a standby, allow it in the connection's allowed redirects, or give the connection an address that reaches the leader"}
	case hop >= maxRedirects:
		return nil, &refusedRedirect{origin, "too many redirects"}
	}
	next := req.Clone(req.Context())
	next.URL, next.Host = location, location.Host
	next.URL.User = nil
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, &refusedRedirect{origin, "the request's body cannot be sent again"}
		}
		if next.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return next, nil
}
