// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A person searches docs/troubleshooting.md for what an Event says: so all that an Event can say must be there.
func TestTroubleshootingHasEveryReasonAndCode(t *testing.T) {
	page := read(t, "../../docs/troubleshooting.md")
	for _, m := range regexp.MustCompile(`Reason = "(\w+)"`).FindAllStringSubmatch(read(t, "../../pkg/rotation/ports.go"), -1) {
		if !strings.Contains(page, "| `"+m[1]+"` |") {
			t.Errorf("Event %s is not there", m[1])
		}
	}
	neverOfAPublish := []string{"OK", "Unknown", "NotFound", "Code"}
	found := 0
	for _, m := range regexp.MustCompile(`\bcodes\.([A-Z]\w+)`).FindAllStringSubmatch(read(t, "../../pkg/csi/code.go"), -1) {
		if slices.Contains(neverOfAPublish, m[1]) {
			continue
		}
		found++
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("code %s is not there", m[1])
		}
	}
	if found < 9 {
		t.Errorf("only %d codes were found in pkg/csi/code.go: has it moved?", found)
	}
	for _, r := range render(t, all).rule.Spec.Groups[0].Rules {
		if !strings.Contains(page, "`"+r.Alert+"`") {
			t.Errorf("alert %s is not there", r.Alert)
		}
	}
}

// foreign are texts of messages that are not of leasefs but of Vault, Go, the kubelet or Kubernetes.
var foreign = []string{
	"connection refused", "no such host", "i/o timeout", "certificate", "context deadline exceeded", "OOMKilled",
	"driver name csi.leasefs.io not found in the list of registered CSI drivers", "inline volume provided by CSIDriver csi.leasefs.io", "csi.sock",
}

// texts are all string literals of leasefs's programs, those that are added to each other as one, without comments.
func texts(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"../../pkg", "../../cmd"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				text := literal(n)
				all.WriteString(text + "\n")
				return text == ""
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// literal is the text of a string literal or of a sum of such, as far as it is literal.
func literal(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
			return text
		}
	case *ast.BinaryExpr:
		return literal(n.X) + literal(n.Y)
	}
	return ""
}

// What the page quotes of leasefs's own messages must be in the code: pieces between "..." and quotation marks, as the
// code has its verbs there.
func TestTroubleshootingQuotesMessagesThatExist(t *testing.T) {
	source := texts(t)
	verbs := regexp.MustCompile(`\.\.\.|"|[A-Z]{3,}|\d+|/var/\S*|/metrics`)
	quoted := 0
	for _, table := range []string{"## A pod stays in ContainerCreating", "## The daemon does not start"} {
		_, section, _ := strings.Cut(read(t, "../../docs/troubleshooting.md"), table)
		section, _, _ = strings.Cut(section, "\n## ")
		section, _, _ = strings.Cut(section, "Without a code:")
		for line := range strings.Lines(section) {
			cells := strings.Split(line, "|")
			if len(cells) < 4 {
				continue
			}
			message := cells[1]
			if len(cells) > 5 { // code, message, cause, cure
				message = cells[2]
			}
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(message, -1) {
				if slices.Contains(foreign, m[1]) {
					continue
				}
				for _, piece := range verbs.Split(m[1], -1) {
					piece = strings.Trim(piece, " :;[].-")
					if len(piece) < 4 {
						continue
					}
					quoted++
					if !strings.Contains(source, piece) {
						t.Errorf("%q of %q is in no message", piece, m[1])
					}
				}
			}
		}
	}
	if quoted < 30 {
		t.Errorf("only %d pieces of messages were looked up: has the page's form changed?", quoted)
	}
}
