package gpu

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/berthdev/berth/internal/process"
)

// A Detail is what a launch doesn't need to know of a GPU, but a look at the machine does.
type Detail struct {
	UUID       string
	Capability string // compute capability, such as "9.0"; "" if the driver doesn't tell, as before 510
	MIG        bool   // it is switched to partitions, of which there may be none
}

// Details asks nvidia-smi about each GPU. It ends early with ctx.
func Details(ctx context.Context, root string) ([]Detail, error) {
	smi := smiPath(root)
	if smi == "" {
		return nil, nil
	}
	out, err := ask(ctx, smi, "--query-gpu=uuid,mig.mode.current,compute_cap", "--format=csv,noheader")
	if err != nil {
		// The driver is older than the question after the capability.
		if out, err = ask(ctx, smi, "--query-gpu=uuid,mig.mode.current", "--format=csv,noheader"); err != nil {
			return nil, err
		}
	}
	return parseDetails(out), nil
}

var capability = regexp.MustCompile(`^\d{1,2}\.\d{1,2}$`)

// parseDetails reads what Details asked for: a line for each GPU, of values separated by
// commas. What a GPU doesn't have is "[N/A]".
func parseDetails(out string) (all []Detail) {
	for line := range strings.Lines(out) {
		values := strings.Split(line, ",")
		for i := range values {
			values[i] = strings.TrimSpace(values[i])
		}
		if len(values) < 2 || !strings.HasPrefix(values[0], "GPU-") {
			continue
		}
		d := Detail{UUID: values[0], MIG: values[1] == "Enabled"}
		if len(values) > 2 && capability.MatchString(values[2]) {
			d.Capability = values[2]
		}
		all = append(all, d)
	}
	return all
}

// Nodes lists the driver's device nodes, such as "nvidia0", "nvidiactl" and "nvidia-uvm",
// of the machine whose file system is at root.
func Nodes(root string) (all []string) {
	paths, _ := filepath.Glob(filepath.Join(root, "dev/nvidia*"))
	for _, p := range paths {
		all = append(all, filepath.Base(p))
	}
	slices.Sort(all)
	return all
}

var toolkitVersion = regexp.MustCompile(`version (\d+\.\d+\.\d+)`)

// ToolkitVersion is the version of NVIDIA's Container Toolkit, such as "1.18.1", "" if
// it isn't installed or doesn't tell.
func ToolkitVersion(ctx context.Context, root string) string {
	path := find("nvidia-ctk", filepath.Join(root, "usr/bin"))
	if path == "" {
		return ""
	}
	out, _, err := process.Ask(ctx, smiTimeout, path, "--version")
	if err != nil {
		return ""
	}
	if m := toolkitVersion.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}
