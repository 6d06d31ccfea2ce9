package gpu

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/usage"
)

const (
	gpu1, gpu2 = "GPU-22222222-aaaa-bbbb-cccc-000000000000", "GPU-55555555"
	mig0, mig1 = "MIG-33333333-aaaa-bbbb-cccc-000000000000", "MIG-44444444-aaaa-bbbb-cccc-000000000000"
)

func TestWanted(t *testing.T) {
	three := two
	three.GPUs = append(three.GPUs[:2:2], GPU{Index: 2, UUID: gpu2})
	parts := Machine{GPUs: two.GPUs[:1]}
	for _, test := range []struct {
		m         Machine
		selection string
		count     int
		uuids     []string
	}{
		{three, "auto", 1, []string{gpu1, gpu2}}, // the partitioned one is for who asks for it
		{three, "auto:2", 2, []string{gpu1, gpu2}},
		{parts, "auto", 1, []string{mig0, mig1}},
		{three, "", 2, []string{mig0, mig1}},
		{three, "0", 2, []string{mig0, mig1}},
		{three, "0:1", 1, []string{mig1}},
		{three, "1,0:1", 2, []string{gpu1, mig1}},
		{three, "GPU-5555", 1, []string{gpu2}},
		{three, "all", 4, []string{mig0, mig1, gpu1, gpu2}},
		{three, "0,0:1", 2, []string{mig0, mig1}},
		{three, "none", 0, nil},
		{Machine{}, "", 0, nil},
	} {
		r, err := Resolve(test.selection, test.m)
		require.NoError(t, err, test.selection)
		count, uuids := test.m.Wanted(test.selection, r)
		assert.Equal(t, test.count, count, test.selection)
		assert.Equal(t, test.uuids, uuids, test.selection)
	}
}

func TestAuto(t *testing.T) {
	r, err := Resolve("auto", two)
	require.NoError(t, err)
	assert.Equal(t, Request{IDs: []string{gpu1}}, r)
	for selection, says := range map[string]string{
		"auto:2": "no more than 1 to choose from", "auto:": "it takes a number", "auto:0": "it takes a number", "auto:-1": "it takes a number",
		"auto:x": "it takes a number", "auto:99999": "it takes a number", "auto,1": "neither all",
	} {
		_, err := Resolve(selection, two)
		assert.ErrorIs(t, err, usage.Err, selection)
		assert.ErrorContains(t, err, says)
		assert.ErrorContains(t, err, "-g="+selection+":")
	}
	_, err = Resolve("auto", Machine{})
	assert.ErrorIs(t, err, ErrBroken, "who asks for a GPU by name gets an error")
	assert.Equal(t, []string{"GPU 1", "GPU 0:1", "GPU-x"}, []string{two.Label(gpu1), two.Label(mig1), two.Label("GPU-x")})
}

func TestComputing(t *testing.T) {
	root := host(t, nil, map[string]string{"nvidia-smi": `[ "$*" = "--query-compute-apps=gpu_uuid,pid --format=csv,noheader" ] &&
echo "GPU-1, 12
GPU-1, 34
MIG-2, 56
[N/A], 78
GPU-3, [N/A]"`})
	p, err := Computing(t.Context(), root)
	require.NoError(t, err)
	assert.Equal(t, Processes{"GPU-1": {12, 34}, "MIG-2": {56}}, p)
	_, err = Computing(t.Context(), host(t, nil, map[string]string{"nvidia-smi": "echo Not supported; exit 3"}))
	assert.EqualError(t, err, "asking nvidia-smi who computes: Not supported")
	p, err = Computing(t.Context(), host(t, nil, nil))
	require.NoError(t, err)
	assert.Empty(t, p)
}

func FuzzParseProcesses(f *testing.F) {
	f.Add("GPU-1, 12\nMIG-2, 34\n")
	f.Add("No running processes found")
	f.Fuzz(func(t *testing.T, out string) {
		for uuid, pids := range parseProcesses(out) {
			if !strings.Contains(out, uuid) || len(pids) == 0 || pids[0] < 1 {
				t.Fatalf("%s, %v isn't in %q", uuid, pids, out)
			}
		}
	})
}
