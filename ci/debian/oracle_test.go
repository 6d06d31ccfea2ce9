package debian

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/testenv"
)

// popular are 150 packages that people want, for the sake of what they depend on:
// compilers, Java, Python, MPI, containers, desktops, TeX, editors, servers, languages,
// graphics, the system.
const popular = `
gfortran g++ gcc clang llvm cmake ninja-build meson make autoconf automake libtool pkg-config gdb valgrind strace
default-jdk default-jre maven ant gradle scala groovy
python3 python3-dev python3-pip python3-venv python3-numpy python3-scipy python3-pandas python3-matplotlib python3-sklearn
python3-torch python3-torchvision python3-flask python3-django python3-requests ipython3 jupyter-notebook python3-opencv python3-h5py
python3-mpi4py cython3 python3-pytest python3-yaml python3-pil
openmpi-bin libopenmpi-dev mpich libmpich-dev libhdf5-dev libhdf5-openmpi-dev libscalapack-openmpi-dev libopenblas-dev liblapack-dev
libfftw3-dev libgsl-dev libeigen3-dev libboost-all-dev petsc-dev
docker.io podman buildah skopeo containerd runc crun lxc umoci
gnome-core xfce4 kde-plasma-desktop lxde mate-desktop-environment-core i3 sway xterm gimp inkscape libreoffice firefox-esr chromium
evince vlc ffmpeg imagemagick graphviz gnuplot
texlive-latex-base texlive-latex-extra pandoc latexmk
emacs-nox vim neovim nano tmux screen zsh htop
openssh-server nginx apache2 postgresql mariadb-server redis-server sqlite3 bind9 postfix
git git-lfs subversion mercurial curl wget rsync jq ripgrep
r-base octave maxima golang-go rustc cargo nodejs npm ruby php perl lua5.4 ghc ocaml
qtbase5-dev libgtk-3-dev libsdl2-dev libopencv-dev mesa-utils vulkan-tools libvulkan-dev ocl-icd-opencl-dev pocl-opencl-icd weston
xvfb
systemd dbus network-manager cron rsyslog sudo locales
`

// A peer is the apt of this machine, with folders and indices of its own.
type peer struct{ conf string }

