package golang

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/process"
	"github.com/berthdev/berth/internal/trouble"
)

// ErrUnavailable is in the chain of errors about a machine without Go.
var ErrUnavailable = errors.New("can't compile Go here")

// A Command is a call of the go command, without cgo and whatever the caller's
// environment says of flags and workspaces.
type Command struct {
	Dir       string // working folder
	Temp      string // for temporary files: go leaves them when it is killed
	OS, Arch  string // to build for
	Args      []string
	Env       []string          // added to the caller's
	Output    io.Writer         // standard output; may be nil
	Complaint func(line string) // each line of standard error; may be nil
}

// Run runs the command. An error has the last of what it said on standard error.
func (c Command) Run(ctx context.Context) error {
	if err := checkProxies(c.proxies(ctx)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(),
		"GOWORK=off", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0", "GOEXPERIMENT=",
		"GOOS="+c.OS, "GOARCH="+c.Arch, "GOTMPDIR="+c.Temp,
	)
	cmd.Env = append(cmd.Env, c.Env...)
	// Killed with SIGINT, go waits for its children.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	said := process.Tail{Show: c.Complaint}
	cmd.Stdout, cmd.Stderr = c.Output, &said
	err := process.RunTied(cmd, syscall.SIGINT)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return advice.About(fmt.Errorf("%w: the go command isn't on the PATH", ErrUnavailable), trouble.NoGo)
	}
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", c.Args[0], err, said.String())
	}
	return nil
}

// proxies is the GOPROXY that go goes by: the variable, or what go env -w wrote.
func (c Command) proxies(ctx context.Context) string {
	if list := os.Getenv("GOPROXY"); list != "" {
		return list
	}
	// Outside of any module and of workspaces it needs no proxy itself. Where it fails, so
	// does what comes after it.
	cmd := exec.CommandContext(ctx, "go", "env", "GOPROXY")
	cmd.Dir, cmd.Env = c.Temp, append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOTOOLCHAIN=local")
	out, _ := cmd.Output()
	return string(out)
}

// checkProxies refuses a GOPROXY with an address that isn't a URL. go leaves the
// password out of an address where it complains about it, but only if it finds it.
func checkProxies(list string) error {
	for _, address := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '|' }) {
		address = strings.TrimSpace(address)
		if !strings.Contains(address, ":/") {
			address = "https://" + address // as go does
		}
		if _, err := url.Parse(address); err != nil {
			return errors.New("GOPROXY has an address that isn't a URL. Look at it with\n\tgo env GOPROXY\n" +
				"In a user or a password, write %40 for @, %3A for :, %2F for /, %20 for a space")
		}
	}
	return nil
}
