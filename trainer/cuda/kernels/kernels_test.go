package kernels

import "testing"

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
