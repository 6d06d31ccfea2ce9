//go:build unix

// Hook does what NVIDIA's hook does, without a GPU: Docker's runtime, or an engine's,
// calls it before a container starts, and it puts a device and an nvidia-smi into the
// container for each GPU that the container was given, and the driver's library
// libcuda.so.1, if there is such a file beside it. A file "broken" there makes it
// fail with that file's text; a file "visible" there says, in place of
// NVIDIA_VISIBLE_DEVICES, which GPUs it puts there. It is a program of its own, linked statically, so that it runs in an
// engine's container too.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/berthdev/berth/internal/dockertest/smi"
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
	beside := func(name string) string { return filepath.Join(filepath.Dir(self), name) }
	if text, err := os.ReadFile(beside("broken")); err == nil {
		return fmt.Errorf("%s", text)
	}
	var state struct {
		Bundle string
		PID    int
	}
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
	visible, capabilities := "", "compute,utility"
	for _, v := range config.Process.Env { // the last one counts
		switch name, value, _ := strings.Cut(v, "="); name {
		case "NVIDIA_VISIBLE_DEVICES":
			visible = value
		case "NVIDIA_DRIVER_CAPABILITIES":
			capabilities = value
		}
	}
	if text, err := os.ReadFile(beside("visible")); err == nil {
		visible = string(text)
	}
	uuids := smi.Given(visible)
	if !filepath.IsAbs(config.Root.Path) {
		config.Root.Path = filepath.Join(state.Bundle, config.Root.Path)
	}
	// As the container's process sees it: its /dev is mounted by now, in its view alone.
	root := filepath.Join("/proc", fmt.Sprint(state.PID), "root", config.Root.Path)
	for i := range uuids {
		device := filepath.Join(root, "dev", fmt.Sprintf("nvidia%d", i))
		if err := syscall.Mknod(device, syscall.S_IFCHR|0o666, null); err != nil {
			return fmt.Errorf("making %s: %w", device, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/nvidia-smi"), []byte(smi.Script(uuids...)), 0o755); err != nil {
		return err
	}
	library, err := os.ReadFile(beside(driver))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !computes(capabilities) {
		return nil
	}
	if err != nil {
		return err
	}
	// Debian's loader looks there.
	return os.WriteFile(filepath.Join(root, "usr/lib/x86_64-linux-gnu", driver), library, 0o755)
}

// computes reports whether capabilities of NVIDIA_DRIVER_CAPABILITIES include CUDA.
func computes(capabilities string) bool {
	list := strings.Split(capabilities, ",")
	return slices.Contains(list, "compute") || slices.Contains(list, "all")
}

// driver is the library that programs load for CUDA.
const driver = "libcuda.so.1"

// null is the device number of /dev/null, which every container may open.
const null = 1<<8 | 3
