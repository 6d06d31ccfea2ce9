package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/trouble"
)

// How long a probe may take. nvidia-smi wakes every GPU first where nothing keeps the
// driver awake.
const (
	usual   = 5 * time.Second
	forSMI  = 10 * time.Second
	reprobe = 500 * time.Millisecond // for a probe to notice that its time is up
)

// The probes, as a person reads them.
const (
	ofKernel  = "the kernel"
	ofUser    = "the user database"
	ofGo      = "the go command"
	ofDocker  = "Docker"
	ofSMI     = "nvidia-smi"
	ofNVIDIA  = "NVIDIA's toolkit"
	ofDisplay = "the display"
	ofCache   = "the cache folder"
	ofMirrors = "the mirrors"
	ofCDI     = "CDI"
	ofDisks   = "the disks"
	ofEngine  = "the engine"
)

// A probe looks at one thing. It returns what puts that into a Host, so that one that
// hangs, as on a file system that has gone, changes nothing later.
type probe struct {
	name  string
	limit time.Duration
	look  func(context.Context) func(*Host)
	late  func(*Host) // what it means that it hangs; may be nil
}

// Probe looks at this machine, at everything at once, and writes nothing. It takes some
// seconds at most, whatever hangs.
func Probe(ctx context.Context) Host {
	h := Host{OS: runtime.GOOS, Arch: runtime.GOARCH, System: trouble.Here(), Env: map[string]string{}, Go: Go{Needs: needsGo}}
	for _, name := range []string{"DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "DOCKER_HOST"} {
		h.Env[name] = os.Getenv(name)
	}
	run(ctx, &h, []probe{
		{name: ofKernel, limit: usual, look: probeKernel},
		{name: ofUser, limit: usual, look: probeUser},
		{name: ofGo, limit: usual, look: probeGo},
		{name: ofDocker, limit: usual, look: probeDocker, late: func(h *Host) { h.Docker = hanging }},
		{name: ofSMI, limit: forSMI, look: probeGPU, late: func(h *Host) { h.GPU.Slow = true }},
		{name: ofNVIDIA, limit: usual, look: probeNVIDIA},
		{name: ofDisplay, limit: usual, look: probeDisplay},
		{name: ofCache, limit: usual, look: probeCache},
		{name: ofMirrors, limit: usual, look: probeMirrors},
	})
	// What needs to know of Docker.
	run(ctx, &h, []probe{
		{name: ofCDI, limit: usual, look: probeCDI(h.Docker.Info.CDIDirs)},
		{name: ofDisks, limit: usual, look: probeDisks(h)},
		{name: ofEngine, limit: usual, look: probeEngine(h)},
	})
	return h
}

// run runs probes side by side, until ctx ends. h isn't touched by those that take too long.
func run(ctx context.Context, h *Host, probes []probe) {
	var lock sync.Mutex
	var wait sync.WaitGroup
	for _, p := range probes {
		wait.Go(func() {
			limited, cancel := context.WithTimeout(ctx, p.limit)
			defer cancel()
			seen := make(chan func(*Host), 1)
			go func() { seen <- p.look(limited) }()
			select {
			case <-ctx.Done(): // nobody wants to know any more
			case put := <-seen:
				lock.Lock()
				defer lock.Unlock()
				put(h)
			case <-time.After(p.limit + reprobe):
				lock.Lock()
				defer lock.Unlock()
				if p.late != nil {
					p.late(h)
					return
				}
				h.Silent = append(h.Silent, p.name)
			}
		})
	}
	wait.Wait()
	slices.Sort(h.Silent)
}

func probeKernel(context.Context) func(*Host) {
	release := kernelRelease()
	return func(h *Host) { h.Kernel = release }
}

func probeUser(context.Context) func(*Host) {
	u := currentUser()
	return func(h *Host) { h.User = u }
}

