package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
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

// Probe looks at everything that a plan depends on, and leaves everything as it
// was.
func Probe(ctx context.Context, d *daemon.Client, o Options, s Streams) (Host, error) {
	var id [4]byte
	rand.Read(id[:])
	h := Host{Launch: hex.EncodeToString(id[:]), API: d.APIVersion(), TimeZone: timeZone("/"), Memory: memory("/"), Env: map[string]string{}, Local: strings.HasPrefix(d.Host(), "unix://")}
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
	dir, err := cache.Open()
	if err != nil {
		return Host{}, err
	}

	g, ctx := errgroup.WithContext(ctx)
	if o.GPUs != "none" {
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
			return fmt.Errorf("the image %s isn't in Docker. Build it with\n\tgo tool mage build -t=%s\n%w", o.Image, o.Image, err)
		} else if err != nil {
			return err
		}
		h.Passwd, h.Group, err = imageUsers(ctx, d, dir, h.Image.ID)
		return err
	})
	return h, g.Wait()
}

// dependsOnInfo says whether a plan depends on what the daemon says of itself.
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
	things, err := owned.Claim(dir, d, Role)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, things.Close(context.WithoutCancel(ctx))) }()
	id, err := things.Container(ctx, daemon.Container{Image: image, Command: []string{"true"}, Network: "none", Labels: map[string]string{daemon.LabelRole: Role}})
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
