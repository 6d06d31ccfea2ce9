package kernels

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// checks compare kernels with float64, on random data and at edge sizes, in the
// interpreter. Each has the names of the files that it runs, for faults to be planted.
var checks = []struct {
	name, file string
	check      func(testing.TB)
}{
	{"forward fp32", "conv_fp32", checkForward(FP32)},
	{"forward tf32", "conv_tf32", checkForward(TF32)},
	{"no moments", "conv_fp32", checkConvolutionWithoutMoments},
	{"backward fp32", "conv_fp32", checkBackward(FP32)},
	{"backward tf32", "conv_tf32", checkBackward(TF32)},
	{"weight fp32", "conv_weight_fp32", checkWeight(FP32)},
	{"weight tf32", "conv_weight_tf32", checkWeight(TF32)},
	{"norm_batch", "norm_batch", checkNormBatch},
	{"norm_batch NaN", "norm_batch", checkNormKeepsNaN},
	{"norm_running", "norm_running", checkNormRunning},
	{"activate", "activate", checkActivate},
	{"activate_grad", "activate_grad", checkActivateGrad},
	{"join_haar", "join_haar", checkJoinHaar},
	{"join_grad", "join_grad", checkJoinGrad},
	{"norm_grad", "norm_grad", checkNormGrad},
	{"norm_apply", "norm_apply", checkNormApply},
	{"head", "head", checkHead},
	{"head of huge logits", "head", checkHeadOfHugeLogits},
	{"linear_grad", "linear_grad", checkLinearGrad},
	{"loss", "loss", checkLoss},
	{"adam", "adam", checkAdam},
	{"gather", "gather", checkGather},
	{"haar", "haar", checkHaar},
}

func TestKernels(t *testing.T) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.check(t) })
	}
}

// TestEveryBarrierIsNeeded takes the barriers out of the PTX, one at a time: the threads
// then race, or go wrong.
func TestEveryBarrierIsNeeded(t *testing.T) {
	barrier, seen := regexp.MustCompile(`bar\.sync\s+0;`), 0
	for file, text := range PTX() {
		for _, at := range barrier.FindAllStringIndex(text, -1) {
			seen++
			requireFound(t, file, text, at, "", "race")
		}
	}
	assert.Greater(t, seen, 20, "where are the barriers?")
}

// TestBoundsOffByOne moves the bounds of comparisons by one, one at a time: in each file
// one is found at least. (Not all of them count: a loop may add zeros once more.)
func TestBoundsOffByOne(t *testing.T) {
	comparison := regexp.MustCompile(`setp\.(lt|le|gt|ge)\.s32`)
	other := map[string]string{"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}
	for file, text := range PTX() {
		all := comparison.FindAllStringSubmatchIndex(text, -1)
		found := len(all) == 0
		for _, at := range all {
			if found && !testenv.Long() {
				break
			}
			if what := plant(t, file, text[:at[2]]+other[text[at[2]:at[3]]]+text[at[3]:]); what != "" {
				found = true
			} else {
				t.Logf("%s, line %d: it doesn't matter", file, 1+strings.Count(text[:at[0]], "\n"))
			}
		}
		assert.True(t, found, "%s: no bound matters", file)
	}
}

// TestSwappedFragments exchanges two registers of each tensor-core product, in each of its
// fragments.
func TestSwappedFragments(t *testing.T) {
	product := regexp.MustCompile(`(mma\.sync\S+ )\{(\S+), (\S+), (\S+), (\S+)\}, \{(\S+), (\S+), (\S+), (\S+)\}, \{(\S+), (\S+)\}, \{[^}]*\}`)
	seen := 0
	for file, text := range PTX() {
		for _, at := range product.FindAllStringSubmatchIndex(text, -1) {
			seen++
			for _, to := range []string{
				"${1}{$3, $2, $4, $5}, {$6, $7, $8, $9}, {$10, $11}, {$2, $3, $4, $5}", // d0 and d1
				"${1}{$2, $3, $4, $5}, {$7, $6, $8, $9}, {$10, $11}, {$2, $3, $4, $5}", // a0 and a1
				"${1}{$2, $3, $4, $5}, {$6, $8, $7, $9}, {$10, $11}, {$2, $3, $4, $5}", // a1 and a2
				"${1}{$2, $3, $4, $5}, {$6, $7, $8, $9}, {$11, $10}, {$2, $3, $4, $5}", // b0 and b1
				"${1}{$2, $3, $4, $5}, {$6, $7, $8, $9}, {$10, $11}, {$2, $4, $3, $5}", // c1 and c2
			} {
				requireFound(t, file, text, at[:2], string(product.ExpandString(nil, to, text, at)), "rounding explains")
			}
		}
	}
	assert.Equal(t, 12, seen)
}

// plant runs the checks of a file with other PTX, and returns what the first of them
// finds.
func plant(t *testing.T, file, text string) string {
	t.Helper()
	for _, c := range checks {
		if c.file == file {
			if found := try(t, text, c.check); found != "" {
				return found
			}
		}
	}
	return ""
}

// requireFound replaces a place in a file, and wants the fault found.
func requireFound(t *testing.T, file, text string, at []int, to, want string) {
	t.Helper()
	found := plant(t, file, text[:at[0]]+to+text[at[1]:])
	require.Contains(t, found, want, "%s, line %d: %s", file, 1+strings.Count(text[:at[0]], "\n"), text[at[0]:at[1]])
}
