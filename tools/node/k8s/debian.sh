#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# debian.sh DIR: unpack the container runtime's packages below DIR. Nothing is installed.
#
# Why Debian's and not built ones: they are on every machine that has apt, cost no compile time and no C compiler (runc
# is a C program in part, and needs libseccomp to build), and the kubelet of Kubernetes 1.37 works with containerd 1.6.
# From Kubernetes 1.38 on it wants containerd 2: then Debian 13's, or a module of its own beside k8s/.
set -eu
packages="containerd runc containernetworking-plugins busybox-static"
mkdir -p "$1"
cd "$1"

have() {
	for p in $packages; do
		apt-cache policy "$p" | grep -q 'Candidate: [^(]' || return 1
	done
}
# apt's lists are empty on a new machine. A list of some other repository that cannot be had does not matter.
have || apt-get update || :
have || {
	echo "apt does not know all of: $packages" >&2
	exit 1
}
mkdir debs
# An old list names a version that is gone from the mirror: fetch the lists and try once more.
# shellcheck disable=SC2086
(cd debs && apt-get download $packages) || { apt-get update || :; (cd debs && apt-get download $packages); }
for deb in debs/*.deb; do dpkg -x "$deb" .; done
ls debs >versions
rm -rf debs usr/share lib/systemd etc

usr/bin/containerd --version
usr/sbin/runc --version
bin/busybox true
test -x usr/lib/cni/bridge
