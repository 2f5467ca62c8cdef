// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

// Command vaultlite is Vault's own command line (server, agent, proxy and client) for the tests and the demo of leasefs.
//
// It is to be built with Vault's build tag "minimal", which leaves out most plugins and with them most of the compile
// time. Two of those left out are needed here and put back: auth/kubernetes, and the PostgreSQL database plugin.
package main

import (
	"fmt"
	"os"
	"reflect"

	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/helper/builtinplugins"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/logical"
)

func main() {
	register("credentialBackends", "kubernetes", logical.Factory(kubernetes.Factory))
	register("databasePlugins", "postgresql-database-plugin", builtinplugins.BuiltinFactory(postgresql.New))
	os.Exit(command.Run(os.Args[1:]))
}

// register adds a builtin plugin to the named map of Vault's registry.
//
// The registry is a global with unexported maps of unexported types, and command.Run takes no other, so reflection and
// an address are the only way in that does not copy the registry's source. It panics when the registry no longer looks
// as it does in the pinned version: an update has to notice at the first start, not by a plugin that is missing later.
func register(kind, name string, factory any) {
	field := reflect.ValueOf(builtinplugins.Registry).Elem().FieldByName(kind)
	if !field.IsValid() || field.Kind() != reflect.Map {
		panic(fmt.Sprintf("vaultlite: Vault's plugin registry has no map %q, register %q in another way", kind, name))
	}
	// The same map without the read-only mark that reflect puts on unexported fields.
	plugins := reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem()

	plugin := reflect.New(plugins.Type().Elem()).Elem()
	plugin.FieldByName("Factory").Set(reflect.ValueOf(factory))
	plugins.SetMapIndex(reflect.ValueOf(name), plugin)
}
