package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/identity"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
)

// A Host is everything outside Options that a plan depends on: the machine, the
// person, the terminal, and what the daemon answered.
type Host struct {
	Launch    string // random id of this launch
	Hostname  string
	TimeZone  string // name in the zone database, such as "Europe/Berlin"; "" if unknown
	Memory    int64  // bytes; 0 if unknown
	User      identity.User
	Root      string // the checkout, without symbolic links
	Dir       string // the caller's working folder, without symbolic links
	Env       map[string]string
	Terminal  Terminal
	API       string // version of the Docker API that both sides speak
	Daemon    daemon.Info
	Image     daemon.Image
	Passwd    []byte // of the image
	Group     []byte // of the image
	GPU       gpu.Machine
	Display   display.Found
	Local     bool     // the daemon runs on this machine, as far as its address tells
	Abandoned []string // what killed processes left in Docker, by name

	Sources     map[string]string // of mounts, by absolute path: what those are without symbolic links that have any
	MountPoints []string          // on this machine; only if something is to be mounted read-only
}

// A Terminal is what standard input and output are connected to.
type Terminal struct {
	Present       bool // both are terminals
	Rows, Columns uint
	Type          string // $TERM
}

// Streams are the standard streams that a container is connected to.
type Streams struct {
	In, Out, Err *os.File
}

// Probe looks at everything that a plan depends on. It changes nothing of the
// person's: to read the users of an image that it meets for the first time, it
// makes a container that never starts, removes it, and keeps them in the cache.
func Probe(ctx context.Context, d *daemon.Client, o Options, s Streams) (Host, error) {
	var id [4]byte
	rand.Read(id[:])
	h := Host{Launch: hex.EncodeToString(id[:]), API: d.APIVersion(), TimeZone: timeZone("/"), Memory: memory("/"), Env: map[string]string{},
		Local: strings.HasPrefix(d.Host(), "unix://")}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		h.Env[name] = value
	}
	if term.IsTerminal(int(s.In.Fd())) {
		if columns, rows, err := term.GetSize(int(s.Out.Fd())); err == nil {
			h.Terminal = Terminal{Present: true, Rows: uint(rows), Columns: uint(columns), Type: h.Env["TERM"]}
		}
	}
	var err error
	if h.Hostname, err = os.Hostname(); err != nil {
		return Host{}, fmt.Errorf("asking for this machine's name: %w", err)
	}
	if h.Root, err = filepath.EvalSymlinks(o.Root); err != nil {
		return Host{}, fmt.Errorf("looking for the checkout: %w", err)
	}
	if h.Dir, err = os.Getwd(); err == nil {
		h.Dir, err = filepath.EvalSymlinks(h.Dir)
	}
	if err != nil {
		return Host{}, fmt.Errorf("looking for the working folder: %w", err)
	}
	if err := homeIn(h.Root, o).check(); err != nil {
		return Host{}, err
	}
	dir, err := cache.Open()
	if err != nil {
		return Host{}, err
	}

	g, ctx := errgroup.WithContext(ctx)
	if o.GPUs != "none" && h.Local {
		g.Go(func() (err error) {
			h.GPU, err = gpu.Probe(ctx, "/")
			return err
		})
	}
	if o.GUI != "off" {
		g.Go(func() error {
			h.Display = display.Probe(ctx, h.Env, h.Hostname)
			return nil
		})
	}
	g.Go(func() (err error) {
		h.User, err = identity.Current(ctx)
		return err
	})
	if dependsOnInfo(d, o) {
		g.Go(func() (err error) {
			h.Daemon, err = d.Info(ctx)
			return err
		})
	}
	if h.Abandoned, err = owned.Abandoned(dir); err != nil {
		return Host{}, err
	}
	g.Go(func() (err error) {
		if h.Image, err = d.Image(ctx, o.Image); errors.Is(err, daemon.ErrNotFound) {
			return advice.With(fmt.Errorf("the image %s isn't in Docker: %w", o.Image, err), "%s", howToGet(o))
		} else if err != nil {
			return err
		}
		h.Passwd, h.Group, err = imageUsers(ctx, d, dir, h.Image.ID)
		return err
	})
	if err := g.Wait(); err != nil {
		return Host{}, err
	}
	return h, h.resolveSources(o)
}

