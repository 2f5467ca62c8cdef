// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package podtoken picks a pod's own service account token out of what the kubelet passes to a CSI driver.
//
// The kubelet mints one token for each audience in CSIDriver.spec.tokenRequests and passes them all as one JSON object
// (KEP-1855): {"<audience>": {"token": "<JWT>", "expirationTimestamp": "<RFC 3339>"}}, either in the request's secrets
// or in its volume context.
//
// The signature is NOT verified here: this package has no key to verify it with, and it need not, because Vault does,
// against the cluster's keys or by a TokenReview. What is checked here is that the token speaks of the very pod for
// which the volume is asked: another pod's token, planted where the kubelet's belongs, must never be used on this pod's
// behalf, and an author must hear of a wrong audience before Vault answers "permission denied".
package podtoken

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leasefs/leasefs/pkg/secret"
)

// Bounds on what is looked at. A real token has about 1 KiB; the kubelet passes one for each audience.
const (
	maxDocument = 256 << 10 // bytes of the whole JSON object
	maxToken    = 16 << 10  // bytes of one token
	maxQuoted   = 64        // bytes of a foreign word in an error: too few for a token to be of use
	maxListed   = 8         // audiences that an error names
)

// Pod is what the kubelet says of the pod (CSIDriver.spec.podInfoOnMount).
type Pod struct {
	Namespace, Name, UID, ServiceAccount string
}

// Token is a pod's token and what it says of itself.
type Token struct {
	JWT     secret.Value
	Expires time.Time // the earlier of the token's exp and the kubelet's expirationTimestamp
	// ServiceAccountUID tells a service account from a later one of the same name.
	ServiceAccountUID string
}

// algorithms are those that a Kubernetes API server or an external signer of one uses: public key signatures only.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512,
	jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA,
}

// entry is the kubelet's record of one token. The timestamp stays raw: the error of a failed time.Time would quote it.
type entry struct {
	Token               string `json:"token"`
	ExpirationTimestamp string `json:"expirationTimestamp"`
}

