package launch

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/dockertest"
)

// A server draws for the tests, in a container with the host's network: its
// sockets appear on the host as those of a desktop do.
type server struct {
	number string // of the X display
	folder string // shared with the container: cookies, screens
	id     string // of the container
}

// serve starts a program of the desktop image and waits for its socket.
func serve(t *testing.T, image, socket, folder string, command ...string) (id string) {
	d := dockertest.Connect(t)
	sockets := filepath.Dir(socket)
	id, err := d.Create(t.Context(), daemon.Container{
		Name: dockertest.Name(t), Image: image, Command: command, Network: "host", Init: true,
		Labels: map[string]string{daemon.LabelRole: "test", daemon.LabelOwner: owned.Owner()},
		Env:    []string{"XDG_RUNTIME_DIR=" + sockets},
		Mounts: []daemon.Mount{{Type: "bind", Source: sockets, Target: sockets}, {Type: "bind", Source: folder, Target: "/test"}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		d.Remove(context.Background(), id)
		os.Remove(socket)
	})
	require.NoError(t, d.Start(t.Context(), id))
	if !assert.Eventually(t, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 20*time.Second, 50*time.Millisecond) {
		require.Fail(t, "the server didn't start", "%s", logs(t, d, id))
	}
	return id
}

// logs is what a container wrote.
func logs(t *testing.T, d *daemon.Client, id string) string {
	frames, err := d.Logs(t.Context(), id, "all", false)
	require.NoError(t, err)
	defer frames.Close()
	var buf bytes.Buffer
	require.NoError(t, daemon.Demultiplex(&buf, &buf, frames))
	return buf.String()
}

// xvfb starts an X server that only who has its cookie may use, and gives the
// cookie to the person.
func xvfb(t *testing.T, p *person, flags ...string) *server {
	s := &server{folder: t.TempDir(), number: strconv.Itoa(200 + rand.N(700))}
	require.NoError(t, os.Chmod(filepath.Dir(s.folder), 0o755))
	require.NoError(t, os.Chmod(s.folder, 0o755))
	require.NoError(t, os.MkdirAll("/tmp/.X11-unix", 0o777))
	cookie := make([]byte, 16)
	for i := range cookie {
		cookie[i] = byte(rand.N(256))
	}
	host := hostname(t)
	var file []byte // family, address, number, name, data, each after its length
	file = append(file, 1, 0)
	for _, part := range []string{host, s.number, "MIT-MAGIC-COOKIE-1", string(cookie)} {
		file = append(binary.BigEndian.AppendUint16(file, uint16(len(part))), part...)
	}
	authority := filepath.Join(s.folder, "authority")
	require.NoError(t, os.WriteFile(authority, file, 0o600))
	s.id = serve(t, p.options.Image, "/tmp/.X11-unix/X"+s.number, s.folder,
		append([]string{"Xvfb", ":" + s.number, "-auth", "/test/authority", "-listen", "tcp", "-screen", "0", "320x240x24", "-fbdir", "/test"},
			flags...)...)
	require.Eventually(t, func() bool {
		info, err := os.Stat(filepath.Join(s.folder, "Xvfb_screen0"))
		return err == nil && info.Size() > 0
	}, 20*time.Second, 50*time.Millisecond)
	if p.as != nil {
		require.NoError(t, os.Chown(authority, int(p.as.Uid), int(p.as.Gid)))
	}
	p.options.GUI = "x11"
	p.env = append(p.env, "DISPLAY=:"+s.number, "XAUTHORITY="+authority)
	return s
}

// screen is what the X server shows (X11/XWDFile.h describes the file).
func (s *server) screen(t *testing.T) image.Image {
	data, err := os.ReadFile(filepath.Join(s.folder, "Xvfb_screen0"))
	require.NoError(t, err)
	field := func(i int) int { return int(binary.BigEndian.Uint32(data[4*i:])) }
	header, width, height, stride, colours := field(0), field(4), field(5), field(12), field(19)
	pixels := data[header+12*colours:]
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			p := pixels[y*stride+4*x:]
			img.Set(x, y, color.RGBA{p[2], p[1], p[0], 255})
		}
	}
	return img
}

var red, lime, blue = color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{0, 0, 255, 255}

// has reports whether the screen shows a colour.
func (s *server) has(t *testing.T, c color.Color) bool {
	img := s.screen(t)
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			if img.At(x, y) == c {
				return true
			}
		}
	}
	return false
}

// colours is how many different ones an image has.
func colours(img image.Image) int {
	seen := map[color.Color]bool{}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			seen[img.At(x, y)] = true
		}
	}
	return len(seen)
}

// saveImage writes a picture to the checkout's folder of artifacts.
func saveImage(t *testing.T, name string, img image.Image) {
	var buf bytes.Buffer
	require.NoError(t, png.Encode(&buf, img))
	require.NoError(t, os.MkdirAll("../../artifacts", 0o755))
	require.NoError(t, os.WriteFile(filepath.Join("../../artifacts", name), buf.Bytes(), 0o644))
}

