#!/bin/sh
# Measures the trainer on a GPU beside PyTorch on the same card; its limits add up to 590 s:
#
#	trainer/bench/gpu.sh TRAINER DATA [OUT]
#
# TRAINER is a trainer built with the tag cuda, on whichever machine: see docs/trainer.md.
# DATA is a folder with Fashion-MNIST. OUT (gpu-bench) gets gpu.json, gpu.md and a log of each
# step. A step that fails, or PyTorch where there is none, leaves the others alone.
set -u
[ $# -ge 2 ] || { sed -n '2,9p' "$0" >&2; exit 2; }
here=$(dirname "$0") trainer=$1 data=$2 out=${3:-gpu-bench}
steps=${BENCH_STEPS:-100} epochs=${BENCH_EPOCHS:-50} plain=${BENCH_PLAIN_EPOCHS:-4} batch=${BENCH_BATCH:-500}
mkdir -p "$out" || exit 1
rm -f "$out"/*.json "$out"/*.failed "$out"/*.log "$out"/*.md

# step NAME SECONDS COMMAND… runs it for so long at most.
step() {
	name=$1 limit=$2
	shift 2
	echo "$name" >&2
	timeout "$limit" "$@" >"$out/$name.log" 2>&1 || : >"$out/$name.failed"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader >"$out/card.txt" 2>/dev/null ||
	echo "unknown card" >"$out/card.txt"
step info 30 "$trainer" info --data-dir="$data"
for p in fp32 tf32; do
	step "smoke-$p" 60 "$trainer" smoke --device=cuda --precision=$p
	step "bench-$p" 60 "$trainer" bench --device=cuda --precision=$p --channels=1 --num-workers=1 --batch-size="$batch" --steps="$steps" --json="$out/bench-$p.json"
	step "train-$p" 60 "$trainer" train --device=cuda --precision=$p --data-dir="$data" --batch-size="$batch" --num-epochs="$epochs" --checkpoint-dir= --json="$out/train-$p.json"
done
for v in plain tuned; do
	n=$epochs
	[ $v = plain ] && n=$plain
	step "pytorch-$v" 100 python3 "$here/pytorch/train.py" --variant=$v --data="$data" --batch-size="$batch" --epochs="$n"
	[ -e "$out/pytorch-$v.failed" ] || tail -n 1 "$out/pytorch-$v.log" >"$out/pytorch-$v.json"
done
python3 "$here/pytorch/table.py" "$out" && cat "$out/gpu.md"
