// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// authority is the one certificate authority of a run: it signs every server and every client.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// identity is one certificate to make. Hosts are the names and addresses of a server; a client has none.
type identity struct {
	file, commonName, organization string
	hosts                          []string
}

func identities() []identity {
	return []identity{
		{file: "apiserver", commonName: "kube-apiserver", hosts: []string{
			nodeIP, serviceIP, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		}},
		{file: "kubelet", commonName: "system:node:" + nodeName, organization: "system:nodes", hosts: []string{nodeIP, nodeName}},
		{file: "apiserver-kubelet", commonName: "kube-apiserver-kubelet-client", organization: "system:masters"},
		{file: "admin", commonName: "admin", organization: "system:masters"},
		{file: "controller-manager", commonName: "system:kube-controller-manager"},
		{file: "scheduler", commonName: "system:kube-scheduler"},
		// For the servers that tests start beside the node, such as Vault.
		{file: "server", commonName: "server", hosts: []string{nodeIP, gateway, "127.0.0.1", "localhost"}},
	}
}

// writePKI makes the authority, every certificate, the kubeconfigs, and the key of the service account tokens.
func writePKI(l layout) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "leasefs-node"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := sign(template, template, key.Public(), key)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	ca := authority{cert: cert, key: key}
	if err := writePEM(l.pki("ca.crt"), "CERTIFICATE", der); err != nil {
		return err
	}
	if err := writeKey(l.pki("ca.key"), key); err != nil {
		return err
	}
	for _, id := range identities() {
		if err := ca.issue(l, id); err != nil {
			return fmt.Errorf("issuing the certificate %s: %w", id.file, err)
		}
	}
	for _, client := range []string{"admin", "kubelet", "controller-manager", "scheduler"} {
		if err := os.WriteFile(l.config(client+".kubeconfig"), kubeconfig(l, client), 0o600); err != nil {
			return err
		}
	}
	return writeServiceAccountKey(l)
}

func (ca authority) issue(l layout, id identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.commonName},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if id.organization != "" {
		template.Subject.Organization = []string{id.organization}
	}
	for _, host := range id.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := sign(template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	if err := writePEM(l.pki(id.file+".crt"), "CERTIFICATE", der); err != nil {
		return err
	}
	return writeKey(l.pki(id.file+".key"), key)
}

// sign fills in what every certificate has. A run lives for hours; the certificates end after a week.
func sign(template, parent *x509.Certificate, public any, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(7 * 24 * time.Hour)
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

// writeServiceAccountKey makes the key that signs service account tokens: RSA, as most clusters have it.
func writeServiceAccountKey(l layout) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	if err := writeKey(l.pki("sa.key"), key); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writePEM(l.pki("sa.pub"), "PUBLIC KEY", public)
}

func writeKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func kubeconfig(l layout, client string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: node
  cluster: {server: %q, certificate-authority: %q}
users:
- name: %[3]s
  user: {client-certificate: %[4]q, client-key: %[5]q}
contexts:
- name: node
  context: {cluster: node, user: %[3]s}
current-context: node
`, apiURL, l.pki("ca.crt"), client, l.pki(client+".crt"), l.pki(client+".key"))
}
