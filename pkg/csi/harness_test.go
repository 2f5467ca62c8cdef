// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	podsDir = "/var/lib/kubelet/pods"
	podUID  = "0b5c8f2e-1111-4a2b-9c3d-5e6f70819293"
	target  = podsDir + "/" + podUID + "/volumes/kubernetes.io~csi/vault/mount"
)

// volumes is a Volumes that behaves: what is published is there until it is unpublished. In unit tests only.
type volumes struct {
	mu        sync.Mutex
	published map[string]rotation.Request // by volume id
	unmounted bool                        // somebody has unmounted them all
	calls     []string

	// publish, when set, is called in place of publishing.
	publish func(context.Context, rotation.Request) error
	// usage, when set, is called in place of looking.
	usage func() (mount.Usage, error)
}

func (v *volumes) Publish(ctx context.Context, r rotation.Request) error {
	v.mu.Lock()
	v.calls = append(v.calls, "publish")
	hook := v.publish
	v.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, r); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, ok := v.published[r.VolumeID]; ok && old.Target != r.Target {
		return &rotation.ConflictError{VolumeID: r.VolumeID, What: "target path"}
	} else if ok && old.Fingerprint != r.Fingerprint {
		return &rotation.ConflictError{VolumeID: r.VolumeID, What: "set of volume attributes"}
	}
	if v.published == nil {
		v.published = map[string]rotation.Request{}
	}
	v.published[r.VolumeID] = r
	return nil
}

func (v *volumes) Unpublish(_ context.Context, id, target string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls = append(v.calls, "unpublish")
	if r, ok := v.published[id]; ok && r.Target == target {
		delete(v.published, id)
	}
	return nil
}

func (v *volumes) Usage(_ context.Context, id, target string) (mount.Usage, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.usage != nil {
		return v.usage()
	}
	if r, ok := v.published[id]; !ok || r.Target != target {
		return mount.Usage{}, rotation.ErrUnknownVolume
	}
	if v.unmounted {
		return mount.Usage{}, &rotation.MountError{Step: "reading usage", Target: target, Err: mount.ErrNotMounted}
	}
	return mount.Usage{TotalBytes: 65536, UsedBytes: 4096, AvailableBytes: 61440, TotalInodes: 16, UsedInodes: 6, AvailableInodes: 10}, nil
}

// taken returns the calls since the last time, and the volumes.
func (v *volumes) taken() ([]string, map[string]rotation.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	calls := v.calls
	v.calls = nil
	all := map[string]rotation.Request{}
	for id, r := range v.published {
		all[id] = r
	}
	return calls, all
}

// config is a Configuration that tests change.
type config struct {
	mu sync.Mutex
	s  Settings
}

func (c *config) Current() Settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

func (c *config) change(f func(*Settings)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.s)
}

// resolve is a small configuration: one connection, audience vault, size at most 1 MiB, a role required.
func resolve(s attributes.Spec) (rotation.Plan, error) {
	var f faults
	if s.Connection != "" && s.Connection != "default" {
		f.addf("connection", "is not one of this node's connections: default")
	}
	if s.Role == "" {
		f.addf("roleName", "is required")
	}
	if s.Size > 1<<20 {
		f.addf("size", "must be at most 1Mi on this node")
	}
	if err := f.err(); err != nil {
		return rotation.Plan{}, err
	}
	audience := s.Audience
	if audience == "" {
		audience = "vault"
	}
	return rotation.Plan{Connection: "default", AuthMethod: "kubernetes", AuthMount: "kubernetes", Role: s.Role,
		Audience: audience, Objects: s.Objects, Refresh: time.Minute, Size: 1 << 20, OnExpiry: s.OnExpiry}, nil
}

// observed is an Observer that remembers.
type observed struct {
	mu         sync.Mutex
	calls      []string // "method code"
	registered []bool
}

func (o *observed) Call(method, code string, d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d < 0 {
		code = "a negative duration"
	}
	o.calls = append(o.calls, method+" "+code)
}

func (o *observed) Registered(yes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.registered = append(o.registered, yes)
}

func (o *observed) taken() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	calls := o.calls
	o.calls = nil
	return calls
}

// logs is a log that tests read, and wait for.
type logs struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed and replaced at each line
}

func newLogs() *logs { return &logs{changed: make(chan struct{})} }

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// wait until the log holds the text.
func (l *logs) wait(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		l.mu.Lock()
		have, changed := l.buf.String(), l.changed
		l.mu.Unlock()
		if strings.Contains(have, text) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the log never said %q:\n%s", text, have)
		}
	}
}

func (l *logs) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: level}))
}

