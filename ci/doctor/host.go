package doctor

import (
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// A Host is everything that the checks look at. What wasn't found is empty.
type Host struct {
	OS, Arch string // as Go names them
	Kernel   string // release, such as "6.1.0-30-amd64"
	System   trouble.System
	User     User
	Env      map[string]string
	Go       Go
	Docker   Docker
	GPU      GPU
	Display  display.Found
	Disks    []Disk
	Cache    Cache
	Shm      int64 // bytes of /dev/shm; 0 if there is none
	Mirrors  []Server
	Modules  []Server // proxies of Go modules
	Engine   Engine

	Silent []string // probes that gave no answer in time
}

// A User is who asks.
type User struct {
	DockerGroup bool // is a member of the group docker, as its entry has it
	InDocker    bool // has the rights of that group, as this login has it
}

// Go is the go command.
type Go struct {
	Path      string
	Version   string // such as "1.26.3"; of the toolchain that is installed
	Needs     string // what Berth needs
	Toolchain string // GOTOOLCHAIN, such as "auto"; "" before Go 1.21, which doesn't know it
}

// Docker is the daemon, and why it can't be used.
type Docker struct {
	Address   string
	API       string // version that both sides speak; "" if the daemon can't be used
	Info      daemon.Info
	Installed bool         // its programs are here
	Local     bool         // it runs on this machine, as far as its address tells
	Err       string       // why it can't be used
	Row       *trouble.Row // what that means
}

// GPU is the NVIDIA side of the machine.
type GPU struct {
	Machine gpu.Machine
	Slow    bool // nvidia-smi gave no answer in time
	Details []gpu.Detail
	Nodes   []string // its device nodes
	Toolkit string   // version of the container toolkit; "" if it doesn't tell
	Specs   []gpu.Spec
	InWSL   string // where Linux' driver is installed in WSL; "" if it isn't
}

// A Disk is a file system that Berth or Docker writes to.
type Disk struct {
	For         string // what is on it
	Path        string
	Free, Total int64 // bytes; Total is 0 if they aren't known
}

// Cache is Berth's cache folder.
type Cache struct {
	Path     string
	Err      string // why it can't be used
	ReadOnly bool   // it can't be written to
}

// A Server is one that packages or modules come from.
type Server struct {
	URL string // without a password
	Err string // why it didn't answer
}

// Engine is the Dagger engine.
type Engine struct {
	Named string // one that the user named
	State engine.State
	Err   string
}

// there reports whether the machine has an NVIDIA GPU, or seems to.
func (g GPU) there() bool {
	m := g.Machine
	return len(m.GPUs) > 0 || m.Hardware || m.Loaded || m.SMI
}
