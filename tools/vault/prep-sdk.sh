#!/bin/sh
# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# prep-sdk.sh: make ./sdk, the vault/sdk that this release of Vault was built against.
#
# Vault's repository replaces vault/sdk by its own folder, which a program that depends on Vault does not get, and that
# folder was never published as a module version. Vault 1.21.4 compiles with v0.21.0 after two changes:
#   1. Backend.ActivationFunc has no third parameter yet;
#   2. LockManager.RestorePolicy returns the policy's name too, as in v0.24.0, whose file is otherwise the same.
# A folder with a `replace` it has to be: `go build -overlay` may not replace files of the module cache.
set -eu
cd "$(dirname "$0")"

# The folder next to sdk, not /tmp: the rename at the end must not cross a file system.
tmp=$(mktemp -d ./sdk.tmp.XXXXXX)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# A module of its own, so that the go command does not look at the go.mod beside it, which needs the folder made here.
mkdir "$tmp/query"
echo 'module query' >"$tmp/query/go.mod"

# sdk VERSION HASH: download that version, check its hash (as in a go.sum) and print its folder. The checksum database
# is not asked, as it would not be for a line in go.sum.
sdk() {
	(cd "$tmp/query" && GOFLAGS= GOSUMDB=off go mod download -json "github.com/hashicorp/vault/sdk@$1") >"$tmp/json" || {
		cat "$tmp/json" >&2
		return 1
	}
	grep -q "\"Sum\": \"$2\"" "$tmp/json" || {
		echo "prep-sdk.sh: vault/sdk $1 does not have the hash $2" >&2
		return 1
	}
	sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p' "$tmp/json"
}
base=$(sdk v0.21.0 h1:3gDqdKLhHY2ekmCEE9EeesoNpgsReq2bo/SpMqvBYdw=)
later=$(sdk v0.24.0 h1:4/8w/puVy751oHZlD2nVgDQPfqHy6gC61dU9QnMZZ0g=)

cp -R "$base" "$tmp/sdk"
chmod -R u+w "$tmp/sdk" # the module cache is read-only
cp -f "$later/helper/keysutil/lock_manager.go" "$tmp/sdk/helper/keysutil/lock_manager.go"

backend=$tmp/sdk/framework/backend.go
sed '/ActivationFunc func(/s/, string) error$/) error/' "$backend" >"$tmp/backend.go"
grep -q 'ActivationFunc func(context.Context, \*logical.Request) error$' "$tmp/backend.go" || {
	echo "prep-sdk.sh: ActivationFunc in vault/sdk is not as expected" >&2
	exit 1
}
cp -f "$tmp/backend.go" "$backend"

# Last, and by renaming: a folder called sdk is a whole one.
rm -rf sdk
mv "$tmp/sdk" sdk