// edge is a server on a real socket, with a real client.
type edge struct {
	path     string
	volumes  *volumes
	config   *config
	observed *observed
	logs     *logs
	identity spec.IdentityClient
	node     spec.NodeClient
	stop     func() error // ends the server and returns what Serve returned
}

// newEdge serves with the options that change makes of the usual ones.
func newEdge(t testing.TB, change func(*Options)) *edge {
	t.Helper()
	e := &edge{
		path:     filepath.Join(tempDir(t), "csi.sock"),
		volumes:  &volumes{},
		config:   &config{s: Settings{Tokens: TokensInSecrets, PodsDir: podsDir, Resolve: resolve}},
		observed: &observed{},
		logs:     newLogs(),
	}
	options := Options{
		Version: "v1.2.3", NodeID: "node-1", Volumes: e.volumes, Configuration: e.config, Observer: e.observed,
		Logger: e.logs.logger(slog.LevelDebug),
	}
	if change != nil {
		change(&options)
	}
	server, err := NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := socket.Listen(t.Context(), e.path, socket.Shared, options.Logger)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	e.stop = sync.OnceValue(func() error { cancel(); return <-served })
	conn := dial(t, e.path)
	e.identity, e.node = spec.NewIdentityClient(conn), spec.NewNodeClient(conn)
	t.Cleanup(func() {
		if err := e.stop(); err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	return e
}

func dial(t testing.TB, path string) *grpc.ClientConn {
	t.Helper()
	soon := grpc.ConnectParams{MinConnectTimeout: 5 * time.Second, Backoff: backoff.Config{BaseDelay: time.Millisecond, Multiplier: 1.5, MaxDelay: 20 * time.Millisecond}}
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(soon))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// tempDir is a folder with a name short enough for sockets, which t.TempDir's is not always.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// key signs the tokens of this test binary.
var key = sync.OnceValue(func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
})

// podToken mints a token of the pod with the given UID and service account.
func podToken(t testing.TB, uid, account, audience string, expires time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": "https://kubernetes.default.svc", "aud": []string{audience}, "exp": expires.Unix(),
		"sub": "system:serviceaccount:shop:" + account,
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"pod":            map[string]any{"name": "web-0", "uid": uid},
			"serviceaccount": map[string]any{"name": account, "uid": "sa-uid-1"},
		},
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// wrapTokens is the kubelet's JSON.
func wrapTokens(audience, token string, expires time.Time) string {
	b, err := json.Marshal(map[string]any{audience: map[string]any{
		"token": token, "expirationTimestamp": expires.UTC().Format(time.RFC3339),
	}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

const objects = `
- objectName: db/password
  secretPath: secret/data/db
  secretKey: password
`

// publishRequest is what a kubelet sends for an inline volume: the one valid request that the tests mutate.
func publishRequest(t testing.TB) *spec.NodePublishVolumeRequest {
	t.Helper()
	expires := time.Now().Add(10 * time.Minute)
	return &spec.NodePublishVolumeRequest{
		VolumeId:   "csi-" + strings.Repeat("0a", 32),
		TargetPath: target,
		VolumeCapability: &spec.VolumeCapability{
			AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{VolumeMountGroup: "1000680000"}},
		},
		VolumeContext: map[string]string{
			"roleName": "web", "objects": objects,
			keyEphemeral: "true", keyPodName: "web-0", keyPodNamespace: "shop", keyPodUID: podUID, keyServiceAccount: "web",
		},
		Secrets: map[string]string{keyTokens: wrapTokens("vault", podToken(t, podUID, "web", "vault", expires), expires)},
	}
}

// tokenOf is the token in a request.
func tokenOf(t testing.TB, req *spec.NodePublishVolumeRequest) string {
	t.Helper()
	var all map[string]struct{ Token string }
	if err := json.Unmarshal([]byte(req.GetSecrets()[keyTokens]), &all); err != nil {
		t.Fatal(err)
	}
	return all["vault"].Token
}

func unpublishRequest(req *spec.NodePublishVolumeRequest) *spec.NodeUnpublishVolumeRequest {
	return &spec.NodeUnpublishVolumeRequest{VolumeId: req.GetVolumeId(), TargetPath: req.GetTargetPath()}
}

// assertNone: none of the secrets is in the text.
func assertNone(t testing.TB, where, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if s == "" {
			t.Fatal("an empty secret proves nothing")
		}
		if i := strings.Index(text, s); i >= 0 {
			t.Errorf("%s holds %s...: %s", where, s[:min(8, len(s))], text[max(0, i-80):min(len(text), i+80)])
		}
	}
}
