// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package attributes

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/leasefs/leasefs/pkg/strictyaml"
)

const (
	maxName    = 512  // bytes of a role, a mount, a namespace, an audience, a key
	maxAddress = 2048 // bytes
)

// name reads text that goes to Vault as it stands.
func (p *parser) name(key string) string {
	value := p.attrs[key]
	if err := ValidateName(value); err != nil {
		p.faultf(key, "%v", err)
		return ""
	}
	return value
}

// path reads the path of a namespace or a mount.
func (p *parser) path(key string) string {
	value := strings.Trim(p.attrs[key], "/")
	if err := ValidateVaultPath(value); value != "" && err != nil {
		p.faultf(key, "%v", err)
		return ""
	}
	return value
}

func (p *parser) oneOf(key, otherwise string, words ...string) string {
	value := p.attrs[key]
	if value == "" {
		return otherwise
	}
	if !slices.Contains(words, value) {
		p.faultf(key, "must be %s, not %s", strings.Join(words, " or "), strictyaml.Echo(value))
		return otherwise
	}
	return value
}

func (p *parser) duration(key string, most time.Duration) time.Duration {
	value := p.attrs[key]
	if value == "" {
		return 0
	}
	d, err := ParseDuration(value)
	switch {
	case err != nil:
		p.faultf(key, "%v", err)
	case d <= 0:
		p.faultf(key, "must be more than 0")
	case d > most:
		p.faultf(key, "must be at most %v", most)
	default:
		return d
	}
	return 0
}

func (p *parser) size(key string) int64 {
	value := p.attrs[key]
	if value == "" {
		return 0
	}
	n, err := ParseSize(value)
	switch {
	case err != nil:
		p.faultf(key, "%v", err)
	case n < MinSize:
		p.faultf(key, "must be at least %s", minSizeText)
	default:
		return n
	}
	return 0
}

func (p *parser) permission(key string) fs.FileMode {
	value := p.attrs[key]
	if value == "" {
		return 0
	}
	mode, err := ParsePermission(value)
	if err != nil {
		p.faultf(key, "%v", err)
	}
	return mode
}

// address checks that the value could be an address at all; whether it is an allowed one is the configuration's matter.
func (p *parser) address(key string) string {
	value := p.attrs[key]
	if value == "" {
		return ""
	}
	if u, err := url.Parse(value); len(value) > maxAddress || err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		p.faultf(key, "must be an address such as https://vault.example.com:8200") // err would repeat the value
		return ""
	}
	return value
}

// ValidateName accepts text without control characters of at most 512 bytes, the empty one too.
func ValidateName(s string) error {
	switch {
	case len(s) > maxName:
		return fmt.Errorf("is %d bytes long; at most %d are allowed", len(s), maxName)
	case !printable(s):
		return errors.New("must be UTF-8 text without control or invisible characters")
	}
	return nil
}

// ValidateVaultPath accepts the path of a namespace, a mount or a secret in Vault: parts of printable text between
// single slashes, none of them "." or "..", at most 512 bytes. The empty path is refused.
func ValidateVaultPath(s string) error {
	if err := ValidateName(s); err != nil {
		return err
	}
	return validateParts(s)
}

func validateParts(path string) error {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return errors.New(`must be names between single slashes, none of them empty, "." or ".."`)
		}
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// ParseDuration reads a Go duration, such as 90s, 5m or 1h30m.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("must be a duration with a unit, such as 90s, 5m or 1h30m, not %s", strictyaml.Echo(s))
	}
	return d, nil
}

// ParseSize reads a Kubernetes quantity of whole bytes, such as 1Mi or 65536.
func ParseSize(s string) (int64, error) {
	bad := fmt.Errorf("must be a quantity of bytes, such as 64Ki or 1Mi, not %s", strictyaml.Echo(s))
	if len(s) > 32 { // quantities are arbitrary precision: bound the work
		return 0, bad
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, bad
	}
	n, whole := q.AsInt64()
	if !whole || n < 0 {
		return 0, bad
	}
	return n, nil
}

// permissionBits are the bits that a file may have. Not: execute (a secret is no program, and the volume is mounted
// noexec), set-id and sticky (on a file owned by root they are a way to become root), writable by others (the volume is
// read-only for its pod, so the bit could only ever be a hole). Write for owner and group does nothing either, but 0600,
// 0640 and 0644 are what people paste.
const permissionBits fs.FileMode = 0o664

// ParsePermission reads a file mode in octal with a leading 0, such as 0440 or 0o440. The 0 is required because 420 is
// 0644 to a program and 0420 to a person.
func ParsePermission(s string) (fs.FileMode, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "0o"), "0")
	n, err := strconv.ParseUint(digits, 8, 12)
	if err != nil || len(digits) == len(s) {
		return 0, fmt.Errorf("must be an octal mode with a leading 0, such as 0440, not %s", strictyaml.Echo(s))
	}
	switch mode := fs.FileMode(n); {
	case mode&^permissionBits != 0:
		return 0, fmt.Errorf("mode %04o has bits that a secret file never has: execute, set-id, sticky or writable by others", n)
	case mode&0o444 == 0:
		return 0, fmt.Errorf("mode %04o lets nobody read the file", n)
	default:
		return mode, nil
	}
}
