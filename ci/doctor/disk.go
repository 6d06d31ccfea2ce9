package doctor

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"

	"github.com/berthdev/berth/internal/trouble"
)

// What must be free. The engine keeps 20 GB of old results at most, and leaves 5 GB
// (docs/engine.md).
const (
	diskFault   = 5_000_000_000
	diskWarning = 25_000_000_000
)

// disk is whether there is room where builds write.
func disk(h Host) Finding {
	var row *trouble.Row
	var low, all []string
	for _, d := range h.Disks {
		if d.Total == 0 {
			continue
		}
		is := fmt.Sprintf("%s free for %s (%s)", units.HumanSize(float64(d.Free)), d.For, d.Path)
		all = append(all, is)
		switch {
		case d.Free < diskFault:
			row = trouble.DiskFull
			low = append(low, is)
		case d.Free < diskWarning:
			if row == nil {
				row = trouble.DiskLow
			}
			low = append(low, is)
		}
	}
	switch {
	case row != nil:
		return found(row, strings.Join(low, ", "))
	case all != nil:
		return fine(strings.Join(all, ", "))
	}
	return Finding{}
}
