package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// SeenCommand is what tells, in a container, which GPUs it has, and what runs them;
// ParseSeen reads what it prints. The CUDA version stands in nothing but the last one's table.
const SeenCommand = "nvidia-smi --list-gpus && nvidia-smi --query-gpu=driver_version --format=csv,noheader && nvidia-smi"

// Given is what a container was given, as the machine has it.
type Given struct {
	UUIDs  []string // of GPUs and MIG instances; nil if they aren't known, as of another machine
	Driver string   // version; "" if it isn't known
}

// Seen is what a container's own nvidia-smi says of its GPUs.
type Seen struct {
	GPUs   []GPU
	Driver string // version, "" if it wasn't said
	CUDA   string // the newest version that the driver runs, "" if it wasn't said
}

var (
	seenDriver = regexp.MustCompile(`(?m)^(\d+(?:\.\d+)+)\r?$`)
	seenCUDA   = regexp.MustCompile(`CUDA (?:\w+ )?Version: *(\d+(?:\.\d+)+)`)
)

// ParseSeen reads what SeenCommand printed.
func ParseSeen(out string) Seen {
	s := Seen{GPUs: parseList(out)}
	for pattern, version := range map[*regexp.Regexp]*string{seenDriver: &s.Driver, seenCUDA: &s.CUDA} {
		if m := pattern.FindStringSubmatch(out); m != nil {
			*version = m[1]
		}
	}
	return s
}

// String says, for a person, what a container sees.
func (s Seen) String() string {
	var all []string
	for _, g := range s.GPUs {
		parts := []string{g.UUID}
		for _, i := range g.MIG {
			parts = append(parts, i.UUID)
		}
		all = append(all, strings.Join(parts[min(1, len(g.MIG)):], ", "))
	}
	if len(all) == 0 {
		return "no GPU"
	}
	return fmt.Sprintf("%s, driver %s, CUDA %s", strings.Join(all, ", "), cmp.Or(s.Driver, "unknown"), cmp.Or(s.CUDA, "unknown"))
}

// Check returns an error unless a container sees the GPUs and MIG instances that it was
// given and no others, by the machine's own driver, with CUDA.
func (s Seen) Check(g Given) error {
	if err := s.compare(g.UUIDs); err != nil {
		return err
	}
	switch {
	case s.Driver == "":
		return errors.New("nvidia-smi in the container names no version of the driver")
	case g.Driver != "" && s.Driver != g.Driver:
		return fmt.Errorf("the container has the libraries of driver %s, and the machine runs driver %s", s.Driver, g.Driver)
	case s.CUDA == "":
		return errors.New("nvidia-smi in the container names no version of CUDA: the driver's libcuda.so.1 isn't there")
	}
	return nil
}

// compare compares UUIDs. A GPU of which the container sees instances stands for those.
func (s Seen) compare(given []string) error {
	if given == nil && len(s.GPUs) == 0 {
		return errors.New("the container sees no GPU, though it was given some")
	} else if given == nil {
		return nil
	}
	var seen, whole []string
	within := map[string]string{} // instances, and the GPUs that they are part of
	for _, g := range s.GPUs {
		if len(g.MIG) == 0 {
			seen = append(seen, g.UUID)
			continue
		}
		whole = append(whole, g.UUID)
		for _, i := range g.MIG {
			seen = append(seen, i.UUID)
			within[i.UUID] = g.UUID
		}
	}
	missing := slices.DeleteFunc(slices.Clone(given), func(u string) bool { return slices.Contains(seen, u) || slices.Contains(whole, u) })
	foreign := slices.DeleteFunc(seen, func(u string) bool { return slices.Contains(given, u) || slices.Contains(given, within[u]) })
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
