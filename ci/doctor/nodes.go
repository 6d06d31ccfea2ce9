package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// deviceNodes is whether the driver's device nodes are there: without nvidia-uvm, no CUDA.
func deviceNodes(h Host) Finding {
	m := h.GPU.Machine
	if !m.Loaded || m.WSL || len(m.GPUs) == 0 {
		return Finding{}
	}
	wanted := []string{"nvidiactl", "nvidia-uvm"}
	// Minor numbers are the driver's and need not be nvidia-smi's indexes, but there are
	// as many.
	for i := range m.GPUs {
		wanted = append(wanted, fmt.Sprintf("nvidia%d", i))
	}
	var missing []string
	for _, w := range wanted {
		if !slices.Contains(h.GPU.Nodes, w) {
			missing = append(missing, "/dev/"+w)
		}
	}
	if len(missing) > 0 {
		return found(trouble.DeviceNodes, strings.Join(missing, ", "))
	}
	return fine("/dev/nvidia*: all there")
}
