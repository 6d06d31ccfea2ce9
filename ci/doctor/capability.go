package doctor

import (
	"slices"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// oldestCapability is what the trainer's kernels are compiled for (sm_80).
const oldestCapability = "8.0"

// capability is whether the GPUs can run the trainer's kernels.
func capability(h Host) Finding {
	var all, old []string
	for i, d := range h.GPU.Details {
		if d.Capability == "" {
			continue
		}
		if !slices.Contains(all, d.Capability) {
			all = append(all, d.Capability)
		}
		if before(d.Capability, oldestCapability) {
			name := d.UUID
			if i < len(h.GPU.Machine.GPUs) {
				name = h.GPU.Machine.GPUs[i].Name
			}
			old = append(old, name+" has "+d.Capability)
		}
	}
	switch {
	case old != nil:
		return found(trouble.OldGPU, strings.Join(slices.Compact(old), ", "))
	case all != nil:
		return fine("compute capability " + strings.Join(all, ", "))
	}
	return Finding{} // an old driver doesn't tell
}
