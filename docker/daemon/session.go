package daemon

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// An Info is what the daemon says of itself, as far as launching a container
// depends on it.
type Info struct {
	Version  string   // of the engine, such as "28.3.0"
	System   string   // operating system it runs on, such as "Debian GNU/Linux 12 (bookworm)"
	RootDir  string   // where it keeps its data
	Runtimes []string // OCI runtimes, sorted
	Security []string // such as "name=rootless"
	CDIDirs  []string // where it looks for CDI specifications; none before Docker 25
	CDI      []string // CDI devices that it found, such as "nvidia.com/gpu=0"; told from Docker 28.3 on

	CgroupDriver    string // who sets up control groups: "systemd" or "cgroupfs"
	ContainerdStore bool   // images lie in containerd's store, which names them by their manifest
}

// Podman reports whether the daemon is Podman, which keeps its data where no Docker does.
func (i Info) Podman() bool { return strings.Contains(i.RootDir, "containers/storage") }

// Rootless reports whether the daemon runs as a user.
func (i Info) Rootless() bool { return slices.Contains(i.Security, "name=rootless") }

// Snap reports whether the daemon is the snap.
func (i Info) Snap() bool { return strings.HasPrefix(i.RootDir, "/var/snap/") }

// Desktop reports whether the daemon is Docker Desktop's, in its virtual machine.
func (i Info) Desktop() bool { return strings.HasPrefix(i.System, "Docker Desktop") }

// Info asks the daemon about itself.
func (c *Client) Info(ctx context.Context) (Info, error) {
	r, err := c.api.Info(ctx)
	if err != nil {
		return Info{}, explain(err, "asking the daemon about itself")
	}
	i := Info{
		Version: r.ServerVersion, System: r.OperatingSystem, RootDir: r.DockerRootDir,
		Runtimes: slices.Sorted(maps.Keys(r.Runtimes)), Security: r.SecurityOptions, CDIDirs: r.CDISpecDirs, CgroupDriver: r.CgroupDriver,
	}
	i.ContainerdStore = slices.ContainsFunc(r.DriverStatus, func(s [2]string) bool {
		return strings.HasPrefix(s[1], "io.containerd.snapshotter")
	})
	for _, d := range r.DiscoveredDevices {
		if d.Source == "cdi" {
			i.CDI = append(i.CDI, d.ID)
		}
	}
	return i, nil
}

// Wait starts to wait until a container has ended and the daemon has removed
// it (see Container.AutoRemove). It returns when the daemon waits, so that a
// container that is started after that can't end unseen. The function that it
// returns blocks until then and returns the container's exit code.
func (c *Client) Wait(ctx context.Context, id string) (func() (int, error), error) {
	return c.wait(ctx, id, container.WaitConditionRemoved)
}

// WaitStopped is Wait for a container that the daemon doesn't remove when it ends,
// and returns at once if it doesn't run.
func (c *Client) WaitStopped(ctx context.Context, id string) (func() (int, error), error) {
	return c.wait(ctx, id, container.WaitConditionNotRunning)
}

func (c *Client) wait(ctx context.Context, id string, until container.WaitCondition) (func() (int, error), error) {
	ended, failed := c.api.ContainerWait(ctx, id, until)
	select {
	case err := <-failed: // at once if the daemon refused
		return nil, explain(err, "waiting for container %s", id)
	default:
	}
	return func() (int, error) {
		select {
		case r := <-ended:
			if r.Error != nil {
				return 0, fmt.Errorf("waiting for container %s: %s", id, r.Error.Message)
			}
			return int(r.StatusCode), nil
		case err := <-failed:
			return 0, explain(err, "waiting for container %s", id)
		}
	}, nil
}

// noDetach is a sequence of detach keys that nobody types: the byte 0xff is in
// no UTF-8 text. (No sequence at all would mean Docker's own, Ctrl-P Ctrl-Q,
// which holds back each Ctrl-P.)
const noDetach = "\xff,\xff,\xff,\xff"

// A Session is a connection to a container's standard streams. Writes go to
// its standard input.
type Session struct {
	net.Conn
	output     io.Reader
	closeWrite func() error
}

// Attach connects to the streams of a container, which should not have been
// started yet: output before the connection is lost.
func (c *Client) Attach(ctx context.Context, id string) (*Session, error) {
	r, err := c.api.ContainerAttach(ctx, id,
		container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true, DetachKeys: noDetach})
	if err != nil {
		return nil, explain(err, "connecting to container %s", id)
	}
	return &Session{Conn: r.Conn, output: r.Reader, closeWrite: r.CloseWrite}, nil
}

// CloseWrite ends the container's standard input.
func (s *Session) CloseWrite() error { return s.closeWrite() }

// CopyTerminal copies the output of a container that has a terminal to out
// until it ends.
func (s *Session) CopyTerminal(out io.Writer) error {
	_, err := io.Copy(out, s.output)
	return err
}

// CopyStreams copies the two output streams of a container that has no terminal
// until they end.
func (s *Session) CopyStreams(out, err io.Writer) error {
	_, e := stdcopy.StdCopy(out, err, s.output)
	return e
}

// Discard reads the output to its end and drops it.
func (s *Session) Discard() { io.Copy(io.Discard, s.output) }

// Resize sets the size of a running container's terminal.
func (c *Client) Resize(ctx context.Context, id string, rows, columns uint) error {
	return explain(c.api.ContainerResize(ctx, id, container.ResizeOptions{Height: rows, Width: columns}),
		"resizing the terminal of container %s", id)
}

// Kill sends a signal ("INT", "TERM", …) to a container's first process.
func (c *Client) Kill(ctx context.Context, id, signal string) error {
	return explain(c.api.ContainerKill(ctx, id, signal), "sending %s to container %s", signal, id)
}

// ReadFile returns a file of at most limit bytes from the file system of a
// container, which needn't run. Symbolic links are followed, within the container.
// A missing file is ErrNotFound.
func (c *Client) ReadFile(ctx context.Context, id, path string, limit int64) ([]byte, error) {
	r, stat, err := c.api.CopyFromContainer(ctx, id, path)
	if err == nil && stat.LinkTarget != "" { // the end of all links
		r.Close()
		r, _, err = c.api.CopyFromContainer(ctx, id, stat.LinkTarget)
	}
	if err != nil {
		return nil, explain(err, "reading %s in container %s", path, id)
	}
	defer r.Close()
	files := tar.NewReader(r)
	h, err := files.Next()
	if err == nil && (h.Typeflag != tar.TypeReg || h.Size > limit) {
		err = errors.New("not a file of a sensible size")
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(files)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s in container %s: %w", path, id, err)
	}
	return data, nil
}
