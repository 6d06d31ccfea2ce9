package launch

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/internal/testimage"
)

// BenchmarkRun launches `true`, each time a process of its own, in turn with
// docker run and the same options (those of Plan.Shell). It reports the median of each in
// milliseconds, and the ratio. -benchtime=30x gives thirty pairs.
func BenchmarkRun(b *testing.B) {
	if _, err := exec.LookPath("docker"); err != nil {
		b.Skip("the docker command, the peer, isn't installed")
	}
	for _, network := range []string{"host", "bridge"} {
		b.Run(network, func(b *testing.B) {
			o := Options{Project: "berth-bench", Root: b.TempDir(), Image: testimage.Shell(b), Command: "true", GUI: "off", GPUs: "none", Network: network}
			ours, theirs := launches(b, o)
			var a, c []float64
			b.ResetTimer()
			for range b.N {
				a = append(a, milliseconds(b, ours()))
				c = append(c, milliseconds(b, theirs()))
			}
			b.ReportMetric(median(a), "berth-ms")
			b.ReportMetric(median(c), "docker-ms")
			b.ReportMetric(median(a)/median(c), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// launches returns how to launch with Berth and with docker run.
func launches(b *testing.B, o Options) (ours, theirs func() *exec.Cmd) {
	b.Setenv("BERTH_CACHE", b.TempDir())
	data, err := json.Marshal(o)
	require.NoError(b, err)
	ours = func() *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "BERTH_TEST_RUN="+string(data))
		return c
	}
	d, err := daemon.Connect(b.Context())
	require.NoError(b, err)
	defer d.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(b, err)
	defer null.Close()
	h, err := Probe(context.Background(), d, o, Streams{In: null, Out: null, Err: null})
	require.NoError(b, err)
	o.Name = "berth-bench-" + h.Launch // docker run's, one after the other
	p, err := NewPlan(h, o)
	require.NoError(b, err)
	require.NoError(b, p.Home.seed())
	before, run, _ := strings.Cut(p.Shell(), "docker run ")
	run, _, _ = strings.Cut(run, "rm -r ")
	out, err := exec.Command("sh", "-c", before+`echo "$dir"`).Output()
	require.NoError(b, err)
	dir := strings.TrimSpace(string(out))
	b.Cleanup(func() { os.RemoveAll(dir) })
	theirs = func() *exec.Cmd { return exec.Command("sh", "-c", "dir="+dir+"; exec docker run "+run) }
	milliseconds(b, ours()) // the image's users are read once
	return ours, theirs
}

func milliseconds(b *testing.B, c *exec.Cmd) float64 {
	start := time.Now()
	out, err := c.CombinedOutput()
	require.NoError(b, err, string(out))
	return float64(time.Since(start).Microseconds()) / 1000
}

func median(x []float64) float64 {
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
