package cache

import (
	"bytes"
	"crypto/rand"
	"io"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkFind is what it costs to trust an entry of the cache: 256 MiB are read
// and compared with their SHA-256, in turn with sha256sum.
func BenchmarkFind(b *testing.B) {
	peer, err := exec.LookPath("sha256sum")
	require.NoError(b, err)
	d, err := OpenAt(b.TempDir())
	require.NoError(b, err)
	temp, remove, err := d.Temp("bench")
	require.NoError(b, err)
	defer remove()
	content := make([]byte, 256<<20)
	rand.Read(content)
	name := d.Path("entries", "0123456789ab.tar")
	path, err := Keep(name, temp, 0o644, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(content))
		return err
	})
	require.NoError(b, err)
	var ours, theirs time.Duration
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		start := time.Now()
		found, err := Find(name)
		ours += time.Since(start)
		require.NoError(b, err)
		require.Equal(b, path, found)
		b.StopTimer()
		start = time.Now()
		require.NoError(b, exec.Command(peer, path).Run())
		theirs += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}
