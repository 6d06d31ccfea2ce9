package doctor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// gpus is whether the driver knows a GPU and, if not, which link to it is broken.
func gpus(h Host) Finding {
	if h.GPU.Slow {
		return found(trouble.SMISlow, "")
	}
	m := h.GPU.Machine
	if fault := (*gpu.Fault)(nil); errors.As(m.Broken(), &fault) {
		f := found(fault.Row, m.Complaint)
		if fault.Row == trouble.NoGPU {
			f.Found = fault.Link + ": everything runs on the CPU"
		}
		return f
	}
	names := map[string]int{}
	var order []string
	for _, g := range m.GPUs {
		if names[g.Name] == 0 {
			order = append(order, g.Name)
		}
		names[g.Name]++
	}
	var all []string
	for _, n := range order {
		all = append(all, fmt.Sprintf("%d × %s", names[n], n))
	}
	return fine(strings.Join(all, ", "))
}
