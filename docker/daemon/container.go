package daemon

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"
)

// A Mount makes a file or folder of the host, a volume, or memory appear in a
// container.
type Mount struct {
	Type     string // "bind", "volume" or "tmpfs"
	Source   string // host path or volume name; empty for tmpfs
	Target   string
	ReadOnly bool

	// Of a bind, what becomes of the mounts below its source: "" takes them in, and
	// before API 1.44 they are writable even if ReadOnly is set.
	Submounts Submounts `json:",omitempty"`
}

// Submounts are the mounts below the source of a bind.
type Submounts string

// The ways to keep them from being written to, by docker run's words.
const (
	SubmountsLeftOut  Submounts = "disabled"
	SubmountsReadOnly Submounts = "readonly" // from API 1.44 on; refused where the kernel can't (before Linux 5.12)
)

// A Container says how to create one. The zero value of a field is Docker's own
// default.
type Container struct {
	Name              string
	Image             string
	Entrypoint        []string
	Command           []string
	Env               []string // NAME=value
	User              string   // uid:gid
	Groups            []string // supplementary gids
	WorkingDir        string
	Hostname          string
	Labels            map[string]string
	TTY               bool
	Interactive       bool // keep standard input open
	Detached          bool `json:",omitempty"` // nobody is attached from the start; standard input outlasts who attaches, all output is kept
	Init              bool
	AutoRemove        bool
	Network           string
	Ports             []Port `json:",omitempty"`
	IPC               string
	ShmSize           int64 // bytes
	Mounts            []Mount
	Privileged        bool
	CapAdd            []string
	CapDrop           []string
	SecurityOpt       []string
	DeviceCgroupRules []string
	Unmasked          bool   // all of /proc and /sys, writable as the kernel has it
	Restart           string // "", "unless-stopped", …
	Runtime           string // OCI runtime; the daemon's default if empty
	Devices           []DeviceRequest
	Tmpfs             map[string]string // mount point: options, such as "mode=0700,uid=1000"
	ConsoleSize       [2]uint           // rows and columns that a terminal starts with; ignored before API 1.42
}

// A Port of a container that is published on the host.
type Port struct {
	Address   string // of the host
	Host      uint16
	Container uint16
	Protocol  string // "tcp" or "udp"
}

// A DeviceRequest asks a device driver of the daemon for devices, GPUs for
// example. One of Count and IDs is set.
type DeviceRequest struct {
	Driver       string   // "" is the first that has the capabilities, "cdi" the Container Device Interface
	Count        int      // -1 is all
	IDs          []string // as the driver knows them
	Capabilities []string // all of which the driver must have, such as "gpu"
}

func (c Container) config() *container.Config {
	exposed, _ := c.ports()
	return &container.Config{
		Image:        c.Image,
		Entrypoint:   c.Entrypoint,
		Cmd:          c.Command,
		Env:          c.Env,
		User:         c.User,
		WorkingDir:   c.WorkingDir,
		Hostname:     c.Hostname,
		Labels:       c.Labels,
		Tty:          c.TTY,
		OpenStdin:    c.Interactive,
		StdinOnce:    c.Interactive && !c.Detached,
		AttachStdin:  c.Interactive && !c.Detached,
		AttachStdout: !c.Detached,
		AttachStderr: !c.TTY && !c.Detached,
		ExposedPorts: exposed,
	}
}

// wholeLog keeps everything that a container writes, whatever the daemon's own
// settings say: a log that is rotated loses its beginning, and other drivers can't
// be read back. (There is no word for no limit, so it is more than any disk has.)
var wholeLog = container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1024t"}}

// ports returns the ports to publish as the API has them.
func (c Container) ports() (nat.PortSet, nat.PortMap) {
	if len(c.Ports) == 0 {
		return nil, nil
	}
	exposed, published := nat.PortSet{}, nat.PortMap{}
	for _, p := range c.Ports {
		inside := nat.Port(fmt.Sprintf("%d/%s", p.Container, p.Protocol))
		exposed[inside] = struct{}{}
		published[inside] = append(published[inside], nat.PortBinding{HostIP: p.Address, HostPort: strconv.Itoa(int(p.Host))})
	}
	return exposed, published
}

