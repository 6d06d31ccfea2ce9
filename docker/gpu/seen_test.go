package gpu

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// As an H100 with one MIG instance and an A100 print it.
const seenOutput = `GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaaaaaa-1111-2222-3333-444444444444)
  MIG 1g.10gb     Device  0: (UUID: MIG-cccccccc-1111-2222-3333-444444444444)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbbbbbb-1111-2222-3333-444444444444)
550.54.15
550.54.15
Wed Nov 25 13:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
`

func TestSeen(t *testing.T) {
	const h100, part, a100 = "GPU-aaaaaaaa-1111-2222-3333-444444444444", "MIG-cccccccc-1111-2222-3333-444444444444",
		"GPU-bbbbbbbb-1111-2222-3333-444444444444"
	s := ParseSeen(seenOutput)
	assert.Equal(t, part+", "+a100+", driver 550.54.15, CUDA 12.4", s.String())
	assert.Equal(t, "no GPU", ParseSeen("").String())
	for name, c := range map[string]struct {
		given []string
		says  []string // none: as it should be
	}{
		"all":            {[]string{h100, a100}, nil},
		"an instance":    {[]string{part, a100}, nil},
		"one too many":   {[]string{part}, []string{"sees " + a100}},
		"one missing":    {[]string{part, a100, "GPU-x"}, []string{"doesn't see GPU-x"}},
		"another":        {[]string{part, "GPU-x"}, []string{"doesn't see GPU-x", "sees " + a100}},
		"none was given": {[]string{}, []string{part, a100}},
		"not known":      {nil, nil},
	} {
		err := s.Check(Given{UUIDs: c.given, Driver: "550.54.15"})
		if c.says == nil {
			assert.NoError(t, err, name)
		}
		for _, text := range c.says {
			assert.ErrorContains(t, err, text, name)
		}
	}
	assert.ErrorContains(t, s.Check(Given{Driver: "550.90"}), "libraries of driver 550.54.15, and the machine runs driver 550.90")
	assert.NoError(t, s.Check(Given{}), "the machine doesn't tell its driver")
	assert.ErrorContains(t, ParseSeen("No devices were found\n").Check(Given{}), "sees no GPU")
	assert.ErrorContains(t, ParseSeen("No devices were found\n").Check(Given{UUIDs: []string{a100}}), "doesn't see "+a100)
	const list = "GPU 0: x (UUID: GPU-x)\n"
	assert.ErrorContains(t, ParseSeen(list).Check(Given{}), "names no version of the driver")
	assert.ErrorContains(t, ParseSeen(list+"550.1\nDriver Version: 550.1  CUDA Version: N/A\n").Check(Given{}), "no version of CUDA")
}

func FuzzParseSeen(f *testing.F) {
	f.Add(seenOutput)
	f.Fuzz(func(t *testing.T, out string) {
		s := ParseSeen(out)
		all := []string{}
		for _, g := range s.GPUs {
			all = append(all, g.UUID)
		}
		assert.NoError(t, s.compare(all))
	})
}
