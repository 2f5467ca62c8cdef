// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/secret"
)

func sampleRecord() *rotation.Record {
	group := uint32(1000)
	req := request(value, username, password)
	return &rotation.Record{
		Name: "a", Phase: rotation.PhaseLive, VolumeID: req.VolumeID, Target: req.Target, Pod: req.Pod, Plan: req.Plan,
		Group: &group, Fingerprint: "f", Generation: "..1",
		Sessions: []rotation.Session{{Number: 2, Token: secret.New("hvs.canary"), Accessor: "a", Term: term(time.Hour)}},
		Leases:   []rotation.Lease{{Key: "GET db/app", Path: "db/app", Kind: rotation.KindRenewable, ID: "db/app/1", Session: 2, Term: term(time.Minute)}},
		Retired:  []rotation.Retired{{ID: "db/app/0", Path: "db/app", Session: 2, At: epoch}},
		Staged:   &rotation.Staged{Generation: "..2"},
		Swapped:  epoch,
	}
}

func TestARecordComesBackAsItWas(t *testing.T) {
	want := sampleRecord()
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := rotation.DecodeRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

// Only Encode may write a token, and it writes that one alone: whatever else prints or encodes a record does not.
func TestATokenLeavesARecordThroughEncodeAlone(t *testing.T) {
	r := sampleRecord()
	asJSON, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"json": string(asJSON), "%v": fmt.Sprintf("%v", r), "%+v": fmt.Sprintf("%+v", r), "%#v": fmt.Sprintf("%#v", *r),
	} {
		if strings.Contains(text, "canary") {
			t.Errorf("%s holds the token: %s", name, text)
		}
	}
	if data, _ := r.Encode(); bytes.Count(data, []byte("canary")) != 1 {
		t.Error("Encode must write the token, once")
	}
}

// The pod's token and the contents of secrets are in no record.
func TestARecordHoldsNeitherThePodsTokenNorAValue(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.vault.kv["kv/app"] = "canary-value"
		n.publish(request(value, username, password))
		after(5 * time.Minute)
		records, _ := n.records.List()
		for _, data := range records {
			for _, canary := range []string{`"jwt"}`, `:"jwt",`, "canary-value", "p-db/app"} {
				if strings.Contains(strings.ReplaceAll(string(data), `"authMethod":"jwt","authMount":"jwt",`, ""), canary) {
					t.Errorf("record holds %q: %s", canary, data)
				}
			}
		}
	})
}

// Logs, notices, audit entries and the status of a volume hold no token and no value, whatever happens.
func TestNothingThatIsSaidHoldsATokenOrAValue(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		var log logbook
		n.log = &log
		n.restart()
		n.vault.kv["kv/app"] = "canary-value"
		n.publish(request(value, username, password, fixed))
		after(3 * time.Minute)
		n.vault.set(func(f *fakeVault) { clear(f.tokens) })
		after(time.Minute)
		n.vault.set(func(f *fakeVault) { f.down = true })
		after(30 * time.Minute)
		status, err := json.Marshal(n.Volumes())
		if err != nil {
			t.Fatal(err)
		}
		n.stop()
		said := log.String() + string(status) + fmt.Sprintf("%+v %+v", n.seen.notices, n.seen.entries)
		for _, canary := range []string{"canary-value", "hvs.", "p-db/app", "p-fixed/app"} {
			if strings.Contains(said, canary) {
				t.Errorf("%q was said", canary)
			}
		}
		if !strings.Contains(said, "kv/app") {
			t.Error("nothing was said of kv/app: the test looks at the wrong place")
		}
	})
}

// A wall clock that was set while the daemon was down moves every time of a record, and none of its distances.
func TestARecordIsReadOnTheClockOfTheDaemonThatReadsIt(t *testing.T) {
	onNode(t, func(t *testing.T, n *node) {
		n.publish(request(username))
		user := n.wantWorking("username")
		n.stop()
		n.clock = skewed{by: time.Hour, still: true}
		n.start()
		for range 120 {
			after(time.Second)
			n.wantFile("username", user)
			n.wantWorking("username")
		}
		if n.seen.late > time.Second {
			t.Fatalf("a step was %v late", n.seen.late)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	data, err := sampleRecord().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte(`{"version":1,"record":{"name":"a","volumeID":"b","target":"/c","phase":"live","sessions":[{"number":1}]}}`))
	f.Add([]byte(`{"version":1,"record":{"name":"a","volumeID":"b","target":"/c","phase":"live"}}`))
	f.Add([]byte(`{"version":1,"record":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := rotation.DecodeRecord(data)
		if err != nil {
			if r != nil {
				t.Fatal("a record beside an error")
			}
			return
		}
		if r.Phase == rotation.PhaseLive && len(r.Sessions) == 0 {
			t.Fatal("a live volume without a session")
		}
		again, err := r.Encode()
		if err != nil {
			t.Skip() // times that JSON cannot write
		}
		back, err := rotation.DecodeRecord(again)
		if err != nil {
			t.Fatalf("what Encode wrote is not read: %v", err)
		}
		third, err := back.Encode()
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("a record changes by being read: %v", err)
		}
	})
}
