// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// stages are the instructions of the Dockerfile's two stages: one line each, without comments.
func stages(t *testing.T) (build, last []string) {
	t.Helper()
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(read(t, "../../Dockerfile"), "")
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, " ")
	var all [][]string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "FROM ") {
			all = append(all, nil)
		}
		if line != "" && len(all) > 0 {
			all[len(all)-1] = append(all[len(all)-1], line)
		}
	}
	if len(all) != 2 {
		t.Fatalf("the Dockerfile has %d stages, want 2", len(all))
	}
	return all[0], all[1]
}

// with are those instructions that have this name.
func with(name string, instructions []string) []string {
	var found []string
	for _, i := range instructions {
		if rest, ok := strings.CutPrefix(i, name+" "); ok {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	return found
}

// The last stage is what a container can do: nothing but run the program. test/e2e runs it.
func TestTheImageHasTheProgramAndCertificatesAndNothingElse(t *testing.T) {
	_, last := stages(t)
	if last[0] != "FROM scratch" {
		t.Errorf("the last stage is %s", last[0])
	}
	want := []string{
		"--from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt",
		"--from=build /leasefs /leasefs",
	}
	if got := with("COPY", last); !slices.Equal(got, want) {
		t.Errorf("it has %q", got)
	}
	for _, name := range []string{"RUN", "ADD", "SHELL", "ENV", "CMD"} {
		if got := with(name, last); len(got) > 0 {
			t.Errorf("it says %s %q", name, got)
		}
	}
	if got := with("ENTRYPOINT", last); !slices.Equal(got, []string{`["/leasefs"]`}) {
		t.Errorf("it runs %q", got)
	}
}

func TestTheImageIsBuiltWithTheGoThatIsTestedWith(t *testing.T) {
	build, _ := stages(t)
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "../../go.mod"))[1]
	if !strings.Contains(build[0], " golang:"+version+"-") {
		t.Errorf("%s, and go.mod says %s", build[0], version)
	}
}

// The build stage's own commands are run here, on what its COPY lines and .dockerignore leave of the repository, as far as
// the last one: all but the base image, which takes a registry.
func TestTheDockerfileBuildsAStaticProgramThatKnowsItsVersion(t *testing.T) {
	build, _ := stages(t)
	src := filepath.Join(t.TempDir(), "src")
	ignored := strings.Fields(regexp.MustCompile(`(?m)^#.*`).ReplaceAllString(read(t, "../../.dockerignore"), ""))
	for _, copied := range with("COPY", build) {
		words := strings.Fields(copied)
		for _, name := range words[:len(words)-1] {
			if !slices.Contains(ignored, "!"+name) {
				t.Fatalf(".dockerignore keeps %s away from the build", name)
			}
			into := filepath.Join(src, words[len(words)-1])
			if strings.HasSuffix(words[len(words)-1], "/") {
				into = filepath.Join(into, name)
			}
			copyAll(t, filepath.Join("../..", name), into)
		}
	}

	program := filepath.Join(t.TempDir(), "leasefs")
	commands := with("RUN", build)
	last := commands[len(commands)-1]
	if !strings.Contains(last, " -o /leasefs ") || !strings.Contains(last, " -trimpath ") {
		t.Fatalf("the last command does not build /leasefs without paths: %s", last)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", strings.Replace(last, " -o /leasefs ", ` -o "$PROGRAM" `, 1))
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "PROGRAM="+program, "VERSION=v7.8.9", "REVISION=0123456789abcdef", "TARGETOS=linux", "TARGETARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	out, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "v7.8.9") || !strings.Contains(string(out), "0123456789ab") {
		t.Errorf("leasefs version: %v %s", err, out)
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is not static: it has a program header %s", p.Type)
		}
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(src)) {
		t.Error("the path of the build's folder is in it")
	}
}

// copyAll copies a file or a folder.
func copyAll(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err == nil && info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else if err == nil {
		var data []byte
		data, err = os.ReadFile(from)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o750), os.WriteFile(to, data, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}
