// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// IssuerURL is the iss claim of the tokens, the API server's usual one.
const IssuerURL = "https://kubernetes.default.svc.cluster.local"

// Issuer signs service account tokens as the API server does. It is safe for concurrent use.
type Issuer struct {
	signer jose.Signer
	public *ecdsa.PublicKey
	pem    string
}

// NewIssuer makes an issuer with a new P-256 key.
func NewIssuer() (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for service account tokens: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the key for service account tokens: %w", err)
	}
	sum := sha256.Sum256(der)
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.ES256,
		Key:       jose.JSONWebKey{Key: key, KeyID: base64.RawURLEncoding.EncodeToString(sum[:])},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("making a signer of service account tokens: %w", err)
	}
	return &Issuer{
		signer: signer, public: &key.PublicKey,
		pem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	}, nil
}

// PublicKey verifies the issuer's tokens.
func (i *Issuer) PublicKey() crypto.PublicKey { return i.public }

// PublicPEM is PublicKey in the form that Vault's jwt auth method takes.
func (i *Issuer) PublicPEM() string { return i.pem }

// Claims are those of a service account token that is bound to a pod, as the API server of Kubernetes 1.37 makes them.
// The audience is always a list: Vault's kubernetes auth method takes nothing else.
type Claims struct {
	Issuer     string           `json:"iss"`
	Subject    string           `json:"sub"`
	Audience   []string         `json:"aud"`
	ID         string           `json:"jti"`
	IssuedAt   *jwt.NumericDate `json:"iat"`
	NotBefore  *jwt.NumericDate `json:"nbf"`
	Expiry     *jwt.NumericDate `json:"exp"`
	Kubernetes KubernetesClaims `json:"kubernetes.io"`
}

// KubernetesClaims say what a token is bound to.
type KubernetesClaims struct {
	Namespace      string           `json:"namespace"`
	Node           Ref              `json:"node"`
	Pod            Ref              `json:"pod"`
	ServiceAccount Ref              `json:"serviceaccount"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

// Ref names one object of Kubernetes.
type Ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Claims returns what a token for the pod says that is issued at now and lives for ttl.
func (p Pod) Claims(audience string, now time.Time, ttl time.Duration) Claims {
	return Claims{
		Issuer: IssuerURL, Subject: "system:serviceaccount:" + p.Namespace + ":" + p.ServiceAccount,
		Audience: []string{audience}, ID: newUID(),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(ttl)),
		Kubernetes: KubernetesClaims{
			Namespace: p.Namespace, Node: Ref{Name: p.Node, UID: p.NodeUID}, Pod: Ref{Name: p.Name, UID: p.UID},
			ServiceAccount: Ref{Name: p.ServiceAccount, UID: p.ServiceAccountUID},
		},
	}
}

// Sign returns a token with exactly these claims. For an honest one, pass [Pod.Claims].
func (i *Issuer) Sign(claims Claims) (string, error) {
	token, err := jwt.Signed(i.signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing a service account token: %w", err)
	}
	return token, nil
}

// Mint returns an honest token for the pod, which lives from now for ttl.
func (i *Issuer) Mint(p Pod, audience string, ttl time.Duration) (string, error) {
	return i.Sign(p.Claims(audience, time.Now(), ttl))
}