// claims are those parts of a bound service account token that are compared.
type claims struct {
	jwt.Claims
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       object `json:"pod"`
		Account   object `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Select returns the token for an audience, after comparing its own claims with the pod:
//
//  1. find the audience among the kubelet's tokens;
//  2. read the token's claims, without verifying its signature (see the package comment);
//  3. compare sub, namespace, service account, pod name, pod UID, audience and expiry with what is asked for.
//
// The audience "" stands for the API server's own default audience, as in tokenRequests; only that the token has an
// audience is checked then.
//
// The error lists every mismatch. It names audiences, pods and service accounts and never holds any part of a token.
func Select(tokens, audience string, pod Pod, now time.Time) (Token, error) {
	found, err := find(tokens, audience)
	if err != nil {
		return Token{}, err
	}
	said, err := read(found.Token)
	if err != nil {
		return Token{}, fmt.Errorf("the token for audience %s: %w", quote(audience), err)
	}
	expires, problems := compare(said, found, audience, pod, now)
	if len(problems) > 0 {
		return Token{}, fmt.Errorf("the token for audience %s is not this pod's or not valid: %s", quote(audience), strings.Join(problems, ", "))
	}
	return Token{JWT: secret.New(found.Token), Expires: expires, ServiceAccountUID: said.Kubernetes.Account.UID}, nil
}

// find takes one audience's entry out of the document. JSON errors are not passed on: they may quote what they read.
func find(tokens, audience string) (entry, error) {
	if len(tokens) > maxDocument {
		return entry{}, fmt.Errorf("%d bytes of tokens are more than the %d that are looked at", len(tokens), maxDocument)
	}
	var all map[string]entry
	if err := json.Unmarshal([]byte(tokens), &all); err != nil || all == nil {
		return entry{}, errors.New(`not a JSON object of the form {"<audience>": {"token": ..., "expirationTimestamp": ...}}`)
	}
	found, ok := all[audience]
	if !ok {
		return entry{}, fmt.Errorf("no token for audience %s among those that the kubelet passed (%s); "+
			"add {audience: %s} to CSIDriver.spec.tokenRequests or choose a connection with another audience",
			quote(audience), list(all), quote(audience))
	}
	return found, nil
}

// read returns what a token says of itself.
func read(token string) (claims, error) {
	switch {
	case token == "":
		return claims{}, errors.New("is empty")
	case len(token) > maxToken:
		return claims{}, fmt.Errorf("has %d bytes, more than the %d that are looked at", len(token), maxToken)
	case strings.ContainsFunc(token, func(r rune) bool { return !isTokenRune(r) }):
		return claims{}, errors.New("has characters that no signed token (JWS, compact form) has")
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return claims{}, errors.New("is not a token signed with a public key algorithm (JWS, compact form)")
	}
	var said claims
	if err := parsed.UnsafeClaimsWithoutVerification(&said); err != nil {
		return claims{}, errors.New("has claims of a form that service account tokens do not have")
	}
	return said, nil
}

// compare returns until when the token is good, and all that does not match.
func compare(said claims, found entry, audience string, pod Pod, now time.Time) (time.Time, []string) {
	var problems []string
	same := func(claim, got, want string) {
		switch {
		case got == "" || want == "":
			problems = append(problems, claim+" is missing")
		case got != want:
			problems = append(problems, fmt.Sprintf("%s is %s instead of %s", claim, quote(got), quote(want)))
		}
	}
	k := said.Kubernetes
	same("sub", said.Subject, "system:serviceaccount:"+pod.Namespace+":"+pod.ServiceAccount)
	same("kubernetes.io/namespace", k.Namespace, pod.Namespace)
	same("kubernetes.io/serviceaccount/name", k.Account.Name, pod.ServiceAccount)
	same("kubernetes.io/pod/name", k.Pod.Name, pod.Name)
	same("kubernetes.io/pod/uid", k.Pod.UID, pod.UID)
	if k.Account.UID == "" {
		problems = append(problems, "kubernetes.io/serviceaccount/uid is missing")
	}
	switch {
	case len(said.Audience) == 0:
		problems = append(problems, "aud is missing")
	case audience != "" && !said.Audience.Contains(audience):
		problems = append(problems, "aud is "+quote(strings.Join(said.Audience, " ")))
	}
	expires, expiry := expiryOf(said, found, now)
	return expires, append(problems, expiry...)
}

// expiryOf returns the earlier of both ends and what is wrong with them.
func expiryOf(said claims, found entry, now time.Time) (time.Time, []string) {
	var problems []string
	if said.Expiry == nil {
		return time.Time{}, []string{"exp is missing"}
	}
	expires := said.Expiry.Time()
	if found.ExpirationTimestamp != "" {
		stamp, err := time.Parse(time.RFC3339, found.ExpirationTimestamp)
		if err != nil {
			problems = append(problems, "the kubelet's expirationTimestamp is not a time (RFC 3339)")
		} else if stamp.Before(expires) {
			expires = stamp
		}
	}
	if !expires.After(now) {
		problems = append(problems, fmt.Sprintf("it expired at %s; the kubelet brings a new one when it can reach the API server",
			expires.UTC().Format(time.RFC3339)))
	}
	return expires, problems
}

// isTokenRune tells the alphabet of a compact JWS: base64url without padding, and dots.
func isTokenRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}

// list names audiences, in order, not more than a person reads.
func list(all map[string]entry) string {
	if len(all) == 0 {
		return "none"
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, quote(name))
	}
	slices.Sort(names)
	if extra := len(names) - maxListed; extra > 0 {
		names = append(names[:maxListed], fmt.Sprintf("and %d more", extra))
	}
	return strings.Join(names, ", ")
}

// quote makes a foreign word fit for an error: printable, and cut short.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "..."
	}
	return strconv.Quote(s)
}
