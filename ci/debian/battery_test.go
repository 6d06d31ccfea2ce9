package debian

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// battery are popular packages and sets of them, each with a command that shows that what was
// made again, or left out, isn't missed. The first three are in the normal suite.
var battery = []struct{ packages, works string }{
	{"openssh-server ssl-cert", "ssh-keygen -A && mkdir -p /run/sshd && sshd -t"},
	{"default-jre-headless ca-certificates-java", "keytool -list -cacerts -storepass changeit | grep -c trustedCertEntry && java -version"},
	{"fonts-dejavu-core fontconfig man-db", "fc-list | grep -q DejaVu && man --version && test -w /var/lock/."},

	{"postgresql", "pg_createcluster 17 main && psql --version"},
	{"gimp", "gimp --version && grep -q image/gif /usr/lib/*/gdk-pixbuf-2.0/*/loaders.cache"},
	{"python3-torch", "python3 -c 'import torch; print(torch.ones(2).sum())'"},
	{"default-jdk", "javac -version"},
	{"openmpi-bin libopenmpi-dev", "ompi_info --version"},
	{"texlive-latex-base", `cd $(mktemp -d) && chown nobody . && HOME=$PWD setpriv --reuid=nobody --clear-groups sh -ec '
		for latex in pdflatex lualatex; do $latex "\\documentclass{article}\\begin{document}x\\end{document}"; test -s texput.pdf; rm texput.*; done
		for tex in tex luatex; do $tex "\\relax x\\bye"; done; test -s texput.dvi && test -s texput.pdf'`},
	{"chromium", "chromium --version"},
	{"emacs-nox", "emacs --batch --eval '(princ emacs-version)'"},
	{"r-base", "R --version && Rscript -e 'mean(1:10)'"},
	{"mariadb-server", "mariadbd --version"},
	{"nginx", "nginx -t"},
	{"apache2", "apache2ctl -v"},
	{"redis-server", "redis-server --version"},
	{"git git-lfs subversion mercurial", "git --version && svn --version && hg --version"},
	{"vim neovim nano tmux screen zsh", "vim --version && nvim --version && tmux -V && zsh --version"},
	{"g++ gfortran cmake ninja-build gdb valgrind", "g++ --version && gfortran --version && cmake --version && gdb --version"},
	{"clang llvm lld", "clang --version"},
	{"python3-matplotlib python3-scipy python3-pandas python3-sklearn", "python3 -c 'import matplotlib.pyplot, scipy, pandas, sklearn'"},
	{"jupyter-notebook", "jupyter notebook --version"},
	{"nodejs npm", "node --version && npm --version"},
	{"golang-go", "go version"},
	{"rustc cargo", "rustc --version && cargo --version"},
	{"octave", "octave-cli --eval 'ones(2)*ones(2), pkg list'"},
	{"ffmpeg imagemagick graphviz gnuplot-nox", "ffmpeg -version && convert -version && dot -V && gnuplot --version"},
	{"inkscape", "inkscape --version"},
	{"libreoffice-writer", "libreoffice --version"},
	{"firefox-esr", "firefox-esr --version"},
	{"xfce4 dbus-x11 xvfb xauth", "xvfb-run -a xfce4-session --version"},
	{"systemd dbus cron rsyslog sudo", "dbus-run-session -- true && systemctl --version"},
	{"cups", "cupsd -t"},
	{"postfix", "newaliases && test -s /etc/aliases.db && postconf mail_version"},
	{"docker.io podman", "dockerd --version && podman --version"},
	{"ghc", "ghc --version"},
	{"ocaml", "ocaml -version"},
	{"php-cli php-xml", "php -r 'echo PHP_VERSION;'"},
	{"ruby perl lua5.4", "ruby --version && perl --version && lua5.4 -v"},
	{"aspell-en hunspell-en-us wamerican", "echo helo | aspell -a | grep -q hello"},
	{"mesa-utils vulkan-tools xvfb weston", "glxinfo -h; weston --version"},
}