func (c Container) hostConfig() *container.HostConfig {
	h := &container.HostConfig{
		AutoRemove:    c.AutoRemove,
		NetworkMode:   container.NetworkMode(c.Network),
		IpcMode:       container.IpcMode(c.IPC),
		ShmSize:       c.ShmSize,
		GroupAdd:      c.Groups,
		Privileged:    c.Privileged,
		CapAdd:        c.CapAdd,
		CapDrop:       c.CapDrop,
		SecurityOpt:   c.SecurityOpt,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(c.Restart)},
		Resources:     container.Resources{DeviceCgroupRules: c.DeviceCgroupRules},
		Runtime:       c.Runtime,
		Tmpfs:         c.Tmpfs,
		ConsoleSize:   c.ConsoleSize,
	}
	_, h.PortBindings = c.ports()
	if c.Detached {
		h.LogConfig = wholeLog
	}
	for _, d := range c.Devices {
		r := container.DeviceRequest{Driver: d.Driver, Count: d.Count, DeviceIDs: d.IDs}
		if len(d.Capabilities) > 0 {
			r.Capabilities = [][]string{d.Capabilities}
		}
		h.DeviceRequests = append(h.DeviceRequests, r)
	}
	if c.Init {
		h.Init = &c.Init
	}
	if c.Unmasked {
		// Empty, not nil: nil is Docker's own list.
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	}
	for _, m := range c.Mounts {
		// Mounts, not Binds: a missing source is refused, not created as root.
		to := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		switch m.Submounts {
		case SubmountsLeftOut:
			to.BindOptions = &mount.BindOptions{NonRecursive: true}
		case SubmountsReadOnly:
			to.BindOptions = &mount.BindOptions{ReadOnlyForceRecursive: true, Propagation: mount.PropagationRPrivate}
		}
		h.Mounts = append(h.Mounts, to)
	}
	return h
}

// Create makes a container and returns its ID. It doesn't start it.
func (c *Client) Create(ctx context.Context, spec Container) (string, error) {
	made, err := c.api.ContainerCreate(ctx, spec.config(), spec.hostConfig(), nil, nil, spec.Name)
	return made.ID, explain(err, "creating container %s from image %s", spec.Name, spec.Image)
}

// Start starts a container that was created.
func (c *Client) Start(ctx context.Context, id string) error {
	return explain(c.api.ContainerStart(ctx, id, container.StartOptions{}), "starting container %s", id)
}

// Unpause resumes a paused container.
func (c *Client) Unpause(ctx context.Context, id string) error {
	return explain(c.api.ContainerUnpause(ctx, id), "resuming container %s", id)
}

// Stop ends a container with its stop signal and, after grace seconds, kills
// it. Stop is a no-op if it isn't running.
func (c *Client) Stop(ctx context.Context, id string, grace int) error {
	return explain(c.api.ContainerStop(ctx, id, container.StopOptions{Timeout: &grace}), "stopping container %s", id)
}

// Remove kills a container if it runs and removes it with its anonymous
// volumes. Remove is a no-op if there is no such container.
func (c *Client) Remove(ctx context.Context, id string) error {
	err := c.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return explain(err, "removing container %s", id)
}

// A Status is what the daemon says of a container that exists.
type Status struct {
	ID       string
	Name     string // without the leading slash
	Image    string // ID of its image
	ImageTag string // what its image was called when it was made
	State    string // created, running, paused, restarting, removing, exited or dead
	ExitCode int
	Error    string // of the last start
	Labels   map[string]string
	Created  time.Time

	// Not in lists.
	TTY      bool
	Started  string    // when it last started
	Finished time.Time // when it last ended; zero if it runs
	Execs    []string  // IDs of the commands that Exec runs in it now
}

// Ended reports whether the container has run and doesn't any more.
func (s Status) Ended() bool { return s.State == "exited" || s.State == "dead" }

// Inspect returns the status of the container with that name or ID.
func (c *Client) Inspect(ctx context.Context, id string) (Status, error) {
	r, err := c.api.ContainerInspect(ctx, id)
	if err != nil {
		return Status{}, explain(err, "looking at container %s", id)
	}
	s := Status{
		ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Image: r.Image, ImageTag: r.Config.Image,
		State: string(r.State.Status), ExitCode: r.State.ExitCode, Error: r.State.Error, Labels: r.Config.Labels,
		TTY: r.Config.Tty, Started: r.State.StartedAt, Execs: r.ExecIDs,
	}
	// What the daemon has no time for is that of the year 1.
	s.Created, _ = time.Parse(time.RFC3339Nano, r.Created)
	s.Finished, _ = time.Parse(time.RFC3339Nano, r.State.FinishedAt)
	return s, nil
}

// Containers lists the containers, running or not, that carry every one of the
// labels ("key" or "key=value").
func (c *Client) Containers(ctx context.Context, labels ...string) ([]Status, error) {
	list, err := c.api.ContainerList(ctx, container.ListOptions{All: true, Filters: labelled(labels)})
	if err != nil {
		return nil, explain(err, "listing containers")
	}
	all := make([]Status, 0, len(list))
	for _, r := range list {
		s := Status{ID: r.ID, Image: r.ImageID, ImageTag: r.Image, State: string(r.State), Labels: r.Labels, Created: time.Unix(r.Created, 0)}
		if len(r.Names) > 0 {
			s.Name = strings.TrimPrefix(r.Names[0], "/")
		}
		all = append(all, s)
	}
	return all, nil
}

// Logs streams what a container wrote, both streams in one (as multiplexed
// frames where it has no terminal), and what it goes on to write if follow is set.
// tail is a number of lines or "all".
func (c *Client) Logs(ctx context.Context, id, tail string, follow bool) (io.ReadCloser, error) {
	r, err := c.api.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: tail, Follow: follow})
	return r, explain(err, "reading the logs of container %s", id)
}
