// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/render"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

// codeOf decides what the kubelet is told. To it (isFinalError in its csi_client.go) Canceled, DeadlineExceeded,
// Unavailable, ResourceExhausted and Aborted mean that the volume may be half there: it tries again and will unpublish.
// Any other code is final: nothing is left behind, and no unpublish need follow. It tries again in both cases.
//
// An error may hold several: objects are read in parallel, and when one is denied the others are cancelled. The one that
// somebody has to mend counts, not the one that goes away by itself: the highest in the order of rank.
func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	worst := codes.Unknown
	walk(err, func(e error) {
		if c := judge(e); rank(c) > rank(worst) {
			worst = c
		}
	})
	if worst == codes.Unknown {
		return codes.Internal // nobody thought of it: a fault of the driver's
	}
	return worst
}

// judge looks at one link of a chain of errors, without what it wraps. Unknown: it says nothing.
func judge(err error) codes.Code {
	switch e := err.(type) { //nolint:errorlint // walk goes through the chain link by link
	case *attributes.Faults:
		return codes.InvalidArgument
	case *rotation.ConflictError:
		if e.What == "target path" {
			return codes.FailedPrecondition
		}
		return codes.AlreadyExists
	case *rotation.BudgetError, *rotation.SizeError:
		return codes.ResourceExhausted
	case *rotation.MountError, *render.MissingResponseError, *panicError:
		return codes.Internal
	case *render.MissingKeyError, *render.EncodingError, *vault.UnknownConnectionError:
		return codes.FailedPrecondition
	case *vault.Error:
		return judgeVault(e)
	}
	for _, s := range [...]struct {
		err  error
		code codes.Code
	}{
		{rotation.ErrBusy, codes.Aborted},
		{rotation.ErrStopped, codes.Unavailable},
		{rotation.ErrNoToken, codes.Unavailable},
		{rotation.ErrUnknownVolume, codes.NotFound},
		{mount.ErrNoSpace, codes.ResourceExhausted},
		{mount.ErrInvalid, codes.InvalidArgument},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
	} {
		if err == s.err { //nolint:errorlint // walk goes through the chain link by link
			return s.code
		}
	}
	return codes.Unknown
}

func judgeVault(e *vault.Error) codes.Code {
	switch e.Class {
	case vault.Denied, vault.InvalidToken:
		return codes.PermissionDenied
	case vault.NotFound, vault.BadRequest, vault.BadResponse:
		return codes.FailedPrecondition
	case vault.Transient:
		if errors.Is(e.Err, context.Canceled) { // the caller gave up, or a read beside this one failed
			return codes.Canceled
		}
		// A deadline that passed while Vault was asked counts here, too: to the kubelet it is the same as DeadlineExceeded,
		// and this one says where to look.
		return codes.Unavailable
	case vault.LeaseGone, vault.NotRenewable: // of what was fetched a moment ago: the next attempt fetches anew
		return codes.Unavailable
	case vault.Unknown:
	}
	return codes.Internal
}

// rank orders codes: who waits, who mends, what counts when there are several.
func rank(c codes.Code) int {
	order := [...]codes.Code{
		codes.Unknown,
		codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted, // go away by themselves
		codes.Internal, codes.ResourceExhausted, // the administrator's
		codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.PermissionDenied, codes.InvalidArgument, // the author's
	}
	for i, o := range order {
		if o == c {
			return i
		}
	}
	return 0
}

// walk visits an error and all that it wraps.
func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) { //nolint:errorlint // this is the walk
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	}
}
