package doctor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// cdi is whether the CDI specifications fit the machine as it is now: the files that they
// name are there, and each GPU is in one.
func cdi(h Host) Finding {
	if !h.passesHere() || len(h.GPU.Specs) == 0 {
		return Finding{} // whether one is needed is for passingOn to say
	}
	var why, paths []string
	lacking := h.computing().Unnamed(h.GPU.Specs)
	if slices.ContainsFunc(h.GPU.Specs, onlyAll) {
		lacking = nil
	}
	for i, s := range h.GPU.Specs {
		paths = append(paths, s.Path)
		switch {
		case s.Err != "" && lacking != nil:
			why = append(why, fmt.Sprintf("%s can't be read: %s", s.Path, s.Err))
		case len(s.Missing) > 0 && !overridden(s, h.GPU.Specs[i+1:]):
			text := fmt.Sprintf("%s names %s, which isn't there", s.Path, s.Missing[0])
			if more := len(s.Missing) - 1; more > 0 {
				text += fmt.Sprintf(", and %d more such paths", more)
			}
			why = append(why, text)
		}
	}
	if lacking != nil {
		why = append(why, "no device for GPU "+strings.Join(lacking, ", "))
	}
	switch {
	case why == nil:
		return fine(strings.Join(paths, ", "))
	case h.usesCDI():
		return found(trouble.StaleCDI, strings.Join(why, "; "))
	}
	f := found(trouble.StaleCDI, strings.Join(why, "; ")+". Docker doesn't use it so far")
	f.State = trouble.Warning
	return f
}

// overridden reports whether each device of a specification is also in one of a later
// folder, which wins (container-device-interface, SPEC.md).
func overridden(s gpu.Spec, later []gpu.Spec) bool {
	return !slices.ContainsFunc(s.Devices, func(device string) bool {
		return !slices.ContainsFunc(later, func(l gpu.Spec) bool {
			return filepath.Dir(l.Path) != filepath.Dir(s.Path) && slices.Contains(l.Devices, device)
		})
	})
}

// computing is the machine without the GPUs that can't compute, since they are switched
// to partitions and have none: NVIDIA's tools leave those out.
func (h Host) computing() gpu.Machine {
	m := h.GPU.Machine
	m.GPUs = slices.DeleteFunc(slices.Clone(m.GPUs), h.emptyMIG)
	return m
}

// onlyAll reports whether a specification names no GPU by itself, as one of WSL's does.
func onlyAll(s gpu.Spec) bool { return slices.Equal(s.Devices, []string{"all"}) }

// usesCDI reports whether a container with GPUs would get them by CDI. From 29 on, Docker
// tries it for --gpus as well (moby#50228).
func (h Host) usesCDI() bool {
	method, err := h.way()
	version := h.Docker.Info.Version
	return err == nil && method == gpu.CDI || !h.Docker.Info.Podman() && len(numbers(version)) > 0 && !before(version, "29")
}
