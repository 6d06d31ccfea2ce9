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

// Demultiplex copies both streams out of the frames that Logs reads from a
// container without a terminal.
func Demultiplex(w io.Writer, frames io.Reader) error {
	_, err := stdcopy.StdCopy(w, w, frames)
	return err
}
