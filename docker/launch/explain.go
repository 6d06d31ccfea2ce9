package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// explainStart turns the daemon's refusal to create or start a container into
// the exit code that docker run has for it, and an instruction.
func explainStart(ctx context.Context, d *daemon.Client, p Plan, err error) (int, error) {
	info, _ := d.Info(ctx) // without an answer, the explanation is more general
	return explain(p, d.Host(), info, err)
}

// missingSource is how Docker refuses a mount.
const missingSource = "bind source path does not exist"

// explain is explainStart, with what the daemon at an address says of itself.
func explain(p Plan, address string, info daemon.Info, err error) (int, error) {
	text := err.Error()
	has := func(part string) bool { return strings.Contains(text, part) }
	if why := gpu.Explain(text, info); why != nil && !p.GPU.None() {
		return ExitDaemon, fmt.Errorf("%w\nDocker said: %w", why, err)
	}
	switch {
	case errors.Is(err, daemon.ErrConflict):
		return ExitDaemon, fmt.Errorf("the name %s is taken. Choose another one with -n, or type\n\tdocker rm -f %s\n"+
			"if that container isn't needed any more: %w", p.Container.Name, p.Container.Name, err)
	case has("port is already allocated"), has("address already in use"), has("cannot assign requested address"),
		has("ports are not available"):
		return ExitDaemon, fmt.Errorf("-p: Docker can't publish a port: it is taken on the host, or the address isn't the host's. "+
			"Choose another port (-p=HOST:CONTAINER), or see who has it with\n\tss -ltnp\n%w", err)
	case has(missingSource) && !strings.HasPrefix(address, "unix://"):
		return ExitDaemon, advice.About(fmt.Errorf("your folders aren't on the machine that Docker runs on: %w", err), trouble.RemoteDocker)
	case has(missingSource) && info.Snap():
		return ExitDaemon, advice.About(fmt.Errorf("the snap of Docker sees neither hidden folders nor anything outside of home: %w", err),
			trouble.Snap)
	case has(missingSource) && isHere(text):
		return ExitDaemon, advice.With(fmt.Errorf("a folder or file that is here isn't there for Docker: %w", err),
			"If this runs in a container with the host's Docker, mount the checkout and Berth's cache folder (BERTH_CACHE) there, "+
				"each at the path that it has on the host. If Docker runs on another machine, log in there.")
	case has(missingSource):
		return ExitDaemon, fmt.Errorf("-v: there is no such file or folder on the host. Make it first, or correct the path: %w", err)
	case has("network") && errors.Is(err, daemon.ErrNotFound):
		return ExitDaemon, fmt.Errorf("-net: Docker has no network %q. List them with\n\tdocker network ls\n%w", p.Container.Network, err)
	case has("executable file not found"), has("exec:") && has("no such file or directory"):
		return ExitNotFound, fmt.Errorf("the image doesn't have the command: %w", err)
	case has("exec:") && (has("permission denied") || has("is a directory")):
		return ExitNotRunnable, fmt.Errorf("the command isn't executable: %w", err)
	}
	return ExitDaemon, err
}

// isHere reports whether what Docker misses is on this side, as all is that a launch
// mounts besides what -v names.
func isHere(refusal string) bool {
	_, path, _ := strings.Cut(refusal, missingSource+": ")
	_, err := os.Stat(path)
	return err == nil
}
