package debian

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// onFullDisk names the folder on which TestDiskFull, run once more in a namespace of
// its own, mounts a file system that is too small.
const onFullDisk = "BERTH_TEST_FULL_DISK"

// asSomebodyElse is set for TestPinByWhoClosesFiles, run once more by another user.
const asSomebodyElse = "BERTH_TEST_SOMEBODY_ELSE"

func TestMain(m *testing.M) {
	if os.Getenv(onFullDisk)+os.Getenv(asSomebodyElse) != "" { // a process of a test's own, with nothing to remove from Docker
		os.Exit(m.Run())
	}
	os.Exit(dockertest.Main(m))
}

// needsApt makes sure that Docker has the image in which apt runs, on record in the
// cache that tests share: those of single tests go with them.
func needsApt(t testing.TB) *daemon.Client {
	t.Helper()
	docker := dockertest.Connect(t)
	if _, err := aptImage(t.Context(), docker, Options{Cache: openCache(t)}); err != nil {
		if len(HostMirrors()["debian"]) == 0 {
			testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
		}
		require.NoError(t, err)
	}
	return docker
}
