package trouble

// Where NVIDIA says so.
const (
	docsToolkit  = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
	docsTrouble  = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html"
	docsCDI      = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html"
	docsDriver   = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide"
	docsReleases = "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html"
	docsWSL      = "https://docs.nvidia.com/cuda/wsl-user-guide/index.html"
	docsMIG      = "https://docs.nvidia.com/datacenter/tesla/mig-user-guide"
)

// installDriver is how to get NVIDIA's driver.
var installDriver = Mend{
	"": "Install NVIDIA's driver (" + docsDriver + "), then restart the machine.",
	"debian": "With contrib and non-free among the components in apt's sources, type\n\tsudo apt-get install nvidia-driver nvidia-smi\nthen " +
		"restart the machine.",
	"ubuntu": "Type\n\tsudo ubuntu-drivers install\nthen restart the machine.",
	"fedora": "With RPM Fusion's non-free repository (https://rpmfusion.org/Configuration), type\n" +
		"\tsudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda\nwait until the module is built (some minutes), then restart the " +
		"machine.",
	"rhel": "With NVIDIA's repository (" + docsDriver + "), type\n\tsudo dnf install nvidia-open\nthen restart the machine.",
	"arch": "Type\n\tsudo pacman -S nvidia-open nvidia-utils\nthen restart the machine. (GPUs before Turing need an older driver than " +
		"nvidia-open.)",
	"suse": "Add NVIDIA's repository (https://en.opensuse.org/SDB:NVIDIA_drivers), install the driver that it has for your GPU, then " +
		"restart the machine.",
	"nixos": "Add to /etc/nixos/configuration.nix\n\thardware.graphics.enable = true;\n\tservices.xserver.videoDrivers = [ \"nvidia\" " +
		"];\n" +
		"\thardware.nvidia.open = true;" + nixRebuild + "\nand restart the machine.",
}

// loadModule is how to load its module, or to see why that fails, where DKMS builds it.
const loadModule = "Type\n\tsudo modprobe nvidia\nIf that fails, the module wasn't built for this kernel, or isn't signed for Secure " +
	"Boot:\n\tsudo dkms status\n\tmokutil --sb-state"

// updateDriver is how to get a newer one.
var updateDriver = Mend{
	"":       "Install a newer driver of NVIDIA's (" + docsDriver + "), then restart the machine.",
	"debian": "Debian's backports, or NVIDIA's repository (" + docsDriver + "), have newer ones. Then restart the machine.",
	"ubuntu": "See which ones there are, install a newer one, and restart the machine:\n\tubuntu-drivers list --gpgpu\n\tsudo " +
		"ubuntu-drivers install",
	"fedora": "Type\n\tsudo dnf upgrade akmod-nvidia xorg-x11-drv-nvidia-cuda\nthen restart the machine.",
	"rhel":   "Type\n\tsudo dnf upgrade nvidia-open\nthen restart the machine.",
	"arch":   "Type\n\tsudo pacman -Syu\nthen restart the machine.",
	"nixos": "Name a newer one in /etc/nixos/configuration.nix\n\thardware.nvidia.package = " +
		"config.boot.kernelPackages.nvidiaPackages.latest;" +
		nixRebuild + "\nand restart the machine.",
}

const onCPU = "`run` without -g runs on the CPU and says so; with -g, `run` and `smoke` fail. Building needs no GPU."

