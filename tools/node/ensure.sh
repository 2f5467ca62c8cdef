#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# ensure.sh: print the absolute path of a folder with every program that the one-node Kubernetes needs, and nothing else,
# on standard output. What it has to say goes to standard error. The folder is in the user's cache, named by a hash of
# this recipe; it is made once, however many callers ask at the same time:
#   bin/     etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet: built from Go modules
#            (and kubectl, for people, unless one is on PATH; nothing here calls it)
#   debian/  containerd, runc, the CNI plugins, a static busybox: Debian's packages, unpacked and not installed
set -eu

say() { echo "node: $*" >&2; }
fail() {
	say "$*"
	exit 1
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
go=$(cd "$here/k8s" && go version 2>&1) || fail "Go is needed to build Kubernetes: $go"

# The XDG rules say that a path that is not absolute is to be ignored.
case ${XDG_CACHE_HOME-} in
/*) cache=$XDG_CACHE_HOME/leasefs ;;
*) cache=${HOME:+$HOME/.cache/leasefs} ;;
esac
[ -n "$cache" ] || fail "neither HOME nor XDG_CACHE_HOME says where to keep the programs"

key=$({ echo "$go" && cd "$here" && sha256sum k8s/go.mod k8s/go.sum k8s/build.sh k8s/debian.sh; } | sha256sum | cut -c1-12)
dir=$cache/node-$key
if [ -d "$dir" ]; then
	echo "$dir"
	exit
fi

mkdir -p "$cache" || fail "cannot make the cache folder $cache"
stage=$dir.build
command -v flock >/dev/null || fail "flock is not installed (Debian: util-linux)"

# 1. One caller builds, the others wait for it. The lock is held by the build's processes too: one that outlives a
#    killed ensure.sh keeps the next from building beside it.
exec 9>"$dir.lock"
if ! flock -n 9; then
	say "another process is making $dir, waiting for it"
	flock 9
	if [ -d "$dir" ]; then
		echo "$dir"
		exit
	fi
fi

# 2. Work in a stage of its own. A stage that is there already was left by a build that was killed: the compiler's own
#    cache keeps what it had done.
rm -rf "$stage"
mkdir -p "$stage/bin"
job=
stop() {
	trap '' INT TERM HUP
	if [ -n "$job" ]; then
		kill -TERM -- "-$job" 2>/dev/null || kill -TERM "$job" 2>/dev/null || :
		wait "$job" || :
	fi
	rm -rf "$stage"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# step WHAT COMMAND...: run it in a session of its own, so that all of it can be stopped, and say every half minute that
# it still runs.
step() {
	what=$1
	shift
	say "$what"
	since=$(date +%s)
	next=30
	setsid "$@" >"$stage/log" 2>&1 </dev/null &
	job=$!
	while kill -0 "$job" 2>/dev/null; do
		sleep 1
		seconds=$(($(date +%s) - since))
		if [ "$seconds" -ge "$next" ]; then
			say "  still at it, $seconds s"
			next=$((next + 30))
		fi
	done
	status=0
	wait "$job" || status=$?
	job=
	if [ "$status" != 0 ]; then
		tail -n 20 "$stage/log" >&2
		cp "$stage/log" "$dir.log"
		fail "failed (exit status $status): $what; all of its output is in $dir.log"
	fi
	say "  done in $(($(date +%s) - since)) s"
}

began=$(date +%s)
say "making the one-node Kubernetes, once, in $dir"
say "this takes 10 to 20 minutes on two cores and downloads about 200 MB if the Go modules and compiled packages are not cached"
step "Debian's containerd, runc, CNI plugins, busybox" sh "$here/k8s/debian.sh" "$stage/debian"
step "downloading Go modules" sh "$here/k8s/build.sh" download
kubectl=
command -v kubectl >/dev/null || kubectl=kubectl
for program in etcd kube-apiserver kubelet kube-controller-manager kube-scheduler $kubectl; do
	step "building $program" sh "$here/k8s/build.sh" "$program" "$stage/bin/$program"
done

# 3. Give it its name last: what has the name is whole.
rm -f "$stage/log" "$dir.log"
mv "$stage" "$dir"
say "made $dir in $(($(date +%s) - began)) s"
echo "$dir"
