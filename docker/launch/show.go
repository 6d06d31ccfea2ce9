package launch

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/docker/go-units"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
)

// Table is the plan as a table, for a person to read. Values that come from the
// host's environment aren't in it. To a shell, each line is a comment: what names
// and commands are in it, it runs nothing.
func (p Plan) Table() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	row := func(name string, values ...string) {
		for _, v := range values {
			fmt.Fprintf(t, "# %s\t%s\n", name, oneLine(v))
			name = ""
		}
	}
	c := p.Container
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	row("image", c.Image)
	row("container", c.Name+map[bool]string{
		false: ", removed when it ends",
		true:  ", goes on by itself, removed when it ends; its output and exit code stay for a week",
	}[p.Detach])
	row("command", or(words(slices.Concat(c.Entrypoint, c.Command)), "the image's own"))
	row("terminal", map[bool]string{true: "yes", false: "no"}[c.TTY])
	row("user", c.User+strings.Join(append([]string{""}, c.Groups...), " +"))
	row("host name", c.Hostname)
	row("folder", c.WorkingDir)
	for i, m := range c.Mounts {
		name := "mounts"
		if i > 0 {
			name = ""
		}
		row(name, m.Source+" at "+m.Target+map[bool]string{true: ", read-only"}[m.ReadOnly])
	}
	for _, f := range p.Files {
		row("", "(made for this launch) at "+f.Target+", read-only")
	}
	for _, at := range slices.Sorted(maps.Keys(c.Tmpfs)) {
		row("", "(memory) at "+at)
	}
	if p.GPU.None() {
		row("GPUs", "none")
	} else {
		row("GPUs", p.GPU.String()+", by "+string(p.Method))
	}
	row("display", p.Display.String())
	row("network", or(c.Network, "bridge"))
	for i, port := range c.Ports {
		row(map[bool]string{true: "ports"}[i == 0], showPort(port)+" of the host is "+fmt.Sprint(port.Container)+" of the container")
	}
	if c.IPC == "host" {
		row("/dev/shm", "the host's")
	} else {
		row("/dev/shm", units.BytesSize(float64(c.ShmSize)))
	}
	row("privileges", "none"+strings.Join(append([]string{""}, c.CapAdd...), " +")+", no new ones")
	var env []string
	for _, v := range p.Env {
		if v.FromHost {
			env = append(env, v.Name+" (the host's)")
		} else {
			env = append(env, v.Name+"="+v.Value)
		}
	}
	row("environment", env...)
	for _, a := range p.Abandoned {
		row("removes first", a+", which a killed process left")
	}
	row("note", p.Notes...)
	t.Flush()
	return b.String()
}

// JSON is the plan for machines. Its fields are Plan's.
func (p Plan) JSON() ([]byte, error) { return json.MarshalIndent(p, "", "  ") }

// MarshalJSON leaves out the values that come from the host's environment.
func (v Variable) MarshalJSON() ([]byte, error) {
	type plain Variable
	if v.FromHost {
		v.Value = ""
	}
	return json.Marshal(plain(v))
}

