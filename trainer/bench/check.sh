#!/bin/sh
# Checks the kernels on a GPU: each against float64, then the same under the four tools of
# NVIDIA's compute-sanitizer, where that is installed; and times them, in shares of the GPU's
# memory bandwidth and of its peak:
#
#	trainer/bench/check.sh TESTS [OUT]
#
# TESTS are the tests of trainer/cuda/kernels, compiled with the tag cuda on whichever machine:
# see docs/trainer.md. OUT (gpu-check) gets a log of each step. The exit code is 0 if all that
# could run passed, 2 if there are no TESTS.
#
#	CHECK_LIMIT=90         seconds that each of the six steps may take
#	CHECK_BATCH=500        images in the step whose kernels are timed
#	CHECK_TIMES=20x        how often ten launches in a row are timed, as -test.benchtime has it
set -u
[ $# -ge 1 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=${2:-gpu-check} limit=${CHECK_LIMIT:-90} failed=0
case $1 in
*/*) tests=$1 ;;
*) tests=./$1 ;; # which the commands below would look for on the PATH
esac
[ -f "$tests" ] && [ -x "$tests" ] || {
	echo "$tests is no program. Give the one that this makes: go test -c -tags=cuda -o kernels.test ./trainer/cuda/kernels" >&2
	exit 2
}
mkdir -p "$out" || exit 1

# step NAME COMMAND… runs the tests, by the command.
step() {
	name=$1
	shift
	if ! timeout -k 1 "$limit" "$@" "$tests" -test.run='^TestOnGPU$' -test.v >"$out/$name.log" 2>&1; then
		failed=1
		echo "$name: FAILED: $(grep -E -m 1 'no CUDA|: error [0-9]|rounding explains|ERROR SUMMARY|panic:' "$out/$name.log" || tail -n 1 "$out/$name.log"). See $out/$name.log"
	elif ! grep -q -- '^ *--- PASS: TestOnGPU/' "$out/$name.log"; then
		failed=1
		echo "$name: FAILED: nothing was checked. See $out/$name.log"
	else
		echo "$name: $(grep -c -- '^ *--- PASS: TestOnGPU/' "$out/$name.log") checks passed"
	fi
}

BERTH_TEST_ON_GPU=1 # no stand-in takes the place of a driver that is missing
export BERTH_TEST_ON_GPU
step float64 env
for tool in memcheck racecheck initcheck synccheck; do
	if command -v compute-sanitizer >/dev/null; then
		step "$tool" compute-sanitizer --tool="$tool" --error-exitcode=1
	else
		echo "$tool: left out, there is no compute-sanitizer here"
	fi
done
if grep -q '^PASS' "$out/float64.log"; then
	if timeout -k 1 "$limit" "$tests" -test.run='^$' -test.bench=OnGPU -test.benchtime="${CHECK_TIMES:-20x}" -batch="${CHECK_BATCH:-500}" >"$out/times.log" 2>&1; then
		echo "times: $(grep -c '^BenchmarkOnGPU/' "$out/times.log") launches, see $out/times.log"
	else
		failed=1
		echo "times: FAILED: $(tail -n 1 "$out/times.log"). See $out/times.log"
	fi
fi
exit $failed