// waitFor waits until the screen has that many colours at least, or at most if
// the number is negative.
func (s *server) waitFor(t *testing.T, n int) image.Image {
	t.Helper()
	var img image.Image
	require.Eventually(t, func() bool {
		img = s.screen(t)
		c := colours(img)
		return n > 0 && c >= n || n < 0 && c > 0 && c <= -n
	}, 20*time.Second, 100*time.Millisecond)
	return img
}

func newDesktopPerson(t *testing.T) *person {
	p := newPerson(t)
	p.options.Image = dockertest.Desktop(t)
	if os.Getuid() == 0 {
		p.become(12345, 12345)
	}
	return p
}

func TestX11(t *testing.T) {
	p := newDesktopPerson(t)
	s := xvfb(t, p, "-noreset")
	s.waitFor(t, -1)

	r := p.run(`xdpyinfo -queryExtensions | grep -c MIT-SHM; stat -c '%a %u' $XAUTHORITY; ls -A /tmp/.X11-unix; env | grep QT_X11`, "")
	uid := os.Getuid()
	if p.as != nil {
		uid = int(p.as.Uid)
	}
	assert.Equal(t, fmt.Sprintf("1\n600 %d\nX%s\nQT_X11_NO_MITSHM=1\n", uid, s.number), r.out, r.err)

	first := p.openTerminal(shell("xlogo -fg red -geometry 100x100+0+0 & echo drawing; wait"), 24, 80)
	first.expect("drawing")
	second := p.openTerminal(shell("xlogo -fg blue -geometry 100x100+150+0 & echo drawing; read line; "+
		"xlogo -fg lime -geometry 100x100+0+100 & wait"), 24, 80)
	second.expect("drawing")
	has := func(c color.Color) func() bool { return func() bool { return s.has(t, c) } }
	require.Eventually(t, has(red), 20*time.Second, 100*time.Millisecond)
	require.Eventually(t, has(blue), 20*time.Second, 100*time.Millisecond)
	saveImage(t, "x11.png", s.screen(t))

	require.NoError(t, first.cmd.Process.Signal(syscall.SIGTERM))
	first.code()
	require.Eventually(t, func() bool { return !has(red)() }, 20*time.Second, 100*time.Millisecond)
	second.enter("")
	require.Eventually(t, has(lime), 20*time.Second, 100*time.Millisecond, "one end took another's cookie")
	assert.True(t, s.has(t, blue), "one end disturbed another")
	require.NoError(t, second.cmd.Process.Signal(syscall.SIGTERM))
	second.code()
	s.waitFor(t, -1)
}

// An X server as a person starts it by hand: when its last client leaves it
// resets, and forgets the cookies that it made.
func TestX11WithoutOtherClients(t *testing.T) {
	p := newDesktopPerson(t)
	s := xvfb(t, p, "-reset")
	for range 2 {
		r := p.run("xdpyinfo > /dev/null && xdpyinfo > /dev/null && echo open", "")
		require.Equal(t, "open\n", r.out, r.err)
		window := p.openTerminal(shell("xlogo -fg red & echo drawing; wait"), 24, 80)
		window.expect("drawing")
		require.Eventually(t, func() bool { return s.has(t, red) }, 20*time.Second, 100*time.Millisecond)
		require.NoError(t, window.cmd.Process.Signal(syscall.SIGTERM))
		window.code()
		require.Eventually(t, func() bool { return !s.has(t, red) }, 20*time.Second, 100*time.Millisecond)
	}
}

func TestX11IsClosedToOthers(t *testing.T) {
	p := newDesktopPerson(t)
	s := xvfb(t, p, "-noreset")
	// Within the container, the cookie is the key.
	r := p.run("XAUTHORITY=/dev/null xdpyinfo", "")
	assert.NotEqual(t, 0, r.code)
	assert.Contains(t, r.err, "unable to open display")

	// Another local user who sees the same socket.
	d := dockertest.Connect(t)
	other, err := d.Create(t.Context(), daemon.Container{
		Name: dockertest.Name(t), Image: p.options.Image, Command: []string{"xdpyinfo"}, Network: "host", User: "23456:23456",
		Env:    []string{"DISPLAY=:" + s.number},
		Labels: map[string]string{daemon.LabelRole: "test", daemon.LabelOwner: owned.Owner()},
		Mounts: []daemon.Mount{{Type: "bind", Source: "/tmp/.X11-unix", Target: "/tmp/.X11-unix"}},
	})
	require.NoError(t, err)
	defer d.Remove(context.Background(), other)
	require.NoError(t, d.Start(t.Context(), other))
	require.Eventually(t, func() bool {
		status, err := d.Inspect(t.Context(), other)
		return err == nil && status.State == "exited" && status.ExitCode != 0
	}, 20*time.Second, 100*time.Millisecond)
	assert.Contains(t, logs(t, d, other), "Authorization required")

	// And the cookie of a launch that has ended opens nothing.
	r = p.run("cat $XAUTHORITY > cookie; xdpyinfo > /dev/null && echo open", "")
	require.Equal(t, "open\n", r.out, r.err)
	r = p.run("xdpyinfo > /dev/null && echo open; XAUTHORITY=cookie xdpyinfo", "")
	assert.Equal(t, "open\n", r.out)
	assert.Contains(t, r.err, "unable to open display")
}

