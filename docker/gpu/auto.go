package gpu

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthdev/berth/internal/usage"
)

// auto is how idle GPUs are asked for.
const auto = "auto"

var autoCount = regexp.MustCompile(`^auto:([1-9]\d{0,3})$`)

// Auto reports whether a selection asks for idle GPUs, whichever they are.
func Auto(selection string) bool { return selection == auto || strings.HasPrefix(selection, auto+":") }

// idle returns how many idle GPUs a selection asks for.
func (m Machine) idle(selection string) (count int, err error) {
	count = 1
	if selection != auto {
		match := autoCount.FindStringSubmatch(selection)
		if match == nil {
			return 0, fmt.Errorf("%w: it takes a number of GPUs, as in -g=auto:2", usage.Err)
		}
		count, _ = strconv.Atoi(match[1]) // four digits
	}
	if have := len(m.shareable()); count > have {
		return 0, fmt.Errorf("%w: this machine has no more than %d to choose from\n%s", usage.Err, have, m.List())
	}
	return count, nil
}

// shareable returns the UUIDs that auto chooses from: GPUs or, where every GPU is
// partitioned, the partitions.
func (m Machine) shareable() []string {
	var whole, parts []string
	for _, g := range m.GPUs {
		if len(g.MIG) == 0 {
			whole = append(whole, g.UUID)
		}
		for _, i := range g.MIG {
			parts = append(parts, i.UUID)
		}
	}
	if len(whole) > 0 {
		return whole
	}
	return parts
}

// Wanted returns what to lease for a selection and what Resolve made of it: so many of
// the UUIDs. Of a partitioned GPU those are all of its partitions, so that whoever has
// the whole has each part.
func (m Machine) Wanted(selection string, r Request) (count int, uuids []string) {
	if Auto(selection) {
		return len(r.IDs), m.shareable()
	}
	ids := r.IDs
	if r.All {
		for _, g := range m.GPUs {
			ids = append(ids, g.UUID)
		}
	}
	for _, id := range ids {
		for _, uuid := range m.units(id) {
			if !slices.Contains(uuids, uuid) {
				uuids = append(uuids, uuid)
			}
		}
	}
	return len(uuids), uuids
}

// units returns the UUIDs of what an ID of a Request stands for.
func (m Machine) units(id string) []string {
	_, uuid, err := m.find(id)
	if err != nil {
		return nil // Resolve found it
	}
	for _, g := range m.GPUs {
		if g.UUID == uuid && len(g.MIG) > 0 {
			var parts []string
			for _, i := range g.MIG {
				parts = append(parts, i.UUID)
			}
			return parts
		}
	}
	return []string{uuid}
}

// Label is what a person calls the GPU of a UUID: "GPU 0", "GPU 0:1".
func (m Machine) Label(uuid string) string {
	for _, g := range m.GPUs {
		if g.UUID == uuid {
			return fmt.Sprintf("GPU %d", g.Index)
		}
		for _, i := range g.MIG {
			if i.UUID == uuid {
				return fmt.Sprintf("GPU %d:%d", g.Index, i.Index)
			}
		}
	}
	return uuid
}

// Processes are the ids of the processes that compute on each GPU, by its UUID.
type Processes map[string][]int

// Computing asks the driver which processes compute on which GPU, on the machine
// whose file system is at root. In a container without the host's process ids the
// driver tells of none. Of a partitioned GPU it tells the partition only if it is
// new enough; whoever is named with the whole GPU isn't taken for a partition's.
func Computing(ctx context.Context, root string) (Processes, error) {
	smi := smiPath(root)
	if smi == "" {
		return nil, nil
	}
	out, err := ask(ctx, smi, "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader")
	if err != nil {
		return nil, fmt.Errorf("asking nvidia-smi who computes: %w", err)
	}
	return parseProcesses(out), nil
}

// parseProcesses reads lines such as "GPU-…, 1234". Others are skipped.
func parseProcesses(out string) Processes {
	all := Processes{}
	for line := range strings.Lines(out) {
		uuid, number, ok := strings.Cut(line, ",")
		pid, err := strconv.Atoi(strings.TrimSpace(number))
		uuid = strings.TrimSpace(uuid)
		if ok && err == nil && pid > 0 && (strings.HasPrefix(uuid, "GPU-") || strings.HasPrefix(uuid, "MIG-")) {
			all[uuid] = append(all[uuid], pid)
		}
	}
	return all
}
