package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// cdi is whether the CDI specifications fit the machine as it is now: the files that they
// name are there, and each GPU is in one.
func cdi(h Host) Finding {
	if len(h.GPU.Machine.GPUs) == 0 || len(h.GPU.Specs) == 0 {
		return Finding{} // whether one is needed is for passingOn to say
	}
	var why, paths []string
	for _, s := range h.GPU.Specs {
		paths = append(paths, s.Path)
		switch {
		case s.Err != "":
			why = append(why, fmt.Sprintf("%s can't be read: %s", s.Path, s.Err))
		case len(s.Missing) > 0:
			text := fmt.Sprintf("%s names %s, which isn't there", s.Path, s.Missing[0])
			if more := len(s.Missing) - 1; more > 0 {
				text += fmt.Sprintf(", and %d more such paths", more)
			}
			why = append(why, text)
		}
	}
	if lacking := h.GPU.Machine.Unnamed(h.GPU.Specs); lacking != nil && !slices.ContainsFunc(h.GPU.Specs, onlyAll) {
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

// onlyAll reports whether a specification names no GPU by itself, as one of WSL's does.
func onlyAll(s gpu.Spec) bool { return slices.Equal(s.Devices, []string{"all"}) }

// usesCDI reports whether a container with GPUs would get them by CDI. From 29 on, Docker
// tries it for --gpus as well (moby#50228).
func (h Host) usesCDI() bool {
	method, err := h.way()
	return h.Docker.API != "" && (err == nil && method == gpu.CDI || !h.Docker.Info.Podman() && len(numbers(h.Docker.Info.Version)) > 0 &&
		!before(h.Docker.Info.Version, "29"))
}