func newPeer(t testing.TB, suites []Suite, mirrors Mirrors) peer {
	t.Helper()
	dir := t.TempDir()
	for _, folder := range []string{"etc/apt", "var/lib/apt/lists/partial", "var/lib/dpkg", "var/cache/apt/archives/partial"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
	}
	sources := ""
	for _, s := range suites {
		sources += fmt.Sprintf("deb [trusted=yes] %s %s %s\n", mirrors[s.Archive][0], s.Name, strings.Join(s.Components, " "))
	}
	p := peer{conf: filepath.Join(dir, "apt.conf")}
	for name, text := range map[string]string{
		"etc/apt/sources.list": sources, "var/lib/dpkg/status": "",
		"apt.conf": fmt.Sprintf(`Dir "%s"; Dir::State::status "%[1]s/var/lib/dpkg/status"; Dir::Etc "etc/apt"; Dir::Etc::Parts "/dev/null";
APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Install-Recommends "false";
APT::Sandbox::User ""; Acquire::Languages "none";
`, dir),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return p
}

func (p peer) run(t testing.TB, args ...string) (string, error) {
	c := exec.CommandContext(t.Context(), "apt-get", args...)
	c.Env = append(os.Environ(), "APT_CONFIG="+p.conf, "LC_ALL=C")
	out, err := c.CombinedOutput()
	return string(out), err
}

var debFile = regexp.MustCompile(`(?m)^'[^']+' ([^_ ]+)_([^_ ]+)_[^_ ]+\.deb `)

// solve returns what apt would install, name and version each, or that it can't.
func (p peer) solve(t testing.TB, names []string) []string {
	t.Helper()
	out, err := p.run(t, append([]string{"-q", "-y", "--print-uris", "install"}, names...)...)
	if err != nil {
		return []string{"refused"}
	}
	var all []string
	for _, found := range debFile.FindAllStringSubmatch(out, -1) {
		all = append(all, found[1]+" "+strings.ReplaceAll(found[2], "%3a", ":"))
	}
	slices.Sort(all)
	return all
}

// suitesOf are those that people have in a release of Debian.
func suitesOf(release string) []Suite {
	main := []string{"main"}
	return []Suite{
		{Archive: "debian", Name: release, Components: main}, {Archive: "debian", Name: release + "-updates", Components: main},
		{Archive: "debian-security", Name: release + "-security", Components: main},
	}
}

// TestAsApt draws sets of packages, and compares what is chosen with what the apt of
// this machine says, which knows nothing of Berth.
func TestAsApt(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads the indices of a real mirror")
	}
	needsApt(t)
	testenv.NeedsCommand(t, testenv.Apt, "apt-get")
	mirrors := HostMirrors()
	if len(mirrors["debian"]) == 0 || len(mirrors["debian-security"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	seed, sets := rand.Uint64(), 4
	if testenv.Long() {
		sets = 60
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	list := strings.Fields(popular)
	require.Len(t, list, 150)
	o := Options{Mirrors: mirrors, Cache: openCache(t)}
	peers := map[string]peer{}
	equal, refused := 0, 0
	for i := range sets {
		release := []string{"bookworm", "trixie"}[i%2]
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		names := list[:[]int{1, 3, 6}[i/2%3]]
		m := manifest(names...)
		m.Suites = suitesOf(release)
		p, ok := peers[release]
		if !ok {
			p = newPeer(t, m.Suites, mirrors)
			peers[release] = p
			out, err := p.run(t, "update")
			require.NoError(t, err, out)
		}
		var have []string
		l, err := Pin(t.Context(), m, Lock{}, o)
		if err != nil {
			require.ErrorContains(t, err, "apt can't choose packages")
			have = []string{"refused"}
			refused++
		}
		for _, one := range l.Packages {
			have = append(have, one.String())
		}
		slices.Sort(have)
		reader, err := o.reader()
		require.NoError(t, err)
		sources, err := reader.sources(t.Context(), m.Suites, m.Architecture, nil)
		require.NoError(t, err)
		base, err := essential(sources, m.Architecture)
		require.NoError(t, err)
		if want := p.solve(t, append(base, names...)); assert.Equal(t, want, have, "%s: %s", release, strings.Join(names, " ")) {
			equal++
		}
		t.Logf("%s, %d packages: %s", release, len(have), strings.Join(names, " "))
	}
	t.Logf("%d of %d equal; %d of them apt refuses", equal, sets, refused)
}

// BenchmarkPin resolves the packages of the image twice, with nothing in the cache and
// then with the indices there, in turn with this machine's apt: update and --print-uris
// in new folders, and once more in the same ones.
func BenchmarkPin(b *testing.B) {
	needsApt(b)
	testenv.NeedsCommand(b, testenv.Apt, "apt-get")
	m, err := ReadManifest("../../docker/packages.toml")
	require.NoError(b, err)
	var names []string
	for _, w := range m.Packages {
		names = append(names, w.Name)
	}
	seconds := map[string][]float64{}
	timed := func(what string, do func()) {
		start := time.Now()
		do()
		seconds[what] = append(seconds[what], time.Since(start).Seconds())
	}
	for range b.N {
		dir, err := cache.OpenAt(b.TempDir())
		require.NoError(b, err)
		ours := func() {
			_, err := Pin(b.Context(), m, Lock{}, Options{Mirrors: HostMirrors(), Cache: dir})
			require.NoError(b, err)
		}
		p := newPeer(b, m.Suites, HostMirrors())
		update := func() {
			out, err := p.run(b, "update")
			require.NoError(b, err, out)
		}
		timed("cold", ours)
		timed("cold-update", update)
		timed("warm", ours)
		timed("warm-update", update)
		timed("print-uris", func() { require.NotEqual(b, []string{"refused"}, p.solve(b, names)) })
	}
	for what, all := range seconds {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], what+"-s")
	}
	b.ReportMetric(0, "ns/op")
}
