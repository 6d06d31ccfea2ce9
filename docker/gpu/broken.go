package gpu

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// ErrBroken is in the chain of errors about a link between a GPU and a container
// that doesn't hold.
var ErrBroken = errors.New("no GPU for a container")

// A Fault is such a link.
type Fault struct {
	Link string       // what doesn't hold
	Row  *trouble.Row // why, and what to do about it
}

// Error says what doesn't hold. What to do about it is advice.
func (f *Fault) Error() string { return fmt.Sprintf("%v: %s", ErrBroken, f.Link) }

// Unwrap makes every Fault an ErrBroken.
func (f *Fault) Unwrap() error { return ErrBroken }

func broken(row *trouble.Row) error { return advice.About(&Fault{row.Wrong, row}, row) }

// Broken returns nil if the driver knows a GPU, else the first link of the chain
// that is broken, from the device up, and what to do about it.
func (m Machine) Broken() error {
	said := func(part string) bool { return strings.Contains(m.Complaint, part) }
	row := trouble.NoGPU
	switch {
	case len(m.GPUs) > 0:
		return nil
	case said("Driver/library version mismatch"):
		row = trouble.DriverMismatch
	case said("couldn't communicate with the NVIDIA driver") && m.Nouveau:
		row = trouble.Nouveau
	case said("couldn't communicate with the NVIDIA driver") && !m.Loaded:
		row = trouble.ModuleNotLoaded
	case said("Insufficient Permissions"):
		row = trouble.GPUPermission
	case said("No devices were found"):
		row = trouble.NoDevices
	case said("GPU is lost"), said("Unable to determine the device handle"):
		row = trouble.GPULost
	case m.SMI:
		row = trouble.SMIUnclear
		return advice.About(&Fault{row.Wrong + ". It said: " + m.Complaint, row}, row)
	case m.WSL:
		row = trouble.WSLNoDriver
	case m.Loaded:
		row = trouble.NoSMI
	case m.Hardware && m.Nouveau:
		row = trouble.Nouveau
	case m.Hardware:
		row = trouble.NoDriver
	}
	return broken(row)
}

// Explain returns what the daemon's refusal to start a container means, if it is
// about GPUs, else nil.
func Explain(refusal string, d daemon.Info) error {
	has := func(part string) bool { return strings.Contains(refusal, part) }
	var row *trouble.Row
	switch {
	case has(`could not select device driver "cdi"`):
		row = trouble.CDIOff
	case has("could not select device driver") && d.Rootless():
		row = trouble.RootlessHook
	case has("could not select device driver") && d.Snap():
		row = trouble.SnapHook
	case has("could not select device driver"):
		row = trouble.NoHook
	case has("unresolvable CDI devices"), has("CDI device injection failed"):
		row = trouble.StaleCDI
	case has("unknown or invalid runtime name: nvidia"):
		row = trouble.NoRuntime
	case has("driver/library version mismatch"):
		row = trouble.DriverMismatch
	case has("nvidia-container-cli") && has("driver not loaded"):
		row = trouble.ModuleNotLoaded
	case has("nvidia-container-cli") && has("no adapters were found"):
		row = trouble.NoAdapter
	case has("nvidia-container-cli") && has("libnvidia-ml.so"):
		row = trouble.NoLibrary
	case has("unsatisfied condition"):
		row = trouble.DriverTooOldForImage
	case has("nvidia-container-cli") && has("unknown device"):
		row = trouble.UnknownDevice
	case has("bpf_prog_query(BPF_CGROUP_DEVICE) failed"):
		row = trouble.NoCgroups
	case has("nvidia-container-cli"), has("nvidia-container-runtime"):
		row = trouble.ToolkitRefused
	default:
		return nil
	}
	return broken(row)
}
