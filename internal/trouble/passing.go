package trouble

// configure registers NVIDIA's runtime with Docker.
const configure = "\tsudo nvidia-ctk runtime configure --runtime=docker\n\tsudo systemctl restart docker"

const regenerate = "\tsudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"

// On NixOS a service makes the specification.
const regenerateNix = "\tsudo systemctl restart nvidia-container-toolkit-cdi-generator"

const nixToolkit = "Add to /etc/nixos/configuration.nix\n\thardware.nvidia-container-toolkit.enable = true;" + nixRebuild

// rootlessMend has a rootless Docker pass GPUs on.
var rootlessMend = everywhere("Type\n\tsudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place\n" +
	"\tnvidia-ctk runtime configure --runtime=docker --config=$HOME/.config/docker/daemon.json\n\tsystemctl --user restart docker")

const noGPUInside = "`run` without -g runs on the CPU and says so; with -g it fails, and so does `smoke`. GPUs work outside of " +
	"containers."

// What keeps a GPU that works from getting into a container, or from staying there.
var (
	NoToolkit = &Row{
		Name: "no-toolkit", State: Fault,
		Wrong: "the NVIDIA Container Toolkit isn't installed, so Docker can't pass GPUs on",
		Means: noGPUInside,
		Mend: Mend{
			"": "Install the package nvidia-container-toolkit (" + docsToolkit + "), then\n" + configure,
			"debian": "Add NVIDIA's repository to apt's (" + docsToolkit + "), then\n\tsudo apt-get update\n\tsudo apt-get install " +
				"nvidia-container-toolkit\n" + configure,
			"fedora": "Type\n\tcurl -fsSL https://nvidia.github.io/libnvidia-container/stable/rpm/nvidia-container-toolkit.repo | " +
				"sudo tee /etc/yum.repos.d/nvidia-container-toolkit.repo\n\tsudo dnf install nvidia-container-toolkit\n" + configure,
			"suse": "Type\n\tsudo zypper addrepo " +
				"https://nvidia.github.io/libnvidia-container/stable/rpm/nvidia-container-toolkit.repo\n" +
				"\tsudo zypper install nvidia-container-toolkit\n" + configure,
			"arch":  "Type\n\tsudo pacman -S nvidia-container-toolkit\n" + configure,
			"nixos": nixToolkit,
		},
		Source: docsToolkit,
	}
	NoWay = &Row{
		Name: "toolkit-not-in-docker", State: Warning,
		Wrong: "Docker knows neither NVIDIA's runtime nor a CDI device",
		Means: "What is left is NVIDIA's hook, which works if the toolkit was there when Docker started, and loses GPUs on systemctl " +
			"daemon-reload (row gpus-vanish).",
		Mend: Mend{"": "Register the runtime with Docker:\n" + configure, "nixos": nixToolkit}, Source: docsToolkit,
	}
	NoWayRootless = &Row{
		Name: "toolkit-not-in-rootless", State: Warning,
		Wrong: "rootless Docker knows neither NVIDIA's runtime nor a CDI device",
		Means: "What is left is NVIDIA's hook, which works if the toolkit was there when Docker started, and leaves control groups alone.",
		Mend:  rootlessMend, Source: docsToolkit,
	}
	NoHook = &Row{
		Name: "hook-not-found", State: Fault,
		Wrong: "Docker didn't find NVIDIA's hook when it started",
		Means: noGPUInside,
		Mend: Mend{
			"": "If nvidia-container-toolkit is installed:\n\tsudo systemctl restart docker\nIf it isn't, install it from NVIDIA's " +
				"repository (" + docsToolkit + "), then\n" +
				configure,
			"nixos": nixToolkit,
		},
		Source: "https://github.com/NVIDIA/nvidia-container-toolkit/issues/854",
	}
	RootlessHook = &Row{
		Name: "hook-rootless", State: Fault,
		Wrong:  "rootless Docker didn't find NVIDIA's hook when it started",
		Means:  noGPUInside,
		Mend:   rootlessMend,
		Source: docsToolkit,
	}
	SnapHook = &Row{
		Name: "hook-snap", State: Fault,
		Wrong: "Docker from the snap doesn't see the NVIDIA Container Toolkit",
		Means: noGPUInside,
		Mend: everywhere("On Ubuntu Core:\n\tsudo snap install nvidia-core22\n" +
			"Elsewhere replace the snap by a package; the snap's images, containers and volumes go with it:\n" +
			"\tsudo snap remove docker\n\tsudo apt-get install docker.io"),
		Source: "https://github.com/NVIDIA/nvidia-docker/issues/1642, https://github.com/NVIDIA/nvidia-container-toolkit/issues/82",
	}
	NoRuntime = &Row{
		Name: "runtime-forgotten", State: Fault,
		Wrong: "Docker has forgotten NVIDIA's runtime",
		Means: noGPUInside,
		Mend:  Mend{"": "Type\n" + configure, "nixos": nixToolkit}, Source: docsToolkit,
	}
	CDIOff = &Row{
		Name: "cdi-off", State: Fault,
		Wrong: "CDI is switched off in Docker",
		Means: noGPUInside,
		Mend: Mend{
			"": "Set in /etc/docker/daemon.json (Docker 25 or later; on by itself from 28.3 on)\n\t{\"features\": {\"cdi\": " +
				"true}}\nthen\n\tsudo systemctl restart docker",
			"nixos": "Add to /etc/nixos/configuration.nix (Docker 25 or later)\n\tvirtualisation.docker.daemon.settings.features.cdi = " +
				"true;" +
				nixRebuild,
		},
		Source: docsCDI,
	}
	StaleCDI = &Row{
		Name: "cdi-stale", State: Fault,
		Wrong: "the CDI specification doesn't fit the GPUs any more",
		Means: "It was made for another driver, other GPUs or other partitions. Where Docker has CDI, Berth uses it (and `docker run " +
			"--gpus` from Docker 29 on), so that " +
			"containers with GPUs don't start, or start without some of them.",
		Mend: Mend{
			"": "Make it anew, and have that done whenever the driver changes (toolkit 1.18 or later):\n" + regenerate + "\n" +
				"\tsudo systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service",
			"nixos": "Make it anew:\n" + regenerateNix,
		},
		Source: "https://github.com/NVIDIA/nvidia-container-toolkit/issues/885, " + docsCDI,
	}
	PodmanNoCDI = &Row{
		Name: "podman-no-cdi", State: Fault,
		Wrong: "Podman answers as Docker and knows no CDI device for this; it would start the container without a GPU and say nothing",
		Means: "`run` without -g runs on the CPU and says so; with -g it fails.",
		Mend: everywhere("Use Docker's own engine, or make a CDI specification and type podman run --device nvidia.com/gpu=all " +
			"yourself:\n" + regenerate), Source: docsCDI,
	}
	GPUsVanish = &Row{
		Name: "gpus-vanish", State: Warning,
		Wrong: "containers lose their GPUs when somebody types systemctl daemon-reload, as package upgrades do",
		Means: "Docker has systemd set up control groups, and the GPUs get in behind systemd's back. After a reload a running " +
			"container says \"Failed to initialize NVML: " +
			"Unknown Error\", and has to be started anew.",
		Mend: Mend{
			"": "Have the toolkit's runtime (1.18 or later) or CDI pass GPUs on; update the toolkit, then\n" + configure + "\nor take " +
				"control groups from systemd, in " +
				"/etc/docker/daemon.json\n\t{\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]}\nthen\n\tsudo systemctl restart docker",
			"nixos": nixToolkit,
		},
		Source: "https://github.com/NVIDIA/nvidia-container-toolkit/issues/48, " + docsTrouble,
	}
	NoAdapter = &Row{
		Name: "wsl-no-adapter", State: Fault,
		Wrong: "this is Linux inside Windows, and Windows passes no GPU on",
		Means: "`run` without -g runs on the CPU and says so; with -g it fails, and so does `smoke`. No program of this Linux has a GPU, in a " +
			"container or outside.",
		Mend: everywhere("Update NVIDIA's driver in Windows, then, in Windows:\n\twsl --update\n\twsl --shutdown"), Source: docsWSL,
	}
	NoLibrary = &Row{
		Name: "toolkit-no-library", State: Fault,
		Wrong: "the toolkit doesn't find the driver's libraries",
		Means: noGPUInside + " Docker Desktop on Linux can't pass GPUs on at all: use Docker's engine.",
		Mend: everywhere("Type\n\tsudo ldconfig\n\tldconfig -p | grep libnvidia-ml.so.1\nIf the second command prints nothing, install " +
			"the driver again."),
		Source: "https://github.com/NVIDIA/nvidia-container-toolkit/issues/676",
	}
	DriverTooOldForImage = &Row{
		Name: "driver-old-for-image", State: Fault,
		Wrong: "the driver is too old for the image",
		Means: "The image says which version of CUDA it needs, and the driver isn't for that version.",
		Mend:  updateDriver, Source: docsReleases,
	}
	UnknownDevice = &Row{
		Name: "toolkit-unknown-device", State: Fault,
		Wrong: "the toolkit doesn't know a GPU that nvidia-smi lists",
		Means: noGPUInside,
		Mend:  everywhere("See which it knows, and update the toolkit to the driver's age:\n\tnvidia-container-cli list"),
	}
	NoCgroups = &Row{
		Name: "toolkit-cgroups", State: Fault,
		Wrong: "the toolkit may not change control groups here",
		Means: noGPUInside,
		Mend: everywhere("In rootless Docker have it leave them alone; else update the toolkit:\n" +
			"\tsudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place"),
		Source: docsToolkit,
	}
	ToolkitRefused = &Row{
		Name: "toolkit-refused", State: Fault,
		Wrong: "NVIDIA's toolkit refused",
		Means: noGPUInside,
		Mend:  everywhere("It says more than Docker's message if you type\n\tnvidia-container-cli -k -d /dev/stderr info"),
	}
)

var passing = []*Row{
	NoToolkit, NoWay, NoWayRootless, NoHook, RootlessHook, SnapHook, NoRuntime, CDIOff, StaleCDI, PodmanNoCDI, GPUsVanish,
	NoAdapter, NoLibrary, DriverTooOldForImage, UnknownDevice, NoCgroups, ToolkitRefused,
}
