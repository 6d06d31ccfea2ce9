// Package daemon speaks to the Docker Engine API. It is the one package that
// imports Docker's client and types (frozen upstream at v28.5.2), so that
// another client replaces it here and nowhere else: what goes in and out are
// the plain values below. It decides nothing: no policy, no output. Of files it
// reads Docker's own configuration alone, and writes none.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
)

// The labels on everything that Berth makes in Docker.
const (
	LabelRole   = "dev.berth.role"   // what it is for: engine, run, smoke, …
	LabelOwner  = "dev.berth.owner"  // uid of the person it belongs to
	LabelLaunch = "dev.berth.launch" // id of one launch
	LabelClaim  = "dev.berth.claim"  // name of the record of the process that made it
	LabelInputs = "dev.berth.inputs" // on images: hash of all that they were made from
)

// ErrUnavailable is in the chain of every error that says that Docker can't be
// used from here: not running, not permitted, or not understood.
var ErrUnavailable = errors.New("can't use Docker")

// ErrNotFound is in the chain of errors about an image, container or volume
// that the daemon doesn't have.
var ErrNotFound = errors.New("not in Docker")

// ErrConflict is in the chain of errors about a name that is taken, or a thing
// that is in use.
var ErrConflict = errors.New("conflict in Docker")

// A Client is a connection to one Docker Engine.
type Client struct {
	api *client.Client

	idLock sync.Mutex
	id     string // of the daemon; "" until it is asked for
}

// Connect reaches the daemon that the docker command would (DOCKER_HOST and its
// relatives, or the context that is in use) and agrees on an API version with it.
// Its errors are instructions and wrap ErrUnavailable.
func Connect(ctx context.Context) (*Client, error) { return connect(ctx, answering) }

// answering is how long a daemon may take for its first answer. A healthy one
// takes milliseconds.
const answering = 10 * time.Second

func connect(ctx context.Context, patience time.Duration) (*Client, error) {
	chosen, err := contextOptions()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	api, err := client.NewClientWithOpts(append([]client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}, chosen...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: its settings in the environment (DOCKER_HOST, DOCKER_TLS_VERIFY, …) make no sense: %w", ErrUnavailable, err)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ping, err := api.Ping(limited)
	if err != nil {
		api.Close()
		if ctx.Err() == nil && limited.Err() != nil {
			return nil, fmt.Errorf("%w: the daemon at %s takes connections, but gave no answer within %s. Look at it, and restart it, with\n\tsystemctl status docker\n\tsudo systemctl restart docker\nor point DOCKER_HOST at another one: %w",
				ErrUnavailable, api.DaemonHost(), patience, err)
		}
		return nil, explainUnavailable(api.DaemonHost(), err)
	}
	// Now, not with the first request: two at once would race for it.
	api.NegotiateAPIVersionPing(ping)
	// Negotiation lets DOCKER_API_VERSION win.
	if versions.GreaterThan(api.ClientVersion(), ping.APIVersion) {
		api.Close()
		return nil, explainUnavailable(api.DaemonHost(), fmt.Errorf("client version %s is too new. Maximum supported API version is %s", api.ClientVersion(), ping.APIVersion))
	}
	return &Client{api: api}, nil
}

// explainUnavailable turns the first failed call to a daemon into an
// instruction.
func explainUnavailable(host string, err error) error {
	switch text := err.Error(); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, os.ErrPermission), strings.Contains(text, "permission denied"):
		return fmt.Errorf("%w: no permission on %s. Join its group with\n\tsudo usermod -aG docker \"$USER\"\nthen log in again (or type: newgrp docker): %w", ErrUnavailable, host, err)
	case strings.Contains(text, "is too new"), strings.Contains(text, "is too old"):
		return fmt.Errorf("%w: the API version that DOCKER_API_VERSION asks for isn't the daemon's. Type\n\tunset DOCKER_API_VERSION\nand Berth agrees on one with the daemon: %w", ErrUnavailable, err)
	default:
		return fmt.Errorf("%w: no daemon answers at %s. Start it with\n\tsudo systemctl start docker\nor point DOCKER_HOST at one that runs: %w", ErrUnavailable, host, err)
	}
}

// Close ends the connection.
func (c *Client) Close() error { return c.api.Close() }

// APIVersion is the version that both sides agreed on, such as "1.41".
func (c *Client) APIVersion() string { return c.api.ClientVersion() }

