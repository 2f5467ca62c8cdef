// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/secret"
)

type request = spec.NodePublishVolumeRequest

func mountOf(r *request) *spec.VolumeCapability_MountVolume { return r.VolumeCapability.GetMount() }

// retoken gives the request another token for the audience vault.
func retoken(t testing.TB, r *request, uid, account, audience string, expires time.Time) {
	r.Secrets[keyTokens] = wrapTokens("vault", podToken(t, uid, account, audience, expires), expires)
}

func TestPublishRefuses(t *testing.T) {
	e := newEdge(t, nil)
	tests := map[string]struct {
		mutate func(*request)
		want   []string // parts of the message
	}{
		"no volume id":                    {func(r *request) { r.VolumeId = "" }, []string{"volume_id: is missing"}},
		"a volume id too long":            {func(r *request) { r.VolumeId = strings.Repeat("x", 129) }, []string{"volume_id: has 129 bytes"}},
		"a volume id with a newline":      {func(r *request) { r.VolumeId = "a\nb" }, []string{"volume_id: has characters"}},
		"no target path":                  {func(r *request) { r.TargetPath = "" }, []string{"target_path: is missing"}},
		"a relative target path":          {func(r *request) { r.TargetPath = target[1:] }, []string{"target_path:", "absolute"}},
		"a target path with ..":           {func(r *request) { r.TargetPath = podsDir + "/" + podUID + "/volumes/../../../x" }, []string{"target_path:", `".."`}},
		"a target path with //":           {func(r *request) { r.TargetPath = "/" + target }, []string{"target_path:"}},
		"a target path with a slash last": {func(r *request) { r.TargetPath = target + "/" }, []string{"target_path:"}},
		"a target path with a NUL":        {func(r *request) { r.TargetPath = target + "\x00" }, []string{"target_path: has characters"}},
		"a target path too long":          {func(r *request) { r.TargetPath = target + strings.Repeat("/x", 2000) }, []string{"target_path: has"}},
		"a target path outside":           {func(r *request) { r.TargetPath = "/etc/" + podUID + "/a/b" }, []string{"target_path:", "not below the kubelet's directory of pods, " + podsDir}},
		"a target path in a sibling":      {func(r *request) { r.TargetPath = podsDir + "x/" + podUID + "/a/b" }, []string{"target_path:", "not below"}},
		"the pods directory itself":       {func(r *request) { r.TargetPath = podsDir }, []string{"target_path:", "not below"}},
		"a pod's directory itself":        {func(r *request) { r.TargetPath = podsDir + "/" + podUID }, []string{"target_path:", "not the place of a volume"}},
		"another pod's directory":         {func(r *request) { r.TargetPath = strings.Replace(target, podUID, "other-uid", 1) }, []string{"target_path:", "of another pod"}},
		"a pod UID that is a beginning":   {func(r *request) { r.TargetPath = strings.Replace(target, podUID, podUID+"0", 1) }, []string{"target_path:", "of another pod"}},

		"no capability": {func(r *request) { r.VolumeCapability = nil }, []string{"volume_capability: is missing"}},
		"a block device": {func(r *request) {
			r.VolumeCapability.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		}, []string{"access_type: must be mount"}},
		"no access type": {func(r *request) { r.VolumeCapability.AccessType = nil }, []string{"access_type: must be mount"}},
		"no access mode": {func(r *request) { r.VolumeCapability.AccessMode = nil }, []string{"access_mode: must be one of the SINGLE_NODE modes, not UNKNOWN"}},
		"an access mode of many": {func(r *request) {
			r.VolumeCapability.AccessMode.Mode = spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
		}, []string{"not MULTI_NODE_READER_ONLY"}},
		"another file system":                        {func(r *request) { mountOf(r).FsType = "ext4" }, []string{`fs_type: must be empty or tmpfs, not "ext4"`}},
		"a mount flag that would enlarge the volume": {func(r *request) { mountOf(r).MountFlags = []string{"size=1g"} }, []string{"mount_flags:", "nodev, noexec"}},
		"a mount flag that would relabel the volume": {func(r *request) { mountOf(r).MountFlags = []string{`context="system_u:object_r:etc_t:s0"`} }, []string{"mount_flags:"}},
		"a mount flag that would open the volume":    {func(r *request) { mountOf(r).MountFlags = []string{"ro", "rw"} }, []string{"mount_flags: rw"}},
		"two mount flags in one":                     {func(r *request) { mountOf(r).MountFlags = []string{"ro,exec"} }, []string{"mount_flags:"}},
		"a group that is a name":                     {func(r *request) { mountOf(r).VolumeMountGroup = "wheel" }, []string{`volume_mount_group: must be a group id`, `"wheel"`}},
		"a negative group":                           {func(r *request) { mountOf(r).VolumeMountGroup = "-1" }, []string{"volume_mount_group:"}},
		"the group that means none":                  {func(r *request) { mountOf(r).VolumeMountGroup = "4294967295" }, []string{"volume_mount_group:"}},
		"a group past 32 bits":                       {func(r *request) { mountOf(r).VolumeMountGroup = "4294967296" }, []string{"volume_mount_group:"}},
		"a group in octal":                           {func(r *request) { mountOf(r).VolumeMountGroup = "0100" }, []string{"volume_mount_group:"}},

		"no pod info": {func(r *request) {
			maps.DeleteFunc(r.VolumeContext, func(k, _ string) bool { return strings.HasPrefix(k, kubeletPrefix) })
		}, []string{"CSIDriver.spec.podInfoOnMount", keyPodUID, keyServiceAccount, keyEphemeral}},
		"no pod UID":                     {func(r *request) { delete(r.VolumeContext, keyPodUID) }, []string{keyPodUID + " missing: set CSIDriver.spec.podInfoOnMount to true"}},
		"an empty service account":       {func(r *request) { r.VolumeContext[keyServiceAccount] = "" }, []string{keyServiceAccount + " missing"}},
		"a pod UID that is a path":       {func(r *request) { r.VolumeContext[keyPodUID] = "../x" }, []string{keyPodUID + ": is not the name or UID"}},
		"no ephemeral":                   {func(r *request) { delete(r.VolumeContext, keyEphemeral) }, []string{keyEphemeral + ": is missing", "only inline volumes"}},
		"a persistent volume":            {func(r *request) { r.VolumeContext[keyEphemeral] = "false" }, []string{keyEphemeral + ": is not true"}},
		"a spoofed key of the kubelet's": {func(r *request) { r.VolumeContext[kubeletPrefix+"node.name"] = "x" }, []string{kubeletPrefix + "node.name: is not a key that the kubelet sets"}},
		"another pod's info": {func(r *request) {
			r.VolumeContext[keyPodName], r.VolumeContext[keyServiceAccount] = "admin-0", "admin"
		}, []string{keyTokens + ": the token", `kubernetes.io/pod/name is "web-0" instead of "admin-0"`, `serviceaccount/name is "web" instead of "admin"`}},

		"no tokens": {func(r *request) { r.Secrets = nil }, []string{
			"secrets[" + keyTokens + "]: is missing", "CSIDriver.spec.tokenRequests", "serviceAccountTokenInSecrets to true"}},
		"empty tokens": {func(r *request) { r.Secrets[keyTokens] = "" }, []string{"is missing"}},
		"tokens in the volume context only": {func(r *request) {
			r.VolumeContext[keyTokens], r.Secrets = r.Secrets[keyTokens], nil
		}, []string{"volumeContext[" + keyTokens + "]: is refused", "taken from secrets only", "serviceAccountTokenInSecrets"}},
		"an author's tokens beside the kubelet's": {func(r *request) { r.VolumeContext[keyTokens] = r.Secrets[keyTokens] },
			[]string{"volumeContext[" + keyTokens + "]: is refused"}},
		"empty tokens of an author's": {func(r *request) { r.VolumeContext[keyTokens] = "" }, []string{"volumeContext[" + keyTokens + "]: is refused"}},
		"tokens in the publish context": {func(r *request) { r.PublishContext = map[string]string{keyTokens: "{}"} },
			[]string{"publishContext[" + keyTokens + "]: is refused"}},
		"a nodePublishSecretRef":  {func(r *request) { r.Secrets["password"] = "hunter22" }, []string{"nodePublishSecretRef: is not read", "password"}},
		"tokens that are no JSON": {func(r *request) { r.Secrets[keyTokens] = "eyJhbGciOiJ9.e30.AA" }, []string{keyTokens + ": not a JSON object"}},
		"another pod's token": {func(r *request) { retoken(t, r, "other-uid", "web", "vault", time.Now().Add(time.Hour)) },
			[]string{keyTokens + `: the token for audience "vault" is not this pod's`, `kubernetes.io/pod/uid is "other-uid"`}},
		"another service account's token": {func(r *request) { retoken(t, r, podUID, "admin", "vault", time.Now().Add(time.Hour)) },
			[]string{"kubernetes.io/serviceaccount/name"}},
		"a token for another audience": {func(r *request) { retoken(t, r, podUID, "web", "evil", time.Now().Add(time.Hour)) },
			[]string{`aud is "evil"`}},
		"a token that has expired": {func(r *request) { retoken(t, r, podUID, "web", "vault", time.Now().Add(-time.Minute)) },
			[]string{"it expired at"}},
		"no token for the connection's audience": {func(r *request) { r.VolumeContext["audience"] = "prod" },
			[]string{`no token for audience "prod"`, `"vault"`, "CSIDriver.spec.tokenRequests"}},

		"an unknown attribute":      {func(r *request) { r.VolumeContext["rolename"] = "x" }, []string{"rolename: unknown key; did you mean roleName?"}},
		"attributes that are wrong": {func(r *request) { r.VolumeContext["onExpiry"] = "explode" }, []string{"onExpiry: must be keep or remove"}},
		"what the administrator does not allow": {func(r *request) { r.VolumeContext["size"] = "2Mi" },
			[]string{"size: must be at most 1Mi on this node"}},
		"every fault of every part at once": {func(r *request) {
			r.VolumeId = ""
			r.TargetPath = "x"
			r.VolumeCapability.AccessMode = nil
			mountOf(r).FsType, mountOf(r).VolumeMountGroup = "xfs", "wheel"
			delete(r.VolumeContext, keyEphemeral)
			delete(r.VolumeContext, keyPodName)
			r.VolumeContext[keyTokens] = "{}"
			r.Secrets = nil
			r.VolumeContext["onExpiry"] = "explode"
			r.VolumeContext["size"] = "2Mi"
			r.VolumeContext["objects"] = ""
			r.VolumeContext["roleName"] = ""
		}, []string{"volume_id:", "target_path:", "access_mode:", "fs_type:", "volume_mount_group:", keyEphemeral + ":",
			keyPodName + " missing", "volumeContext[" + keyTokens + "]:", "onExpiry:", "size:", "objects:", "roleName:"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := publishRequest(t)
			token := tokenOf(t, req)
			tt.mutate(req)
			_, err := e.node.NodePublishVolume(t.Context(), req)
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("got %v, want InvalidArgument", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("message %q\nlacks %q", status.Convert(err).Message(), want)
				}
			}
			assertNone(t, "the message", err.Error(), token, "hunter22")
			if calls, there := e.volumes.taken(); len(calls)+len(there) > 0 {
				t.Errorf("a refused request reached the volumes: %v %v", calls, there)
			}
		})
	}
}

