#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUT: build the trimmed Vault into the file OUT. ensure.sh calls this on a copy of the recipe.
set -eu
case ${1-} in
/*) out=$1 ;;
?*) out=$PWD/$1 ;;
*)
	echo "usage: build.sh OUT" >&2
	exit 2
	;;
esac
cd "$(dirname "$0")"
[ -d sdk ] || ./prep-sdk.sh

# What the caller's build of leasefs may have set must not reach this one: the binary is to run here (GOOS, GOARCH),
# this is a module of its own (GOWORK, GOFLAGS), and ensure.sh keeps one binary for all callers.
unset GOOS GOARCH GOEXPERIMENT
GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=0 \
	exec go build -tags minimal -trimpath -buildvcs=false -ldflags '-s -w' -o "$out" ./vaultlite
