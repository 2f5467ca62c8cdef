// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes

import "fmt"

// KeyDoc describes one key for people; the tables of docs/volume-attributes.md are made from these.
type KeyDoc struct {
	Name    string
	Default string
	Bound   string // what values are accepted
	Doc     string
}

// PermissionBound says what ParsePermission accepts.
const PermissionBound = "octal with a leading 0; bits of 0664, at least one of them read"

const minSizeText = "4Ki" // MinSize

// anyText says what ValidateName accepts.
var anyText = fmt.Sprintf("text without control characters, at most %d bytes", maxName)

// VolumeKeys are the keys of volumeAttributes: the one list of them.
func VolumeKeys() []KeyDoc {
	return []KeyDoc{
		{"roleName", "the connection's `role`", anyText,
			"Vault role to log in with. Required where the connection has no default role."},
		{"objects", "required", fmt.Sprintf("YAML list of 1 to %d objects, at most %d KiB", MaxObjects, objectLimits.Bytes>>10),
			"The files of the volume; see the keys of an object below."},
		{"connection", "`default`, or the one that `vaultAddress` names", "name of an allowed connection",
			"Which Vault. The node's administrator lists them in the configuration file."},
		{"vaultAddress", "the connection's", "the address of an allowed connection",
			"Accepted so that a SecretProviderClass can be pasted. It chooses among the allowed connections and can add none."},
		{"vaultNamespace", "the connection's `namespace`", "a namespace that the connection allows",
			"Vault namespace to log in to (Vault Enterprise, OpenBao)."},
		{"authMethod", "the connection's `authMethod`", "`kubernetes` or `jwt`",
			"How the pod's service account token is presented."},
		{"vaultAuthMountPath", "the connection's `authMount`; the name of `authMethod` where that is not the connection's", fmt.Sprintf("path without `auth/`, at most %d bytes", maxName),
			"Where the auth method is mounted in Vault."},
		{"vaultKubernetesMountPath", "", "as `vaultAuthMountPath`",
			"Older name of `vaultAuthMountPath`."},
		{"audience", "the connection's `audience`", anyText,
			"Audience of the service account token to log in with; it must be one of the CSIDriver object's `tokenRequests`."},
		{"refreshInterval", "`defaults.refreshInterval`", fmt.Sprintf("duration from `defaults.minRefreshInterval` to %.0fh", MaxRefreshInterval.Hours()),
			"How often secrets without a lease are read again."},
		{"size", "`defaults.volumeSize`", "quantity from " + minSizeText + " to `defaults.maxVolumeSize`",
			"How much content the files of the volume may have together."},
		{"filePermission", "`defaults.fileMode`", PermissionBound,
			"Mode of the files that set none of their own."},
		{"onExpiry", "`keep`", "`keep` or `remove`",
			"What becomes of the files when their secret has expired and cannot be replaced."},
	}
}

// ObjectKeys are the keys of an element of `objects`: the one list of them.
func ObjectKeys() []KeyDoc {
	return []KeyDoc{
		{"objectName", "required", fmt.Sprintf("relative path: at most %d bytes, %d levels, %d bytes a name; no name begins with `..`; no control characters", MaxPathBytes, MaxPathDepth, MaxNameBytes),
			"Path of the file in the volume. Unique, and no directory of another object's path."},
		{"secretPath", "required", fmt.Sprintf("path in Vault, with an optional query; at most %d bytes", maxSecretPath),
			"Such as `secret/data/db?version=3`. A leading `/`, `v1/` or `/v1/` is dropped."},
		{"secretKey", "the whole response, as JSON", anyText,
			"Key in the secret's data. A value that is not text is written as JSON."},
		{"method", "`GET`", "`GET`, `PUT` or `POST`",
			"HTTP method of the request."},
		{"secretArgs", "none", "mapping; only with `PUT` and `POST`",
			"Body of the request, such as `common_name` and `ttl` of a certificate."},
		{"filePermission", "the volume's `filePermission`", PermissionBound,
			"Mode of the file."},
		{"encoding", "`utf-8`", "`utf-8`, `base64` or `hex`; the latter two only with `secretKey`",
			"How the value in Vault is encoded; the file gets the decoded bytes."},
	}
}

const (
	setByAdministrator = "is set by the node's administrator in the connection; leave it out"
	noClientCert       = "is not supported: no client certificate is presented to Vault; leave it out"
	notYet             = "is not supported yet: list the files in objects"
)

// refusedKeys are keys of volumeAttributes that people will paste, with what to tell them. Keys that another release is
// to bring are here too: whoever builds one moves it to VolumeKeys and reads it in Parse, next to objects.
var refusedKeys = map[string]string{
	"vaultSkipTLSVerify":     setByAdministrator + ": certificates are always verified",
	"vaultCACertPath":        setByAdministrator,
	"vaultCADirectory":       setByAdministrator,
	"vaultCAPem":             setByAdministrator,
	"vaultTLSServerName":     setByAdministrator,
	"vaultTLSClientCertPath": noClientCert,
	"vaultTLSClientKeyPath":  noClientCert,

	"kubernetesServiceAccountPath": "has no meaning any more: the pod's own token is used; leave it out",

	"secretProviderClass": notYet + ", with the keys of the class's parameters beside it",
	"templates":           notYet,
}

// refusedObjectKeys are the same for the keys of an object.
var refusedObjectKeys = map[string]string{
	"objectVersion": "has no meaning any more: add ?version=N to secretPath",
	"objectPath":    "is the older name of secretPath",
}

func names(keys []KeyDoc) []string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.Name
	}
	return list
}
