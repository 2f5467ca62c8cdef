#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# render.sh          write deploy/manifests from the chart
# render.sh --check  exit with status 1 and show the difference if they are not what the chart says
set -eu
cd "$(dirname "$0")/.."

# render VARIANT [FLAGS]: the chart with the values of deploy/manifests, as one file for kubectl apply.
render() {
	variant=$1
	shift
	cat <<-HEADER
		# leasefs on $variant, rendered from deploy/charts/leasefs by \`make manifests\`: change it there.
		# Before you apply it, set the address of your Vault in the ConfigMap and the image in the DaemonSet; docs/install.md has
		# the rest. Where you change a connection's audience, change the CSIDriver's tokenRequests, too.
	HEADER
	${GO:-go} tool -modfile=tools/helm/go.mod helm template leasefs deploy/charts/leasefs --namespace leasefs-system \
		--kube-version 1.35.0 --values deploy/manifests/values.yaml "$@"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
render Kubernetes >"$work/kubernetes"
render OpenShift --set openshift.enabled=true >"$work/openshift"

status=0
for variant in kubernetes openshift; do
	file=deploy/manifests/$variant/leasefs.yaml
	if [ "${1-}" != --check ]; then
		cp "$work/$variant" "$file"
	elif ! diff -u "$file" "$work/$variant"; then
		status=1
	fi
done
[ $status = 0 ] || echo "deploy/manifests differ from the chart: run \`make manifests\`" >&2
exit $status
