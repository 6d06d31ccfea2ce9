package gpu

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// As an H100 with one MIG instance and an A100 print it.
const seenOutput = `GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaaaaaa-1111-2222-3333-444444444444)
  MIG 1g.10gb     Device  0: (UUID: MIG-cccccccc-1111-2222-3333-444444444444)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbbbbbb-1111-2222-3333-444444444444)
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
`

func TestSeen(t *testing.T) {
	const h100, part, a100 = "GPU-aaaaaaaa-1111-2222-3333-444444444444", "MIG-cccccccc-1111-2222-3333-444444444444",
		"GPU-bbbbbbbb-1111-2222-3333-444444444444"
	s := ParseSeen(seenOutput)
	assert.Equal(t, "driver 550.54.15, CUDA 12.4", s.Versions())
	assert.Equal(t, "driver (not said), CUDA (not said)", ParseSeen("").Versions())
	for name, c := range map[string]struct {
		given []string
		says  []string // none: as it should be
	}{
		"all":            {[]string{h100, a100}, nil},
		"an instance":    {[]string{part, a100}, nil},
		"one too many":   {[]string{part}, []string{"sees " + a100}},
		"one missing":    {[]string{part, a100, "GPU-x"}, []string{"doesn't see GPU-x"}},
		"another":        {[]string{part, "GPU-x"}, []string{"doesn't see GPU-x", "sees " + a100}},
		"none was given": {nil, []string{part, a100}},
	} {
		err := s.Compare(c.given)
		if c.says == nil {
			assert.NoError(t, err, name)
		}
		for _, text := range c.says {
			assert.ErrorContains(t, err, text, name)
		}
	}
	assert.NoError(t, ParseSeen("No devices were found\n").Compare(nil))
}

func FuzzParseSeen(f *testing.F) {
	f.Add(seenOutput)
	f.Fuzz(func(t *testing.T, out string) {
		s := ParseSeen(out)
		var all []string
		for _, g := range s.GPUs {
			all = append(all, g.UUID)
		}
		assert.NoError(t, s.Compare(all))
	})
}
