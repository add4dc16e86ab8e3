#!/usr/bin/env bash
# What needs a GPU, part by part, into one folder: tests, times, the next runs of the bundled models and their scores.
#     benchmarks/gpu_round.sh OUT tests times captions vl2 janus
# The parts run one after another on the GPUs that CUDA_VISIBLE_DEVICES names; for two GPUs run it twice, side by side.
# A part that fails or outlasts its time is named at the end, and the others run. Each writes OUT/PART.log.
# Variables: PYTHON; VL2_SECONDS, VQ_SECONDS and JANUS_SECONDS of training (as in the recipes); LIMIT questions a row.
set -uo pipefail
out=$(realpath -m "${1:?the folder for results}")
shift
mkdir -p "$out"
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
mm="$python -m mm"
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

tests() {
  timeout 300 $python -m pytest -q -m gpu tests
}

times() {
  timeout 420 $python benchmarks/gpu.py --groups versions,janus-7b,janus-1b,vq,vl2-small,vl2-tiny,towers --profile \
    --out "$out/gpu.json" --markdown "$out/gpu.md" --against benchmarks/results/h200.json
}

captions() {
  timeout 240 $python benchmarks/throughput.py --model deepseek-ai/deepseek-vl2-tiny --random-weights --device cuda \
    --dtype bfloat16 --repeat 2
  for size in tiny small; do
    timeout 240 $python -m benchmarks.caption --model deepseek-ai/deepseek-vl2-$size --random-weights --device cuda \
      --images 128 --batch-size 16
  done
}

vl2() {
  $mm train configs/nano_vl2_fifth.yaml --warm-start mm/nano/nano-vl2 --out "$out/vl2" \
    --set schedule.train_seconds="${VL2_SECONDS:-800}" &&
    $mm eval "$out/vl2" --device cuda --processes 8 --batch-size 128 --limit "${LIMIT:-500}" --control-limit 50 \
      --json "$out/vl2.json"
}

janus() {
  $mm train configs/nano_janus_vq.yaml --out "$out/janus-vq" --set schedule.train_seconds="${VQ_SECONDS:-240}" &&
    $mm train configs/nano_janus.yaml --warm-start "$out/janus-vq" --out "$out/janus" \
      --set schedule.train_seconds="${JANUS_SECONDS:-620}" &&
    $mm eval "$out/janus" --task draw --device cuda --limit "${LIMIT:-500}" --json "$out/janus.json"
}

failed=()
for part in "$@"; do
  case $part in tests | times | captions | vl2 | janus) ;; *) echo "error: no part is called $part" >&2; exit 2 ;; esac
done
for part in "$@"; do
  SECONDS=0
  "$part" >"$out/$part.log" 2>&1 || failed+=("$part")
  echo "$part: $SECONDS s, $(tail -n 1 "$out/$part.log")"
done
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}; see $out/*.log" >&2; exit 1; }