// currentUser is who asks, and whether they are in the group docker.
func currentUser() User {
	me, err := user.Current()
	if err != nil {
		return User{}
	}
	group, err := user.LookupGroup("docker")
	if err != nil {
		return User{}
	}
	entries, _ := me.GroupIds()
	rights, _ := os.Getgroups()
	return User{
		DockerGroup: slices.Contains(entries, group.Gid),
		InDocker:    slices.ContainsFunc(append(rights, os.Getegid()), func(g int) bool { return strconv.Itoa(g) == group.Gid }),
	}
}

var goVersion = regexp.MustCompile(`^go version go(\S+)`)

// probeGo asks the go command outside of any module and for its own answer: a GOTOOLCHAIN
// with a version has it fetch that one first.
func probeGo(ctx context.Context) func(*Host) {
	path, err := exec.LookPath("go")
	if err != nil {
		return func(*Host) {}
	}
	ask := func(env []string, args ...string) string {
		c := exec.CommandContext(ctx, path, args...)
		c.Dir, c.Env = "/", append(os.Environ(), env...)
		out, _ := c.Output() // without an answer the version is unknown
		return strings.TrimSpace(string(out))
	}
	itself := []string{"GOTOOLCHAIN=local"}
	version, toolchain := ask(itself, "version"), ask(nil, "env", "GOTOOLCHAIN")
	number := ""
	if m := goVersion.FindStringSubmatch(version); m != nil {
		number = m[1]
	}
	proxies := probeServers(ctx, moduleProxies(ask(itself, "env", "GOPROXY")), "")
	return func(h *Host) {
		h.Go.Path, h.Go.Version, h.Go.Toolchain = path, number, toolchain
		h.Modules = proxies
	}
}

// moduleProxies are the URLs of a GOPROXY.
func moduleProxies(list string) (all []string) {
	for _, address := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '|' }) {
		if address = strings.TrimSpace(address); address != "direct" && address != "off" && address != "" {
			all = append(all, address)
		}
	}
	return all
}

// hanging is a daemon that gives no answer.
var hanging = Docker{Installed: true, Err: fmt.Sprintf("no answer within %s", usual), Row: trouble.DockerSilent}

// probeDocker connects as every other command does.
func probeDocker(ctx context.Context) func(*Host) {
	var d Docker
	for _, program := range []string{"docker", "dockerd"} {
		if _, err := exec.LookPath(program); err == nil {
			d.Installed = true
		}
	}
	client, err := daemon.Connect(ctx)
	if err == nil {
		defer client.Close()
		d.Address, d.Local = client.Host(), strings.HasPrefix(client.Host(), "unix://")
		if d.Info, err = client.Info(ctx); err == nil {
			d.API = client.APIVersion()
		}
	}
	if err != nil {
		d.Err, d.Row = err.Error(), advice.Row(err)
		if errors.Is(err, context.DeadlineExceeded) {
			d.Err, d.Row = hanging.Err, hanging.Row
		}
	}
	return func(h *Host) { h.Docker = d }
}

// probeGPU asks nvidia-smi.
func probeGPU(ctx context.Context) func(*Host) {
	m, err := gpu.Probe(ctx, "/")
	slow := errors.Is(err, context.DeadlineExceeded)
	var details []gpu.Detail
	if len(m.GPUs) > 0 {
		details, _ = gpu.Details(ctx, "/") // the checks do without
	}
	return func(h *Host) { h.GPU.Machine, h.GPU.Slow, h.GPU.Details = m, slow, details }
}

// probeNVIDIA looks at what NVIDIA's packages have put on the machine.
func probeNVIDIA(ctx context.Context) func(*Host) {
	nodes, version := gpu.Nodes("/"), gpu.ToolkitVersion(ctx, "/")
	inWSL := ""
	for _, name := range []string{"/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib64/libcuda.so.1"} {
		if _, err := os.Stat(name); err == nil {
			inWSL = name
		}
	}
	return func(h *Host) { h.GPU.Nodes, h.GPU.Toolkit, h.GPU.InWSL = nodes, version, inWSL }
}

func probeDisplay(ctx context.Context) func(*Host) {
	env := map[string]string{}
	for _, name := range []string{"DISPLAY", "XAUTHORITY", "HOME", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"} {
		env[name] = os.Getenv(name)
	}
	hostname, _ := os.Hostname()
	found := display.Probe(ctx, env, hostname)
	return func(h *Host) { h.Display = found }
}

