package launch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/identity"
	"github.com/berthdev/berth/internal/usage"
)

// Role is the value of the role label on every container that this package
// makes.
const Role = "run"

// Workspace is where the checkout appears in a container.
const Workspace = "/my_workspace"

// A Plan is everything that a launch does, decided.
type Plan struct {
	Launch    string           // id
	User      string           // name of the person
	Detach    bool             `json:",omitempty"` // for Detach, not for Run
	API       string           // version of the Docker API
	Container daemon.Container // without what depends on where the files below lie
	Files     []File
	Env       []Variable // of the container, in order; Container.Env is empty
	Home      Home
	GPU       gpu.Request
	Method    gpu.Method // how the GPUs get in; "" without any
	Display   display.Display
	Socket    string   // where the display's socket appears in the container
	Notes     []string // for the person to read before anything starts
	Abandoned []string // what killed processes left in Docker, to be removed
}

// A File is made for one launch, in a folder that nobody else can enter, and is
// mounted read-only.
type File struct {
	Name    string
	Target  string // in the container
	Content string
	Mode    fs.FileMode
}

// A Home is the folder that $HOME keeps its files in.
type Home struct {
	Checkout string // on the host, without symbolic links; none below it is followed
	Path     string // in the checkout; made if it is missing
	Skeleton string // folder of the checkout whose files are copied into a new home; "" for Berth's own
}