// TestBattery configures each set twice, the second time with a clock that is 400 days ahead, as
// another machine: by what they leave, the two are the same. Then its programs start.
func TestBattery(t *testing.T) {
	if testing.Short() {
		t.Skip("it configures packages in containers")
	}
	if raced { // it is about packages, not about races: unpacking them takes ten times as long
		out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=3h", "-v", "-run=^TestBattery$", ".").CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "--- PASS: TestBattery/openssh-server,ssl-cert")
		return
	}
	needsApt(t)
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	mirrors := HostMirrors()
	if len(mirrors["debian"]) == 0 || len(mirrors["debian-security"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	sets := battery
	if !testenv.Long() {
		sets = sets[:3]
	}
	o := Options{Mirrors: mirrors, Cache: openCache(t)}
	for _, set := range sets {
		t.Run(strings.ReplaceAll(set.packages, " ", ","), func(t *testing.T) {
			m := manifest(append(strings.Fields(set.packages), "libfaketime", "mawk")...)
			m.Suites = suitesOf("trixie")
			image := unconfigured(t, m, o)
			first, left := configured(t, image)
			_, again := configured(t, image,
				"-e=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "-e=FAKETIME=+400d", "-e=DONT_FAKE_MONOTONIC=1", "-e=FAKETIME_SKIP_CMDS=su")
			assert.Empty(t, differing(left, again))
			assert.Greater(t, len(left), 1000)
			for name := range left {
				assert.False(t, strings.HasPrefix(name, "usr/lib/berth"), name)
			}
			works := dockertest.Name(t)
			docker(t, "commit", first, works)
			t.Cleanup(func() { docker(t, "rmi", works) })
			docker(t, "run", "--rm", "--network=none", "--hostname=build", "-e=LC_ALL=C.UTF-8", "-e=HOME=/root",
				"-e=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/usr/games", works, "sh", "-ec", set.works)
		})
	}
}

// docker runs Docker's command line.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.Command("docker", args...)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); !assert.NoError(t, err, "docker %s", strings.Join(args, " ")) {
		text := out.String() + said.String()
		require.FailNow(t, text[max(0, len(text)-4000):])
	}
	return strings.TrimSpace(out.String())
}

// unconfigured makes an image of the packages that are wanted, as rootfs.tar has them, and
// forgets the packages, which fill a disk.
func unconfigured(t *testing.T, m Manifest, o Options) string {
	t.Helper()
	l, err := Pin(t.Context(), m, Lock{}, o)
	require.NoError(t, err)
	packages, err := Fetch(t.Context(), l, FetchOptions{Options: o})
	require.NoError(t, err)
	packages.Configure = true
	dir := t.TempDir()
	rootfs, err := RootfsFile(t.Context(), filepath.Join(dir, "rootfs.tar"), packages, l.Snapshot, dir, nil)
	require.NoError(t, err)
	name := dockertest.Name(t)
	docker(t, "import", rootfs, name)
	t.Cleanup(func() { docker(t, "rmi", name) })
	require.NoError(t, os.Remove(rootfs))
	return name
}

// configured configures an image's packages, and returns the container and what is in it.
func configured(t *testing.T, image string, options ...string) (container string, files map[string]string) {
	t.Helper()
	container = dockertest.Name(t)
	t.Cleanup(func() { docker(t, "rm", "-f", container) })
	docker(t, slices.Concat([]string{"run", "--name=" + container, "--network=none", "--hostname=build"}, options,
		[]string{image, "/bin/sh", "/" + configurePath})...)
	export := exec.Command("docker", "export", container)
	out, err := export.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, export.Start())
	files = map[string]string{}
	reader := tar.NewReader(out)
	for {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		name := path.Clean(h.Name)
		if top, _, _ := strings.Cut(name, "/"); top == "dev" || top == "proc" || top == "sys" || name == ".dockerenv" ||
			name == "etc/hosts" || name == "etc/hostname" || name == "etc/resolv.conf" || name == "etc/mtab" {
			continue // Docker's own
		}
		sum := sha256.New()
		_, err = io.Copy(sum, reader)
		require.NoError(t, err)
		files[name] = fmt.Sprintf("%c %o %d:%d %s %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, sum.Sum(nil)[:8])
	}
	require.NoError(t, export.Wait())
	return container, files
}

// differing lists in what two trees differ.
func differing(a, b map[string]string) (all []string) {
	for name, x := range a {
		if y := b[name]; x != y {
			all = append(all, fmt.Sprintf("%s: %q and %q", name, x, y))
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			all = append(all, name+": in the second alone")
		}
	}
	slices.Sort(all)
	return all
}

// TestConfigureIsNamed: the hash of what is made follows the script.
func TestConfigureIsNamed(t *testing.T) {
	before := locked{Lock{}}.Hash()
	old := configure
	defer func() { configure = old }()
	configure = append(slices.Clone(old), '#')
	assert.NotEqual(t, before, locked{Lock{}}.Hash())
}
