package launch

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/usage"
)

// onHost returns the absolute path that a person means.
func onHost(h Host, typed string) string {
	if typed == "~" || strings.HasPrefix(typed, "~/") {
		return filepath.Join(h.User.Home, typed[1:])
	}
	if filepath.IsAbs(typed) {
		return filepath.Clean(typed)
	}
	return filepath.Join(h.Dir, typed)
}

// chooseMount returns the mount that a person asks for, and what they should
// know of it.
func chooseMount(h Host, o mountOption) (m daemon.Mount, notes []string) {
	m = daemon.Mount{Type: "bind", Source: onHost(h, o.source), Target: path.Clean(o.target), ReadOnly: o.readOnly}
	if real, ok := h.Sources[m.Source]; ok {
		if within(h.Root, m.Source) && !within(h.Root, real) {
			// A data set on another disk, or a link that a container made to see more.
			notes = append(notes, fmt.Sprintf("-v: a symbolic link in the checkout leads %s to %s, which the container gets", o.source, real))
		}
		m.Source = real
	}
	if !m.ReadOnly {
		return m, notes
	}
	var below []string
	for _, at := range h.MountPoints {
		if at != m.Source && within(m.Source, at) {
			below = append(below, at)
		}
	}
	switch {
	case len(below) > 0 && atLeast(h.API, 1, 44):
		m.Submounts = daemon.SubmountsReadOnly
	case len(below) > 0:
		notes = append(notes, fmt.Sprintf("-v: Docker before 25 can't make what is mounted below %s read-only, so the container doesn't get %s. "+
			"Mount it by itself if you need it",
			m.Source, strings.Join(below, ", ")))
		fallthrough
	default:
		m.Submounts = daemon.SubmountsLeftOut // also one that comes meanwhile
	}
	return m, notes
}

// within reports whether a path is a folder or below it.
func within(folder, path string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

// checkUTF8 refuses paths that can't be told to Docker, which speaks JSON: in them
// it would get other characters, and mount a folder of that name.
func checkUTF8(c daemon.Container) error {
	paths := []string{c.WorkingDir}
	for _, m := range c.Mounts {
		paths = append(paths, m.Source, m.Target)
	}
	for _, p := range paths {
		if !utf8.ValidString(p) {
			return fmt.Errorf("%w: the path %q isn't valid UTF-8, so Docker can't be told of it. Rename the file or folder", usage.Err, p)
		}
	}
	return nil
}

// checkTargets refuses two mounts on one target.
func checkTargets(mounts []daemon.Mount, files []File) error {
	taken := map[string]bool{}
	for _, f := range files {
		taken[f.Target] = true
	}
	for _, m := range mounts {
		if taken[m.Target] {
			return fmt.Errorf("-v: %w: something is mounted on %s already. Choose another target for %s", usage.Err, m.Target, m.Source)
		}
		taken[m.Target] = true
	}
	return nil
}
