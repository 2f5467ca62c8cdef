// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Reviewer stands in for the Kubernetes API server towards Vault's kubernetes auth method, which asks it for nothing but
// TokenReviews. It checks a token's signature and reports the service account of its claims, as the API server does;
// whether the service account still exists it cannot know. End-to-end tests use the real API server.
type Reviewer struct {
	server *httptest.Server
	keys   []crypto.PublicKey
	down   atomic.Bool
	count  atomic.Int64
}

// NewReviewer starts a reviewer of tokens signed with the private keys of the given public ones. The caller closes it.
func NewReviewer(keys ...crypto.PublicKey) *Reviewer {
	r := &Reviewer{keys: keys}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", r.review)
	r.server = httptest.NewServer(mux)
	return r
}

// URL is Vault's kubernetes_host.
func (r *Reviewer) URL() string { return r.server.URL }

// SetDown has all reviews fail with 500, as with an API server that has lost its storage; Vault then answers a login with
// 403 "permission denied".
func (r *Reviewer) SetDown(down bool) { r.down.Store(down) }

// Reviews returns how many reviews were asked for.
func (r *Reviewer) Reviews() int64 { return r.count.Load() }

// Close stops the reviewer.
func (r *Reviewer) Close() { r.server.Close() }

// tokenReview is the part of authentication.k8s.io/v1 TokenReview that Vault sends and reads.
type tokenReview struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Spec       reviewSpec   `json:"spec"`
	Status     reviewStatus `json:"status"`
}

type reviewSpec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences,omitempty"`
}

type reviewStatus struct {
	Authenticated bool       `json:"authenticated"`
	User          reviewUser `json:"user"`
	Audiences     []string   `json:"audiences,omitempty"`
	Error         string     `json:"error,omitempty"`
}

type reviewUser struct {
	Username string   `json:"username"`
	UID      string   `json:"uid"`
	Groups   []string `json:"groups"`
}

func (r *Reviewer) review(w http.ResponseWriter, req *http.Request) {
	r.count.Add(1)
	var review tokenReview
	if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, 1<<20)).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.down.Load() {
		http.Error(w, "etcdserver: request timed out", http.StatusInternalServerError)
		return
	}
	status, err := r.status(review.Spec)
	if err != nil {
		status = reviewStatus{Error: err.Error()}
	}
	review.Spec, review.Status = reviewSpec{}, status
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(review) // the client has gone away: nobody to tell
}

func (r *Reviewer) status(spec reviewSpec) (reviewStatus, error) {
	token, err := jwt.ParseSigned(spec.Token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return reviewStatus{}, fmt.Errorf("invalid bearer token: %w", err)
	}
	var claims struct {
		jwt.Claims
		Kubernetes struct {
			Namespace      string `json:"namespace"`
			ServiceAccount struct {
				Name string `json:"name"`
				UID  string `json:"uid"`
			} `json:"serviceaccount"`
		} `json:"kubernetes.io"`
	}
	verified := false
	for _, key := range r.keys {
		if token.Claims(key, &claims) == nil {
			verified = true
			break
		}
	}
	if !verified {
		return reviewStatus{}, fmt.Errorf("invalid bearer token: no key verifies it")
	}
	if err := claims.ValidateWithLeeway(jwt.Expected{AnyAudience: spec.Audiences}, 0); err != nil {
		return reviewStatus{}, fmt.Errorf("invalid bearer token: %w", err)
	}
	ns, sa := claims.Kubernetes.Namespace, claims.Kubernetes.ServiceAccount
	return reviewStatus{
		Authenticated: true,
		Audiences:     claims.Audience,
		User: reviewUser{
			Username: "system:serviceaccount:" + ns + ":" + sa.Name,
			UID:      sa.UID,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + ns, "system:authenticated"},
		},
	}, nil
}
