// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes

// KeyDoc describes one key for people; docs/volume-attributes.md is generated from these.
type KeyDoc struct {
	Name    string
	Default string
	Bound   string // what values are accepted
	Doc     string
}

// VolumeKeys are the keys of volumeAttributes: the one list of them.
func VolumeKeys() []KeyDoc {
	return []KeyDoc{
		{"roleName", "the connection's `role`", "text without control characters, at most 512 bytes",
			"Vault role to log in with. Required where the connection has no default role."},
		{"objects", "required", "YAML list of 1 to 256 objects, at most 256 KiB",
			"The files of the volume; see the keys of an object below."},
		{"connection", "`default`, or the one that `vaultAddress` names", "name of an allowed connection",
			"Which Vault. The node's administrator lists them in the configuration file."},
		{"vaultAddress", "the connection's", "the address of an allowed connection",
			"Accepted so that a SecretProviderClass can be pasted. It chooses among the allowed connections and can add none."},
		{"vaultNamespace", "the connection's `namespace`", "a namespace that the connection allows",
			"Vault namespace to log in to (Vault Enterprise, OpenBao)."},
		{"authMethod", "the connection's `authMethod`", "`kubernetes` or `jwt`",
			"How the pod's service account token is presented."},
		{"vaultAuthMountPath", "the connection's `authMount`", "path without `auth/`, at most 512 bytes",
			"Where the auth method is mounted in Vault."},
		{"vaultKubernetesMountPath", "", "as `vaultAuthMountPath`",
			"Older name of `vaultAuthMountPath`."},
		{"audience", "the connection's `audience`", "text without control characters, at most 512 bytes",
			"Audience of the service account token to log in with; it must be one of the CSIDriver object's `tokenRequests`."},
		{"refreshInterval", "`defaults.refreshInterval`", "duration from `defaults.minRefreshInterval` to 8760h",
			"How often secrets without a lease are read again."},
		{"size", "`defaults.volumeSize`", "quantity from 4Ki to `defaults.maxVolumeSize`",
			"How much content the files of the volume may have together."},
		{"filePermission", "`defaults.fileMode`", "octal with a leading 0; bits of 0664, at least one of them read",
			"Mode of the files that set none of their own."},
		{"onExpiry", "`keep`", "`keep` or `remove`",
			"What becomes of the files when their secret has expired and cannot be replaced."},
	}
}

// ObjectKeys are the keys of an element of `objects`: the one list of them.
func ObjectKeys() []KeyDoc {
	return []KeyDoc{
		{"objectName", "required", "relative path: at most 4095 bytes, 16 levels, 255 bytes a name; no name begins with `..`; no control characters",
			"Path of the file in the volume. Unique, and no directory of another object's path."},
		{"secretPath", "required", "path in Vault, with an optional query; at most 2048 bytes",
			"Such as `secret/data/db?version=3`. A leading `/` or `/v1/` is dropped."},
		{"secretKey", "the whole response, as JSON", "text without control characters, at most 512 bytes",
			"Key in the secret's data. A value that is not text is written as JSON."},
		{"method", "`GET`", "`GET`, `PUT` or `POST`",
			"HTTP method of the request."},
		{"secretArgs", "none", "mapping; only with `PUT` and `POST`",
			"Body of the request, such as `common_name` and `ttl` of a certificate."},
		{"filePermission", "the volume's `filePermission`", "octal with a leading 0; bits of 0664, at least one of them read",
			"Mode of the file."},
		{"encoding", "`utf-8`", "`utf-8`, `base64` or `hex`; the latter two only with `secretKey`",
			"How the value in Vault is encoded; the file gets the decoded bytes."},
	}
}

const (
	setByAdministrator = "is set by the node's administrator in the connection; leave it out"
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
	"vaultTLSClientCertPath": setByAdministrator,
	"vaultTLSClientKeyPath":  setByAdministrator,

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

func volumeKeyNames() []string { return names(VolumeKeys()) }