func TestPublishAccepts(t *testing.T) {
	group := func(n uint32) *uint32 { return &n }
	tests := map[string]struct {
		mutate func(*request)
		change func(*Settings)
		group  *uint32
	}{
		"what the kubelet sends":            {group: group(1000680000)},
		"a pod that asks for readOnly":      {mutate: func(r *request) { r.Readonly = true }, group: group(1000680000)},
		"a pod without fsGroup":             {mutate: func(r *request) { mountOf(r).VolumeMountGroup = "" }},
		"the group root":                    {mutate: func(r *request) { mountOf(r).VolumeMountGroup = "0" }, group: group(0)},
		"the greatest group":                {mutate: func(r *request) { mountOf(r).VolumeMountGroup = "4294967294" }, group: group(4294967294)},
		"fsType tmpfs":                      {mutate: func(r *request) { mountOf(r).FsType = "tmpfs" }, group: group(1000680000)},
		"mount flags that every volume has": {mutate: func(r *request) { mountOf(r).MountFlags = mountFlags() }, group: group(1000680000)},
		"a single node reader": {mutate: func(r *request) {
			r.VolumeCapability.AccessMode.Mode = spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
		}, group: group(1000680000)},
		"a single node multi writer": {mutate: func(r *request) {
			r.VolumeCapability.AccessMode.Mode = spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
		}, group: group(1000680000)},
		"targets anywhere, where so configured": {
			mutate: func(r *request) { r.TargetPath = "/mnt/x" },
			change: func(s *Settings) { s.PodsDir = "" }, group: group(1000680000)},
		"a pods directory written with a slash": {change: func(s *Settings) { s.PodsDir += "/" }, group: group(1000680000)},
		"tokens in the volume context, where so configured": {
			mutate: func(r *request) { r.VolumeContext[keyTokens], r.Secrets = r.Secrets[keyTokens], nil },
			change: func(s *Settings) { s.Tokens = TokensInContext }, group: group(1000680000)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, nil)
			req := publishRequest(t)
			token := tokenOf(t, req)
			if tt.mutate != nil {
				tt.mutate(req)
			}
			if tt.change != nil {
				e.config.change(tt.change)
			}
			if _, err := e.node.NodePublishVolume(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			_, there := e.volumes.taken()
			got := there[req.VolumeId]
			want := rotation.Request{
				VolumeID:    req.VolumeId,
				Target:      req.TargetPath,
				Pod:         rotation.Pod{Namespace: "shop", Name: "web-0", UID: podUID, ServiceAccount: "web", ServiceAccountUID: "sa-uid-1"},
				Token:       rotation.Token{JWT: secret.New(token), Expires: got.Token.Expires},
				Plan:        got.Plan,
				Group:       tt.group,
				Fingerprint: fingerprint(map[string]string{"roleName": "web", "objects": objects}),
			}
			sameSecret := cmp.Comparer(func(a, b secret.Value) bool { return a.Equal(b) })
			if diff := cmp.Diff(want, got, sameSecret); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if until := time.Until(got.Token.Expires); until < 9*time.Minute || until > 10*time.Minute {
				t.Errorf("the token expires in %s, want 10 minutes", until)
			}
			if got.Plan.Role != "web" || got.Plan.Audience != "vault" || len(got.Plan.Objects) != 1 {
				t.Errorf("plan %+v is not what resolving gave", got.Plan)
			}
		})
	}
}

