#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [-keep] [FLAGS OF GO TEST...]: build all that the end-to-end tests need, start the one-node Kubernetes, run them
# in its namespaces, and take it down again. With -keep the node stays up, for a look at it; `tools/node/down` ends it.
#   test/e2e/run.sh -short                                  the quick part
#   test/e2e/run.sh -run 'TestOnANode/(Install|Side.*)'     some of it
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root"
say() { echo "e2e: $*" >&2; }

keep=
if [ "${1-}" = -keep ]; then
	keep=1
	shift
fi
flags=
for flag; do
	# go test's -short is -test.short to the binary.
	case $flag in -*) flag=-test.${flag#-} ;; esac
	flags="$flags '$(printf %s "$flag" | sed "s/'/'\\\\''/g")'"
done
began=$(date +%s)
phase() {
	say "$(($(date +%s) - began)) s: $*"
}

# 1. What has to be built, the large things first: they are cached.
[ "$(id -u)" = 0 ] || { say "a node needs root"; exit 1; }
VAULT_BIN=$(tools/vault/ensure.sh)
export VAULT_BIN
tools/node/ensure.sh >/dev/null
phase "building leasefs, the workload, the tests"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$work/leasefs" ./cmd/driver
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$work/workload" ./test/e2e/workload
go test -c -tags e2e -o "$work/e2e.test" ./test/e2e
go -C tools/node/onenode test ./... >&2
LEASEFS_E2E_HELM=$work/helm
LEASEFS_E2E_CHART=$root/deploy/charts/leasefs
export LEASEFS_E2E_HELM LEASEFS_E2E_CHART
go build -modfile=tools/helm/go.mod -o "$LEASEFS_E2E_HELM" helm.sh/helm/v4/cmd/helm

# 2. Images. leasefs's is what the Dockerfile makes; the second has one more variable, so that it is another image.
ctl=$root/tools/node/ctl
for tag in e2e upgraded; do
	"$ctl" image -ref "localhost/leasefs:$tag" -out "$work/leasefs-$tag.tar" -dockerfile Dockerfile -env "BUILD=$tag" \
		-file "$work/leasefs=/leasefs" -file /etc/ssl/certs/ca-certificates.crt=/etc/ssl/certs/ca-certificates.crt
done
"$ctl" image -ref localhost/workload:e2e -out "$work/workload.tar" -entrypoint /workload -file "$work/workload=/workload"

# 3. The node. Whatever happens from here on, it is taken down.
LEASEFS_NODE_CTL=$ctl
LEASEFS_NODE_RUN=${LEASEFS_NODE_RUN-${TMPDIR:-/tmp}/leasefs-e2e}
export LEASEFS_NODE_CTL LEASEFS_NODE_RUN
end() {
	status=$?
	trap '' INT TERM HUP
	rm -rf "$work"
	if [ -n "$keep" ]; then
		phase "the node is still up: LEASEFS_NODE_RUN=$LEASEFS_NODE_RUN tools/node/exec kubectl get pods -A"
	else
		phase "taking the node down"
		"$root/tools/node/down" && "$root/tools/node/check-clean" || status=1
	fi
	phase "done"
	exit "$status"
}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
phase "starting the node"
tools/node/up -sync 10s
"$ctl" load "$work"/*.tar
phase "running the tests"
cd test/e2e
eval "\"\$ctl\" exec -- \"\$work/e2e.test\" -test.v -test.parallel 16 -test.timeout 60m $flags"