func probeCache(context.Context) func(*Host) {
	dir, err := cache.Look()
	c := Cache{Path: string(dir)}
	if err != nil {
		c.Err = err.Error()
	}
	c.ReadOnly = c.Path != "" && !writable(existing(c.Path))
	return func(h *Host) { h.Cache = c }
}

// existing is the folder, or the closest one above it that is there.
func existing(folder string) string {
	for {
		if _, err := os.Stat(folder); err == nil || folder == filepath.Dir(folder) {
			return folder
		}
		folder = filepath.Dir(folder)
	}
}

// probeMirrors asks the mirrors that builds would.
func probeMirrors(ctx context.Context) func(*Host) {
	urls := debian.HostMirrors()["debian"]
	if len(urls) == 0 {
		urls = []string{debian.Snapshots + "/debian"} // where builds look last
	}
	servers := probeServers(ctx, urls, "/")
	return func(h *Host) { h.Mirrors = servers }
}

// probeServers asks servers for a path below each URL, all at once. Any answer of theirs
// will do: it proves that they are there.
func probeServers(ctx context.Context, urls []string, path string) []Server {
	servers := make([]Server, len(urls))
	var wait sync.WaitGroup
	for i, address := range urls {
		wait.Go(func() { servers[i] = askServer(ctx, address, path) })
	}
	wait.Wait()
	return servers
}

func askServer(ctx context.Context, address, path string) Server {
	u, err := url.Parse(address)
	if err != nil {
		return Server{URL: "an address", Err: "it isn't a URL"} // which may have a password in it
	}
	s := Server{URL: u.Redacted()}
	if u.Scheme == "file" {
		if _, err := os.Stat(u.Path); err != nil {
			s.Err = err.Error()
		}
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, usual-time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, strings.TrimRight(address, "/")+path, nil)
	if err != nil {
		s.Err = "it isn't a URL to ask"
		return s
	}
	answer, err := http.DefaultClient.Do(request)
	if urlError := (*url.Error)(nil); errors.As(err, &urlError) {
		err = urlError.Err // without the address, which may have a password in it
	}
	if err != nil {
		s.Err = err.Error()
		return s
	}
	answer.Body.Close()
	if answer.StatusCode >= http.StatusInternalServerError {
		s.Err = answer.Status
	}
	return s
}

func probeCDI(dirs []string) func(context.Context) func(*Host) {
	return func(context.Context) func(*Host) {
		if len(dirs) == 0 {
			dirs = gpu.CDIDirs
		}
		specs := gpu.ReadSpecs("/", dirs)
		return func(h *Host) { h.GPU.Specs = specs }
	}
}

func probeDisks(h Host) func(context.Context) func(*Host) {
	return func(context.Context) func(*Host) {
		var all []Disk
		add := func(what, folder string) {
			d := Disk{For: what, Path: folder}
			if d.Free, d.Total = space(existing(folder)); d.Total > 0 {
				all = append(all, d)
			}
		}
		// Seen from a container with Docker's socket, the folder isn't there.
		if _, err := os.Stat(h.Docker.Info.RootDir); err == nil && h.Docker.API != "" && h.Docker.Local {
			add("Docker", h.Docker.Info.RootDir)
		}
		if h.Cache.Path != "" {
			add("the cache", h.Cache.Path)
		}
		_, shm := space("/dev/shm")
		return func(h *Host) { h.Disks, h.Shm = all, shm }
	}
}

func probeEngine(h Host) func(context.Context) func(*Host) {
	return func(ctx context.Context) func(*Host) {
		e := Engine{Named: engine.Named()}
		if e.Named == "" && h.Docker.API != "" {
			client, err := daemon.Connect(ctx)
			if err == nil {
				defer client.Close()
				e.State, err = engine.Look(ctx, client, engine.Options{Cache: cache.Dir(h.Cache.Path)})
			}
			if err != nil {
				e.Err = err.Error()
			}
		}
		return func(h *Host) { h.Engine = e }
	}
}
