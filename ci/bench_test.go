package ci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// BenchmarkBuild compares builds by the compiled binary with plain docker build
// (BuildKit) of the same Dockerfile from the same root file system: with nothing
// changed, and with the last step changed. It reports Berth's time, the
// peer's and their ratio.
func BenchmarkBuild(b *testing.B) {
	dockertest.Connect(b)
	berth, err := compiled()
	require.NoError(b, err)
	p := project
	p.Root = b.TempDir()
	must(b, exec.Command("cp", "-r", "../docker", "../rootfs", "../magefiles", "../ci", "../trainer", "../testdata", "../go.mod", "../go.sum",
		"../.dockerignore", p.Root))
	tag := dockertest.Name(b) + ":latest"
	plain := "plain-" + tag
	b.Cleanup(func() {
		exec.Command("docker", "rmi", tag, plain).Run()
		// Plain Docker keeps the images that lost their tag.
		exec.Command("docker", "image", "prune", "-f", "--filter", "label="+daemon.LabelLaunch+"="+tag).Run()
	})
	buildkit := findBuildKit(b)
	must(b, command(p.Root, berth, "materials"))
	ours := func() { must(b, command(p.Root, berth, "build", "-t="+tag)) }
	peer := func() {
		if buildkit != "" {
			must(b, command(p.Root, buildkit, "build", "-q", "-f", p.Dockerfile, "-t", plain, "--label", daemon.LabelLaunch+"="+tag, "."))
		}
	}
	compare := func(b *testing.B, change func()) {
		var a, z time.Duration
		for b.Loop() {
			change()
			a += timed(ours)
			z += timed(peer)
		}
		n := float64(b.N)
		b.ReportMetric(a.Seconds()*1000/n, "berth-ms")
		if buildkit != "" {
			b.ReportMetric(z.Seconds()*1000/n, "docker-ms")
			b.ReportMetric(a.Seconds()/z.Seconds(), "ratio")
		}
	}
	ours()
	peer()
	b.Run("unchanged", func(b *testing.B) { compare(b, func() {}) })
	original, err := os.ReadFile(p.Path(p.Dockerfile))
	require.NoError(b, err)
	step := 0
	b.Run("last step changed", func(b *testing.B) {
		compare(b, func() {
			step++
			text := fmt.Sprintf("%sRUN echo %d-%d > /step\n", original, time.Now().UnixNano(), step)
			require.NoError(b, os.WriteFile(p.Path(p.Dockerfile), []byte(text), 0o644))
		})
	})
}

// BenchmarkRun launches `true` by the compiled binary, in turn with docker run and
// the same options, as the plan prints them. It reports the median of each in
// milliseconds, and the ratio. -benchtime=30x gives thirty pairs.
func BenchmarkRun(b *testing.B) {
	testenv.NeedsCommand(b, testenv.DockerCommand, "docker") // the peer
	berth, err := compiled()
	require.NoError(b, err)
	must(b, command("..", berth, "build"))
	for _, network := range []string{"host", "bridge"} {
		b.Run(network, func(b *testing.B) {
			run := []string{"run", "-cmd=true", "-g=none", "-gui=off", "-net=" + network}
			peer := dockerRun(b, berth, run)
			var ours, theirs []float64
			b.ResetTimer()
			for range b.N {
				ours = append(ours, timed(func() { must(b, command("..", berth, run...)) }).Seconds()*1000)
				theirs = append(theirs, timed(func() { must(b, command("..", "sh", "-c", peer)) }).Seconds()*1000)
			}
			b.ReportMetric(median(ours), "berth-ms")
			b.ReportMetric(median(theirs), "docker-ms")
			b.ReportMetric(median(ours)/median(theirs), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// dockerRun returns the docker run line that a launch amounts to. What the line
// needs beside it, it has until the benchmark ends.
func dockerRun(b *testing.B, berth string, run []string) string {
	plan, err := command("..", berth, append(run, "-dry", "-n="+dockertest.Name(b))...).Output()
	require.NoError(b, err)
	_, script, found := strings.Cut(string(plan), "dir=$(mktemp -d)\n")
	require.True(b, found, string(plan))
	files, line, found := strings.Cut(script, "docker run ")
	require.True(b, found, script)
	line, _, _ = strings.Cut(line, "rm -r ")
	dir := "dir=" + b.TempDir() + "\n"
	must(b, command("..", "sh", "-c", dir+files))
	return dir + "exec docker run " + line
}

func median(x []float64) float64 {
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

func command(dir, name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	return c
}

func must(b *testing.B, c *exec.Cmd) {
	b.Helper()
	out, err := c.CombinedOutput()
	require.NoError(b, err, string(out))
}

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

// findBuildKit returns a docker command that can build with BuildKit, or nothing.
func findBuildKit(b *testing.B) string {
	empty := b.TempDir()
	require.NoError(b, os.WriteFile(filepath.Join(empty, "Dockerfile"), []byte("FROM scratch\nLABEL dev.berth.role=test\n"), 0o644))
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		name := filepath.Join(dir, "docker")
		if id, err := command(empty, name, "build", "-q", ".").Output(); err == nil {
			command(empty, name, "rmi", strings.TrimSpace(string(id))).Run()
			return name
		}
	}
	b.Log("no docker command with BuildKit: nothing to compare with")
	return ""
}