// Host is the daemon's address, such as "unix:///var/run/docker.sock".
func (c *Client) Host() string { return c.api.DaemonHost() }

// explain wraps a client error with what was tried, and with the sentinel that
// callers branch on.
func explain(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	tried := fmt.Sprintf(format, args...)
	switch {
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("%s: %w: %w", tried, ErrUnavailable, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", tried, ErrNotFound, err)
	case errdefs.IsConflict(err):
		return fmt.Errorf("%s: %w: %w", tried, ErrConflict, err)
	default:
		return fmt.Errorf("%s: %w", tried, err)
	}
}

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
	Init              bool
	AutoRemove        bool
	Network           string
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

// A DeviceRequest asks a device driver of the daemon for devices, GPUs for
// example. One of Count and IDs is set.
type DeviceRequest struct {
	Driver       string   // "" is the first that has the capabilities, "cdi" the Container Device Interface
	Count        int      // -1 is all
	IDs          []string // as the driver knows them
	Capabilities []string // all of which the driver must have, such as "gpu"
}

func (c Container) config() *container.Config {
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
		StdinOnce:    c.Interactive,
		AttachStdin:  c.Interactive,
		AttachStdout: true,
		AttachStderr: !c.TTY,
	}
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

// Unpause lets a container go on that was paused.
func (c *Client) Unpause(ctx context.Context, id string) error {
	return explain(c.api.ContainerUnpause(ctx, id), "resuming container %s", id)
}

// Stop ends a container with its stop signal and, after grace seconds, kills
// it. To stop one that doesn't run is no error.
func (c *Client) Stop(ctx context.Context, id string, grace int) error {
	return explain(c.api.ContainerStop(ctx, id, container.StopOptions{Timeout: &grace}), "stopping container %s", id)
}

// Remove kills a container if it runs and removes it with its anonymous
// volumes. A container that is gone already is no error.
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
	State    string // created, running, paused, restarting, removing, exited or dead
	ExitCode int
	Error    string // of the last start
	Labels   map[string]string
	Started  string   // when it last started; not in lists
	Execs    []string // IDs of the commands that Exec runs in it now; not in lists
}

// Inspect returns the status of the container with that name or ID.
func (c *Client) Inspect(ctx context.Context, id string) (Status, error) {
	r, err := c.api.ContainerInspect(ctx, id)
	if err != nil {
		return Status{}, explain(err, "looking at container %s", id)
	}
	return Status{
		ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Image: r.Image,
		State: string(r.State.Status), ExitCode: r.State.ExitCode, Error: r.State.Error, Labels: r.Config.Labels,
		Started: r.State.StartedAt, Execs: r.ExecIDs,
	}, nil
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
		s := Status{ID: r.ID, Image: r.ImageID, State: string(r.State), Labels: r.Labels}
		if len(r.Names) > 0 {
			s.Name = strings.TrimPrefix(r.Names[0], "/")
		}
		all = append(all, s)
	}
	return all, nil
}

func labelled(labels []string) filters.Args {
	f := filters.NewArgs()
	for _, l := range labels {
		f.Add("label", l)
	}
	return f
}

// Logs streams what a container wrote, both streams in one (as multiplexed
// frames where it has no terminal), and what it goes on to write if follow is set.
// tail is a number of lines or "all".
func (c *Client) Logs(ctx context.Context, id, tail string, follow bool) (io.ReadCloser, error) {
	r, err := c.api.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: tail, Follow: follow})
	return r, explain(err, "reading the logs of container %s", id)
}

// An Image is what the daemon says of an image that it has.
type Image struct {
	ID      string            // "sha256:…", in Docker's classic store the digest of its configuration
	Tags    []string          // name:tag
	Digests []string          // name@digest, by which it is known as well
	Labels  map[string]string // of its configuration
	Layers  []string          // diff IDs, lowest first
	Size    int64             // bytes

	Entrypoint, Command []string // what a container of it runs
	Config              ImageConfig
}

// An ImageConfig is the rest of an image's configuration, as far as the daemon
// tells it.
type ImageConfig struct {
	Created             time.Time
	OS, Architecture    string
	User, WorkingDir    string
	StopSignal          string
	Env, Shell, OnBuild []string
	Volumes, Ports      []string // sorted
	Healthcheck         []string // its test
}

