package dockertest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/internal/cache"
)

// With BERTH_UPDATE set, the locks are rewritten.
func TestLocksAreWhatIsAskedFor(t *testing.T) {
	for _, kind := range []string{"shell", "desktop", "pytorch"} {
		manifest, err := debian.ReadManifest(kind + ".toml")
		require.NoError(t, err)
		if os.Getenv("BERTH_UPDATE") != "" {
			old, err := debian.ReadLock(kind + ".lock")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Log(err)
			}
			dir, err := cache.Open()
			require.NoError(t, err)
			lock, err := debian.Pin(context.Background(), manifest, old, debian.Options{Mirrors: debian.HostMirrors(), Cache: dir})
			require.NoError(t, err)
			require.NoError(t, lock.WriteFile(kind+".lock"))
		}
		assert.NoError(t, debian.CheckFiles(kind+".toml", kind+".lock"))
	}
}
