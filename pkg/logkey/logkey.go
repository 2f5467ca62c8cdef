// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package logkey names every field that a log line of leasefs may have, so that one thing has one name everywhere.
package logkey

// Fields of log lines. Durations are logged as slog durations, times as RFC 3339.
const (
	Volume         = "volume"         // the CSI volume id
	Target         = "target"         // the kubelet's target path
	Pod            = "pod"            // namespace/name
	PodUID         = "podUID"         //
	ServiceAccount = "serviceAccount" // namespace/name
	Connection     = "connection"     // name of an allowed Vault
	Role           = "role"           // Vault role of the login
	Path           = "path"           // Vault path of a request
	Secret         = "secret"         // key of one secret of a volume
	Kind           = "kind"           // kind of lease
	Operation      = "operation"      // what was being done: a Vault operation, a gRPC method, a rotation step
	Code           = "code"           // gRPC code or HTTP status
	Generation     = "generation"     // name of a generation
	Phase          = "phase"          // publishing, live, releasing
	Next           = "next"           // time of the next action
	Expires        = "expires"        // time at which something expires
	Duration       = "duration"       //
	Attempt        = "attempt"        // count of failures in a row
	Error          = "error"          //
	File           = "file"           // a file of the daemon's own (configuration, record, socket)
	Address        = "address"        // a listen address or a Vault address
	Version        = "version"        //
	Count          = "count"          //
	Support        = "support"        // what the kernel offers to the mounter
	Signal         = "signal"         //
	Reason         = "reason"         //
	Request        = "request"        // a CSI request without anything that may be secret
	Stack          = "stack"          // functions and lines of a panic
	Setting        = "setting"        // keys of the configuration
	User           = "user"           // a numeric user id
)
