// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount/mounttest"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/secret"
	"github.com/leasefs/leasefs/pkg/vault"
)

// TestMain runs the tests where they can mount, and finds goroutines that outlive them.
func TestMain(m *testing.M) { mounttest.Main(leakless{m}) }

type leakless struct{ tests *testing.M }

func (l leakless) Run() int {
	status := l.tests.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// node is one node: a Vault, file systems and records that outlive the daemon, and the daemon that runs now.
type node struct {
	t        *testing.T
	vault    *fakeVault
	mounts   *fakeMounts
	records  *memory
	seen     *witness
	settings rotation.Settings
	clock    rotation.Clock
	log      io.Writer

	*rotation.Manager
	stop func()
}

// onNode runs a test on a fresh node, in a bubble of time of its own.
func onNode(t *testing.T, test func(t *testing.T, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.start()
		defer func() { n.stop() }() // also after a failure, or the bubble never ends
		test(t, n)
	})
}

func newNode(t *testing.T) *node {
	return &node{
		t: t, vault: newFakeVault(), mounts: newFakeMounts(), records: newMemory(), seen: &witness{}, clock: skewed{}, log: io.Discard,
		settings: rotation.Settings{CredentialGrace: 10 * time.Second, GenerationGrace: 5 * time.Second},
	}
}

// start starts a daemon on what the one before has left.
func (n *node) start() {
	n.t.Helper()
	n.Manager = rotation.NewManager(rotation.Options{
		Vaults: n.vault, Mounts: n.mounts, Records: n.records, Observer: n.seen, Auditor: n.seen, Notifier: n.seen,
		Clock: n.clock, Settings: func() rotation.Settings { return n.settings }, Log: slog.New(slog.NewTextHandler(n.log, nil)),
	})
	if err := n.Recover(context.Background()); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Run(ctx)
	}()
	n.stop = func() { cancel(); <-done }
}

// restart stops the daemon and starts the next one.
func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.start()
}

// after lets time pass, with everything that happens in it.
func after(d time.Duration) { time.Sleep(d); synctest.Wait() }

// skewed is the clock of a daemon at whose start the wall clock was ahead by that much of what it shows now, which is the bubble's
// time; where it is still so, the wall clock shows the same as the daemon's.
type skewed struct {
	by    time.Duration
	still bool
}

func (s skewed) Now() time.Time  { return time.Now().Add(s.by) }
func (s skewed) Boot() time.Time { return epoch.Add(s.by) }

func (s skewed) Drift() time.Duration {
	if s.still {
		return 0
	}
	return -s.by
}

// request is a valid request for the given objects; mutate it for what a test is about.
func request(objects ...attributes.Object) rotation.Request {
	return rotation.Request{
		VolumeID: "csi-1", Target: "/pods/1/mount",
		Pod:   rotation.Pod{Namespace: "shop", Name: "web-0", UID: "pod-uid", ServiceAccount: "web", ServiceAccountUID: "sa-uid"},
		Token: rotation.Token{JWT: secret.New("jwt"), Expires: time.Now().Add(1000 * time.Hour)},
		Plan: rotation.Plan{
			Connection: "default", AuthMethod: "jwt", AuthMount: "jwt", Role: "web", Objects: objects,
			Refresh: time.Minute, Size: 1 << 20, OnExpiry: attributes.Keep,
		},
		Fingerprint: "f",
	}
}

func object(name, path, key string) attributes.Object {
	return attributes.Object{Name: name, Path: path, Key: key, Method: "GET", Encoding: attributes.UTF8}
}

var (
	value    = object("value", "kv/app", "value")
	username = object("username", "db/app", "username")
	password = object("password", "db/app", "password")
	fixed    = object("fixed", "fixed/app", "username")
	static   = object("static", "static/app", "password")

	certificate = attributes.Object{Name: "certificate", Path: "pki/issue/app", Key: "certificate", Method: "PUT", Encoding: attributes.UTF8}
)

func (n *node) publish(req rotation.Request) {
	n.t.Helper()
	if err := n.Publish(context.Background(), req); err != nil {
		n.t.Fatalf("publish: %v", err)
	}
}

