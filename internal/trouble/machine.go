package trouble

// What the machine itself lacks.
var (
	OtherSystem = &Row{
		Name: "other-system", State: Warning,
		Wrong: "this isn't Linux",
		Means: "Berth is tested on Linux alone. Images are built and run in the virtual machine that Docker has here; it passes on no " +
			"GPU of " +
			"NVIDIA's, and no display.",
		Mend: everywhere("Nothing needs to be done for building. For GPUs and windows use a machine with Linux."),
	}
	OtherProcessor = &Row{
		Name: "other-processor", State: Warning,
		Wrong: "this machine's processor isn't an x86-64 (amd64)",
		Means: "Berth's packages, engine and trainer are locked for linux/amd64. Building needs an engine that can run it: natively " +
			"that is an " +
			"x86-64 machine.",
		Mend: everywhere("Build on an x86-64 machine, or point DOCKER_HOST at the Docker of one."),
	}
	WSL1 = &Row{
		Name: "wsl-1", State: Fault,
		Wrong:  "this is version 1 of WSL, which has no Linux kernel",
		Means:  "Docker doesn't run in it, and so nothing builds or runs.",
		Mend:   everywhere("In Windows, with this distribution's name as wsl --list --verbose shows it:\n\twsl --set-version NAME 2"),
		Source: "https://learn.microsoft.com/windows/wsl/compare-versions",
	}
	NoGo = &Row{
		Name: "no-go", State: Warning,
		Wrong: "the go command isn't on the PATH",
		Means: "`go tool mage` doesn't work without Go. A compiled binary runs images, and builds them unless an input (golang.tar) or " +
			"the engine has " +
			"to be compiled.",
		Mend: Mend{
			"":      "Install Go (https://go.dev/doc/install), and open a new shell.",
			"arch":  "Install it, and open a new shell:\n\tsudo pacman -S go",
			"nixos": "Type\n\tnix-shell -p go",
		},
	}
	OldGo = &Row{
		Name: "old-go", State: Fault,
		Wrong: "Go is older than what Berth needs, and may not fetch a newer one",
		Means: "`go tool mage` stops with a word about the version: the magefile isn't compiled. From Go 1.21 on, the go command " +
			"fetches the version that " +
			"go.mod asks for if GOTOOLCHAIN is auto or ends in +auto; local, path and a version alone keep it from that.",
		Mend: everywhere("Let it, or install a newer Go (https://go.dev/doc/install). The first command is for a GOTOOLCHAIN in the " +
			"environment, as the official golang images set it: go env -w doesn't change that.\n" +
			"\tunset GOTOOLCHAIN\n\tgo env -w GOTOOLCHAIN=auto"),
		Source: "https://go.dev/doc/toolchain",
	}
)

var machine = []*Row{OtherSystem, OtherProcessor, WSL1, NoGo, OldGo}
