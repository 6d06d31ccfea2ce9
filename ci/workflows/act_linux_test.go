package workflows

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/dockertest/smi"
	"github.com/berthdev/berth/internal/testenv"
)

// TestOwnOnGPUs is TestOwn for the workflow of a runner with GPUs. In place of those there is a driver that lists two, and
// a Docker that calls NVIDIA's hook.
func TestOwnOnGPUs(t *testing.T) {
	if !testenv.Long() {
		t.Skip("it runs the whole pipeline: mage test -long")
	}
	_, toolkit := dockertest.SecondDocker(t)
	t.Setenv("PATH", toolkit+":"+dockertest.SMI(t))
	t.Setenv("BERTH_LEASES", t.TempDir())
	report := passes(t, "berth-gpu")
	assert.Contains(t, report, "Smoke commands run through Dagger")
	assert.Contains(t, report, "The container sees "+smi.A+", driver "+smi.Driver)
}