func (n *node) unpublish(req rotation.Request) {
	n.t.Helper()
	if err := n.Unpublish(context.Background(), req.VolumeID, req.Target); err != nil {
		n.t.Fatalf("unpublish: %v", err)
	}
}

// wantFile checks what a pod sees.
func (n *node) wantFile(path, want string) {
	n.t.Helper()
	if got, ok := n.mounts.file("/pods/1/mount", path); !ok || got != want {
		n.t.Fatalf("file %s = %q (there: %t), want %q", path, got, ok, want)
	}
}

// wantWorking checks that the user name in a file works in Vault now.
func (n *node) wantWorking(path string) string {
	n.t.Helper()
	got, ok := n.mounts.file("/pods/1/mount", path)
	if !ok || !n.vault.valid(got) {
		n.t.Fatalf("%s: file %s = %q (there: %t) is not valid in Vault", time.Now().Format(time.TimeOnly), path, got, ok)
	}
	return got
}

// wantNothingLeft checks that nothing of any volume is left, neither here nor in Vault.
func (n *node) wantNothingLeft() {
	n.t.Helper()
	tokens, leases := n.vault.live()
	n.mounts.mu.Lock()
	mounts := len(n.mounts.targets)
	n.mounts.mu.Unlock()
	records, _ := n.records.List()
	totals := n.Totals()
	if tokens != 0 || leases != 0 || mounts != 0 || len(records) != 0 || totals.BudgetUsed != 0 {
		n.t.Fatalf("left: %d tokens, %d leases, %d mounts, %d records, %d bytes of budget", tokens, leases, mounts, len(records), totals.BudgetUsed)
	}
}

// memory is a record store in memory.
type memory struct {
	mu    sync.Mutex
	data  map[string][]byte
	fail  error // of every write but the next few
	spare int   // how many those are

	firstStaged []byte // the first record with a staged generation
}

func newMemory() *memory { return &memory{data: map[string][]byte{}} }

func (m *memory) Put(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil && m.spare == 0 {
		return m.fail
	}
	m.spare = max(m.spare-1, 0)
	m.data[name] = bytes.Clone(data)
	if m.firstStaged == nil && bytes.Contains(data, []byte(`"staged"`)) {
		m.firstStaged = m.data[name]
	}
	return nil
}

// failAfter makes writes fail after the next few.
func (m *memory) failAfter(writes int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spare, m.fail = writes, err
}

func (m *memory) Delete(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.data, name)
	return nil
}

func (m *memory) List() (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.data), nil
}

// witness remembers what it was told.
type witness struct {
	mu        sync.Mutex
	rotations map[string]int // "kind action result"
	swapped   int
	late      time.Duration // the worst
	recovered map[rotation.Recovery]int
	entries   []rotation.Entry
	notices   []rotation.Notice
}

func (w *witness) Rotation(k rotation.Kind, a rotation.Action, r rotation.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rotations == nil {
		w.rotations = map[string]int{}
	}
	w.rotations[string(k)+" "+string(a)+" "+string(r)]++
}

func (w *witness) Late(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = max(w.late, d)
}

func (w *witness) Swapped() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.swapped++
}

func (w *witness) Recovered(r rotation.Recovery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.recovered == nil {
		w.recovered = map[rotation.Recovery]int{}
	}
	w.recovered[r]++
}

func (w *witness) Audit(e rotation.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries = append(w.entries, e)
}

func (w *witness) Notify(_ rotation.Pod, n rotation.Notice) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notices = append(w.notices, n)
}

// noticed counts the notices with a reason.
func (w *witness) noticed(r rotation.Reason) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, x := range w.notices {
		if x.Reason == r {
			n++
		}
	}
	return n
}

// calls is the number of calls that Vault has had of all operations but those given.
func (n *node) calls(but ...vault.Op) int {
	n.vault.mu.Lock()
	total := len(n.vault.calls)
	n.vault.mu.Unlock()
	for _, op := range but {
		total -= n.vault.count(op)
	}
	return total
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// logbook is a log that may be read while it is written.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
