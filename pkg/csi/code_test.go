// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/leasefs/leasefs/pkg/attributes"
	"github.com/leasefs/leasefs/pkg/mount"
	"github.com/leasefs/leasefs/pkg/render"
	"github.com/leasefs/leasefs/pkg/rotation"
	"github.com/leasefs/leasefs/pkg/vault"
)

func TestCodeOf(t *testing.T) {
	of := func(class vault.Class) error {
		return &vault.Error{Op: vault.OpRead, Path: "secret/data/db", Class: class}
	}
	cancelled := &vault.Error{Op: vault.OpRead, Class: vault.Transient, Err: context.Canceled}
	tests := map[string]struct {
		err  error
		want codes.Code
	}{
		"nothing":                               {nil, codes.OK},
		"bad attributes":                        {&attributes.Faults{List: []attributes.Fault{{Key: "size"}}}, codes.InvalidArgument},
		"files that cannot be written":          {mount.ErrInvalid, codes.InvalidArgument},
		"vault down, sealed, busy":              {of(vault.Transient), codes.Unavailable},
		"vault did not answer in time":          {&vault.Error{Class: vault.Transient, Err: context.DeadlineExceeded}, codes.Unavailable},
		"vault denies":                          {of(vault.Denied), codes.PermissionDenied},
		"the session ended under way":           {of(vault.InvalidToken), codes.PermissionDenied},
		"secret or role missing":                {of(vault.NotFound), codes.FailedPrecondition},
		"vault finds the request wrong":         {of(vault.BadRequest), codes.FailedPrecondition},
		"an answer that is none":                {of(vault.BadResponse), codes.FailedPrecondition},
		"a lease gone at once":                  {of(vault.LeaseGone), codes.Unavailable},
		"a class that nobody set":               {of(vault.Unknown), codes.Internal},
		"key missing":                           {&render.MissingKeyError{Object: "a", Key: "b"}, codes.FailedPrecondition},
		"not encoded as said":                   {&render.EncodingError{Object: "a"}, codes.FailedPrecondition},
		"a response that was not read":          {&render.MissingResponseError{Object: "a"}, codes.Internal},
		"connection removed":                    {&vault.UnknownConnectionError{Name: "x"}, codes.FailedPrecondition},
		"same id, other target":                 {&rotation.ConflictError{What: "target path"}, codes.FailedPrecondition},
		"same id, other attributes":             {&rotation.ConflictError{What: "set of volume attributes"}, codes.AlreadyExists},
		"same id, other group":                  {&rotation.ConflictError{What: "volume mount group"}, codes.AlreadyExists},
		"out of the node's budget":              {&rotation.BudgetError{}, codes.ResourceExhausted},
		"out of the volume's size":              {&rotation.SizeError{}, codes.ResourceExhausted},
		"the tmpfs is full":                     {&rotation.MountError{Err: fmt.Errorf("%w: %w", mount.ErrNoSpace, syscall.ENOSPC)}, codes.ResourceExhausted},
		"busy":                                  {rotation.ErrBusy, codes.Aborted},
		"busy until the caller gave up":         {errors.Join(rotation.ErrBusy, context.Canceled), codes.Aborted},
		"shutting down":                         {rotation.ErrStopped, codes.Unavailable},
		"no token at hand":                      {rotation.ErrNoToken, codes.Unavailable},
		"no such volume":                        {rotation.ErrUnknownVolume, codes.NotFound},
		"mount trouble":                         {&rotation.MountError{Err: syscall.EPERM}, codes.Internal},
		"a panic":                               {&panicError{}, codes.Internal},
		"something nobody thought of":           {errors.New("x"), codes.Internal},
		"the caller gave up":                    {context.Canceled, codes.Canceled},
		"the caller gave up while vault worked": {cancelled, codes.Canceled},
		"out of time":                           {context.DeadlineExceeded, codes.DeadlineExceeded},

		"wrapped":                               {fmt.Errorf("publishing: %w", of(vault.Denied)), codes.PermissionDenied},
		"denied, and the others were cancelled": {errors.Join(cancelled, of(vault.Denied), cancelled), codes.PermissionDenied},
		"denied and down: somebody must act":    {errors.Join(of(vault.Transient), of(vault.Denied)), codes.PermissionDenied},
		"down, and the others were cancelled":   {errors.Join(cancelled, of(vault.Transient)), codes.Unavailable},
		"joined in a join":                      {fmt.Errorf("a: %w", errors.Join(errors.New("x"), fmt.Errorf("b: %w", &render.MissingKeyError{}))), codes.FailedPrecondition},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := codeOf(tt.err); got != tt.want {
				t.Errorf("%v is %s, want %s", tt.err, got, tt.want)
			}
		})
	}
}

// What may have left something half done must be such a code that the kubelet unpublishes; see codeOf.
func TestEveryVaultClassHasACode(t *testing.T) {
	for class := vault.Unknown; class <= vault.BadResponse; class++ {
		got := codeOf(&vault.Error{Class: class})
		if got == codes.Unknown || got == codes.OK || (got == codes.Internal) != (class == vault.Unknown) {
			t.Errorf("class %s is %s", class, got)
		}
	}
}
