package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// A Process is a command that runs in a container in addition to its own: reads
// come from its standard output, writes go to its standard input.
type Process struct {
	conn   types.HijackedResponse
	output *io.PipeReader
}

// Exec starts a command in a running container. Close only drops the
// connection: it doesn't end the command.
func (c *Client) Exec(ctx context.Context, id string, command ...string) (*Process, error) {
	made, err := c.api.ContainerExecCreate(ctx, id, container.ExecOptions{
		Cmd: command, AttachStdin: true, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return nil, explain(err, "running %q in container %s", command, id)
	}
	conn, err := c.api.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return nil, explain(err, "running %q in container %s", command, id)
	}
	output, w := io.Pipe()
	go func() {
		var stderr bytes.Buffer
		_, err := stdcopy.StdCopy(w, &stderr, conn.Reader)
		if err == nil && stderr.Len() > 0 {
			err = fmt.Errorf("%q in container %s: %s", command, id, bytes.TrimSpace(stderr.Bytes()))
		}
		w.CloseWithError(err)
	}()
	return &Process{conn: conn, output: output}, nil
}

// Read reads the command's standard output. What the command wrote to standard
// error is the error at its end.
func (p *Process) Read(b []byte) (int, error) { return p.output.Read(b) }

// Write writes to the command's standard input.
func (p *Process) Write(b []byte) (int, error) { return p.conn.Conn.Write(b) }

// CloseWrite ends the command's standard input.
func (p *Process) CloseWrite() error { return p.conn.CloseWrite() }

// Close drops the connection to the command: its standard input ends, its
// output goes nowhere.
func (p *Process) Close() error {
	return errors.Join(p.conn.Conn.Close(), p.output.Close())
}

// A Shell is a command that a person runs in a running container, with the
// container's user, environment and working folder.
type Shell struct {
	Command     []string
	Env         []string // NAME=value, in addition
	TTY         bool
	ConsoleSize [2]uint // rows and columns that a terminal starts with; ignored before API 1.42
}

// StartShell runs a command in a container, connected to its streams. The ID that it
// returns is the command's.
func (c *Client) StartShell(ctx context.Context, container string, s Shell) (id string, session *Session, err error) {
	made, err := c.api.ContainerExecCreate(ctx, container, s.options())
	if err != nil {
		return "", nil, explain(err, "running %q in container %s", s.Command, container)
	}
	r, err := c.api.ContainerExecAttach(ctx, made.ID, s.start())
	if err != nil {
		return "", nil, explain(err, "running %q in container %s", s.Command, container)
	}
	return made.ID, &Session{Conn: r.Conn, output: r.Reader, closeWrite: r.CloseWrite}, nil
}

func (s Shell) options() container.ExecOptions {
	return container.ExecOptions{Cmd: s.Command, Env: s.Env, Tty: s.TTY, AttachStdin: true, AttachStdout: true, AttachStderr: true,
		DetachKeys: noDetachShell, ConsoleSize: s.size()}
}

// noDetachShell is noDetach for commands in a container. Theirs go through JSON, so
// they must be ASCII: the first is the key that is typed least.
const noDetachShell = "ctrl-^,ctrl-@,ctrl-^,ctrl-@"

func (s Shell) start() container.ExecStartOptions {
	return container.ExecStartOptions{Tty: s.TTY, ConsoleSize: s.size()}
}

// size is nil where no size is known; the daemon refuses one without a terminal.
func (s Shell) size() *[2]uint {
	if !s.TTY || s.ConsoleSize[0] == 0 {
		return nil
	}
	return &s.ConsoleSize
}

// ResizeShell sets the size of the terminal of a command in a container.
func (c *Client) ResizeShell(ctx context.Context, id string, rows, columns uint) error {
	return explain(c.api.ContainerExecResize(ctx, id, container.ResizeOptions{Height: rows, Width: columns}),
		"resizing the terminal of a command")
}

// ShellStatus reports whether a command in a container runs and, if not, its exit code.
func (c *Client) ShellStatus(ctx context.Context, id string) (running bool, code int, err error) {
	r, err := c.api.ContainerExecInspect(ctx, id)
	return r.Running, r.ExitCode, explain(err, "looking at a command in a container")
}

// Demultiplex copies the streams out of the frames that Logs reads from a
// container without a terminal.
func Demultiplex(out, err io.Writer, frames io.Reader) error {
	_, e := stdcopy.StdCopy(out, err, frames)
	return e
}