// What keeps the machine itself from using its GPUs.
var (
	NoGPU = &Row{
		Name: "no-gpu", State: OK,
		Wrong: "there is no NVIDIA GPU in this machine",
		Means: "Everything works, on the CPU.",
		Mend:  everywhere("Leave -g out, or type -g=none, to run on the CPU."),
	}
	NoDriver = &Row{
		Name: "gpu-no-driver", State: Fault,
		Wrong: "there is an NVIDIA GPU, but no driver", Means: onCPU, Mend: installDriver, Source: docsDriver,
	}
	Nouveau = &Row{
		Name: "gpu-nouveau", State: Fault,
		Wrong: "the driver nouveau has the GPU: it has no CUDA", Means: onCPU, Mend: installDriver, Source: docsDriver,
	}
	ModuleNotLoaded = &Row{
		Name: "gpu-module", State: Fault,
		Wrong: "the driver is installed, but its kernel module isn't loaded",
		Means: onCPU,
		Mend: Mend{
			"":     loadModule,
			"rhel": loadModule, // not Fedora's, which is for RPM Fusion's driver
			"fedora": "Type\n\tsudo modprobe nvidia\nIf that fails, build it for this kernel, or look whether Secure Boot refuses " +
				"it:\n\tsudo akmods --force\n" +
				"\tmokutil --sb-state",
			"nixos": "Restart the machine: the module of a new generation is loaded then.",
		},
	}
	DriverMismatch = &Row{
		Name: "gpu-mismatch", State: Fault,
		Wrong: "the driver in the kernel and the driver's libraries have different versions, as after an update",
		Means: "nvidia-smi says \"Failed to initialize NVML: Driver/library version mismatch\". What runs on the GPU goes on; nothing " +
			"new can start on it, in a " +
			"container or outside.",
		Mend: everywhere("Restart the machine. Or, while no program has the GPU open (lsof /dev/nvidia* shows them), load the new " +
			"module in place of the old one:\n" +
			"\tsudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia\n\tsudo modprobe nvidia"),
		Source: "https://github.com/NVIDIA/nvidia-container-toolkit/issues/394",
	}
	GPUPermission = &Row{
		Name: "gpu-permission", State: Fault,
		Wrong: "you may not open the devices /dev/nvidia*",
		Means: "nvidia-smi says \"Insufficient Permissions\". " + onCPU,
		Mend:  everywhere("See whose they are, then ask the administrator to add you to that group:\n\tls -l /dev/nvidia*"),
	}
	NoDevices = &Row{
		Name: "gpu-no-devices", State: Fault,
		Wrong: "the driver is loaded, but it finds no device",
		Means: onCPU,
		Mend: everywhere("The kernel's log says why: a GPU that isn't powered, or too old or too new for this driver:\n\tsudo dmesg | " +
			"grep -i nvrm"),
	}
	GPULost = &Row{
		Name: "gpu-lost", State: Fault,
		Wrong: "a GPU has fallen off the bus",
		Means: "Power, heat, a riser or the slot: what ran on it is lost. " + onCPU,
		Mend: everywhere("Restart the machine. If it happens again, look for the error's number (Xid); 79 is hardware:\n\tsudo dmesg " +
			"-T | grep -i xid"),
		Source: "https://docs.nvidia.com/deploy/xid-errors",
	}
	NoSMI = &Row{
		Name: "gpu-no-smi", State: Fault,
		Wrong: "the driver is loaded, but nvidia-smi isn't on the PATH",
		Means: "Berth asks nvidia-smi which GPUs there are. " + onCPU,
		Mend: Mend{
			"":       "Install what the distribution calls the driver's utilities, of the driver's version.",
			"debian": "With contrib and non-free among the components in apt's sources, type\n\tsudo apt-get install nvidia-smi",
			"ubuntu": "Install those of the driver's version; for 580:\n\tsudo apt-get install nvidia-utils-580",
			"fedora": "Type\n\tsudo dnf install xorg-x11-drv-nvidia-cuda",
			"rhel":   "With NVIDIA's repository (" + docsDriver + "), type\n\tsudo dnf install nvidia-driver-cuda",
			"arch":   "Type\n\tsudo pacman -S nvidia-utils",
			"suse":   "Type\n\tsudo zypper install nvidia-compute-utils-G06",
			"nixos":  "It comes with the driver: " + "/run/current-system/sw/bin must be on the PATH.",
		},
	}
	SMIUnclear = &Row{
		Name: "gpu-unclear", State: Fault,
		Wrong: "the command nvidia-smi lists no GPU",
		Means: "Berth doesn't know what it said instead. " + onCPU,
		Mend:  everywhere("Run it yourself; once it lists your GPUs, so does Berth:\n\tnvidia-smi -L"),
	}
	SMISlow = &Row{
		Name: "gpu-slow", State: Warning,
		Wrong: "the command nvidia-smi takes more than 10 seconds",
		Means: "Without its persistence daemon the driver wakes every GPU whenever somebody asks for one, and lets it sleep " +
			"afterwards. Every launch with a GPU waits " +
			"for that, up to a minute. A GPU that hangs looks the same.",
		Mend: Mend{
			"": "Keep the driver awake; if that hangs as well, restart the machine:\n\tsudo systemctl enable --now " +
				"nvidia-persistenced",
			"nixos": "Add to /etc/nixos/configuration.nix\n\thardware.nvidia.nvidiaPersistenced = true;" + nixRebuild,
		},
		Source: "https://docs.nvidia.com/deploy/driver-persistence",
	}
	DeviceNodes = &Row{
		Name: "gpu-device-nodes", State: Warning,
		Wrong: "the driver is loaded, but some of its device nodes are missing",
		Means: "The first CUDA program of root makes them, and so does NVIDIA's hook. Until then CUDA finds no device in containers " +
			"that get their GPUs by CDI, whose " +
			"specification lacks what wasn't there when it was made.",
		Mend: everywhere("Make them, then the specification anew where you use CDI:\n\tsudo nvidia-modprobe -u -c=0\n" +
			"\tsudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"),
		Source: docsTrouble,
	}
	DriverTooOld = &Row{
		Name: "gpu-driver-old", State: Fault,
		Wrong: "NVIDIA's driver is too old for CUDA 11.8",
		Means: "The trainer on CUDA and images with a later CUDA don't run: an image can't bring the driver with it. Building needs no " +
			"driver.",
		Mend: updateDriver, Source: docsReleases,
	}
	DriverBeforeCUDA12 = &Row{
		Name: "gpu-driver-cuda-11", State: Warning,
		Wrong: "NVIDIA's driver is too old for CUDA 12",
		Means: "The trainer runs on it, and so do images with CUDA 11. Images with CUDA 12 or 13, today's PyTorch among them, don't.",
		Mend:  updateDriver, Source: docsReleases,
	}
	OldGPU = &Row{
		Name: "gpu-capability", State: Warning,
		Wrong: "a GPU's compute capability is below 8.0",
		Means: "The trainer's kernels need 8.0 (Ampere) or later, so that it trains on the CPU there. Images of your own run if their " +
			"libraries have code for the GPU: " +
			"CUDA 13 has none below 7.5.",
		Mend:   everywhere("Choose another GPU with -g, if there is one:\n\tnvidia-smi --query-gpu=index,name,compute_cap --format=csv"),
		Source: docsReleases,
	}
	EmptyMIG = &Row{
		Name: "mig-empty", State: Warning,
		Wrong: "a GPU is switched to partitions (MIG), but has none",
		Means: "Nothing can compute on it, though nvidia-smi lists it as a whole GPU, so that `-g=auto` may choose it.",
		Mend: everywhere("Make instances, of the profiles that the first command lists:\n\tnvidia-smi mig -lgip\n" +
			"\tsudo nvidia-smi mig -i N -cgi PROFILE -C\nor switch the partitions off, while nothing uses the GPU:\n" +
			"\tsudo nvidia-smi -i N -mig 0\nUntil then, name your GPUs with -g."),
		Source: docsMIG,
	}
	WSLNoDriver = &Row{
		Name: "wsl-no-driver", State: Warning,
		Wrong: "this is Linux inside Windows, and Windows' NVIDIA driver isn't passed on",
		Means: "If this computer has no NVIDIA GPU, all is well. If it has one, " + "`run` uses the CPU all the same.",
		Mend: everywhere("Install NVIDIA's driver in Windows (none in Linux), then, in Windows:\n" +
			"\twsl --update\n\twsl --shutdown"),
		Source: docsWSL,
	}
	WSLLinuxDriver = &Row{
		Name: "wsl-linux-driver", State: Warning,
		Wrong: "a Linux driver of NVIDIA's is installed inside WSL",
		Means: "Its libraries may hide those that Windows passes on, and then CUDA finds no device. WSL's own lie in /usr/lib/wsl/lib.",
		Mend: Mend{
			"":       "Remove the driver's packages from this Linux; the toolkit may stay.",
			"debian": "Remove it; the toolkit may stay:\n\tsudo apt-get remove libcuda1",
			"ubuntu": "Remove it; the toolkit may stay:\n\tsudo apt-get remove 'libnvidia-compute-*'",
		},
		Source: docsWSL,
	}
)

var gpus = []*Row{
	NoGPU, NoDriver, Nouveau, ModuleNotLoaded, DriverMismatch, GPUPermission, NoDevices, GPULost, NoSMI, SMIUnclear, SMISlow, DeviceNodes,
	DriverTooOld, DriverBeforeCUDA12, OldGPU, EmptyMIG, WSLNoDriver, WSLLinuxDriver,
}
