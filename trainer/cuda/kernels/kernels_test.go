package kernels

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// checks compare each kernel with float64, on random data and at edge sizes: here in the
// interpreter, in TestOnGPU through the driver.
var checks = []struct {
	kernel string
	check  func(testing.TB)
}{
	{"conv_forward_fp32", checkForward(FP32)},
	{"conv_forward_tf32", checkForward(TF32)},
	{"conv_forward_fp32", checkConvolutionWithoutMoments},
	{"conv_backward_fp32", checkBackward(FP32)},
	{"conv_backward_tf32", checkBackward(TF32)},
	{"conv_weight_fp32", checkWeight(FP32)},
	{"conv_weight_tf32", checkWeight(TF32)},
	{"norm_batch", checkNormBatch},
	{"norm_batch", checkNormKeepsNaN},
	{"norm_running", checkNormRunning},
	{"activate", checkActivate},
	{"activate_grad", checkActivateGrad},
	{"join_haar", checkJoinHaar},
	{"join_grad", checkJoinGrad},
	{"norm_grad", checkNormGrad},
	{"norm_apply", checkNormApply},
	{"head", checkHead},
	{"head", checkHeadOfHugeLogits},
	{"linear_grad", checkLinearGrad},
	{"loss", checkLoss},
	{"adam", checkAdam},
	{"sum_parts", checkSumParts},
	{"gather", checkGather},
	{"haar", checkHaar},
}

func TestKernels(t *testing.T) {
	for _, c := range checks {
		t.Run(c.kernel, func(t *testing.T) { c.check(t) })
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
			if what := plant(t, text, at[2:4], other[text[at[2]:at[3]]]); what != "" {
				found = true
			} else {
				t.Logf("%s, line %d: it doesn't matter", file, 1+strings.Count(text[:at[0]], "\n"))
			}
		}
		assert.True(t, found, "%s: no bound matters", file)
	}
}

// TestSwappedFragments exchanges two registers of tensor-core products, in each of their
// fragments: of the first product of each file or, if there is time, of all of them.
func TestSwappedFragments(t *testing.T) {
	product := regexp.MustCompile(`(mma\.sync\S+ )\{(\S+), (\S+), (\S+), (\S+)\}, \{(\S+), (\S+), (\S+), (\S+)\}, \{(\S+), (\S+)\}, \{[^}]*\}`)
	seen := 0
	for file, text := range PTX() {
		for i, at := range product.FindAllStringSubmatchIndex(text, -1) {
			if seen++; i > 0 && !testenv.Long() {
				continue
			}
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

// plant replaces a place in a file, and returns what the checks of the kernel find there.
func plant(t *testing.T, text string, at []int, to string) string {
	t.Helper()
	kernel := text[strings.LastIndex(text[:at[0]], ".entry ")+len(".entry "):]
	kernel, _, _ = strings.Cut(kernel, "(")
	for _, c := range checks {
		if c.kernel == kernel {
			if found := try(t, text[:at[0]]+to+text[at[1]:], c.check); found != "" {
				return found
			}
		}
	}
	return ""
}

// requireFound is plant of what must be found.
func requireFound(t *testing.T, file, text string, at []int, to, want string) {
	t.Helper()
	found := plant(t, text, at, to)
	require.Contains(t, found, want, "%s, line %d: %s", file, 1+strings.Count(text[:at[0]], "\n"), text[at[0]:at[1]])
}
