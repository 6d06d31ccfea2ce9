#!/bin/sh
# Measures the trainer on a GPU beside PyTorch on the same card, within ten minutes:
#
#	trainer/bench/gpu.sh TRAINER DATA [OUT]
#
# TRAINER is a trainer built with the tag cuda, on whichever machine: see docs/trainer.md. A name
# without a slash is that of a program in the current folder, or else of one on the PATH.
# DATA is a folder with Fashion-MNIST, or the one in which torchvision has it. OUT (gpu-bench)
# gets gpu.json, gpu.md and a log of each step. A step that fails, or PyTorch where there is none,
# leaves the others alone. The exit code is 2 if there is no TRAINER or no DATA.
#
# These change what is measured, for a slow device:
#
#	BENCH_BATCH=500        images in a step
#	BENCH_STEPS=100        steps that are timed at once
#	BENCH_EPOCHS=50        epochs of a training
#	BENCH_PLAIN_EPOCHS=4   epochs of the PyTorch training as it was written
#	BENCH_LIMIT=60         seconds that each of the trainer's steps may take, of which
#	                       there are six; of PyTorch's, there are two of 100
#	BENCH_SKIP="A B"       steps to leave out: the names of their logs, such as smoke-tf32
set -u
[ $# -ge 2 ] || { sed -n '2,21s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(dirname "$0") trainer=$1 data= fashion= out=${3:-gpu-bench}
steps=${BENCH_STEPS:-100} epochs=${BENCH_EPOCHS:-50} plain=${BENCH_PLAIN_EPOCHS:-4} batch=${BENCH_BATCH:-500} limit=${BENCH_LIMIT:-60}
is_program() { [ -f "$1" ] && [ -x "$1" ]; }
case $trainer in
*/*) ;;
*) if is_program "./$1"; then trainer=./$1; else trainer=$(command -v "$1"); fi ;;
esac
is_program "$trainer" || {
	echo "$1 is no program, here or on the PATH. Give the one that this makes: CGO_ENABLED=1 go build -tags=cuda -o artifacts/ ./trainer" >&2
	exit 2
}
# The trainer and PyTorch read the same files: not CIFAR-10, which the trainer takes first.
for folder in "$2" "$2/FashionMNIST/raw"; do
	for file in "$folder/train-images-idx3-ubyte" "$folder/train-images-idx3-ubyte.gz"; do
		[ -z "$data" ] && [ -f "$file" ] && data=$folder
	done
done
[ "$data" ] || {
	echo "There is no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in $2 or $2/FashionMNIST/raw. Give a folder with Fashion-MNIST, such as the one that this makes: go tool mage data" >&2
	exit 2
}
for file in "$data"/cifar-10-batches-bin/*.bin* "$data"/data_batch_*.bin* "$data"/test_batch.bin*; do
	[ -f "$file" ] && fashion=--fashion
done
mkdir -p "$out" || exit 1
rm -f "$out"/*.json "$out"/*.failed "$out"/*.skipped "$out"/*.log "$out"/*.md

# step NAME SECONDS COMMAND… runs it for so long at most. It fails if the command does.
step() {
	name=$1 seconds=$2
	shift 2
	case " ${BENCH_SKIP:-} " in
	*" $name "*)
		: >"$out/$name.skipped"
		return 1
		;;
	esac
	echo "$name" >&2
	timeout -k 1 "$seconds" "$@" >"$out/$name.log" 2>&1 && return
	code=$?
	# 137: it had to be killed, as the trainer ends after an epoch.
	case $code in
	124 | 137) echo "no end within $seconds s" >"$out/$name.failed" ;;
	*) echo "exit code $code: $(tail -n 1 "$out/$name.log")" >"$out/$name.failed" ;;
	esac
	echo "  failed: $(cat "$out/$name.failed")" >&2
	return 1
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader >"$out/card.txt" 2>/dev/null ||
	echo "unknown card" >"$out/card.txt"
step info 30 "$trainer" info --data-dir="$data"
for p in fp32 tf32; do
	step "smoke-$p" "$limit" "$trainer" smoke --device=cuda --precision=$p
	step "bench-$p" "$limit" "$trainer" bench --device=cuda --precision=$p --channels=1 --num-workers=1 --batch-size="$batch" --steps="$steps" --json="$out/bench-$p.json"
	step "train-$p" "$limit" "$trainer" train --device=cuda --precision=$p --data-dir="$data" $fashion --batch-size="$batch" --num-epochs="$epochs" --checkpoint-dir= --json="$out/train-$p.json"
done
for v in plain tuned; do
	n=$epochs
	[ $v = plain ] && n=$plain
	step "pytorch-$v" 100 python3 "$here/pytorch/train.py" --variant=$v --data="$data" --batch-size="$batch" --epochs="$n" &&
		tail -n 1 "$out/pytorch-$v.log" >"$out/pytorch-$v.json"
done
command -v python3 >/dev/null || {
	echo "There is no python3 to make gpu.json and gpu.md. What was measured is in $out: once it has Python, run python3 $here/pytorch/table.py $out" >&2
	exit 1
}
python3 "$here/pytorch/table.py" "$out" && cat "$out/gpu.md"
