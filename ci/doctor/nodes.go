package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// ofGPU is the name of a GPU's node.
var ofGPU = regexp.MustCompile(`^nvidia\d+$`)

// deviceNodes is whether the driver's device nodes are there: without nvidia-uvm, no CUDA.
func deviceNodes(h Host) Finding {
	m := h.GPU.Machine
	if !m.Loaded || m.WSL || len(m.GPUs) == 0 {
		return Finding{}
	}
	var missing []string
	for _, w := range []string{"nvidiactl", "nvidia-uvm"} {
		if !slices.Contains(h.GPU.Nodes, w) {
			missing = append(missing, "/dev/"+w)
		}
	}
	// A node's number is the driver's own, and need not be nvidia-smi's.
	nodes := 0
	for _, n := range h.GPU.Nodes {
		if ofGPU.MatchString(n) {
			nodes++
		}
	}
	if lacking := len(m.GPUs) - nodes; lacking > 0 {
		missing = append(missing, fmt.Sprintf("/dev/nvidia0 and so on: %d of %d", lacking, len(m.GPUs)))
	}
	if len(missing) > 0 {
		return found(trouble.DeviceNodes, strings.Join(missing, ", "))
	}
	return fine("/dev/nvidia*: all there")
}
