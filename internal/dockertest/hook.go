package dockertest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// HookName is what dockerd calls NVIDIA's hook. A copy of this test binary under
// that name plays it.
const HookName = "nvidia-container-runtime-hook"

// It does so before the variables of the package under test are set, which may need
// a checkout around.
func init() {
	if filepath.Base(os.Args[0]) != HookName {
		return
	}
	if err := playHook(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// playHook does what NVIDIA's hook does, without a GPU: dockerd's runtime calls it
// before a container starts, and it puts an nvidia-smi into the container that
// lists what the container was given. A file "broken" beside it makes it fail with
// that file's text.
func playHook() error {
	self, err := os.Executable() // os.Args[0] has no folder
	if err != nil {
		return err
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(self), "broken")); err == nil {
		return fmt.Errorf("%s", text)
	}
	var state struct{ Bundle string }
	if err := json.NewDecoder(os.Stdin).Decode(&state); err != nil {
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