// resolveSources notes what the sources of mounts are without symbolic links.
func (h *Host) resolveSources(o Options) error {
	mounts, err := parseMounts(o.Mounts)
	if err != nil || !h.Local {
		return nil // NewPlan reports what is wrong with them; and another machine's aren't here
	}
	h.Sources = map[string]string{}
	for _, m := range mounts {
		source := onHost(*h, m.source)
		// Docker says which one is missing.
		if real, err := filepath.EvalSymlinks(source); err == nil && real != source {
			h.Sources[source] = real
		}
		if m.readOnly && h.MountPoints == nil {
			info, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("looking for what is mounted on this machine: %w", err)
			}
			h.MountPoints = mountPoints(string(info))
		}
	}
	return nil
}

// mountPoints reads the format of /proc/self/mountinfo (proc_pid_mountinfo(5)):
// the fifth field of a line, with octal escapes.
func mountPoints(info string) []string {
	var points []string
	for line := range strings.Lines(info) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, octal.ReplaceAllStringFunc(fields[4], func(escape string) string {
				code, _ := strconv.ParseUint(escape[1:], 8, 8) // three digits, 377 at most
				return string([]byte{byte(code)})
			}))
		}
	}
	return points
}

var octal = regexp.MustCompile(`\\[0-3][0-7]{2}`)

// howToGet says how to get an image: the project's own is built, others come from
// a registry.
func howToGet(o Options) string {
	if name, _, _ := strings.Cut(o.Image, ":"); name == o.Project {
		return "Build it with\n\t" + advice.Berth + " build -t=" + word(o.Image)
	}
	return "Get it with\n\tdocker pull " + word(o.Image)
}

// dependsOnInfo reports whether a plan depends on what the daemon says of itself.
// That takes an idle one longer than all other answers together, and for a
// container without GPUs on a plain machine it changes nothing.
func dependsOnInfo(d *daemon.Client, o Options) bool {
	socket, local := strings.CutPrefix(d.Host(), "unix://")
	if !local || o.GPUs != "none" && (o.GPUs != "" || gpu.Installed("/")) {
		return true
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		return true
	}
	// A rootless daemon's socket is its user's.
	info, err := os.Stat(socket)
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Uid != 0
}

// timeZone returns the zone that /etc/localtime (in the file system at root)
// links to, or that /etc/timezone names. $TZ comes before both.
func timeZone(root string) string {
	if zone := strings.TrimPrefix(os.Getenv("TZ"), ":"); zone != "" && !filepath.IsAbs(zone) {
		return zone
	}
	if link, err := os.Readlink(filepath.Join(root, "etc/localtime")); err == nil {
		if _, zone, ok := strings.Cut(link, "zoneinfo/"); ok {
			return zone
		}
	}
	name, err := os.ReadFile(filepath.Join(root, "etc/timezone"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

var memTotal = regexp.MustCompile(`(?m)^MemTotal:\s+(\d+) kB$`)

// memory returns the machine's memory in bytes as /proc/meminfo (in the file
// system at root) has it, 0 where there is none.
func memory(root string) int64 {
	info, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	m := memTotal.FindSubmatch(info)
	if m == nil {
		return 0
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// usersLimit is more than a passwd file of any image has, in bytes.
const usersLimit = 1 << 20

// imageUsers returns the passwd and group files of an image. They are read once
// for each image, from a container that is never started, and cached.
func imageUsers(ctx context.Context, d *daemon.Client, dir cache.Dir, image string) (passwd, group []byte, err error) {
	kept := dir.Path("users", strings.ReplaceAll(image, ":", "-")+".json")
	var users struct{ Passwd, Group []byte }
	if cache.ReadRecord(kept, &users) {
		return users.Passwd, users.Group, nil
	}
	scope, err := owned.Claim(dir, d, Role)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, scope.Close(context.WithoutCancel(ctx))) }()
	id, err := scope.Container(ctx,
		daemon.Container{Image: image, Command: []string{"true"}, Network: "none", Labels: map[string]string{daemon.LabelRole: Role}})
	if err != nil {
		return nil, nil, err
	}
	read := func(path string) ([]byte, error) {
		data, err := d.ReadFile(ctx, id, path, usersLimit)
		if errors.Is(err, daemon.ErrNotFound) {
			return nil, nil // an image without users, made from scratch
		}
		return data, err
	}
	if users.Passwd, err = read("/etc/passwd"); err != nil {
		return nil, nil, err
	}
	if users.Group, err = read("/etc/group"); err != nil {
		return nil, nil, err
	}
	return users.Passwd, users.Group, cache.WriteRecord(kept, users)
}
