package gpu

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/trouble"
	"github.com/berthdev/berth/internal/usage"
)

// A Request is the GPUs that a container is to get. The zero value is none.
type Request struct {
	All bool
	IDs []string // as NVIDIA's tools take them: "0", "0:1" for a MIG instance, "GPU-…", "MIG-…"
}

// None reports whether the container gets no GPU.
func (r Request) None() bool { return !r.All && len(r.IDs) == 0 }

// String is the request as NVIDIA_VISIBLE_DEVICES has it.
func (r Request) String() string {
	switch {
	case r.All:
		return "all"
	case r.None():
		return "void"
	}
	return strings.Join(r.IDs, ",")
}

var (
	index    = regexp.MustCompile(`^\d{1,4}$`)
	instance = regexp.MustCompile(`^(\d{1,4}):(\d{1,4})$`)
	uuid     = regexp.MustCompile(`^(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// Resolve decides which GPUs are meant. A selection is "" (the first GPU, or none
// where there is none), "all", "none", "auto" or "auto:N" (idle ones: here those that
// are chosen where all are idle), or a list, separated by commas, of indexes,
// GPU:instance pairs, and UUIDs or prefixes of them. Each must be on the machine. If
// GPUs are asked for and the driver knows of none, the error says why (see
// Machine.Broken).
func Resolve(selection string, m Machine) (Request, error) {
	switch selection {
	case "none", "void":
		return Request{}, nil
	case "":
		if len(m.GPUs) == 0 {
			return Request{}, nil
		}
		selection = "0"
	}
	if err := m.Broken(); err != nil {
		return Request{}, fmt.Errorf("-g=%s: %w", selection, err)
	}
	if selection == "all" {
		return Request{All: true}, nil
	}
	if Auto(selection) {
		count, err := m.idle(selection)
		if err != nil {
			return Request{}, fmt.Errorf("-g=%s: %w", selection, err)
		}
		return Request{IDs: m.shareable()[:count]}, nil
	}
	var r Request
	var taken []string // UUIDs
	for item := range strings.SplitSeq(selection, ",") {
		item = strings.TrimSpace(item)
		id, uuid, err := m.find(item)
		if err != nil {
			return Request{}, fmt.Errorf("-g=%s: %w. This machine has\n%s", selection, err, m.List())
		}
		if slices.Contains(taken, uuid) {
			return Request{}, fmt.Errorf("-g=%s: %w: %s names a GPU that is in the list already", selection, usage.Err, item)
		}
		taken = append(taken, uuid)
		r.IDs = append(r.IDs, id)
	}
	return r, nil
}

// ResolveElsewhere is Resolve for a machine that can't be asked: whether it has a GPU, its
// Docker says. A selection is "" or "none", "all", or a list of indexes, GPU:instance pairs and
// whole UUIDs.
func ResolveElsewhere(selection string) (r Request, err error) {
	switch {
	case selection == "" || selection == "none" || selection == "void":
		return Request{}, nil
	case selection == "all":
		return Request{All: true}, nil
	case Auto(selection):
		return Request{}, fmt.Errorf("-g=%s: %w: which GPUs of another machine are idle can't be told from here. Name them: -g=0,1",
			selection, usage.Err)
	}
	for item := range strings.SplitSeq(selection, ",") {
		item = strings.TrimSpace(item)
		if !index.MatchString(item) && !instance.MatchString(item) && !uuid.MatchString(item) {
			return Request{}, fmt.Errorf("-g=%s: %w: %q is neither all, none, an index, nor a whole UUID, "+
				"and Docker's machine can't be asked what it begins", selection, usage.Err, item)
		}
		if slices.Contains(r.IDs, item) {
			return Request{}, fmt.Errorf("-g=%s: %w: %s is in the list twice", selection, usage.Err, item)
		}
		r.IDs = append(r.IDs, item)
	}
	return r, nil
}

// find returns the ID to ask for, and the UUID of what it means.
func (m Machine) find(item string) (id, uuid string, err error) {
	if index.MatchString(item) {
		for _, g := range m.GPUs {
			if strconv.Itoa(g.Index) == item {
				return item, g.UUID, nil
			}
		}
		return "", "", fmt.Errorf("%w: there is no GPU %s", usage.Err, item)
	}
	if p := instance.FindStringSubmatch(item); p != nil {
		for _, g := range m.GPUs {
			for _, i := range g.MIG {
				if strconv.Itoa(g.Index) == p[1] && strconv.Itoa(i.Index) == p[2] {
					return item, i.UUID, nil
				}
			}
		}
		return "", "", fmt.Errorf("%w: there is no MIG instance %s", usage.Err, item)
	}
	var found []string
	for _, g := range m.GPUs {
		for _, i := range append([]Instance{{UUID: g.UUID}}, g.MIG...) {
			if i.UUID == item {
				return item, item, nil
			}
			if prefixOf(item, i.UUID) {
				found = append(found, i.UUID)
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], found[0], nil
	case len(found) > 1:
		return "", "", fmt.Errorf("%w: %s is the beginning of %s. Type more of it", usage.Err, item, strings.Join(found, " and "))
	}
	return "", "", fmt.Errorf("%w: %q is neither all, none, an index, nor the beginning of a UUID", usage.Err, item)
}

// UUIDs are those of the GPUs and MIG instances of a request that Resolve made.
func (m Machine) UUIDs(r Request) (all []string) {
	for _, g := range m.GPUs {
		if r.All {
			all = append(all, g.UUID)
		}
	}
	for _, id := range r.IDs {
		if _, uuid, err := m.find(id); err == nil {
			all = append(all, uuid)
		}
	}
	return all
}

// prefixOf reports whether item begins a UUID, with or without its GPU- or
// MIG-.
func prefixOf(item, uuid string) bool {
	_, bare, _ := strings.Cut(uuid, "-")
	return len(item) >= 4 && (strings.HasPrefix(uuid, item) && len(item) > len("GPU-") || strings.HasPrefix(bare, item))
}

// List is the machine's GPUs, one on each line, for a person to choose from.
func (m Machine) List() string {
	var b strings.Builder
	for _, g := range m.GPUs {
		fmt.Fprintf(&b, "\t%d\t%s\t%s\n", g.Index, g.UUID, g.Name)
		for _, i := range g.MIG {
			fmt.Fprintf(&b, "\t%d:%d\t%s\t%s\n", g.Index, i.Index, i.UUID, i.Profile)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// A Method is a way in which Docker passes GPUs on.
type Method string

// The methods, best first.
const (
	CDI     Method = "cdi"     // the daemon reads the Container Device Interface's specifications
	Runtime Method = "runtime" // the daemon has NVIDIA's OCI runtime
	Hook    Method = "hook"    // the daemon found NVIDIA's hook when it started
)

const cdiKind = "nvidia.com/gpu="

// An Injection is how a container is given its GPUs.
type Injection struct {
	Method  Method
	Devices []daemon.DeviceRequest
	Runtime string
	Env     []string // NAME=value
}

// Inject decides how. It believes what the daemon says of itself: CDI devices
// that it found, runtimes that it knows. Whether it has the hook it doesn't
// say; local, the daemon's being on this machine, allows to look for it.
func Inject(r Request, m Machine, d daemon.Info, local bool) (Injection, error) {
	if r.None() {
		// An image may ask for every GPU, and a daemon may listen.
		return Injection{Env: []string{"NVIDIA_VISIBLE_DEVICES=void"}}, nil
	}
	capabilities := "NVIDIA_DRIVER_CAPABILITIES=all" // graphics too, which isn't in the default
	if names := m.cdiNames(r, d.CDI); names != nil {
		return Injection{
			Method:  CDI,
			Devices: []daemon.DeviceRequest{{Driver: "cdi", IDs: names}},
			Env:     []string{"NVIDIA_VISIBLE_DEVICES=void", capabilities}, // nobody else shall add any
		}, nil
	}
	if d.Podman() {
		return Injection{}, broken(trouble.PodmanNoCDI)
	}
	if slices.Contains(d.Runtimes, "nvidia") {
		return Injection{Method: Runtime, Runtime: "nvidia", Env: []string{"NVIDIA_VISIBLE_DEVICES=" + r.String(), capabilities}}, nil
	}
	if local && !m.Toolkit {
		return Injection{}, broken(trouble.NoToolkit)
	}
	request := daemon.DeviceRequest{IDs: r.IDs, Capabilities: []string{"gpu"}}
	if r.All {
		request.Count = -1
	}
	return Injection{Method: Hook, Devices: []daemon.DeviceRequest{request}, Env: []string{capabilities}}, nil
}

// cdiNames returns the CDI devices that are the requested GPUs, or nil if one of
// them isn't in the daemon's list. A specification may name GPUs by index, by
// UUID or both.
func (m Machine) cdiNames(r Request, known []string) []string {
	ids := r.IDs
	if r.All {
		ids = []string{"all"}
	}
	var names []string
	for _, id := range ids {
		spellings := []string{id}
		for _, g := range m.GPUs {
			at := strconv.Itoa(g.Index)
			if id == at || id == g.UUID {
				spellings = append(spellings, g.UUID, at)
			}
			for _, i := range g.MIG {
				if at := fmt.Sprintf("%d:%d", g.Index, i.Index); id == at || id == i.UUID {
					spellings = append(spellings, i.UUID, at)
				}
			}
		}
		at := slices.IndexFunc(spellings, func(s string) bool { return slices.Contains(known, cdiKind+s) })
		if at < 0 {
			return nil
		}
		names = append(names, cdiKind+spellings[at])
	}
	return names
}
