// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"errors"
	"maps"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/leasefs/leasefs/pkg/attributes"
)

// Equal attributes have equal fingerprints and different ones different; tokens and the kubelet's keys play no part.
func TestFingerprint(t *testing.T) {
	maps2 := rapid.MapOf(rapid.StringMatching(`[ab:0-9]{0,4}`), rapid.StringMatching(`[ab:0-9]{0,4}`))
	rapid.Check(t, func(t *rapid.T) {
		a, b := maps2.Draw(t, "a"), maps2.Draw(t, "b")
		if same := fingerprint(a) == fingerprint(b); same != maps.Equal(a, b) {
			t.Fatalf("%v and %v: same fingerprint is %v", a, b, same)
		}
		if fingerprint(a) != fingerprint(maps.Clone(a)) {
			t.Fatal("the fingerprint depends on the order of a map")
		}
	})
	one := publishRequest(t)
	two := proto.CloneOf(one)
	retoken(t, two, podUID, "web", "vault", time.Now().Add(time.Hour))
	s := Settings{Tokens: TokensInSecrets, PodsDir: podsDir, Resolve: resolve}
	first, err := readPublish(one, s, newSpecs(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second, err := readPublish(two, s, newSpecs(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if first.Fingerprint != second.Fingerprint {
		t.Error("a new token changes the fingerprint")
	}
}

// What is remembered is what reading anew would give.
func TestAttributesAreReadOnceAndStayWhatTheyAre(t *testing.T) {
	attrs := map[string]string{"roleName": "web", "objects": objects}
	s := newSpecs()
	first, err := s.parse(fingerprint(attrs), attrs)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.parse(fingerprint(attrs), nil) // not looked at
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := attributes.Parse(attrs)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, fresh) || !reflect.DeepEqual(again, fresh) {
		t.Errorf("read as %+v, then as %+v, anew as %+v", first, again, fresh)
	}
	other := map[string]string{"roleName": "other", "objects": objects}
	if spec, err := s.parse(fingerprint(other), other); err != nil || spec.Role != "other" {
		t.Errorf("other attributes read as %+v, %v", spec, err)
	}
}

func TestFaultsAreToldEachTime(t *testing.T) {
	attrs := map[string]string{"objects": objects, "size": "much"}
	s := newSpecs()
	for range 2 {
		var faults *attributes.Faults
		if _, err := s.parse(fingerprint(attrs), attrs); !errors.As(err, &faults) || faults.List[0].Key != "size" {
			t.Fatalf("got %v", err)
		}
	}
}
