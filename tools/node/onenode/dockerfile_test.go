// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"reflect"
	"strings"
	"testing"
)

const sound = `
FROM golang AS build
RUN go build \
    -o /thing
FROM scratch
ARG VERSION=dev
LABEL a="b" \
	c="d e"
# A comment
COPY --from=build /certs.pem /etc/ssl/
COPY --from=build /thing /thing
USER 0:0
ENTRYPOINT ["/thing", "run"]
`

func TestLastStageIsWhatTheDockerfileSays(t *testing.T) {
	have := map[string]string{"/thing": "bin/thing", "/certs.pem": "certs"}
	got := image{Ref: "r"}
	if err := got.lastStage(sound, have); err != nil {
		t.Fatal(err)
	}
	want := image{
		Ref: "r", User: "0:0", Entrypoint: []string{"/thing", "run"},
		Files: []imageFile{{Path: "/etc/ssl/certs.pem", Source: "certs"}, {Path: "/thing", Source: "bin/thing"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	for name, edit := range map[string][2]string{
		"another base":         {"FROM scratch", "FROM debian"},
		"a command":            {"USER 0:0", "RUN true"},
		"a file of the folder": {"COPY --from=build /thing /thing", "COPY thing /thing"},
		"a file nobody has":    {"/certs.pem /etc", "/others.pem /etc"},
		"a shell's entrypoint": {`["/thing", "run"]`, "/thing run"},
	} {
		if err := (&image{}).lastStage(strings.Replace(sound, edit[0], edit[1], 1), have); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
