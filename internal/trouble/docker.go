package trouble

const nixRebuild = "\nthen\n\tsudo nixos-rebuild switch"

// What keeps Docker from being used, or from doing all that it could.
var (
	NoDocker = &Row{
		Name: "no-docker", State: Fault,
		Wrong: "Docker isn't installed",
		Means: "Nothing builds, and nothing runs: images and containers are Docker's.",
		Mend: Mend{
			"":       "Install Docker's engine: https://docs.docker.com/engine/install",
			"debian": "Type\n\tsudo apt-get install docker.io\n\tsudo usermod -aG docker \"$USER\"\nthen log in again.",
			"fedora": "Type\n\tsudo dnf install moby-engine\n\tsudo systemctl enable --now docker\n\tsudo usermod -aG docker " +
				"\"$USER\"\nthen log in again.",
			"rhel": "Install Docker's own packages, since the distribution has none: https://docs.docker.com/engine/install/rhel. " +
				"Then\n" +
				"\tsudo systemctl enable --now docker\n\tsudo usermod -aG docker \"$USER\"\nand log in again.",
			"amzn": "Type\n\tsudo dnf install docker\n\tsudo systemctl enable --now docker\n\tsudo usermod -aG docker " +
				"\"$USER\"\nthen log in again.",
			"arch": "Type\n\tsudo pacman -S docker\n\tsudo systemctl enable --now docker\n\tsudo usermod -aG docker \"$USER\"\nthen " +
				"log in again.",
			"suse": "Type\n\tsudo zypper install docker\n\tsudo systemctl enable --now docker\n\tsudo usermod -aG docker " +
				"\"$USER\"\nthen log in again.",
			"nixos": "Add to /etc/nixos/configuration.nix\n\tvirtualisation.docker.enable = true;\n\tusers.users.NAME.extraGroups = [ " +
				"\"docker\" ];" +
				nixRebuild + "\nand log in again.",
		},
	}
	DockerStopped = &Row{
		Name: "docker-stopped", State: Fault,
		Wrong: "no Docker daemon answers",
		Means: "Nothing builds, and nothing runs.",
		Mend: everywhere("Start it with\n\tsudo systemctl start docker\nor point DOCKER_HOST at one that runs. If that service doesn't " +
			"exist, install Docker: " +
			"https://docs.docker.com/engine/install"),
	}
	DockerSilent = &Row{
		Name: "docker-silent", State: Fault,
		Wrong: "the Docker daemon takes connections, but doesn't answer",
		Means: "Nothing builds, and nothing runs. A healthy daemon answers within milliseconds; one that doesn't is stuck, mostly on " +
			"its disk.",
		Mend: everywhere("Look at it, and restart it, with\n\tsystemctl status docker\n\tsudo systemctl restart docker\n" +
			"or point DOCKER_HOST at another one."),
	}
	DockerPermission = &Row{
		Name: "docker-permission", State: Fault,
		Wrong: "you may not use Docker's socket",
		Means: "Nothing builds, and nothing runs. The socket belongs to root and a group; who is in that group is as good as root on " +
			"this machine.",
		Mend: Mend{
			"": "Join its group with\n\tsudo usermod -aG docker \"$USER\"\nthen log in again (or type: newgrp docker).",
			"nixos": "Join its group: add to /etc/nixos/configuration.nix\n\tusers.users.NAME.extraGroups = [ \"docker\" " +
				"];" + nixRebuild +
				"\nand log in again.",
		},
		Source: "https://docs.docker.com/engine/install/linux-postinstall",
	}
	DockerLogin = &Row{
		Name: "docker-login", State: Fault,
		Wrong: "you are in the group docker, but this login is older than that",
		Means: "Nothing builds, and nothing runs, until you log in again: a process has the groups that its login had.",
		Mend: everywhere("Log in again (over ssh: close all connections to this machine first), or for this terminal alone " +
			"type\n\tnewgrp docker"),
	}
	DockerSettings = &Row{
		Name: "docker-settings", State: Fault,
		Wrong: "what the environment or Docker's configuration says about the daemon makes no sense",
		Means: "Nothing builds, and nothing runs. Berth looks where the docker command would: DOCKER_HOST, else the context that " +
			"DOCKER_CONTEXT or " +
			"`docker context use` names.",
		Mend: everywhere("Correct what the message names, or go back to the usual daemon with\n\tunset DOCKER_HOST DOCKER_CONTEXT " +
			"DOCKER_TLS_VERIFY\n" +
			"\tdocker context use default"),
	}
	DockerSSH = &Row{
		Name: "docker-ssh", State: Fault,
		Wrong: "the Docker context reaches its daemon by ssh, which Berth doesn't",
		Means: "Nothing builds, and nothing runs.",
		Mend: everywhere("Forward the daemon's socket, and leave that running; in another terminal name it:\n" +
			"\tssh -nNTL /tmp/docker.sock:/var/run/docker.sock HOST\n\texport DOCKER_HOST=unix:///tmp/docker.sock"),
	}
	DockerVersionAsked = &Row{
		Name: "docker-api-version", State: Fault,
		Wrong: "the API version that DOCKER_API_VERSION asks for isn't the daemon's",
		Means: "Nothing builds, and nothing runs.",
		Mend:  everywhere("Type\n\tunset DOCKER_API_VERSION\nand Berth agrees on one with the daemon."),
	}
	OldDocker = &Row{
		Name: "old-docker", State: Warning,
		Wrong: "Docker is older than the versions that Berth is tested with (20.10 and later)",
		Means: "Building and running may work. CDI, by which GPUs get in and stay in, needs 25, and 28.3 to be on by itself.",
		Mend:  everywhere("Upgrade Docker: https://docs.docker.com/engine/install"),
	}
	RemoteDocker = &Row{
		Name: "remote-docker", State: Warning,
		Wrong: "Docker runs on another machine",
		Means: "Building works, the engine being reached through Docker's API at a fifth of the speed. `run` can't mount your folders " +
			"there, GPUs are that " +
			"machine's and aren't leased, and there are no windows.",
		Mend: everywhere("To work there, log in there; to work here, type\n\tunset DOCKER_HOST DOCKER_CONTEXT\n" +
			"\tdocker context use default"),
	}
	Rootless = &Row{
		Name: "rootless-docker", State: Warning,
		Wrong: "Docker is rootless",
		Means: "`run` works, as you: you are root inside, which is you outside. Building may not: the Dagger engine needs more rights " +
			"than a rootless daemon has to " +
			"give, so name one that runs elsewhere in _EXPERIMENTAL_DAGGER_RUNNER_HOST. GPUs get in by CDI, or by the hook once it " +
			"leaves control groups alone.",
		Mend: everywhere("For building, use the machine's own Docker:\n\texport DOCKER_HOST=unix:///var/run/docker.sock\nFor GPUs in " +
			"the rootless one:\n" +
			"\tsudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place\n" +
			"\tnvidia-ctk runtime configure --runtime=docker --config=$HOME/.config/docker/daemon.json\n\tsystemctl --user restart " +
			"docker"),
		Source: "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html, " +
			"https://github.com/dagger/dagger/issues/5636",
	}
	Snap = &Row{
		Name: "snap-docker", State: Warning,
		Wrong: "Docker is installed as a snap",
		Means: "It sees neither hidden folders nor anything outside of home, so that a build's engine and a run's mounts can't be " +
			"shared with it in the usual " +
			"places, and it doesn't see NVIDIA's toolkit, so that no GPU gets in.",
		Mend: everywhere("Replace it by a package; the snap's images, containers and volumes go with it:\n\tsudo snap remove docker\n" +
			"\tsudo apt-get install docker.io\nor, for building and running without GPUs, name a cache folder it can see:\n" +
			"\texport BERTH_CACHE=~/berth-cache"),
	}
	Podman = &Row{
		Name: "podman", State: Warning,
		Wrong: "Podman answers as Docker",
		Means: "It ignores requests for GPUs without a word, unless they are CDI devices that it says it has; and it reports exit code " +
			"0 for commands that failed. " +
			"So don't trust `run` and `smoke` with it.",
		Mend: Mend{
			"": "Use Docker's engine: install it (https://docs.docker.com/engine/install), then\n\tunset DOCKER_HOST\n\tsudo systemctl " +
				"start docker",
			"rhel": "Use Docker's engine: remove podman-docker, and install Docker's own packages, since the distribution has none: " +
				"https://docs.docker.com/engine/install/rhel. Then\n\tsudo systemctl enable --now docker\n\tunset DOCKER_HOST",
			"amzn":   "Use Docker's engine:\n\tsudo dnf install docker\n\tsudo systemctl enable --now docker\n\tunset DOCKER_HOST",
			"debian": "Use Docker's engine:\n\tsudo apt-get remove podman-docker\n\tsudo apt-get install docker.io\n\tunset DOCKER_HOST",
			"fedora": "Use Docker's engine:\n\tsudo dnf remove podman-docker\n\tsudo dnf install moby-engine\n\tsudo systemctl enable " +
				"--now docker\n" +
				"\tunset DOCKER_HOST",
		},
	}
	Desktop = &Row{
		Name: "docker-desktop", State: Warning,
		Wrong: "Docker is Docker Desktop, whose daemon runs in a virtual machine",
		Means: "Building and running work. No GPU gets in (on Linux; in WSL it does), and neither does a display's socket.",
		Mend: everywhere("For GPUs and windows use Docker's engine (https://docs.docker.com/engine/install), then\n\tdocker context " +
			"use default"),
	}
)

var docker = []*Row{
	NoDocker, DockerStopped, DockerSilent, DockerPermission, DockerLogin, DockerSettings, DockerSSH, DockerVersionAsked,
	OldDocker, RemoteDocker, Rootless, Snap, Podman, Desktop,
}
