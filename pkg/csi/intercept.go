// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/leasefs/leasefs/pkg/logkey"
)

// interceptor is what all calls have in common.
type interceptor struct {
	timeout  time.Duration
	observer Observer
	log      *slog.Logger
}

// call is what the interceptor and a handler know of the same call.
type call struct {
	method string
	masked error // what is wrong with a call that was answered with OK all the same
}

type callKey struct{}

// callOf finds the call in a handler's context; a handler that is called without an interceptor gets one of its own.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// unary bounds a call in time, keeps a panic from ending the process, makes an error a gRPC status, and tells metrics
// and log. It is the one place where a call's error is logged.
func (i *interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	c := &call{method: path.Base(info.FullMethod)}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, callKey{}, c), i.timeout)
	defer cancel()

	resp, err := i.survive(ctx, req, handler)
	result := statusOf(err)
	took := time.Since(start)
	seen := result
	if c.masked != nil {
		seen = statusOf(c.masked)
	}
	i.observer.Call(c.method, seen.Code().String(), took)
	i.report(ctx, c, req, result, took)
	if result.Code() != codes.OK {
		return nil, result.Err()
	}
	return resp, nil
}

// survive turns a panic of a handler into an error. What was panicked with is logged only when it is the runtime's own
// word (an index out of range): anything else could hold a secret. Of the stack, functions and lines, no arguments.
func (i *interceptor) survive(ctx context.Context, req any, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		what := fmt.Sprintf("a %T", cause)
		if r, ok := cause.(runtime.Error); ok {
			what = clean(r.Error())
		}
		err = &panicError{}
		i.log.Error("a call panicked; this is a fault of the driver, please report it", logkey.Error, what, logkey.Stack, stack())
	}()
	return handler(ctx, req)
}

// panicError tells the caller no more than that.
type panicError struct{}

func (*panicError) Error() string {
	return "a fault of the driver's own: the call panicked; the driver's log on this node says where"
}

// stack lists the callers of a deferred function that recovered.
func stack() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)]) // without Callers, stack, the deferred function, gopanic
	var b strings.Builder
	for {
		frame, more := frames.Next()
		if b.Len() > 0 {
			b.WriteString(" < ")
		}
		fmt.Fprintf(&b, "%s %s:%d", frame.Function, path.Base(frame.File), frame.Line)
		if !more {
			return b.String()
		}
	}
}

// statusOf is the one place where errors become gRPC codes.
func statusOf(err error) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	if made, ok := err.(interface{ GRPCStatus() *status.Status }); ok { // only one that is nothing but a status
		return status.New(made.GRPCStatus().Code(), clean(made.GRPCStatus().Message()))
	}
	return status.New(codeOf(err), clean(err.Error()))
}

// report writes the log line of a call.
func (i *interceptor) report(ctx context.Context, c *call, req any, result *status.Status, took time.Duration) {
	level := levelOf(result.Code())
	if !i.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String(logkey.Operation, c.method)}
	if v, ok := req.(interface{ GetVolumeId() string }); ok {
		attrs = append(attrs, slog.String(logkey.Volume, clean(v.GetVolumeId())))
	}
	if t, ok := req.(interface{ GetTargetPath() string }); ok {
		attrs = append(attrs, slog.String(logkey.Target, clean(t.GetTargetPath())))
	}
	if pod := podOf(req); pod != "" {
		attrs = append(attrs, slog.String(logkey.Pod, pod))
	}
	attrs = append(attrs, slog.String(logkey.Code, result.Code().String()), slog.Duration(logkey.Duration, took))
	if result.Code() != codes.OK {
		attrs = append(attrs, slog.String(logkey.Error, result.Message()))
	}
	if i.log.Enabled(ctx, slog.LevelDebug) {
		attrs = append(attrs, slog.Any(logkey.Request, sanitized{req}))
	}
	i.log.LogAttrs(ctx, level, "call of the kubelet", attrs...)
}

// levelOf: a failure is worth a warning, a fault of the driver an error. The rest comes about once a minute for each pod.
func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.OK, codes.Unimplemented:
		return slog.LevelDebug
	case codes.Aborted, codes.Canceled:
		return slog.LevelInfo
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	default:
		return slog.LevelWarn
	}
}