func TestTokensInSecretsAreRefusedWhereTheContextIsConfigured(t *testing.T) {
	e := newEdge(t, nil)
	e.config.change(func(s *Settings) { s.Tokens = TokensInContext })
	_, err := e.node.NodePublishVolume(t.Context(), publishRequest(t))
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "secrets["+keyTokens+"]: is refused") {
		t.Fatalf("got %v", err)
	}
	req := publishRequest(t)
	req.Secrets = nil
	_, err = e.node.NodePublishVolume(t.Context(), req)
	if !strings.Contains(err.Error(), "leave serviceAccountTokenInSecrets unset or false") {
		t.Fatalf("the error does not say what to set: %v", err)
	}
}

// A fault in one attribute must not hide what the configuration has against another, nor bring up what only follows.
func TestFaultsOfAttributesAndConfigurationComeTogether(t *testing.T) {
	tests := map[string]struct {
		attrs      map[string]string
		want, none []string
	}{
		"both": {map[string]string{"roleName": "web", "objects": "[", "size": "2Mi"},
			[]string{"objects", "size"}, []string{"roleName"}},
		"an attribute left out for its fault is not missed": {map[string]string{"roleName": "a\x00", "objects": objects},
			[]string{"roleName: must be UTF-8"}, []string{"is required"}},
		"no connection to resolve against": {map[string]string{"roleName": "web", "connection": "a\x00", "objects": objects, "size": "2Mi"},
			[]string{"connection"}, []string{"size"}},
		"an unknown attribute": {map[string]string{"Rolename": "x", "\x00": "y", "objects": objects},
			[]string{"Rolename: unknown", "roleName: is required"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var f faults
			if _, ok := f.plan(tt.attrs, fingerprint(tt.attrs), Settings{Resolve: resolve}, newSpecs()); ok {
				t.Fatal("accepted")
			}
			text := f.err().Error()
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q lacks %q", text, want)
				}
			}
			for _, none := range tt.none {
				if strings.Contains(text, none) {
					t.Errorf("%q has %q", text, none)
				}
			}
			seen := map[attributes.Fault]bool{}
			for _, fault := range f.list {
				if seen[fault] {
					t.Errorf("%v comes twice", fault)
				}
				seen[fault] = true
			}
		})
	}
}

