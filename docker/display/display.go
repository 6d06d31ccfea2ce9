// Package display gives one container the use of the person's screen, and as
// little else as possible: X11 by a cookie made for this launch and one socket,
// Wayland by one socket. It never changes who may use the screen (no xhost),
// and takes back what it gave. It knows sockets and cookies, not Docker.
package display

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
	"github.com/berthdev/berth/internal/usage"
)

// ErrNone is in the chain of errors about a display that can't be used.
var ErrNone = errors.New("no display")

// A Kind is a way to draw.
type Kind string

// The kinds of display.
const (
	Off     Kind = "off"
	X11     Kind = "x11"
	Wayland Kind = "wayland"
)

// A Found is what there is on the host.
type Found struct {
	X11        Display
	X11Err     string // why X11 can't be used
	X11Refused bool   // it answers, but doesn't admit the person, or their cookies can't be read
	Wayland    Display
	WaylandErr string // why Wayland can't be used
}

// A Display is one that can be used, or Off.
type Display struct {
	Kind    Kind
	Network string // "unix" or "tcp"
	Address string // path of the socket, or host:port
	Number  string // of an X display: "0"
	Screen  string // of an X display, with its dot, or ""
	Own     bool   // the X server makes a cookie for this launch, else the person's is copied
	cookie  []byte // the person's
}

// Cookie returns the person's own cookie, with which the X server is asked for others.
// It is a secret, and in no copy of the display that went through JSON.
func (d Display) Cookie() []byte { return d.cookie }

// WithCookie returns the display with the person's own cookie.
func (d Display) WithCookie(cookie []byte) Display {
	d.cookie = cookie
	return d
}

// SocketX is where X's socket appears in a container.
func (d Display) SocketX() string { return "/tmp/.X11-unix/X" + d.Number }

// String describes the display to the person.
func (d Display) String() string {
	switch {
	case d.Kind == X11 && d.Network == "tcp":
		return "X11 at " + d.Address + ", by a relay and a copy of your cookie"
	case d.Kind == X11 && d.Own:
		return "X11 at " + d.Address + ", by a cookie of its own, revoked at the end"
	case d.Kind == X11 && d.cookie != nil:
		return "X11 at " + d.Address + ", by a copy of your cookie"
	case d.Kind == X11:
		return "X11 at " + d.Address + ", by your uid"
	case d.Kind == Wayland:
		return "Wayland at " + d.Address
	}
	return "off"
}

// Probe looks for the displays that the environment names, and tries them.
func Probe(ctx context.Context, env map[string]string, hostname string) Found {
	var f Found
	var wait sync.WaitGroup
	wait.Go(func() {
		var err error
		if f.X11, err = probeX(ctx, env, hostname); err != nil {
			f.X11Err, f.X11Refused = err.Error(), errors.Is(err, errRefused) || errors.Is(err, errXauthority)
		}
	})
	wait.Go(func() {
		var err error
		if f.Wayland, err = probeWayland(ctx, env); err != nil {
			f.WaylandErr = err.Error()
		}
	})
	wait.Wait()
	return f
}

// displayName is HOST:NUMBER.SCREEN; without a host the server is on this
// machine (X(7)).
var displayName = regexp.MustCompile(`^(?:([A-Za-z0-9._-]*)|\[([0-9a-fA-F:.]+)\]):(\d{1,4})(\.\d{1,2})?$`)

func probeX(ctx context.Context, env map[string]string, hostname string) (Display, error) {
	name := env["DISPLAY"]
	if name == "" {
		return Display{}, errUnset
	}
	m := displayName.FindStringSubmatch(name)
	if m == nil {
		return Display{}, fmt.Errorf("DISPLAY=%s isn't HOST:NUMBER", name)
	}
	d := Display{Kind: X11, Network: "unix", Address: "/tmp/.X11-unix/X" + m[3], Number: m[3], Screen: m[4]}
	if host := m[1] + m[2]; host != "" && host != "unix" {
		var number int
		fmt.Sscan(m[3], &number)
		d.Network, d.Address = "tcp", net.JoinHostPort(host, fmt.Sprint(6000+number))
	}
	path := env["XAUTHORITY"]
	if path == "" {
		path = filepath.Join(env["HOME"], ".Xauthority")
	}
	// Without the file, the server may still know the person by uid.
	if file, err := os.ReadFile(path); err == nil {
		entries, err := parseXauthority(file)
		if err != nil && len(entries) == 0 {
			return Display{}, fmt.Errorf("%s: %w", path, err)
		}
		d.cookie = cookieFor(entries, hostname, d.Number)
	}
	c, err := dialX(ctx, d.Network, d.Address, d.cookie, nil)
	if err != nil {
		return Display{}, fmt.Errorf("DISPLAY=%s: %w", name, err)
	}
	defer c.Close()
	// ssh lets in the one cookie that it made, no other.
	d.Own = d.Network == "unix" && c.security != 0
	return d, nil
}

