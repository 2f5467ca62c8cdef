// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// testTransports: the pods' tokens come in the request's secrets or, as on older clusters, in its volume context. A
// cluster that changes over keeps its running pods; new ones start either way.
func (e *env) testTransports(t *testing.T) {
	ns := e.namespace(t, "transports")
	attrs := attributes("app", []string{file("password", "secret/data/e2e/app", "password")}, "refreshInterval", "1s")
	before := e.start(t, ns, newPod("before", busyboxImage, attrs, idle()...))
	e.countRepublishes(t)

	e.install(t, false)
	defer e.install(t, true) // the next scenario wants it as it was
	during := e.start(t, ns, newPod("during", busyboxImage, attrs, idle()...))
	if got := e.mustRead(t, during, "password"); got != "first" {
		t.Errorf("a pod whose token is in the volume context reads %q", got)
	}
	e.countRepublishes(t)
	if got, n := e.mustRead(t, before, "password"), e.restarts(t, before); got != "first" || n != 0 {
		t.Errorf("the pod from before reads %q and was started anew %d times", got, n)
	}
}

// countRepublishes watches for a while how often the kubelet publishes the volumes that are there, and that it is never
// refused. The node's kubelet was started with a short period, so it is the relation that counts.
func (e *env) countRepublishes(t *testing.T) {
	t.Helper()
	calls := func(ctx context.Context) (good, all float64, err error) {
		text, err := e.scrape(ctx)
		return sumMetric(text, callsMetric, `code="OK",method="Republish"`), sumMetric(text, callsMetric, `method="Republish"`), err
	}
	goodBefore, allBefore, err := calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, 2*time.Minute, "volumes were published again", func(ctx context.Context) error {
		good, _, err := calls(ctx)
		if err == nil && good < goodBefore+3 {
			err = fmt.Errorf("%.0f times", good-goodBefore)
		}
		return err
	})
	good, all, err := calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f republishes of all volumes in %.0f s", all-allBefore, time.Since(began).Seconds())
	if good-goodBefore != all-allBefore {
		t.Errorf("%.0f of %.0f republishes were refused", all-allBefore-(good-goodBefore), all-allBefore)
	}
}
