package launch

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/berthdev/berth/internal/usage"
)

// shells are programs that run a command line given after -c.
var shells = []string{"sh", "bash", "dash", "zsh", "ksh", "ash"}

// sized sets the terminal's size before anything can ask for it. Below API 1.42
// the daemon starts a container with a terminal of no rows and columns, and a
// resize comes only after the start.
const sized = `stty rows %d columns %d 2>/dev/null; exec "$@"`

// interpreters are programs that take their first argument for a script, not for
// a program to run; versions such as python3.12 are cut off.
var interpreters = append([]string{"python", "pypy", "node", "ruby", "perl", "lua", "php", "Rscript", "julia", "java"}, shells...)

// runsArguments reports whether an entry point may run the command that follows
// it: nearly all do, by an exec "$@" at their end. An interpreter that has flags
// alone would take the command's first word for its script.
func runsArguments(entrypoint []string) bool {
	if len(entrypoint) == 0 {
		return true
	}
	isFlag := func(word string) bool { return strings.HasPrefix(word, "-") }
	program := strings.TrimRight(path.Base(entrypoint[0]), ".0123456789")
	return !slices.Contains(interpreters, program) || slices.ContainsFunc(entrypoint[1:], func(word string) bool { return !isFlag(word) })
}

// command decides what the container runs: the entry point (the image's, or the
// one that was asked for) with the image's own command, or with the typed one in
// the shell that the image opens. Nil means the image's own.
func command(h Host, o Options) (entrypoint, cmd []string, err error) {
	before, usual := h.Image.Entrypoint, h.Image.Command
	shell := "sh"
	known := len(usual) > 0 && slices.Contains(shells, path.Base(usual[0]))
	if known {
		shell = usual[0]
	}
	line := []string{shell, "-c", o.Command}
	if o.Entrypoint != "" {
		entrypoint, before, usual = []string{o.Entrypoint}, []string{o.Entrypoint}, nil // as Docker drops the image's command
		if slices.Contains(shells, path.Base(o.Entrypoint)) {
			shell, known, line = o.Entrypoint, true, []string{"-c", o.Command}
		}
	}
	if o.Command != "" {
		if o.Entrypoint == "" && !runsArguments(before) {
			return nil, nil, fmt.Errorf("-cmd: %w: the entry point of the image, %s, would take the command for its own arguments and not run it. "+
				"Add -entrypoint=%s",
				usage.Err, words(before), shell)
		}
		cmd = line
	}
	// Without a shell there is nothing to set the size with.
	if t := h.Terminal; t.Present && t.Rows > 0 && t.Columns > 0 && !atLeast(h.API, 1, 42) && (known || o.Command != "") {
		entrypoint = append([]string{shell, "-c", fmt.Sprintf(sized, t.Rows, t.Columns), shell}, before...)
		if cmd == nil {
			cmd = usual // with an entry point of ours, Docker drops the image's command
		}
	}
	return entrypoint, cmd, nil
}
