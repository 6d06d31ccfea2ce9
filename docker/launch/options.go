// Package launch is the way into a container: Probe looks at the host, NewPlan
// decides, Run acts. It may read everything and decide nothing in Probe, decide
// everything and touch nothing in NewPlan, and in Run, or Detach for a launch that
// lasts, it does what the plan says. What has become of launches is List's and Logs'.
// It makes nothing in Docker without Berth's labels, and removes nothing else.
package launch

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/berthdev/berth/internal/usage"
)

// Options is what a person asks for, in the words they type it in. An empty
// string is the default.
//
// Lists are separated by commas. In them a backslash takes the next character
// as it is, and a comma or colon between double quotes separates nothing:
// -e='GREETING="Hello, world",DIR=C\:\\x' sets two variables.
//
// An Entrypoint that is a shell runs Command. Another program gets the shell that
// does as its arguments.
type Options struct {
	Project    string // names containers; asked of the project, not of a person
	Root       string // the checkout on the host; asked of the project, not of a person
	Home       string // folder of the checkout that $HOME keeps its files in; default: DefaultHome; asked of the project, not of a person
	Skeleton   string // folder of the checkout with what a new home starts with; default: Berth's own; asked of the project, not of a person
	Image      string // image to run; no default
	Digest     string // of the image's manifest, "" if unknown; asked of the project, since Docker doesn't know it of a loaded image
	Command    string // run by the image's shell instead of opening it; default: an interactive shell
	Entrypoint string // program to run in place of the image's entry point, as with docker run -entrypoint; default: the image's own
	Name       string // of the container; default: the project and 8 random hex digits
	Hostname   string // default: the host's
	GPUs       string // "0" (default: the first, where there is one), "all", "none", "2,3", "auto:2", UUIDs, their prefixes, MIG instances
	GUI        string // "auto" (default: X11, else Wayland, else off), "x11", "wayland" or "off"
	Mounts     string // list of SOURCE:TARGET or SOURCE:TARGET:ro; sources are paths on the host, relative to the working folder or ~
	Env        string // list of NAME=VALUE, or NAME for the host's value
	Ports      string // list of [ADDRESS:]HOST:CONTAINER[/udp] or PORT, to publish on the host; the address is 127.0.0.1 by default
	Network    string // "bridge" (default), "host", "none" or the name of a Docker network
	IPC        string // "private" (default) or "host"
	SharedMem  string // size of /dev/shm, such as "8g"; default: half of the host's memory
	Detach     bool   // it lasts beyond the command that starts it, with a terminal to attach to unless there is a Command (see Detach)

	Share bool           // take no lease of the GPUs, and heed nobody's; for who launches, not for the plan
	Wait  *time.Duration // for GPUs that others hold, at most; default: as long as it takes; for who launches, not for the plan
}

// split cuts a list at the separators that are neither escaped nor quoted. The
// items keep their escapes and quotes. An empty list has no items.
func split(list string, separator byte) ([]string, error) {
	var items []string
	quoted, start := false, 0
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\':
			if i++; i == len(list) {
				return nil, fmt.Errorf("%w: %q ends with a backslash that escapes nothing. Type \\\\ for a backslash", usage.Err, list)
			}
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			items = append(items, list[start:i])
			start = i + 1
		}
	}
	if quoted {
		return nil, fmt.Errorf(`%w: a double quote in %q isn't closed. Type \" for a double quote`, usage.Err, list)
	}
	if list == "" {
		return nil, nil
	}
	return append(items, list[start:]), nil
}

// unquote removes the escapes and quotes of an item that split returned.
func unquote(item string) string {
	var b strings.Builder
	for i := 0; i < len(item); i++ {
		switch item[i] {
		case '\\':
			i++
			b.WriteByte(item[i])
		case '"':
		default:
			b.WriteByte(item[i])
		}
	}
	return b.String()
}

// A mountOption is one item of Options.Mounts.
type mountOption struct {
	source, target string // as typed
	readOnly       bool
}

func parseMounts(list string) ([]mountOption, error) {
	items, err := split(list, ',')
	if err != nil {
		return nil, fmt.Errorf("-v: %w", err)
	}
	var mounts []mountOption
	for _, item := range items {
		parts, _ := split(item, ':') // split has read it already
		for i := range parts {
			parts[i] = unquote(parts[i])
		}
		m := mountOption{}
		switch {
		case len(parts) == 3 && parts[2] == "ro":
			m.readOnly = true
		case len(parts) == 3 && parts[2] == "rw":
		case len(parts) != 2:
			return nil, fmt.Errorf("-v: %w: %q isn't SOURCE:TARGET or SOURCE:TARGET:ro. For example: -v=~/data:/data:ro", usage.Err, item)
		}
		m.source, m.target = parts[0], parts[1]
		if m.source == "" || !strings.HasPrefix(m.target, "/") {
			return nil, fmt.Errorf("-v: %w: in %q, the source must be a path on the host and the target an absolute path in the container. "+
				"For example: -v=~/data:/data:ro", usage.Err, item)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// A Variable is one of a container's environment.
type Variable struct {
	Name     string
	Value    string
	FromHost bool // the host's value, which may be a secret: it is shown nowhere
}

func parseEnv(list string, host map[string]string) ([]Variable, error) {
	items, err := split(list, ',')
	if err != nil {
		return nil, fmt.Errorf("-e: %w", err)
	}
	var vars []Variable
	for _, item := range items {
		name, value, given := strings.Cut(unquote(item), "=")
		if name == "" || strings.ContainsAny(name, "\x00 \t\n") || strings.Contains(value, "\x00") {
			return nil, fmt.Errorf("-e: %w: %q isn't NAME=VALUE or NAME. For example: -e=EPOCHS=5,WANDB_API_KEY", usage.Err, item)
		}
		if given {
			vars = append(vars, Variable{Name: name, Value: value})
		} else if value, ok := host[name]; ok {
			vars = append(vars, Variable{Name: name, Value: value, FromHost: true})
		}
	}
	return vars, nil
}

// parseSize returns a number of bytes: "512m", "8g", "8GiB".
func parseSize(size string) (int64, error) {
	n, err := units.RAMInBytes(size)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("-shm: %w: %q isn't a size. For example: -shm=8g", usage.Err, size)
	}
	return n, nil
}
