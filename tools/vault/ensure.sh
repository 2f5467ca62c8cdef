#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# ensure.sh: print the absolute path of a Vault binary for tests and the demo, and nothing else, on standard output.
# What it has to say goes to standard error. In this order:
#   1. $VAULT_BIN, which must work when it is set;
#   2. `vault` on PATH, unless it does not run or is another program;
#   3. the binary built earlier from this recipe by this Go release, in the user's cache folder;
#   4. the same, built now, once, however many callers ask at the same time.
set -eu

say() { echo "vault: $*" >&2; }
fail() {
	say "$*"
	exit 1
}

# is_vault FILE: FILE runs here and is HashiCorp's Vault. `vault` is the name of other programs too, and a packaged
# Vault that carries file capabilities does not start in every container.
is_vault() {
	version=$("$1" version 2>/dev/null) || return 1
	case $version in "Vault v"*) ;; *) return 1 ;; esac
}

# absolute PATH: for a caller in another working directory.
absolute() {
	case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}

if [ -n "${VAULT_BIN-}" ]; then
	bin=$(absolute "$VAULT_BIN")
	is_vault "$bin" || fail "VAULT_BIN=$VAULT_BIN is not a Vault that runs here; unset it to have one found or built"
	say "using $bin ($version), from VAULT_BIN"
	echo "$bin"
	exit
fi
if bin=$(command -v vault); then
	bin=$(absolute "$bin")
	if is_vault "$bin"; then
		say "using $bin ($version), from PATH"
		echo "$bin"
		exit
	fi
	say "ignoring $bin on PATH: it does not run here, or is not HashiCorp's Vault"
fi

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
recipe="go.mod go.sum build.sh prep-sdk.sh vaultlite stubs"
# Asked in that folder, where its go.mod has a say in which Go it is.
go=$(cd "$here" && go version 2>&1) || fail "no vault on PATH, and without Go it cannot be built: $go"

# The XDG rules say that a path that is not absolute is to be ignored.
case ${XDG_CACHE_HOME-} in
/*) cache=$XDG_CACHE_HOME/leasefs ;;
*) cache=${HOME:+$HOME/.cache/leasefs} ;;
esac
[ -n "$cache" ] || fail "neither HOME nor XDG_CACHE_HOME says where to keep the binary"

# The name of the binary's folder: every file of the recipe, by name and content, and the Go release.
key=$(
	cd "$here"
	# No file name of the recipe has a blank in it.
	# shellcheck disable=SC2046,SC2086
	{ echo "$go" && sha256sum $(find $recipe -type f | LC_ALL=C sort); } | sha256sum | cut -c1-12
)
dir=$cache/vault-$key
bin=$dir/vault
if [ -x "$bin" ]; then
	echo "$bin"
	exit
fi

mkdir -p "$cache" || fail "cannot make the cache folder $cache"
log=$dir.log
stage=$dir.build
command -v flock >/dev/null || fail "flock is not installed (Debian: util-linux)"
exec 9>"$dir.lock"

# start and tick WHAT: wait a second, and say about every half minute that it is still WHAT.
start() {
	since=$(date +%s)
	next=30
}
tick() {
	sleep 1
	seconds=$(($(date +%s) - since))
	if [ "$seconds" -ge "$next" ]; then
		say "still $1, $seconds s"
		next=$((next + 30))
	fi
}

# 1. One caller builds, the others wait for it. The lock is held by the build's processes too: one that outlives a
#    killed ensure.sh keeps the next from building beside it.
if ! flock -n 9; then
	say "another process is building Vault, waiting for it"
	start
	until flock -n 9; do tick "waiting for the other build of Vault"; done
	if [ -x "$bin" ]; then
		echo "$bin"
		exit
	fi
fi

# 2. Build a copy of the recipe, so that the checkout may be read-only and an edit or a second checkout does no harm.
#    A stage that is there already was left by a build that was killed.
rm -rf "$stage"
mkdir "$stage"
# In a session of its own, so that all of it can be stopped: a compiler would go on after its go command is killed.
build=
stop() {
	trap '' INT TERM HUP
	if [ -n "$build" ]; then
		# The second is for a process that has no session yet. (dash misreads `kill -TERM -- -PID`.)
		kill -s TERM -- "-$build" 2>/dev/null || kill -s TERM "$build" 2>/dev/null || :
		wait "$build" || :
	fi
	rm -rf "$stage"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# shellcheck disable=SC2086
(cd "$here" && cp -R $recipe "$stage")
chmod -R u+w "$stage"
say "building Vault for tests and the demo, once, into $dir"
say "this takes about 4 minutes on two cores and downloads about 400 MB of Go modules if they are not there yet"
start
setsid sh "$stage/build.sh" "$stage/unfinished" >"$log" 2>&1 </dev/null &
build=$!
while kill -0 "$build" 2>/dev/null; do tick "building Vault"; done
status=0
wait "$build" || status=$?
build=
if [ "$status" != 0 ] || ! is_vault "$stage/unfinished"; then
	say "the build failed (exit status $status, or what it built does not run here); its last lines:"
	tail -n 20 "$log" >&2
	fail "all of it is in $log"
fi

# 3. Move it to its name last: what has the name is whole.
mkdir -p "$dir"
mv "$stage/unfinished" "$bin"
rm -f "$log"
say "built $version in $(($(date +%s) - since)) s"
echo "$bin"