// Image returns the image that a reference or ID names.
func (c *Client) Image(ctx context.Context, ref string) (Image, error) {
	r, err := c.api.ImageInspect(ctx, ref)
	if err != nil {
		return Image{}, explain(err, "looking for image %s", ref)
	}
	i := Image{ID: r.ID, Tags: r.RepoTags, Digests: r.RepoDigests, Layers: r.RootFS.Layers, Size: r.Size}
	i.Config.OS, i.Config.Architecture = r.Os, r.Architecture
	i.Config.Created, _ = time.Parse(time.RFC3339Nano, r.Created) // none is the zero time
	if c := r.Config; c != nil {
		i.Labels, i.Entrypoint, i.Command = c.Labels, c.Entrypoint, c.Cmd
		i.Config.User, i.Config.WorkingDir, i.Config.StopSignal = c.User, c.WorkingDir, c.StopSignal
		i.Config.Env, i.Config.Shell, i.Config.OnBuild = c.Env, c.Shell, c.OnBuild
		i.Config.Volumes = slices.Sorted(maps.Keys(c.Volumes))
		for port := range c.ExposedPorts {
			i.Config.Ports = append(i.Config.Ports, string(port))
		}
		slices.Sort(i.Config.Ports)
		if c.Healthcheck != nil {
			i.Config.Healthcheck = c.Healthcheck.Test
		}
	}
	return i, nil
}

// Images lists the IDs of the images that carry every one of the labels.
func (c *Client) Images(ctx context.Context, labels ...string) ([]string, error) {
	list, err := c.api.ImageList(ctx, image.ListOptions{Filters: labelled(labels)})
	if err != nil {
		return nil, explain(err, "listing images")
	}
	ids := make([]string, 0, len(list))
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// Load gives the daemon an image archive, as docker load does. It returns when
// the daemon has taken it in, or the daemon's own error.
func (c *Client) Load(ctx context.Context, archive io.Reader) error {
	r, err := c.api.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return explain(err, "loading an image")
	}
	defer r.Body.Close()
	return explain(drain(r.Body, nil), "loading an image")
}

// Pull fetches an image from its registry, anonymously. Each line of progress
// is passed to show, which may be nil.
func (c *Client) Pull(ctx context.Context, ref string, show func(line string)) error {
	r, err := c.api.ImagePull(ctx, ref, image.PullOptions{})
	if err != nil {
		return explain(err, "pulling %s", ref)
	}
	defer r.Close()
	return explain(drain(r, show), "pulling %s", ref)
}

// drain reads the daemon's stream of JSON messages to its end and returns the
// error that one of them may carry: the HTTP status was sent before.
func drain(r io.Reader, show func(string)) error {
	d := json.NewDecoder(r)
	for {
		var m struct{ ID, Status, Progress, Error string }
		if err := d.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		if show != nil && m.Status != "" {
			show(strings.Join(strings.Fields(m.ID+" "+m.Status+" "+m.Progress), " "))
		}
	}
}

// Tag gives an image one more name.
func (c *Client) Tag(ctx context.Context, source, target string) error {
	return explain(c.api.ImageTag(ctx, source, target), "tagging image %s as %s", source, target)
}

// RemoveImage removes a tag and, with its last tag, the image; an ID removes an
// image that has no tag. It never forces: an image in use is ErrConflict.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	// Not the untagged images that it was made from: those may be somebody's.
	_, err := c.api.ImageRemove(ctx, ref, image.RemoveOptions{})
	return explain(err, "removing image %s", ref)
}

// CreateVolume makes a named volume; one that exists stays as it is.
func (c *Client) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	_, err := c.api.VolumeCreate(ctx, volume.CreateOptions{Name: name, Labels: labels})
	return explain(err, "creating volume %s", name)
}

// RemoveVolume removes a volume. One that is gone already is no error.
func (c *Client) RemoveVolume(ctx context.Context, name string) error {
	err := c.api.VolumeRemove(ctx, name, false)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return explain(err, "removing volume %s", name)
}

// Volumes lists the names of the volumes that carry every one of the labels.
func (c *Client) Volumes(ctx context.Context, labels ...string) ([]string, error) {
	list, err := c.api.VolumeList(ctx, volume.ListOptions{Filters: labelled(labels)})
	if err != nil {
		return nil, explain(err, "listing volumes")
	}
	names := make([]string, 0, len(list.Volumes))
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return names, nil
}
