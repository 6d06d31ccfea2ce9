package display

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestXauthority(t *testing.T) {
	var file []byte
	entries := []entry{
		{0, "\x7f\x00\x00\x01", "0", cookieName, []byte("internet")},
		{familyLocal, "elsewhere", "0", cookieName, []byte("elsewhere")},
		{familyLocal, "here", "0", "XDM-AUTHORIZATION-1", []byte("other protocol")},
		{familyLocal, "here", "1", cookieName, []byte("first")},
		{familyLocal, "here", "", cookieName, []byte("any")},
	}
	for _, e := range entries {
		file = e.append(file)
	}
	got, err := parseXauthority(file)
	require.NoError(t, err)
	assert.Equal(t, entries, got)

	assert.Equal(t, "first", string(cookieFor(got, "here", "1")))
	assert.Equal(t, "any", string(cookieFor(got, "here", "0")))
	assert.Nil(t, cookieFor(got, "nowhere", "0"))
	wild, err := parseXauthority(wildcard("7", []byte("cookie")))
	require.NoError(t, err)
	assert.Equal(t, "cookie", string(cookieFor(wild, "any host", "7")))

	for n := 1; n < len(file); n++ {
		part, err := parseXauthority(file[:n])
		if err != nil {
			assert.ErrorIs(t, err, errXauthority)
		}
		assert.Equal(t, append([]entry(nil), entries[:len(part)]...), part, "what is whole is kept")
	}
}

func FuzzXauthority(f *testing.F) {
	f.Add(wildcard("0", []byte("0123456789abcdef")))
	f.Add([]byte{1, 0, 0, 255})
	f.Fuzz(func(t *testing.T, file []byte) {
		entries, err := parseXauthority(file)
		var again []byte
		for _, e := range entries {
			again = e.append(again)
		}
		if !bytes.HasPrefix(file, again) || err == nil && len(again) != len(file) {
			t.Fatalf("%x becomes %x", file, again)
		}
	})
}

func TestDisplayNames(t *testing.T) {
	for name, want := range map[string]string{
		":4901": "dial unix /tmp/.X11-unix/X4901", ":4901.0": "dial unix /tmp/.X11-unix/X4901", "unix:4901": "dial unix /tmp/.X11-unix/X4901",
		"localhost:59.0": "dial tcp 127.0.0.1:6059", "127.0.0.1:59": "dial tcp 127.0.0.1:6059", "[::1]:59": "dial tcp [::1]:6059",
		"": "DISPLAY isn't set", "0": "isn't HOST:NUMBER", "/private/tmp/launch/org.xquartz:0": "isn't HOST:NUMBER", "a b:0": "isn't HOST:NUMBER",
	} {
		f := Probe(t.Context(), map[string]string{"DISPLAY": name, "XAUTHORITY": "/nonexistent"}, "here")
		assert.Contains(t, f.X11Err, want, name)
	}
}

// An X server that says something unexpected is an error, not a hang or a crash.
func TestServersThatAreNone(t *testing.T) {
	for name, says := range map[string]string{
		"hangs up":  "",
		"refuses":   "\x00\x07\x0b\x00\x00\x00\x02\x00No way\x00\x00",
		"cut off":   "\x01\x00\x0b\x00\x00\x00\x02\x00four",
		"no length": "\x00\xff\x0b\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "X")
			l, err := net.Listen("unix", socket)
			require.NoError(t, err)
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Read(make([]byte, 64))
					c.Write([]byte(says))
					c.Close()
				}
			}()
			_, err = dialX(t.Context(), "unix", socket, nil, nil)
			assert.Error(t, err)
			if name == "refuses" {
				assert.EqualError(t, err, "the X server refused: No way")
			}
		})
	}
}

// An X server that resets hangs up on whoever comes, at any moment of the
// conversation, and answers a moment later.
func TestServerThatResets(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "X")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	accepted := "\x01\x00\x0b\x00\x00\x00\x00\x00"
	extension := "\x01\x00\x01\x00\x00\x00\x00\x00\x01\x80" + strings.Repeat("\x00", 22)
	cookie := "\x01\x00\x02\x00\x01\x00\x00\x00\x07\x00\x00\x00\x04\x00" + strings.Repeat("\x00", 18) + "key!"
	go func() {
		for _, answers := range [][]string{{}, {accepted}, {accepted, extension}, {accepted, extension, cookie}} {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for _, answer := range answers {
				c.Read(make([]byte, 64))
				c.Write([]byte(answer))
			}
			c.Close()
		}
	}()
	g, err := Display{Kind: X11, Network: "unix", Address: socket, Number: "7", Own: true}.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	assert.Equal(t, wildcard("7", []byte("key!")), g.Xauthority)
}

func TestChoose(t *testing.T) {
	x, w := Display{Kind: X11, Number: "0"}, Display{Kind: Wayland}
	both := Found{X11: x, Wayland: w}
	only := Found{X11Err: "DISPLAY isn't set", Wayland: w}
	neither := Found{X11Err: "DISPLAY isn't set", WaylandErr: "WAYLAND_DISPLAY isn't set"}
	refused := Found{X11Err: "DISPLAY=:0: refused", WaylandErr: "WAYLAND_DISPLAY isn't set"}
	tests := []struct {
		kind  string
		found Found
		want  Kind
		note  string
		err   string
	}{
		{"", both, X11, "", ""},
		{"auto", only, Wayland, "", ""},
		{"auto", neither, Off, "", ""},
		{"auto", refused, Off, "No windows: DISPLAY=:0: refused", ""},
		{"off", both, Off, "", ""},
		{"wayland", both, Wayland, "", ""},
		{"x11", refused, "", "", "-gui=x11: no display: DISPLAY=:0: refused"},
		{"wayland", neither, "", "",
			"-gui=wayland: no display: WAYLAND_DISPLAY isn't set"},
		{"vnc", both, "", "", `-gui: usage: "vnc" is none of auto, x11, wayland, off`},
	}
	for _, test := range tests {
		d, note, err := Choose(test.kind, test.found)
		if test.err != "" {
			assert.EqualError(t, err, test.err)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, test.want, d.Kind)
		assert.Equal(t, test.note, note)
	}
}

func TestRelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4)
			c.Read(buf)
			c.Write(bytes.ToUpper(buf))
			c.Close()
		}
	}()
	folder := t.TempDir()
	g, err := Display{Kind: X11, Network: "tcp", Address: l.Addr().String(), Number: "10", cookie: []byte("c")}.Open(t.Context(), folder)
	require.NoError(t, err)
	for range 3 {
		c, err := net.DialTimeout("unix", g.Socket, time.Second)
		require.NoError(t, err)
		c.Write([]byte("abcd"))
		got := make([]byte, 4)
		_, err = c.Read(got)
		require.NoError(t, err)
		assert.Equal(t, "ABCD", string(got))
		c.Close()
	}
	require.NoError(t, g.Close())
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}
