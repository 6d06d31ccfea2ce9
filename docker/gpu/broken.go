package gpu

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
)

// ErrBroken is in the chain of errors about a link between a GPU and a container
// that doesn't hold.
var ErrBroken = errors.New("no GPU for a container")

// A Fault is such a link, and what to do about it.
type Fault struct {
	Link string   // what doesn't hold
	Fix  []string // what to type, a line each
}

// Error says both.
func (f *Fault) Error() string {
	return fmt.Sprintf("%v: %s.\n\t%s", ErrBroken, f.Link, strings.Join(f.Fix, "\n\t"))
}

// Unwrap makes every Fault an ErrBroken.
func (f *Fault) Unwrap() error { return ErrBroken }

func broken(link string, fix ...string) error { return &Fault{link, fix} }

const install = "sudo apt-get install nvidia-driver, or what your distribution calls it, then restart the machine"

var (
	noToolkit = broken("the NVIDIA Container Toolkit isn't installed, so Docker can't pass GPUs on",
		"Install the package nvidia-container-toolkit from NVIDIA's repository, then",
		"sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker")
	mismatch = broken("the driver in the kernel and the driver's libraries have different versions, as after an update",
		"Restart the machine, or with no program on the GPU: sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia")
	notLoaded = broken("the driver is installed, but its kernel module isn't loaded",
		"sudo modprobe nvidia",
		"If that fails, the module wasn't built for this kernel or isn't signed for Secure Boot: sudo dkms status")
)

// Broken returns nil if the driver knows a GPU, else the first link of the chain
// that is broken, from the device up, and what to do about it.
func (m Machine) Broken() error {
	said := func(part string) bool { return strings.Contains(m.Complaint, part) }
	switch {
	case len(m.GPUs) > 0:
		return nil
	case said("Driver/library version mismatch"):
		return mismatch
	case said("couldn't communicate with the NVIDIA driver") && m.Nouveau:
		return nouveau
	case said("couldn't communicate with the NVIDIA driver") && !m.Loaded:
		return notLoaded
	case said("Insufficient Permissions"):
		return broken("you may not open the devices /dev/nvidia*", "ls -l /dev/nvidia*, then ask who keeps this machine for their group")
	case said("No devices were found"):
		return broken("the driver is loaded, but it finds no device",
			"sudo dmesg | grep -i nvrm says why: a GPU that isn't powered, or too old or too new for this driver")
	case said("GPU is lost"), said("Unable to determine the device handle"):
		return broken("a GPU has fallen off the bus", "Restart the machine. If it happens again: sudo dmesg | grep -i xid")
	case m.SMI:
		return broken("nvidia-smi lists no GPU. It said: "+m.Complaint, "Run nvidia-smi yourself; once it lists your GPUs, so does Berth")
	case m.WSL:
		return broken("this is Linux inside Windows, and Windows' NVIDIA driver isn't passed on",
			"Install NVIDIA's driver in Windows (none in Linux), then, in Windows: wsl --update && wsl --shutdown")
	case m.Loaded:
		return broken("the driver is loaded, but nvidia-smi isn't on the PATH",
			"Install nvidia-smi (Debian) or nvidia-utils (Ubuntu) of the driver's version")
	case m.Hardware && m.Nouveau:
		return nouveau
	case m.Hardware:
		return broken("there is an NVIDIA GPU, but no driver", install)
	default:
		return broken("there is no NVIDIA GPU in this machine", "Leave -g out, or type -g=none, to run on the CPU")
	}
}

var nouveau = broken("the driver nouveau has the GPU: it has no CUDA", install)

// Explain returns what the daemon's refusal to start a container means, if it is
// about GPUs, else nil.
func Explain(refusal string, d daemon.Info) error {
	has := func(part string) bool { return strings.Contains(refusal, part) }
	switch {
	case has(`could not select device driver "cdi"`):
		return broken("CDI is switched off in Docker",
			`Set {"features": {"cdi": true}} in /etc/docker/daemon.json (Docker 25 or later), then: sudo systemctl restart docker`)
	case has("could not select device driver") && rootless(d):
		return broken("rootless Docker didn't find NVIDIA's hook when it started",
			"sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place",
			"nvidia-ctk runtime configure --runtime=docker --config=$HOME/.config/docker/daemon.json && systemctl --user restart docker")
	case has("could not select device driver") && strings.HasPrefix(d.RootDir, "/var/snap/"):
		return broken("Docker from the snap doesn't see the NVIDIA Container Toolkit",
			"sudo snap install nvidia-core22 if it is an Ubuntu Core, else replace the snap by Docker's own packages")
	case has("could not select device driver"):
		return broken("Docker didn't find NVIDIA's hook when it started",
			"If nvidia-container-toolkit is installed: sudo systemctl restart docker. If not, install it first, from NVIDIA's repository")
	case has("unresolvable CDI devices"), has("CDI device injection failed"):
		return broken("the CDI specification doesn't fit the GPUs any more", "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")
	case has("unknown or invalid runtime name: nvidia"):
		return broken("Docker has forgotten NVIDIA's runtime",
			"sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker")
	case has("driver/library version mismatch"):
		return mismatch
	case has("nvidia-container-cli") && has("driver not loaded"):
		return notLoaded
	case has("nvidia-container-cli") && has("no adapters were found"):
		return broken("this is Linux inside Windows, and Windows passes no GPU on",
			"Update NVIDIA's driver in Windows, then, in Windows: wsl --update && wsl --shutdown")
	case has("nvidia-container-cli") && has("libnvidia-ml.so"):
		return broken("the toolkit doesn't find the driver's libraries", "sudo ldconfig; if libnvidia-ml.so.1 isn't in ldconfig -p then, "+
			"reinstall the driver. (Docker Desktop on Linux can't pass GPUs on: use Docker's engine)")
	case has("unsatisfied condition"):
		return broken("the driver is too old for the image",
			"Update the NVIDIA driver to one that has the CUDA version which the message below asks for")
	case has("nvidia-container-cli") && has("unknown device"):
		return broken("the toolkit doesn't know a GPU that nvidia-smi lists",
			"nvidia-container-cli list, and update the toolkit to the driver's age")
	case has("bpf_prog_query(BPF_CGROUP_DEVICE) failed"):
		return broken("the toolkit may not change control groups here",
			"In rootless Docker: sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place. Else update the toolkit")
	case has("nvidia-container-cli"), has("nvidia-container-runtime"):
		return broken("NVIDIA's toolkit refused", "nvidia-container-cli -k -d /dev/stderr info says more than the message below")
	}
	return nil
}
