// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Package events tells the author of a pod what happened to its volume, as Events on the pod.
//
// client-go's recorder does what every component of Kubernetes does with Events: equal ones are counted up, similar ones are
// aggregated, and each pod has a budget (25 at once, then one each five minutes). Messages come from pkg/rotation and hold no value.
package events

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/leasefs/leasefs/pkg/logkey"
	"github.com/leasefs/leasefs/pkg/rotation"
)

// Component is the source of the Events.
const Component = "leasefs"

// waiting is how many notices may wait for the API server before more are dropped.
const waiting = 1000

// Recorder writes Events. Notify may be called from any goroutine and never waits.
type Recorder struct {
	config  *rest.Config
	node    string
	log     *slog.Logger
	notices chan notice
}

type notice struct {
	pod rotation.Pod
	rotation.Notice
}

// New returns a Recorder for the API server of config, as in rest.InClusterConfig. It does nothing until Run.
func New(config *rest.Config, node string, log *slog.Logger) *Recorder {
	return &Recorder{config: config, node: node, log: log, notices: make(chan notice, waiting)}
}

// Notify implements rotation.Notifier. While the API server does not answer for long, the newest notices are dropped: the log and
// the metrics have them, too.
func (r *Recorder) Notify(pod rotation.Pod, n rotation.Notice) {
	select {
	case r.notices <- notice{pod, n}:
	default:
		r.log.Debug("Event dropped; the API server is too slow", logkey.Pod, pod.Namespace+"/"+pod.Name, logkey.Reason, n.Reason)
	}
}

// Run writes Events until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	sink, err := newSink(ctx, r.config)
	if err != nil {
		return fmt.Errorf("preparing to write events: %w", err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	watch := broadcaster.StartRecordingToSink(sink)
	defer watch.Stop()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return err
	}
	recorder := broadcaster.NewRecorder(scheme, corev1.EventSource{Component: Component, Host: r.node})
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-r.notices:
			recorder.Event(reference(n.pod), eventType(n.Warning), string(n.Reason), n.Message)
		}
	}
}

func reference(p rotation.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}
}

func eventType(warning bool) string {
	if warning {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// sink is the API server's events, and nothing else of it: client-go's full client would bring every API of Kubernetes into the
// daemon's memory.
type sink struct {
	ctx  context.Context //nolint:containedctx // record.EventSink's methods take none
	rest *rest.RESTClient
}

func newSink(ctx context.Context, config *rest.Config) (*sink, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c := rest.CopyConfig(config)
	c.APIPath = "/api"
	c.GroupVersion = &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, err
	}
	return &sink{ctx, client}, nil
}

func (s *sink) Create(e *corev1.Event) (*corev1.Event, error) {
	into := &corev1.Event{}
	return into, s.rest.Post().Namespace(e.Namespace).Resource("events").Body(e).Do(s.ctx).Into(into)
}

func (s *sink) Update(e *corev1.Event) (*corev1.Event, error) {
	into := &corev1.Event{}
	return into, s.rest.Put().Namespace(e.Namespace).Resource("events").Name(e.Name).Body(e).Do(s.ctx).Into(into)
}

func (s *sink) Patch(old *corev1.Event, data []byte) (*corev1.Event, error) {
	into := &corev1.Event{}
	return into, s.rest.Patch(types.StrategicMergePatchType).Namespace(old.Namespace).Resource("events").Name(old.Name).Body(data).Do(s.ctx).Into(into)
}
