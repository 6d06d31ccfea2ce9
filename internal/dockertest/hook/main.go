// Hook does what NVIDIA's hook does, without a GPU: Docker's runtime, or an engine's,
// calls it before a container starts, and it puts an nvidia-smi into the container that
// lists what the container was given. A file "broken" beside it makes it fail with that
// file's text. It is a program of its own, linked statically, so that it runs in an
// engine's container too.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := inject(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// inject reads the state of a container as the OCI's runtime specification has it.
func inject(in io.Reader) error {
	self, err := os.Executable() // os.Args[0] has no folder
	if err != nil {
		return err
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(self), "broken")); err == nil {
		return fmt.Errorf("%s", text)
	}
	var state struct{ Bundle string }
	if err := json.NewDecoder(in).Decode(&state); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(state.Bundle, "config.json"))
	if err != nil {
		return err
	}
	var config struct {
		Root    struct{ Path string }
		Process struct{ Env []string }
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	given := ""
	for _, v := range config.Process.Env {
		if _, ids, ok := strings.Cut(v, "NVIDIA_VISIBLE_DEVICES="); ok {
			given = ids // the last one counts
		}
	}
	script := fmt.Sprintf("#!/bin/sh\necho GPUs: %s\n", given)
	return os.WriteFile(filepath.Join(config.Root.Path, "usr/bin/nvidia-smi"), []byte(script), 0o755)
}
