package gpu

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Spec is a CDI specification of NVIDIA's GPUs: it says what of the machine a container
// gets with a GPU.
type Spec struct {
	Path    string
	Devices []string // by name, such as "0", "GPU-…" or "all"
	Missing []string // paths that it names and the machine hasn't got (any more)
	Err     string   // why it can't be read
}

// CDIDirs is where CDI's specifications lie, unless a daemon is told otherwise.
var CDIDirs = []string{"/etc/cdi", "/var/run/cdi"}

// ReadSpecs reads the specifications in these folders of the machine whose file system is
// at root. Those of other makers' devices are left out.
func ReadSpecs(root string, dirs []string) (all []Spec) {
	for _, dir := range dirs {
		entries, _ := os.ReadDir(filepath.Join(root, dir)) // none, or not for us
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext != ".yaml" && ext != ".json" {
				continue
			}
			s := Spec{Path: filepath.Join(dir, e.Name())}
			text, err := os.ReadFile(filepath.Join(root, s.Path))
			var paths []string
			if err == nil {
				s.Devices, paths, err = parseSpec(text)
			}
			switch {
			case err != nil:
				s.Err = err.Error()
			case s.Devices == nil:
				continue
			}
			for _, p := range paths {
				if _, err := os.Stat(filepath.Join(root, p)); os.IsNotExist(err) {
					s.Missing = append(s.Missing, p)
				}
			}
			all = append(all, s)
		}
	}
	return all
}

// edits is the part of CDI's containerEdits that names files of the machine.
type edits struct {
	DeviceNodes []struct {
		Path     string `yaml:"path"`
		HostPath string `yaml:"hostPath"`
	} `yaml:"deviceNodes"`
	Mounts []struct {
		HostPath string `yaml:"hostPath"`
	} `yaml:"mounts"`
	Hooks []struct {
		Path string `yaml:"path"`
	} `yaml:"hooks"`
}

// paths are the files of the machine that the edits name.
func (e edits) paths() (all []string) {
	for _, d := range e.DeviceNodes {
		if d.HostPath != "" {
			all = append(all, d.HostPath)
		} else {
			all = append(all, d.Path)
		}
	}
	for _, m := range e.Mounts {
		all = append(all, m.HostPath)
	}
	for _, h := range e.Hooks {
		all = append(all, h.Path)
	}
	return all
}

// parseSpec reads a CDI specification (github.com/cncf-tags/container-device-interface,
// SPEC.md), in YAML or JSON, and returns the names of its devices and the files of the
// machine that it names, each once. Neither, if it isn't about NVIDIA's GPUs.
func parseSpec(text []byte) (devices, paths []string, err error) {
	var spec struct {
		Kind    string `yaml:"kind"`
		Edits   edits  `yaml:"containerEdits"`
		Devices []struct {
			Name  string `yaml:"name"`
			Edits edits  `yaml:"containerEdits"`
		} `yaml:"devices"`
	}
	if err := yaml.Unmarshal(text, &spec); err != nil {
		return nil, nil, err
	}
	if spec.Kind != strings.TrimSuffix(cdiKind, "=") {
		return nil, nil, nil
	}
	all := spec.Edits.paths()
	devices = []string{}
	for _, d := range spec.Devices {
		devices = append(devices, d.Name)
		all = append(all, d.Edits.paths()...)
	}
	for _, p := range all {
		if filepath.IsAbs(p) && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	return devices, paths, nil
}

// Unnamed lists the GPUs and instances, by index, that no specification has a device for.
func (m Machine) Unnamed(specs []Spec) (all []string) {
	known := func(names ...string) bool {
		return slices.ContainsFunc(specs, func(s Spec) bool {
			return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(s.Devices, n) })
		})
	}
	for _, g := range m.GPUs {
		at := strconv.Itoa(g.Index)
		if len(g.MIG) == 0 && !known(at, g.UUID) {
			all = append(all, at)
		}
		for _, i := range g.MIG {
			if part := at + ":" + strconv.Itoa(i.Index); !known(part, i.UUID) {
				all = append(all, part)
			}
		}
	}
	return all
}
