#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# build.sh download | build.sh PROGRAM OUT: build one of upstream's programs, as a static binary, into the file OUT.
set -eu
cd "$(dirname "$0")"

# What the caller's build of leasefs may have set must not reach this one: the programs are to run here (GOOS, GOARCH),
# and this is a module of its own (GOWORK, GOFLAGS).
unset GOOS GOARCH GOEXPERIMENT
export GOFLAGS="-mod=readonly${NODE_BUILD_PARALLEL:+ -p=$NODE_BUILD_PARALLEL}" GOWORK=off CGO_ENABLED=0

case $1 in
download) exec go mod download ;;
etcd) package=go.etcd.io/etcd/server/v3 ;;
*) package=k8s.io/kubernetes/cmd/$1 ;;
esac

# Kubernetes' programs exit at start unless their version is a valid one.
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
minor=${minor%%.*}
flags="-s -w"
for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	flags="$flags -X $p.gitVersion=$version -X $p.gitMajor=1 -X $p.gitMinor=$minor -X $p.gitTreeState=archive"
	flags="$flags -X $p.gitCommit=module -X $p.buildDate=1970-01-01T00:00:00Z"
done
exec go build -trimpath -buildvcs=false -ldflags "$flags" -o "$2" "$package"