var (
	containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
	hostName      = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$`) // RFC 1123, within Linux's 64 bytes
)

// NewPlan decides. It is a pure function: the same host and options give the
// same plan. Its errors are about what the person typed, or what the machine lacks
// for that.
func NewPlan(h Host, o Options) (Plan, error) {
	if o.Detach {
		// Whoever attaches later brings a terminal; a command has nobody to read from.
		h.Terminal.Present = o.Command == ""
	}
	p := Plan{Launch: h.Launch, User: h.User.Name, Detach: o.Detach, API: h.API, Abandoned: h.Abandoned}
	c := daemon.Container{
		Name:        cmp.Or(o.Name, o.Project+"-"+h.Launch),
		Image:       o.Image,
		Hostname:    cmp.Or(o.Hostname, h.Hostname),
		TTY:         h.Terminal.Present,
		Interactive: !o.Detach || o.Command == "",
		Detached:    o.Detach,
		Init:        true,
		AutoRemove:  !o.Detach,
		Network:     o.Network,
		WorkingDir:  workingDir(h.Root, h.Dir),
		Labels:      map[string]string{daemon.LabelLaunch: h.Launch},
		CapDrop:     []string{"ALL"},
		SecurityOpt: []string{"no-new-privileges"},
	}
	u := h.User
	if h.Daemon.Rootless() {
		// The daemon's own user is root in its containers, and everybody else there
		// is nobody outside.
		u.UID, u.Groups = 0, []identity.Group{{Name: u.Groups[0].Name}}
	}
	if slices.Contains(h.Daemon.Security, "name=selinux") {
		// Else the person's files, which aren't labelled for containers, are closed.
		c.SecurityOpt = append(c.SecurityOpt, "label=disable")
	}
	if !containerName.MatchString(c.Name) {
		return Plan{}, fmt.Errorf("-n: %w: %q can't be the name of a container: it takes letters, digits, _ . and -, two at least", usage.Err,
			c.Name)
	}
	if o.Hostname != "" && !hostName.MatchString(o.Hostname) {
		return Plan{}, fmt.Errorf("-hostname: %w: %q can't be the name of a host: it takes letters, digits, . and -, 63 at most", usage.Err,
			o.Hostname)
	}
	if u.UID == 0 {
		// What root needs to work with files of others and to install packages.
		c.CapAdd = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"}
	}

	// Numbers, never names: a name would be looked up in the image's own files.
	c.User = fmt.Sprintf("%d:%d", u.UID, u.Groups[0].GID)
	for _, g := range u.Groups[1:] {
		c.Groups = append(c.Groups, strconv.Itoa(g.GID))
	}
	at := u.HomeDir()
	p.Files = []File{
		{Name: "passwd", Target: "/etc/passwd", Content: string(u.Passwd(h.Passwd, at, "/bin/bash")), Mode: 0o644},
		{Name: "group", Target: "/etc/group", Content: string(u.Group(h.Group)), Mode: 0o644},
	}
	p.Home = homeIn(h.Root, o)
	c.Mounts = []daemon.Mount{
		{Type: "bind", Source: h.Root, Target: Workspace},
		{Type: "bind", Source: p.Home.Path, Target: at},
	}
	mounts, err := parseMounts(o.Mounts)
	if err != nil {
		return Plan{}, err
	}
	for _, m := range mounts {
		mount, notes := chooseMount(h, m)
		c.Mounts = append(c.Mounts, mount)
		p.Notes = append(p.Notes, notes...)
	}
	if err := checkUTF8(c); err != nil {
		return Plan{}, err
	}
	if err := checkTargets(c.Mounts, p.Files); err != nil {
		return Plan{}, err
	}

	if c.Ports, err = parsePorts(o.Ports, o.Network); err != nil {
		return Plan{}, err
	}

	switch o.IPC {
	case "", "private":
		c.ShmSize = h.Memory / 2
		if o.SharedMem != "" {
			if c.ShmSize, err = parseSize(o.SharedMem); err != nil {
				return Plan{}, err
			}
		}
	case "host":
		c.IPC = "host"
		if o.SharedMem != "" {
			return Plan{}, fmt.Errorf("-shm: %w: with -ipc=host, /dev/shm is the host's. Leave one of the two out", usage.Err)
		}
	default:
		return Plan{}, fmt.Errorf("-ipc: %w: %q is neither private nor host", usage.Err, o.IPC)
	}

	if p.Display, err = p.chooseDisplay(h, o); err != nil {
		return Plan{}, err
	}
	inject, err := p.chooseGPUs(h, o)
	if err != nil {
		return Plan{}, err
	}
	c.Devices, c.Runtime = inject.Devices, inject.Runtime

	// Its own, nothing of the host's.
	run := "/run/user/" + strconv.Itoa(u.UID)
	c.Tmpfs = map[string]string{run: fmt.Sprintf("mode=0700,uid=%d,gid=%d", u.UID, u.Groups[0].GID)}
	p.Env = []Variable{{Name: "HOME", Value: at}, {Name: "USER", Value: u.Name}, {Name: "XDG_RUNTIME_DIR", Value: run}}
	for _, v := range inject.Env {
		name, value, _ := strings.Cut(v, "=")
		p.Env = append(p.Env, Variable{Name: name, Value: value})
	}
	switch p.Display.Kind {
	case display.X11:
		p.Socket = p.Display.SocketX()
		p.Env = append(p.Env,
			Variable{Name: "DISPLAY", Value: ":" + p.Display.Number + p.Display.Screen},
			Variable{Name: "XAUTHORITY", Value: xauthority},
			Variable{Name: "QT_X11_NO_MITSHM", Value: "1"}) // the shared memory isn't shared with the X server
	case display.Wayland:
		p.Socket = run + "/wayland-0"
		p.Env = append(p.Env, Variable{Name: "WAYLAND_DISPLAY", Value: "wayland-0"})
	}
	if h.TimeZone != "" {
		p.Env = append(p.Env, Variable{Name: "TZ", Value: h.TimeZone})
	}
	if h.Terminal.Present && slices.Contains(terminals, h.Terminal.Type) {
		p.Env = append(p.Env, Variable{Name: "TERM", Value: h.Terminal.Type})
	}
	if o.Digest != "" {
		p.Env = append(p.Env, Variable{Name: "BERTH_IMAGE_DIGEST", Value: o.Digest})
	}
	env, err := parseEnv(o.Env, h.Env)
	if err != nil {
		return Plan{}, err
	}
	p.Env = append(p.Env, env...) // last, so that it wins

	if c.Entrypoint, c.Command, err = command(h, o); err != nil {
		return Plan{}, err
	}
	c.ConsoleSize = [2]uint{h.Terminal.Rows, h.Terminal.Columns}
	p.Container = c
	return p, nil
}

// xauthority is where the container's cookie lies in it.
const xauthority = "/run/berth/Xauthority"

func (p *Plan) chooseDisplay(h Host, o Options) (display.Display, error) {
	if !h.Local && (o.GUI == "" || o.GUI == "auto") {
		return display.Display{Kind: display.Off}, nil
	}
	d, note, err := display.Choose(o.GUI, h.Display)
	if err != nil {
		return d, err
	}
	if !h.Local && d.Kind != display.Off {
		return d, fmt.Errorf("-gui=%s: %w: Docker runs on another machine, which your display's socket can't be mounted on. Leave -gui out",
			o.GUI, display.ErrNone)
	}
	if note != "" {
		p.Notes = append(p.Notes, note)
	}
	return d, nil
}

// chooseGPUs decides which GPUs the container gets and how. A GPU that nobody
// asked for by name is optional: without one there is a note, not an error.
func (p *Plan) chooseGPUs(h Host, o Options) (gpu.Injection, error) {
	var err error
	if h.Local {
		p.GPU, err = gpu.Resolve(o.GPUs, h.GPU)
	} else if p.GPU, err = gpu.ResolveElsewhere(o.GPUs); err == nil && o.GPUs == "" {
		p.Notes = append(p.Notes, "NO GPU, running on the CPU: Docker runs on another machine. -g=all asks for those that it has")
		return gpu.Inject(p.GPU, h.GPU, h.Daemon, h.Local)
	}
	if err != nil {
		return gpu.Injection{}, err
	}
	inject, err := gpu.Inject(p.GPU, h.GPU, h.Daemon, h.Local)
	if err == nil && p.GPU.None() && o.GPUs == "" {
		err = h.GPU.Broken()
	}
	if err != nil && o.GPUs != "" {
		return gpu.Injection{}, fmt.Errorf("-g=%s: %w", o.GPUs, err)
	}
	if fault := (*gpu.Fault)(nil); errors.As(err, &fault) {
		note := "NO GPU, running on the CPU: " + fault.Link
		if h.GPU.Hardware || h.GPU.SMI {
			note += ". -g=all says what to do about it"
		}
		p.Notes = append(p.Notes, note)
		p.GPU = gpu.Request{}
		inject, err = gpu.Inject(p.GPU, h.GPU, h.Daemon, h.Local)
	}
	p.Method = inject.Method
	return inject, err
}

// terminals are the types that the ncurses-base package describes, and with it
// nearly every image. With another type than these, programs would draw nothing.
var terminals = []string{"linux", "rxvt", "rxvt-unicode", "rxvt-unicode-256color", "screen", "screen-256color", "tmux", "tmux-256color",
	"vt100", "vt220", "xterm", "xterm-256color", "xterm-color"}

// workingDir maps the caller's folder into the workspace: a subfolder of the
// checkout to the same one there, anything else to its top.
func workingDir(root, dir string) string {
	rel, err := filepath.Rel(root, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return Workspace
	}
	return path.Join(Workspace, filepath.ToSlash(rel))
}

// atLeast reports whether a version such as "1.41" is major.minor or later.
func atLeast(version string, major, minor int) bool {
	var a, b int
	fmt.Sscanf(version, "%d.%d", &a, &b)
	return a > major || a == major && b >= minor
}