// Shell is the plan as shell commands around one docker run, to be pasted. It
// leaves out what docker run can't do: a cookie of its own for X11, signals that
// end the container with the terminal, and the removal of what a killed run left.
func (p Plan) Shell() string {
	var b strings.Builder
	b.WriteString("dir=$(mktemp -d)\n")
	for _, f := range p.Files {
		fmt.Fprintf(&b, "printf %%s %s >\"$dir/%s\"\n", word(f.Content), f.Name)
	}
	socket := word(p.Display.Address)
	if p.Display.Kind == display.X11 {
		b.WriteString("xauth nlist \"$DISPLAY\" | sed 's/^..../ffff/' | xauth -f \"$dir/Xauthority\" nmerge -\n")
		if p.Display.Network == "tcp" {
			socket = `"$dir/X"`
			fmt.Fprintf(&b, "socat UNIX-LISTEN:%s,fork TCP:%s & relay=$!\n", socket, p.Display.Address)
		}
	}
	b.WriteString("docker run")
	arg := func(words ...string) { b.WriteString(" \\\n  " + strings.Join(words, " ")) }
	flag := func(name, value string) {
		if value != "" {
			arg("--"+name, word(value))
		}
	}
	c := p.Container
	if p.Detach {
		b.WriteString(" --detach --log-driver json-file --log-opt max-size=1024t")
	} else {
		b.WriteString(" --rm")
	}
	if c.Interactive {
		b.WriteString(" --interactive")
	}
	if c.TTY {
		arg("--tty")
	}
	if c.Init {
		arg("--init")
	}
	flag("name", c.Name)
	flag("hostname", c.Hostname)
	flag("user", c.User)
	for _, g := range c.Groups {
		flag("group-add", g)
	}
	flag("workdir", c.WorkingDir)
	flag("network", c.Network)
	for _, port := range c.Ports {
		flag("publish", fmt.Sprintf("%s:%d/%s", publishedAt(port), port.Container, port.Protocol))
	}
	flag("ipc", c.IPC)
	if c.ShmSize > 0 {
		flag("shm-size", fmt.Sprint(c.ShmSize))
	}
	for _, v := range c.CapDrop {
		flag("cap-drop", v)
	}
	for _, v := range c.CapAdd {
		flag("cap-add", v)
	}
	for _, v := range c.SecurityOpt {
		flag("security-opt", v)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		flag("label", k+"="+c.Labels[k])
	}
	for _, at := range slices.Sorted(maps.Keys(c.Tmpfs)) {
		flag("tmpfs", at+":"+c.Tmpfs[at])
	}
	for _, m := range c.Mounts {
		flag("mount", mountFlag(m, p.API))
	}
	for _, f := range p.Files {
		arg("--mount", `type=bind,source="$dir/`+f.Name+`",target=`+f.Target+",readonly")
	}
	if p.Display.Kind == display.X11 {
		arg("--mount", `type=bind,source="$dir/Xauthority",target=`+xauthority+",readonly")
	}
	if p.Socket != "" {
		arg("--mount", "type=bind,source="+socket+",target="+p.Socket+",readonly")
	}
	for _, d := range c.Devices {
		switch {
		case d.Driver == "cdi":
			for _, id := range d.IDs {
				flag("device", id)
			}
		case d.Count < 0:
			flag("gpus", "all")
		default:
			flag("gpus", `"device=`+strings.Join(d.IDs, ",")+`"`)
		}
	}
	flag("runtime", c.Runtime)
	for _, v := range p.Env {
		if v.FromHost {
			flag("env", v.Name)
		} else {
			flag("env", v.Name+"="+v.Value)
		}
	}
	rest := c.Command
	if len(c.Entrypoint) > 0 {
		flag("entrypoint", c.Entrypoint[0])
		rest = slices.Concat(c.Entrypoint[1:], c.Command)
	}
	arg(strings.TrimSpace(word(c.Image) + " " + words(rest)))
	b.WriteByte('\n')
	if p.Detach {
		// Its files must stay as long as it runs.
		fmt.Fprintf(&b, "docker wait %s && docker rm %[1]s\n", word(c.Name))
	}
	if p.Display.Network == "tcp" {
		b.WriteString("kill $relay\n")
	}
	b.WriteString("rm -r \"$dir\"\n")
	return b.String()
}

// mountFlag is the value of --mount: comma-separated values, as in a CSV file. The
// docker command is taken to be as old as the API of the daemon.
func mountFlag(m daemon.Mount, api string) string {
	fields := []string{"type=" + m.Type, "source=" + m.Source, "target=" + m.Target}
	if m.ReadOnly {
		fields = append(fields, "readonly")
	}
	switch {
	case m.Submounts == daemon.SubmountsReadOnly:
		fields = append(fields, "bind-recursive=readonly", "bind-propagation=rprivate")
	case m.Submounts == daemon.SubmountsLeftOut && atLeast(api, 1, 44):
		fields = append(fields, "bind-recursive=disabled")
	case m.Submounts == daemon.SubmountsLeftOut:
		fields = append(fields, "bind-nonrecursive")
	}
	for i, f := range fields {
		if strings.ContainsAny(f, ",\"\n") {
			fields[i] = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		}
	}
	return strings.Join(fields, ",")
}

// oneLine shows characters that would move a terminal's cursor as escapes.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)

// word quotes an argument for a shell.
func word(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func words(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = word(a)
	}
	return strings.Join(quoted, " ")
}
