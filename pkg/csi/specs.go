// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/leasefs/leasefs/pkg/attributes"
)

// rememberedSpecs is how many readings of attributes are kept: more than a node has pods, by far, that differ in them.
const rememberedSpecs = 1024

// specs reads volume attributes and remembers what it has read. The kubelet brings those of each pod once a minute, the same every
// time, and the pods of a deployment have the same ones; reading them is half of what a repeated call costs. Volumes of equal
// attributes share what was read: nobody changes it.
type specs struct {
	known *lru.Cache[string, attributes.Spec]
}

func newSpecs() *specs {
	known, _ := lru.New[string, attributes.Spec](rememberedSpecs) // the size is positive, so there is no error
	return &specs{known}
}

// parse is attributes.Parse. Faults are not remembered.
func (s *specs) parse(fingerprint string, attrs map[string]string) (attributes.Spec, error) {
	if spec, ok := s.known.Get(fingerprint); ok {
		return spec, nil
	}
	spec, err := attributes.Parse(attrs)
	if err == nil {
		s.known.Add(fingerprint, spec)
	}
	return spec, err
}

// fingerprint stands for the author's attributes: equal maps, and only those, have equal fingerprints. Each string is preceded by
// its length, so that no two sequences of strings read the same.
func fingerprint(attrs map[string]string) string {
	var b []byte
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		for _, s := range []string{key, attrs[key]} {
			b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
			b = append(b, s...)
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