func TestX11OverTCP(t *testing.T) {
	p := newDesktopPerson(t)
	s := xvfb(t, p, "-noreset")
	// As ssh forwards it: a port of the host's loopback, which a container with
	// its own network can't reach.
	p.env = append(p.env, "DISPLAY=localhost:"+s.number+".0")
	first := p.openTerminal(shell("xlogo -fg red & echo drawing; wait"), 24, 80)
	first.expect("drawing")
	s.waitFor(t, 2)
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGHUP))
	first.code()
	s.waitFor(t, -1)
}

func TestDisplayThatIsGone(t *testing.T) {
	p := newPerson(t)
	p.options.GUI = ""
	p.env = append(p.env, "DISPLAY=:4999", "WAYLAND_DISPLAY=")
	r := p.run("echo ${DISPLAY-none}", "")
	assert.Equal(t, "none\n", r.out)
	assert.Equal(t, "No windows: DISPLAY=:4999: dial unix /tmp/.X11-unix/X4999: connect: no such file or directory\n", r.err)
}

func TestWayland(t *testing.T) {
	p := newDesktopPerson(t)
	folder, sockets := t.TempDir(), t.TempDir()
	for _, dir := range []string{folder, sockets, filepath.Dir(folder), filepath.Dir(sockets)} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	require.NoError(t, os.Chmod(folder, 0o777))
	socket := filepath.Join(sockets, "wayland-7")
	id := serve(t, p.options.Image, socket, folder, "sh", "-c",
		"umask 0; exec weston --backend=headless-backend.so --use-pixman --socket=wayland-7 --width=320 --height=240 --debug --idle-time=0")
	require.NoError(t, os.Chmod(socket, 0o777))
	p.options.GUI = "wayland"
	p.env = append(p.env, "XDG_RUNTIME_DIR="+sockets, "WAYLAND_DISPLAY=wayland-7")

	d := dockertest.Connect(t)
	shot := func() image.Image {
		p, err := d.Exec(t.Context(), id, "sh", "-c",
			"cd /test && rm -f *.png && WAYLAND_DISPLAY=wayland-7 weston-screenshooter && mv *.png shot.png")
		require.NoError(t, err)
		defer p.Close()
		_, err = io.Copy(io.Discard, p)
		require.NoError(t, err)
		f, err := os.Open(filepath.Join(folder, "shot.png"))
		require.NoError(t, err)
		defer f.Close()
		img, err := png.Decode(f)
		require.NoError(t, err)
		return img
	}
	const many = 100 // more colours than the clock brings
	var before int
	require.Eventually(t, func() bool { // weston fades its own desktop in
		last := before
		before = colours(shot())
		return before > 1 && before == last
	}, 20*time.Second, time.Second)
	r := p.run("ls -A $XDG_RUNTIME_DIR; stat -c '%a %u' $XDG_RUNTIME_DIR; echo ${DISPLAY-none}", "")
	assert.Contains(t, r.out, "wayland-0\n700 ")
	assert.True(t, strings.HasSuffix(r.out, "none\n"), r.out)

	s := p.openTerminal(shell("weston-simple-shm & echo drawing; wait"), 24, 80)
	s.expect("drawing")
	var img image.Image
	require.Eventually(t, func() bool {
		img = shot()
		return colours(img) > before+many
	}, 20*time.Second, 200*time.Millisecond)
	saveImage(t, "wayland.png", img)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	s.code()
	require.Eventually(t, func() bool { return colours(shot()) < before+many }, 20*time.Second, 200*time.Millisecond)
}

// TestLastingLaunchDraws draws long after the command that started the launch has
// ended, on a server that forgets cookies when its last client leaves.
func TestLastingLaunchDraws(t *testing.T) {
	p := newDesktopPerson(t)
	s := xvfb(t, p)
	name := p.detach(until("draw") + "xlogo -fg red -geometry 100x100+0+0 & wait")
	p.touch("draw")
	eventually(t, func() bool { return s.has(t, red) }, "it doesn't draw")
	assert.Equal(t, 0, p.say("stop "+name).code)
	eventually(t, func() bool { return !s.has(t, red) }, "it draws on")
}
