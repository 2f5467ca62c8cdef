// Copyright The leasefs Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// lastStage adds to an image what the last stage of a Dockerfile makes of it, so that tests run the image that is shipped
// although nothing here can build one. The stage must begin with FROM scratch and copy single files of other stages;
// have says which local file is which of theirs. An instruction that would not be carried out as docker does is an error.
func (i *image) lastStage(dockerfile string, have map[string]string) error {
	lines := instructions(dockerfile)
	start := -1
	for n, line := range lines {
		if strings.EqualFold(line[0], "FROM") {
			start = n
		}
	}
	if start < 0 || len(lines[start]) != 2 || lines[start][1] != "scratch" {
		return fmt.Errorf("the last stage is not FROM scratch")
	}
	for _, line := range lines[start+1:] {
		if err := i.instruction(strings.ToUpper(line[0]), line[1:], have); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(line, " "), err)
		}
	}
	return nil
}

func (i *image) instruction(name string, args []string, have map[string]string) error {
	switch {
	case name == "ARG" || name == "LABEL" || name == "EXPOSE": // of no effect on what runs
	case name == "USER" && len(args) == 1:
		i.User = args[0]
	case name == "WORKDIR" && len(args) == 1:
		i.WorkingDir = args[0]
	case name == "ENV" && len(args) == 1 && strings.Contains(args[0], "="):
		i.Env = append(i.Env, args[0])
	case name == "ENTRYPOINT" || name == "CMD":
		into := map[string]*[]string{"ENTRYPOINT": &i.Entrypoint, "CMD": &i.Cmd}[name]
		if err := json.Unmarshal([]byte(strings.Join(args, " ")), into); err != nil {
			return fmt.Errorf("not in the form of a JSON list: %w", err)
		}
	case name == "COPY" && len(args) == 3 && strings.HasPrefix(args[0], "--from="):
		source, ok := have[args[1]]
		if !ok {
			return fmt.Errorf("no local file is given for %s", args[1])
		}
		target := args[2]
		if strings.HasSuffix(target, "/") {
			target += path.Base(args[1])
		}
		i.Files = append(i.Files, imageFile{Path: target, Source: source})
	default:
		return fmt.Errorf("cannot be carried out here")
	}
	return nil
}

// instructions are the lines of a Dockerfile in words: without comments, with continued lines made one.
func instructions(text string) [][]string {
	var out [][]string
	var words []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		rest, continued := strings.CutSuffix(line, `\`)
		words = append(words, strings.Fields(rest)...)
		if !continued && len(words) > 0 {
			out = append(out, words)
			words = nil
		}
	}
	return out
}
