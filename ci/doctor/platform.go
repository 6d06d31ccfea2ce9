package doctor

import (
	"fmt"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// platform is the system, the processor and, in Windows, the version of WSL.
func platform(h Host) Finding {
	name := h.System.Name
	if name == "" {
		name = h.OS
	}
	is := fmt.Sprintf("%s, %s %s, %s", name, h.OS, h.Kernel, h.Arch)
	// WSL's kernels say who made them: 4.4.0-19041-Microsoft is version 1,
	// 5.15.167.4-microsoft-standard-WSL2 version 2.
	switch {
	case h.OS != "linux":
		return found(trouble.OtherSystem, is)
	case strings.HasSuffix(h.Kernel, "-Microsoft"):
		return found(trouble.WSL1, is)
	case h.Arch != "amd64":
		return found(trouble.OtherProcessor, is)
	}
	return fine(is)
}
