package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// partitions is whether the GPUs that are switched to partitions (MIG) have any.
func partitions(h Host) Finding {
	var empty []string
	parts, whole := 0, 0
	for _, g := range h.GPU.Machine.GPUs {
		parts += len(g.MIG)
		switch {
		case len(g.MIG) > 0:
		case h.emptyMIG(g):
			empty = append(empty, fmt.Sprintf("GPU %d", g.Index))
		default:
			whole++
		}
	}
	switch {
	case empty != nil:
		return found(trouble.EmptyMIG, strings.Join(empty, ", "))
	case parts > 0 && whole > 0:
		return fine(fmt.Sprintf("%d instances, and %d whole GPUs: -g=auto takes whole ones, -g=0:1 an instance", parts, whole))
	case parts > 0:
		return fine(fmt.Sprintf("%d instances: -g=auto takes one, -g=0:1 a certain one", parts))
	}
	return Finding{}
}

// emptyMIG reports whether a GPU is switched to partitions and has none.
func (h Host) emptyMIG(g gpu.GPU) bool {
	at := slices.IndexFunc(h.GPU.Details, func(d gpu.Detail) bool { return d.UUID == g.UUID })
	return len(g.MIG) == 0 && at >= 0 && h.GPU.Details[at].MIG
}
