#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# kind.sh leasefs:VERSION [VALUES]: build that image, make a kind cluster called leasefs unless there is one, load the image into it,
# and install the chart with the values file VALUES. It was never run where leasefs is developed: there is no Docker there.
set -eu
image=${1:?usage: kind.sh leasefs:VERSION [VALUES]}
values=${2-}
case $values in '' | /*) ;; *) values=$PWD/$values ;; esac
cd "$(dirname "$0")/.."

for program in docker kind kubectl; do
	command -v $program >/dev/null 2>&1 || { echo "kind.sh needs $program" >&2; exit 1; }
done
if [ -z "$values" ]; then
	echo "name a values file with your Vault: make kind VALUES=FILE (docs/install.md); it must be reachable from the cluster" >&2
	exit 1
fi

make --no-print-directory image VERSION="${image##*:}"
kind get clusters | grep -qx leasefs || kind create cluster --name leasefs
kind load docker-image --name leasefs "$image"
export KUBECONFIG="${TMPDIR:-/tmp}/leasefs-kind.kubeconfig"
kind get kubeconfig --name leasefs >"$KUBECONFIG"
kubectl create namespace leasefs-system --dry-run=client -o yaml | kubectl apply -f -
kubectl label --overwrite namespace leasefs-system pod-security.kubernetes.io/enforce=privileged
${GO:-go} tool -modfile=tools/helm/go.mod helm upgrade --install leasefs deploy/charts/leasefs --namespace leasefs-system \
	--values "$values" --set-string image.repository="${image%:*}" --set-string image.tag="${image##*:}" --set image.pullPolicy=Never --wait
echo "installed; export KUBECONFIG=$KUBECONFIG"
