package gpu

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// SeenCommand is what tells, in a container, which GPUs it has; ParseSeen reads what it
// prints.
const SeenCommand = "nvidia-smi --list-gpus && nvidia-smi"

// Seen is what a container's own driver says of its GPUs.
type Seen struct {
	GPUs   []GPU
	Driver string // version, "" if it wasn't said
	CUDA   string // the newest version that the driver runs, "" if it wasn't said
}

var (
	driverVersion = regexp.MustCompile(`Driver Version: ([0-9.]+)`)
	cudaVersion   = regexp.MustCompile(`CUDA Version: ([0-9.]+)`)
)

// ParseSeen reads what SeenCommand printed.
func ParseSeen(out string) Seen {
	s := Seen{GPUs: parseList(out)}
	for pattern, version := range map[*regexp.Regexp]*string{driverVersion: &s.Driver, cudaVersion: &s.CUDA} {
		if m := pattern.FindStringSubmatch(out); m != nil {
			*version = m[1]
		}
	}
	return s
}

// Versions says, for a person, what runs the GPUs.
func (s Seen) Versions() string {
	or := func(version string) string {
		if version == "" {
			return "(not said)"
		}
		return version
	}
	return fmt.Sprintf("driver %s, CUDA %s", or(s.Driver), or(s.CUDA))
}

// Compare returns an error unless a container sees the GPUs and MIG instances that it was
// given, by their UUIDs, and no others. A GPU of which it sees instances stands for those.
func (s Seen) Compare(given []string) error {
	var seen, whole []string
	for _, g := range s.GPUs {
		if len(g.MIG) == 0 {
			seen = append(seen, g.UUID)
			continue
		}
		whole = append(whole, g.UUID)
		for _, i := range g.MIG {
			seen = append(seen, i.UUID)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(given), func(u string) bool { return slices.Contains(seen, u) || slices.Contains(whole, u) })
	foreign := slices.DeleteFunc(slices.Clone(seen), func(u string) bool { return slices.Contains(given, u) || s.within(u, given) })
	var faults []string
	if len(missing) > 0 {
		faults = append(faults, "it doesn't see "+strings.Join(missing, ", ")+", which it was given")
	}
	if len(foreign) > 0 {
		faults = append(faults, "it sees "+strings.Join(foreign, ", ")+", which it wasn't given")
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("the container's GPUs aren't those that it was given: %s", strings.Join(faults, "; "))
}

// within reports whether an instance is part of a GPU that is given as a whole.
func (s Seen) within(uuid string, given []string) bool {
	for _, g := range s.GPUs {
		for _, i := range g.MIG {
			if i.UUID == uuid && slices.Contains(given, g.UUID) {
				return true
			}
		}
	}
	return false
}
