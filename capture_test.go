package main

import (
	"encoding/xml"
	"fmt"
	"html"
	"image/color"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/vt100"

	"github.com/berthdev/berth/internal/dockertest"
)

// capture is the picture of a terminal in README.md. With BERTH_UPDATE set, TestCapture makes it
// anew: it types the commands in a clone.
const capture = "docs/terminal.svg"

var captured = []string{
	"go tool mage build",
	"go tool mage run -cmd='pwd; trainer info | head -n 2'",
	"go tool mage why libcurl3-gnutls",
	"go tool mage doctor",
}

const captureColumns = 104

// ofThisMachine are lines of doctor that differ on every machine.
var ofThisMachine = regexp.MustCompile(`(?m)^.*(disk|cache|mirrors|go modules) {2,}.*\n(?: {10,}.*\n)*`)

// TestCapture: the picture in README.md shows commands that there are, and nothing of the machine
// that it was made on.
func TestCapture(t *testing.T) {
	if os.Getenv("BERTH_UPDATE") != "" {
		require.NoError(t, os.WriteFile(capture, terminalSVG(typeAll(t)), 0o644))
	}
	data, err := os.ReadFile(capture)
	require.NoError(t, err)
	assert.Less(t, len(data), 60<<10)
	var picture struct {
		Rows []struct {
			Spans []string `xml:"tspan"`
		} `xml:"g>text"`
	}
	require.NoError(t, xml.Unmarshal(data, &picture))
	var commands []string
	all := ""
	for _, row := range picture.Rows {
		line := strings.TrimSpace(strings.Join(row.Spans, ""))
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			commands = append(commands, command)
		}
		all += line + "\n"
	}
	assert.Equal(t, captured, commands, "type: BERTH_UPDATE=1 go test -run Capture .")
	targets := flagsOfTargets(t)
	for _, command := range commands {
		words := telling(command)
		assert.Contains(t, targets, words[0])
		for _, flag := range words[1:] {
			assert.Contains(t, targets[words[0]], flag)
		}
	}
	assert.Regexp(t, `(?m)^demo-cnn:latest sha256:[0-9a-f]{64} \(up to date\)$`, all)
	assert.Contains(t, all, "\n/my_workspace\n")
	assert.NotRegexp(t, `/tmp|/root|/home|/work\b|https?://|\x1b|`+dockertest.Process, all)
}

// typeAll returns what a terminal shows of the commands.
func typeAll(t *testing.T) *vt100.VT100 {
	dir := cloned(t)
	// The image of whoever works here stays as it is.
	name := dockertest.Process + "-capture"
	magefile := filepath.Join(dir, "magefiles", "magefile.go")
	text, err := os.ReadFile(magefile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(magefile, []byte(strings.Replace(string(text), `"demo-cnn"`, fmt.Sprintf("%q", name), 1)), 0o644))
	kept := t.TempDir()
	typed := func(command string) string {
		c := exec.CommandContext(t.Context(), "bash", "-c", command)
		c.Dir, c.Env = dir, append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=", "DISPLAY=", "WAYLAND_DISPLAY=",
			"MAGEFILE_CACHE="+kept)
		terminal, err := pty.StartWithSize(c, &pty.Winsize{Rows: 50, Cols: captureColumns})
		require.NoError(t, err)
		defer terminal.Close()
		out, _ := io.ReadAll(terminal) // it ends with an error of its own, once the command has closed it
		require.NoError(t, c.Wait(), string(out))
		return string(out)
	}
	typed(captured[0]) // the second time is what people see from then on
	screen := vt100.NewVT100(60, captureColumns)
	for _, command := range captured {
		out := strings.ReplaceAll(typed(command), "\r\n", "\n")
		out = strings.NewReplacer(name, "demo-cnn", os.Getenv("BERTH_ENGINE"), "berth-engine", "\t", "        ").Replace(out)
		out = ofThisMachine.ReplaceAllString(out, "")
		out = regexp.MustCompile(`linux \S+,`).ReplaceAllString(out, "linux …,")
		_, err := fmt.Fprintf(screen, "\x1b[1m$ %s\x1b[0m\r\n%s\r\n", command, strings.ReplaceAll(out, "\n", "\r\n"))
		require.NoError(t, err)
	}
	return screen
}

// terminalSVG draws a terminal: light on dark, so that it is legible on any page.
func terminalSVG(screen *vt100.VT100) []byte {
	const height, margin, columns = 18, 16, captureColumns
	width := 8.43 // of a character of most monospaced fonts at 14 pixels
	rows := len(screen.Content)
	for rows > 0 && strings.TrimSpace(string(screen.Content[rows-1])) == "" {
		rows--
	}
	var b strings.Builder
	w, h := int(columns*width)+2*margin, rows*height+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">
<title>Berth in a terminal</title>
<rect width="%[1]d" height="%[2]d" rx="8" fill="#1c2128"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#d0d7de" xml:space="preserve" style="white-space: pre">
`, w, h)
	for y := range rows {
		fmt.Fprintf(&b, `<text y="%d">`, margin+y*height+13)
		line := []rune(strings.TrimRight(string(screen.Content[y]), " "))
		for begin := 0; begin < len(line); {
			end := begin + 1
			for end < len(line) && screen.Format[y][end] == screen.Format[y][begin] {
				end++
			}
			fmt.Fprintf(&b, `<tspan x="%.1f"%s>%s</tspan>`, margin+float64(begin)*width, look(screen.Format[y][begin]),
				html.EscapeString(string(line[begin:end])))
			begin = end
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return []byte(b.String())
}

func look(f vt100.Format) (attributes string) {
	for plain, shown := range map[color.RGBA]string{
		vt100.Red: "#ff7b72", vt100.Green: "#56d364", vt100.Yellow: "#e3b341", vt100.Blue: "#79c0ff", vt100.Magenta: "#d2a8ff", vt100.Cyan: "#76e3ea",
	} {
		if f.Fg == plain {
			attributes = ` fill="` + shown + `"`
		}
	}
	if f.Intensity == vt100.Bright {
		attributes += ` font-weight="bold"`
	}
	return attributes
}
