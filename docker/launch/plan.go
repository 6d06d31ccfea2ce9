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
	"unicode/utf8"

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
	p := Plan{Launch: h.Launch, API: h.API, Abandoned: h.Abandoned}
	c := daemon.Container{
		Name:        cmp.Or(o.Name, o.Project+"-"+h.Launch),
		Image:       o.Image,
		Hostname:    cmp.Or(o.Hostname, h.Hostname),
		TTY:         h.Terminal.Present,
		Interactive: true,
		Init:        true,
		AutoRemove:  true,
		Network:     o.Network,
		WorkingDir:  workingDir(h.Root, h.Dir),
		Labels:      map[string]string{daemon.LabelLaunch: h.Launch},
		CapDrop:     []string{"ALL"},
		SecurityOpt: []string{"no-new-privileges"},
	}
	u := h.User
	if slices.Contains(h.Daemon.Security, "name=rootless") {
		// The daemon's own user is root in its containers, and everybody else there
		// is nobody outside.
		u.UID, u.Groups = 0, []identity.Group{{Name: u.Groups[0].Name}}
	}
	if slices.Contains(h.Daemon.Security, "name=selinux") {
		// Else the person's files, which aren't labelled for containers, are closed.
		c.SecurityOpt = append(c.SecurityOpt, "label=disable")
	}
	if !containerName.MatchString(c.Name) {
		return Plan{}, fmt.Errorf("-n: %w: %q can't be the name of a container: it takes letters, digits, _ . and -, two at least", usage.Err, c.Name)
	}
	if o.Hostname != "" && !hostName.MatchString(o.Hostname) {
		return Plan{}, fmt.Errorf("-hostname: %w: %q can't be the name of a host: it takes letters, digits, . and -, 63 at most", usage.Err, o.Hostname)
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
	if err := spellable(c); err != nil {
		return Plan{}, err
	}
	if err := distinct(c.Mounts, p.Files); err != nil {
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
		return d, fmt.Errorf("-gui=%s: %w: Docker runs on another machine, which your display's socket can't be mounted on. Leave -gui out", o.GUI, display.ErrNone)
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
	if p.GPU, err = gpu.Resolve(o.GPUs, h.GPU); err != nil {
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
var terminals = []string{"linux", "rxvt", "rxvt-unicode", "rxvt-unicode-256color", "screen", "screen-256color", "tmux", "tmux-256color", "vt100", "vt220", "xterm", "xterm-256color", "xterm-color"}

// workingDir maps the caller's folder into the workspace: a subfolder of the
// checkout to the same one there, anything else to its top.
func workingDir(root, dir string) string {
	rel, err := filepath.Rel(root, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return Workspace
	}
	return path.Join(Workspace, filepath.ToSlash(rel))
}

// onHost returns the absolute path that a person means.
func onHost(h Host, typed string) string {
	if typed == "~" || strings.HasPrefix(typed, "~/") {
		return filepath.Join(h.User.Home, typed[1:])
	}
	if filepath.IsAbs(typed) {
		return filepath.Clean(typed)
	}
	return filepath.Join(h.Dir, typed)
}

// chooseMount returns the mount that a person asks for, and what they should
// know of it.
func chooseMount(h Host, o mountOption) (m daemon.Mount, notes []string) {
	m = daemon.Mount{Type: "bind", Source: onHost(h, o.source), Target: path.Clean(o.target), ReadOnly: o.readOnly}
	if real, ok := h.Sources[m.Source]; ok {
		if within(h.Root, m.Source) && !within(h.Root, real) {
			// A data set on another disk, or what a container would like to see.
			notes = append(notes, fmt.Sprintf("-v: a symbolic link in the checkout leads %s to %s, which the container gets", o.source, real))
		}
		m.Source = real
	}
	if !m.ReadOnly {
		return m, notes
	}
	var below []string
	for _, at := range h.MountPoints {
		if at != m.Source && within(m.Source, at) {
			below = append(below, at)
		}
	}
	switch {
	case len(below) > 0 && atLeast(h.API, 1, 44):
		m.Submounts = daemon.SubmountsReadOnly
	case len(below) > 0:
		notes = append(notes, fmt.Sprintf("-v: Docker before 25 can't make what is mounted below %s read-only, so the container doesn't get %s. Mount it by itself if you need it",
			m.Source, strings.Join(below, ", ")))
		fallthrough
	default:
		m.Submounts = daemon.SubmountsLeftOut // also one that comes meanwhile
	}
	return m, notes
}

// within reports whether a path is a folder or below it.
func within(folder, path string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

// spellable refuses paths that can't be told to Docker, which speaks JSON: in them
// it would get other characters, and mount a folder of that name.
func spellable(c daemon.Container) error {
	paths := []string{c.WorkingDir}
	for _, m := range c.Mounts {
		paths = append(paths, m.Source, m.Target)
	}
	for _, p := range paths {
		if !utf8.ValidString(p) {
			return fmt.Errorf("%w: the path %q isn't valid UTF-8, so Docker can't be told of it. Rename the file or folder", usage.Err, p)
		}
	}
	return nil
}

// distinct refuses two mounts on one target.
func distinct(mounts []daemon.Mount, files []File) error {
	taken := map[string]bool{}
	for _, f := range files {
		taken[f.Target] = true
	}
	for _, m := range mounts {
		if taken[m.Target] {
			return fmt.Errorf("-v: %w: something is mounted on %s already. Choose another target for %s", usage.Err, m.Target, m.Source)
		}
		taken[m.Target] = true
	}
	return nil
}

// shells are programs that run a command line given after -c.
var shells = []string{"sh", "bash", "dash", "zsh", "ksh", "ash"}

// sized sets the terminal's size before anything can ask for it. Below API 1.42
// the daemon starts a container with a terminal of no rows and columns, and a
// resize comes only after the start.
const sized = `stty rows %d columns %d 2>/dev/null; exec "$@"`

// interpreters are programs that take their first argument for a script, not for
// a program to run; versions such as python3.12 are cut off.
var interpreters = append([]string{"python", "pypy", "node", "ruby", "perl", "lua", "php", "Rscript", "julia", "java"}, shells...)

// runsArguments reports whether an entry point may run the command that follows
// it: nearly all do, by an exec "$@" at their end. An interpreter that has flags
// alone would take the command's first word for its script.
func runsArguments(entrypoint []string) bool {
	if len(entrypoint) == 0 {
		return true
	}
	isFlag := func(word string) bool { return strings.HasPrefix(word, "-") }
	program := strings.TrimRight(path.Base(entrypoint[0]), ".0123456789")
	return !slices.Contains(interpreters, program) || slices.ContainsFunc(entrypoint[1:], func(word string) bool { return !isFlag(word) })
}

// command decides what the container runs: the entry point (the image's, or the
// one that was asked for) with the image's own command, or with the typed one in
// the shell that the image opens. Nil means the image's own.
func command(h Host, o Options) (entrypoint, cmd []string, err error) {
	before, usual := h.Image.Entrypoint, h.Image.Command
	shell := "sh"
	known := len(usual) > 0 && slices.Contains(shells, path.Base(usual[0]))
	if known {
		shell = usual[0]
	}
	line := []string{shell, "-c", o.Command}
	if o.Entrypoint != "" {
		entrypoint, before, usual = []string{o.Entrypoint}, []string{o.Entrypoint}, nil // as Docker drops the image's command
		if slices.Contains(shells, path.Base(o.Entrypoint)) {
			shell, known, line = o.Entrypoint, true, []string{"-c", o.Command}
		}
	}
	if o.Command != "" {
		if o.Entrypoint == "" && !runsArguments(before) {
			return nil, nil, fmt.Errorf("-cmd: %w: the entry point of the image, %s, would take the command for its own arguments and not run it. Add -entrypoint=%s",
				usage.Err, words(before), shell)
		}
		cmd = line
	}
	// Without a shell there is nothing to set the size with.
	if t := h.Terminal; t.Present && t.Rows > 0 && t.Columns > 0 && !atLeast(h.API, 1, 42) && (known || o.Command != "") {
		entrypoint = append([]string{shell, "-c", fmt.Sprintf(sized, t.Rows, t.Columns), shell}, before...)
		if cmd == nil {
			cmd = usual // with an entry point of ours, Docker drops the image's command
		}
	}
	return entrypoint, cmd, nil
}

// atLeast reports whether a version such as "1.41" is major.minor or later.
func atLeast(version string, major, minor int) bool {
	var a, b int
	fmt.Sscanf(version, "%d.%d", &a, &b)
	return a > major || a == major && b >= minor
}
