package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
)

// GPUs says how an engine's container is given the machine's GPUs, all of them: which of
// them a command gets is up to the command. An engine that got them otherwise is replaced.
type GPUs struct {
	Devices []daemon.DeviceRequest
	Runtime string   // OCI runtime; the daemon's default if empty
	Env     []string // NAME=value, for whoever puts the GPUs into the container
	Driver  string   // its version; libraries of another one don't go with it

	toolkit []daemon.Mount // NVIDIA's, for an image that lacks it
}

const (
	// labelGPUs has the hash of how an engine got its GPUs.
	labelGPUs = "dev.berth.gpus"

	// envGPUSupport is Dagger's own. Without it, steps that ask for a GPU are refused.
	envGPUSupport = "_EXPERIMENTAL_DAGGER_GPU_SUPPORT"

	// The programs of NVIDIA's Container Toolkit. Dagger runs the hook by this path, and
	// the hook the other program.
	hookName = "nvidia-container-runtime-hook"
	cliOfGPU = "nvidia-container-cli"

	// gpuLibrary is what the programs can't do without.
	gpuLibrary = "libnvidia-container.so.1"
)

// give makes a container get the GPUs, and hand them on.
func (g *GPUs) give(c *daemon.Container) {
	c.Devices, c.Runtime = g.Devices, g.Runtime
	c.Env = append(slices.Clone(g.Env), envGPUSupport+"=1")
	c.Mounts = slices.Concat(c.Mounts, g.toolkit)
}

// hash tells apart what needs a container of its own; "" is that of no GPUs.
func (g *GPUs) hash() string {
	if g == nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", *g))
	return hex.EncodeToString(sum[:])
}

// gpus is how the container of an engine that was made from these inputs gets its GPUs;
// nil for the usual engine. It fails if the image has no toolkit, and neither has this machine.
func (p *provider) gpus(inputs string) (*GPUs, error) {
	if !p.GPU {
		return nil, nil
	}
	g := p.GPUs
	if inputs != p.inputs {
		return &g, nil // the official image has its own
	}
	if !strings.HasPrefix(p.docker.Host(), "unix://") {
		return nil, fmt.Errorf("%w: an engine that hands GPUs on takes NVIDIA's Container Toolkit from the machine that it runs on, "+
			"and Docker runs on another one (%s)", ErrUnavailable, p.docker.Host())
	}
	var err error
	g.toolkit, err = findToolkit("/").mounts()
	return &g, err
}

// Named is the engine that the user named, of which it isn't known whether it hands GPUs
// on; "" if Berth has its own.
func Named() string { return cmp.Or(os.Getenv(envRunnerHost), os.Getenv(envSessionPort)) }

// HandsOnGPUs returns nil if an engine of Berth's can hand GPUs on to commands, as far
// as can be told without starting one or asking a registry, else the reason why not.
func HandsOnGPUs(ctx context.Context, docker *daemon.Client, o Options) error {
	o.GPU = true
	p, err := newProvider(docker, o)
	if err != nil {
		return err
	}
	hasOfficial, err := p.has(ctx, p.official(), nil)
	if err != nil || p.source == "image" || hasOfficial && p.source == "" {
		return err
	}
	_, err = p.gpus(p.inputs)
	return err
}

// A toolkit is what this machine has of NVIDIA's Container Toolkit, by path. What it
// lacks is empty.
type toolkit struct {
	hook, cli string
	libraries []string
	settings  []string // and what they name: the engine gets it at the same path
}

// findToolkit looks on the PATH and in the usual places of the machine whose file system
// is at root, "/" but for tests.
func findToolkit(root string) (t toolkit) {
	program := func(name string) string {
		for _, at := range []string{name, filepath.Join(root, "usr/bin", name)} {
			if path, err := exec.LookPath(at); err == nil {
				return path
			}
		}
		return ""
	}
	t.hook, t.cli = program(hookName), program(cliOfGPU)
	for _, prefix := range []string{filepath.Dir(filepath.Dir(t.cli)), filepath.Join(root, "usr")} {
		for _, folder := range []string{"lib/*-linux-gnu", "lib64", "lib"} {
			if found, _ := filepath.Glob(filepath.Join(prefix, folder, gpuLibrary)); t.cli != "" && t.libraries == nil && len(found) > 0 {
				t.libraries, _ = filepath.Glob(filepath.Join(filepath.Dir(found[0]), "libnvidia-container*.so.1"))
			}
		}
	}
	// Ubuntu's settings name that ldconfig, which is linked statically.
	for _, path := range []string{"etc/nvidia-container-runtime/config.toml", "sbin/ldconfig.real"} {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil {
			t.settings = append(t.settings, filepath.Join(root, path))
		}
	}
	return t
}

// mounts puts the toolkit where the programs of a Debian image find it.
func (t toolkit) mounts() (all []daemon.Mount, err error) {
	var missing []string
	add := func(source, target string) {
		if source == "" {
			missing = append(missing, filepath.Base(target))
			return
		}
		all = append(all, daemon.Mount{Type: "bind", Source: source, Target: target, ReadOnly: true})
	}
	add(t.hook, "/usr/bin/"+hookName)
	add(t.cli, "/usr/bin/"+cliOfGPU)
	if len(t.libraries) == 0 {
		missing = append(missing, gpuLibrary)
	}
	for _, l := range t.libraries {
		add(l, "/usr/lib/"+filepath.Base(l)) // on every architecture's search path
	}
	for _, s := range t.settings {
		add(s, s)
	}
	if len(missing) > 0 {
		return nil, advice.With(fmt.Errorf("%w: an engine that hands GPUs on needs NVIDIA's Container Toolkit, of which this machine lacks %s",
			ErrUnavailable, strings.Join(missing, ", ")), "Install the package nvidia-container-toolkit from NVIDIA's repository")
	}
	return all, nil
}
