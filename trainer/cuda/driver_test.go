package cuda

import (
	"testing"

	"github.com/berthdev/berth/internal/cudatest"
)

// TestDriver compiles what has the tag cuda, and runs its tests: they have a stand-in for the
// driver.
func TestDriver(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for a minute")
	}
	cudatest.Go(t, "trainer", "vet", "-tags=cuda", "./cuda/driver", "./device", ".")
	cudatest.Go(t, "trainer", "test", "-tags=cuda", "./cuda/driver", "./device")
}
