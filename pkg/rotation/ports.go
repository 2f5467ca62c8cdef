// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"time"

	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/vault"
)

// Vaults finds the client of a connection. An unknown name is an error: the administrator may have removed it while
// volumes that use it live on.
type Vaults interface {
	Client(connection string) (Vault, error)
}

// Vault is what a volume asks of its Vault. *vault.Client is one.
type Vault interface {
	Login(context.Context, vault.Login) (vault.Session, error)
	RenewSession(context.Context, vault.Auth) (vault.Grant, error)
	LookupSession(context.Context, vault.Auth) (vault.Grant, error)
	RevokeSession(context.Context, vault.Auth) error
	Read(context.Context, vault.Auth, vault.Request, vault.ReadOptions) (*vault.Response, error)
	RenewLease(ctx context.Context, auth vault.Auth, leaseID string, increment time.Duration) (vault.Grant, error)
	LookupLease(ctx context.Context, auth vault.Auth, leaseID string) (vault.Grant, error)
	RevokeLease(ctx context.Context, auth vault.Auth, leaseID string) error
}

// Mounts makes, finds and removes volumes' file systems. *mount.Mounter is one, but for the type of its volumes.
type Mounts interface {
	// Prepare makes the directory target, in which a volume is to be attached; Remove takes it away.
	Prepare(target string) error
	Create(mount.Shape) (Volume, error)
	Adopt(target string) (Volume, error)
	Mounted(target string) (bool, error)
	Remove(target string) error
	Usage(target string) (mount.Usage, error)
}

// Volume is the writable side of one volume's tmpfs. *mount.Volume is one.
type Volume interface {
	Current() (string, error)
	ReadFile(path string) ([]byte, error)
	Fill(files []mount.File) (generation string, err error)
	Stage(files []mount.File) (generation string, changed bool, err error)
	Swap(generation string) error
	Discard(generation string) error
	Prune() error
	Attach(target string) error
	At(target string) (bool, error)
	Close() error
}

// Records keeps the daemon's memory across restarts. *record.Store is one.
type Records interface {
	Put(name string, data []byte) error
	Delete(name string) error // an absent record is no error
	List() (map[string][]byte, error)
}

// Observer is told what happened, for metrics. Labels are bounded: a Kind, a Result, never a pod or a path.
type Observer interface {
	// Rotation counts one step on one lease or session.
	Rotation(kind Kind, action Action, result Result)
	// Late is the time between the planned and the real start of a step; never negative.
	Late(time.Duration)
	// Swapped counts generations that became current in a live volume.
	Swapped()
	// Recovered counts what became of a record at start.
	Recovered(Recovery)
}

// Result is how a step ended.
type Result string

// Results of a step. The rest of the values are vault.Class strings of the failure.
const (
	ResultOK        Result = "ok"
	ResultUnchanged Result = "unchanged" // fetched, and the files are the same
	ResultCapped    Result = "capped"    // renewed, but the maximum TTL is reached
	ResultGone      Result = "gone"      // revoked behind our back; fetched anew
	ResultNoToken   Result = "no-token"  // a login is needed and no valid pod token is at hand yet
)

// Recovery is what became of one record at start.
type Recovery string

// Kinds of recovery.
const (
	RecoveredLive       Recovery = "live"       // taken over as it was
	RecoveredPublish    Recovery = "publish"    // an unfinished publish, undone
	RecoveredRelease    Recovery = "release"    // an unfinished unpublish, carried on
	RecoveredLost       Recovery = "lost"       // the mount is gone; its session is revoked
	RecoveredUnreadable Recovery = "unreadable" // the record cannot be read; the volume is taken over at the next publish
)

// Auditor writes the audit log: who did what to what, never a value. It must not block for long.
type Auditor interface {
	Audit(Entry)
}

// AuditEvent names what an audit entry is about.
type AuditEvent string

// Events of the audit log.
const (
	AuditLogin         AuditEvent = "login"
	AuditRead          AuditEvent = "read"
	AuditRenewSession  AuditEvent = "renew-session"
	AuditRenewLease    AuditEvent = "renew-lease"
	AuditRevokeSession AuditEvent = "revoke-session"
	AuditRevokeLease   AuditEvent = "revoke-lease"
	AuditPublish       AuditEvent = "publish"
	AuditSwap          AuditEvent = "swap"
	AuditExpire        AuditEvent = "expire" // files were removed or went stale because their secret expired
	AuditUnpublish     AuditEvent = "unpublish"
	AuditRecover       AuditEvent = "recover"
)

// Entry is one line of the audit log.
type Entry struct {
	Event      AuditEvent
	VolumeID   string
	Pod        Pod
	Connection string
	Role       string
	Path       string   // Vault path, for reads and leases
	Files      []string // names of the files concerned
	LeaseID    string   // as Vault gave it; the auditor writes a hash
	Kind       Kind     // kind of lease; "" where none
	Expires    time.Time
	Generation string
	Err        error // nil: it went well; the auditor writes its class, not its text
}

// Notifier tells the pod's author, as an Event on the pod, what happened to the volume.
type Notifier interface {
	Notify(Pod, Notice)
}

// Reason is the reason of an Event, one of a fixed few.
type Reason string

// Reasons of Events.
const (
	SecretsMounted  Reason = "SecretsMounted"
	SecretsRotated  Reason = "SecretsRotated"
	RotationFailing Reason = "RotationFailing"
	SecretsExpired  Reason = "SecretsExpired"
)

// Notice is one Event: a reason and a message without any value.
type Notice struct {
	Reason  Reason
	Warning bool
	Message string
}

// Settings are the administrator's limits that may change while the daemon runs.
type Settings struct {
	NodeBudget      int64         // bytes that all tmpfs of the node may have together; 0: no limit
	CredentialGrace time.Duration // how long replaced dynamic credentials stay valid, so that applications change over
	GenerationGrace time.Duration // how long the files of the generation before stay readable after a swap
	SELinuxContext  string        // context= of every volume; "": none
}
