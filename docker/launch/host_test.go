package launch

import (
	"context"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
)

// hostOf is this machine as a person sees it, without a terminal.
func hostOf(t *testing.T, p *person) Host {
	t.Setenv("BERTH_CACHE", t.TempDir())
	d := dockertest.Connect(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	h, err := Probe(context.Background(), d, p.options, Streams{In: null, Out: null, Err: null})
	require.NoError(t, err)
	return h
}

func TestMountPoints(t *testing.T) {
	assert.Equal(t, []string{"/", `/data/a b`, "/tab\tand\\"}, mountPoints("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"+
		`30 22 0:26 / /data/a\040b rw,nosuid shared:5 - tmpfs none rw`+"\n"+`31 22 0:27 / /tab\011and\134 rw - tmpfs none rw`+"\ncut off\n"))
}

// Escapes are the kernel's alone: whatever else is in a path stays.
func FuzzMountPoints(f *testing.F) {
	f.Add("/a b")
	f.Add("/\\040")
	f.Add("/new\nline\ttab\\")
	f.Fuzz(func(t *testing.T, path string) {
		if strings.ContainsAny(path, "\v\f\r\u0085\u00a0") || !utf8.ValidString(path) || path == "" {
			t.Skip() // no spaces of the format
		}
		for _, r := range path {
			if r > 127 && unicode.IsSpace(r) {
				t.Skip()
			}
		}
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)
		assert.Equal(t, []string{path}, mountPoints("1 2 3:4 / "+escaped+" rw - tmpfs none rw\n"))
	})
}