// Resolving may fail for other reasons than the author's; the text still reaches him.
func TestAnotherErrorOfResolvingIsToldToo(t *testing.T) {
	e := newEdge(t, nil)
	e.config.change(func(s *Settings) {
		s.Resolve = func(attributes.Spec) (rotation.Plan, error) {
			return rotation.Plan{}, fmt.Errorf("no configuration yet")
		}
	})
	_, err := e.node.NodePublishVolume(t.Context(), publishRequest(t))
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "volumeAttributes: no configuration yet") {
		t.Fatalf("got %v", err)
	}
}

// FuzzReadPublish: whatever an author writes and wherever it lands, reading never panics, and what is accepted is the
// pod's own.
func FuzzReadPublish(f *testing.F) {
	valid := publishRequest(f)
	f.Add(valid.VolumeId, valid.TargetPath, "1000", "roleName", "web", objects)
	f.Add("", "/", "-1", keyTokens, "{}", "- objectName: x")
	f.Add("x", podsDir+"/"+podUID+"/../x/y", "0", keyPodUID, "other", "")
	f.Add("x", podsDir+"/"+podUID+"/x/y", "", keyEphemeral, "false", "[")
	f.Fuzz(func(t *testing.T, id, path, group, attribute, value, objects string) {
		req := proto.CloneOf(valid)
		req.VolumeId, req.TargetPath, mountOf(req).VolumeMountGroup = id, path, group
		req.VolumeContext["objects"] = objects
		req.VolumeContext[attribute] = value
		got, err := readPublish(req, Settings{Tokens: TokensInSecrets, PodsDir: podsDir, Resolve: resolve}, newSpecs(), time.Now())
		if err != nil {
			if codeOf(err) != codes.InvalidArgument {
				t.Fatalf("%v is %s", err, codeOf(err))
			}
			return
		}
		if !strings.HasPrefix(got.Target, podsDir+"/"+podUID+"/") || strings.Contains(got.Target, "/../") {
			t.Fatalf("accepted the target %q", got.Target)
		}
		if got.Pod.UID != podUID || got.Pod.ServiceAccountUID != "sa-uid-1" || got.VolumeID == "" || len(got.Plan.Objects) == 0 {
			t.Fatalf("accepted %+v", got)
		}
	})
}
