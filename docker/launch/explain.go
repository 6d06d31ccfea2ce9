package launch

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
)

// explainStart turns the daemon's refusal to create or start a container into
// the exit code that docker run has for it, and an instruction.
func explainStart(err error, p Plan) (int, error) {
	text := err.Error()
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case errors.Is(err, daemon.ErrConflict):
		return ExitDaemon, fmt.Errorf("the name %s is taken. Choose another one with -n, or type\n\tdocker rm -f %s\nif that container isn't needed any more: %w", p.Container.Name, p.Container.Name, err)
	case has("bind source path does not exist"):
		return ExitDaemon, fmt.Errorf("-v: there is no such file or folder on the host. Make it first, or correct the path: %w", err)
	case has("network") && errors.Is(err, daemon.ErrNotFound):
		return ExitDaemon, fmt.Errorf("-net: Docker has no network %q. List them with\n\tdocker network ls\n%w", p.Container.Network, err)
	case has("executable file not found"), has("exec:") && has("no such file or directory"):
		return ExitNotFound, fmt.Errorf("the image doesn't have the command: %w", err)
	case has("exec:") && has("permission denied"):
		return ExitNotRunnable, fmt.Errorf("the command isn't executable: %w", err)
	}
	return ExitDaemon, err
}
