package engine

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berthdev/berth/docker/daemon"
)

// recipe changes whenever the same sources, packages and files give another image.
const recipe = "1"

// engineConfig is BuildKit's configuration in the engine. The limits of its
// garbage collection are arguments, so that the official image has them, too.
const engineConfig = `[worker.oci]
  gc = true
`

// entrypoint starts the engine. Under cgroup v2 a group with processes of its own
// can't hand controllers on to the groups of build steps, so the processes move
// down one first. That is for the container's own hierarchy alone: the host's
// root, which has no cgroup.type, may be mounted here too.
const entrypoint = `#!/bin/sh
cd /sys/fs/cgroup
if [ -f cgroup.type ] && mkdir -p init; then
	for process in $(cat cgroup.procs); do echo "$process" > init/cgroup.procs; done
	for controller in $(cat cgroup.controllers); do echo "+$controller" > cgroup.subtree_control; done
fi
cd /
exec dagger-engine --config /etc/dagger/engine.toml "$@"
`

// A file is a part of the engine's image that isn't from the Debian packages.
type file struct {
	path string      // in the image, without the leading slash
	mode fs.FileMode // with fs.ModeSymlink for a link
	link string      // target of a link
	host string      // the file on this machine that it is copied from
	text string      // its content, where it isn't copied
}

// engineFiles lays out the engine around the programs that were compiled into
// dir. The paths are those of the constants that it was compiled with
// (source/distconsts), and those that it looks for by name.
func engineFiles(dir string) []file {
	program := func(path, name string) file { return file{path: path, mode: 0o755, host: filepath.Join(dir, name)} }
	link := func(path, target string) file { return file{path: path, mode: fs.ModeSymlink | 0o777, link: target} }
	files := []file{
		program("usr/local/bin/dagger-engine", "engine"),
		program("usr/local/bin/dagger-init", "init"),
		program("usr/local/bin/buildctl", "dialstdio"), // the name that every connection runs it by
		program("opt/cni/bin/dnsname", "dnsname"),
		{path: "usr/local/bin/entrypoint", mode: 0o755, text: entrypoint},
		link("usr/local/bin/runc", "/usr/sbin/runc"),
		{path: "etc/dagger/engine.toml", mode: 0o644, text: engineConfig},
		// No package's script ran, so these files are missing.
		{path: "etc/passwd", mode: 0o644, text: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
		{path: "etc/group", mode: 0o644, text: "root:x:0:\nnogroup:x:65534:\n"},
	}
	for _, plugin := range []string{"bridge", "firewall", "host-local", "loopback"} {
		files = append(files, link("opt/cni/bin/"+plugin, "/usr/lib/cni/"+plugin))
	}
	for _, command := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
		files = append(files, link("usr/sbin/"+command, "xtables-nft-multi"))
	}
	return files
}

// writeLayer writes files as a tar archive whose bytes depend on them alone.
func writeLayer(w io.Writer, files []file) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.path, b.path) })
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := f.write(tw); err != nil {
			return fmt.Errorf("packing %s: %w", f.path, err)
		}
	}
	return tw.Close()
}

func (f file) write(tw *tar.Writer) error {
	header := &tar.Header{Name: f.path, Mode: int64(f.mode.Perm()), Format: tar.FormatPAX}
	if f.mode&fs.ModeSymlink != 0 {
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.link
		return tw.WriteHeader(header)
	}
	var content io.Reader = strings.NewReader(f.text)
	header.Size = int64(len(f.text))
	if f.host != "" {
		file, err := os.Open(f.host)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		content, header.Size = file, info.Size()
	}
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(tw, content)
	return err
}

// certificates returns the bundle of the certificate authorities whose
// certificates lie in a Debian root file system.
func certificates(rootfs string) ([]byte, error) {
	f, err := os.Open(rootfs)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var bundle bytes.Buffer
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading the root file system: %w", err)
		}
		if path := strings.TrimPrefix(h.Name, "./"); h.Typeflag == tar.TypeReg && strings.HasPrefix(path, "usr/share/ca-certificates/") &&
			strings.HasSuffix(path, ".crt") {
			if _, err := io.Copy(&bundle, tr); err != nil {
				return nil, err
			}
		}
	}
	if bundle.Len() == 0 {
		return nil, errors.New("the root file system has no certificates: packages.toml must name ca-certificates")
	}
	return bundle.Bytes(), nil
}

// assemble makes the engine's image: the packages' root file system (a tar
// archive), and over it the files, for which temp has room.
func assemble(rootfs, temp string, files []file, inputs string) (v1.Image, error) {
	bundle, err := certificates(rootfs)
	if err != nil {
		return nil, err
	}
	files = append(files, file{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, text: string(bundle)})
	top := filepath.Join(temp, "engine.tar")
	out, err := os.Create(top)
	if err != nil {
		return nil, err
	}
	err = writeLayer(out, files)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	img := empty.Image
	for _, archive := range []string{rootfs, top} {
		// The image goes to a daemon on this machine: compressing it would be a waste.
		layer, err := tarball.LayerFromFile(archive, tarball.WithCompressionLevel(gzip.NoCompression))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platformOS, platformArch
	config.Config = v1.Config{
		Entrypoint: []string{"tini", "-s", "--", "entrypoint"},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"},
		Labels:     map[string]string{daemon.LabelRole: role, daemon.LabelInputs: inputs},
		Volumes:    map[string]struct{}{stateDir: {}},
		WorkingDir: "/",
	}
	return mutate.ConfigFile(img, config)
}
