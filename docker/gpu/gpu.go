// Package gpu says which NVIDIA GPUs a machine has, which of them a person asks
// for, and how Docker can be made to pass them on; and when it can't, which
// link of the chain (device, driver, toolkit, Docker) is broken.
//
// It asks nvidia-smi, /proc, /sys and the daemon's own words, and writes nothing.
// NVML itself would need cgo, and with it a C compiler on every machine that
// builds Berth; nvidia-smi is part of every driver and says the same.
package gpu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/berthdev/berth/internal/process"
)

// A Machine is what the host's NVIDIA driver says, and what is there when it
// says nothing.
type Machine struct {
	GPUs      []GPU
	Complaint string // what nvidia-smi said instead
	SMI       bool   // nvidia-smi is installed
	Loaded    bool   // the driver's kernel module is loaded
	Driver    string // its version, such as "580.95.05"; "" if it doesn't tell
	Nouveau   bool   // the kernel's own driver, without CUDA, has the devices
	Hardware  bool   // an NVIDIA display device is on the PCI bus
	WSL       bool   // this is Linux inside Windows, and the driver is Windows'
	Toolkit   bool   // the hook of NVIDIA's Container Toolkit is installed
}

// A GPU is one device, as nvidia-smi lists it.
type GPU struct {
	Index int    // in the order of the PCI bus
	UUID  string // "GPU-…"
	Name  string
	MIG   []Instance // its partitions, if it is partitioned
}

// An Instance is a partition of a GPU (NVIDIA calls it MIG).
type Instance struct {
	Index   int    // within the GPU
	UUID    string // "MIG-…"
	Profile string // such as "1g.10gb"
}

// smiTimeout is how long nvidia-smi may take: without its persistence daemon, the
// driver wakes every GPU first, seconds each.
const smiTimeout = 60 * time.Second

// hook is the program that dockerd calls to pass GPUs on.
const hook = "nvidia-container-runtime-hook"

// Probe looks at the machine whose file system is at root, "/" but for tests. A
// machine without a GPU or a driver isn't an error. It ends early with ctx.
func Probe(ctx context.Context, root string) (Machine, error) {
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, name))
		return err == nil
	}
	version, err := os.ReadFile(filepath.Join(root, "proc/driver/nvidia/version"))
	m := Machine{
		Loaded:   err == nil,
		Driver:   parseDriver(string(version)),
		WSL:      exists("dev/dxg"),
		Hardware: hardware(root),
		Nouveau:  exists("sys/module/nouveau"),
		Toolkit:  find(hook, filepath.Join(root, "usr/bin")) != "",
	}
	smi := smiPath(root)
	if m.SMI = smi != ""; !m.SMI {
		return m, ctx.Err()
	}
	list, err := ask(ctx, smi, "--list-gpus")
	if err != nil {
		m.Complaint = err.Error()
		return m, ctx.Err()
	}
	m.GPUs = parseList(list)
	if len(m.GPUs) == 0 {
		m.Complaint = strings.TrimSpace(list)
	}
	return m, nil
}

// Installed reports, at once, whether there is a driver to ask.
func Installed(root string) bool { return smiPath(root) != "" }

// smiPath is where nvidia-smi is, "" if it isn't installed. In Linux inside
// Windows it isn't on everybody's PATH.
func smiPath(root string) string {
	return find("nvidia-smi", filepath.Join(root, "usr/lib/wsl/lib"))
}

// find looks for a program on the PATH, then in one more folder.
func find(program, folder string) string {
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	if path, err := exec.LookPath(filepath.Join(folder, program)); err == nil {
		return path
	}
	return ""
}

// ask returns the output of nvidia-smi. When it fails, it says why, mostly on standard
// output.
func ask(ctx context.Context, smi string, args ...string) (string, error) {
	out, errs, err := process.Ask(ctx, smiTimeout, smi, args...)
	if err != nil {
		if said := strings.TrimSpace(string(out) + string(errs)); said != "" {
			return "", errors.New(said)
		}
		return "", err
	}
	return string(out), nil
}

// hardware reports whether a display device (class 03) of NVIDIA (vendor 10de)
// is on the PCI bus.
func hardware(root string) bool {
	devices, _ := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*"))
	for _, d := range devices {
		vendor, _ := os.ReadFile(filepath.Join(d, "vendor"))
		class, _ := os.ReadFile(filepath.Join(d, "class"))
		if strings.TrimSpace(string(vendor)) == "0x10de" && strings.HasPrefix(string(class), "0x03") {
			return true
		}
	}
	return false
}

var driverLine = regexp.MustCompile(`(?m)^NVRM version:.*?\s(\d+(?:\.\d+)+)\s`)

// parseDriver finds the version in what the kernel module says of itself, which is an
// open module's or the closed one's.
func parseDriver(said string) string {
	if m := driverLine.FindStringSubmatch(said); m != nil {
		return m[1]
	}
	return ""
}

var (
	gpuLine = regexp.MustCompile(`^GPU (\d+): (.*) \(UUID: (GPU-[^)\s]+)\)`)
	migLine = regexp.MustCompile(`^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)\s]+)\)`)
)

// parseList reads the output of nvidia-smi --list-gpus. Lines that are neither a
// GPU nor a part of one are skipped.
func parseList(out string) []GPU {
	var gpus []GPU
	for line := range strings.Lines(out) {
		if m := gpuLine.FindStringSubmatch(line); m != nil {
			if index, err := strconv.Atoi(m[1]); err == nil {
				gpus = append(gpus, GPU{Index: index, Name: m[2], UUID: m[3]})
			}
		} else if m := migLine.FindStringSubmatch(line); m != nil && len(gpus) > 0 {
			if index, err := strconv.Atoi(m[2]); err == nil {
				last := &gpus[len(gpus)-1]
				last.MIG = append(last.MIG, Instance{Index: index, Profile: m[1], UUID: m[3]})
			}
		}
	}
	return gpus
}