func probeWayland(ctx context.Context, env map[string]string) (Display, error) {
	name := env["WAYLAND_DISPLAY"]
	if name == "" {
		return Display{}, errors.New("WAYLAND_DISPLAY isn't set")
	}
	if !filepath.IsAbs(name) {
		if env["XDG_RUNTIME_DIR"] == "" {
			return Display{}, fmt.Errorf("WAYLAND_DISPLAY=%s: XDG_RUNTIME_DIR isn't set", name)
		}
		name = filepath.Join(env["XDG_RUNTIME_DIR"], name)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", name)
	if err != nil {
		return Display{}, fmt.Errorf("WAYLAND_DISPLAY: %w", err)
	}
	return Display{Kind: Wayland, Network: "unix", Address: name}, conn.Close()
}

// errUnset is the error of an environment that names no X server.
var errUnset = errors.New("DISPLAY isn't set")

// x11Row is why X11 can't be used.
func (f Found) x11Row() *trouble.Row {
	switch {
	case f.X11Err == errUnset.Error():
		return trouble.NoDisplay
	case f.X11Refused:
		return trouble.X11Refused
	}
	return trouble.NoX11
}

// Choose decides which display a container gets. With "auto" (or "") it is X11,
// which every program speaks, else Wayland, else none; note says why none,
// where there seemed to be one. A kind that is asked for and isn't there is an
// error.
func Choose(kind string, f Found) (d Display, note string, err error) {
	switch kind {
	case "off":
		return Display{Kind: Off}, "", nil
	case "x11":
		if f.X11Err != "" {
			return Display{}, "", advice.About(fmt.Errorf("-gui=x11: %w: %s", ErrNone, f.X11Err), f.x11Row())
		}
		return f.X11, "", nil
	case "wayland":
		if f.WaylandErr != "" {
			return Display{}, "", advice.About(fmt.Errorf("-gui=wayland: %w: %s", ErrNone, f.WaylandErr), trouble.WaylandSilent)
		}
		return f.Wayland, "", nil
	case "", "auto":
		switch {
		case f.X11Err == "":
			return f.X11, "", nil
		case f.WaylandErr == "":
			return f.Wayland, "", nil
		case f.X11Err != errUnset.Error():
			note = "No windows: " + f.X11Err
		}
		return Display{Kind: Off}, note, nil
	}
	return Display{}, "", fmt.Errorf("-gui: %w: %q is none of auto, x11, wayland, off", usage.Err, kind)
}

// A Grant is a display that was given to one container.
type Grant struct {
	Socket     string // on the host, to be mounted
	Xauthority []byte // content of the container's XAUTHORITY file; nil for Wayland
	undo       []func() error
}

// Open gives the display to a container. What it needs lies in folder, which
// nobody else can enter. Close takes it back.
func (d Display) Open(ctx context.Context, folder string) (*Grant, error) {
	g := &Grant{Socket: d.Address}
	if d.Kind != X11 {
		return g, nil
	}
	cookie := d.cookie
	if d.Own {
		var id uint32
		c, err := dialX(ctx, d.Network, d.Address, d.cookie, func(c *xclient) (err error) {
			id, cookie, err = c.generate()
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("asking the X server for a cookie: %w", err)
		}
		g.undo = append(g.undo, func() error {
			// With the person's cookie: whoever came with the other is disconnected.
			c, err := dialX(context.WithoutCancel(ctx), d.Network, d.Address, d.cookie, nil)
			if err != nil {
				return err
			}
			defer c.Close()
			return c.revoke(id)
		}, c.keepOpen())
	}
	// Without any cookie, the server knows the person, and so the container, by uid.
	if g.Xauthority = []byte{}; cookie != nil {
		g.Xauthority = wildcard(d.Number, cookie)
	}
	if d.Network == "tcp" {
		g.Socket = filepath.Join(folder, "X"+d.Number)
		stop, err := relay(g.Socket, d.Address)
		if err != nil {
			return nil, err
		}
		g.undo = append(g.undo, stop)
	}
	return g, nil
}

// Close takes the display back: the container's cookie is worthless from now on,
// unless it is the person's own.
func (g *Grant) Close() error {
	var errs []error
	for _, undo := range g.undo {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// relay passes connections to a socket on to a TCP address of the host, which a
// container with a network of its own can't reach. It returns the function that
// ends it.
func relay(socket, address string) (stop func() error, err error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("making a socket for the display: %w. If its path is too long, name a shorter folder in BERTH_CACHE", err)
	}
	go func() {
		for {
			inside, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer inside.Close()
				outside, err := net.Dial("tcp", address)
				if err != nil {
					return
				}
				defer outside.Close()
				go func() {
					io.Copy(outside, inside)
					outside.(*net.TCPConn).CloseWrite()
				}()
				io.Copy(inside, outside)
			}()
		}
	}()
	return l.Close, nil
}
