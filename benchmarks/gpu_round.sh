#!/usr/bin/env bash
# What needs a GPU, part by part, into one folder: tests, times, the next runs of the bundled models and their scores.
#     benchmarks/gpu_round.sh OUT tests times captions vl2 vq janus scores
# The parts run one after another on the GPUs that CUDA_VISIBLE_DEVICES names; for two GPUs run it twice, side by side.
# A part that fails or outlasts its time is named at the end, and the others run. Each writes OUT/PART.log, and ends
# within ten minutes. janus begins with the image tokenizer of vq; scores are of the models that OUT has by then.
# Variables: PYTHON; VL2_SECONDS, VQ_SECONDS and JANUS_SECONDS, in which a run compiles, trains, whatever its recipe
# says, and saves; IMAGES to caption; LIMIT questions a row.
set -uo pipefail
out=$(realpath -m "${1:?the folder for results}")
shift
mkdir -p "$out"
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
mm="$python -m mm"
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

tests() { # those of the apps need Gradio, and no GPU
  timeout 540 $python -m pytest -q -m gpu --ignore=tests/apps tests
}

times() {
  timeout 560 $python benchmarks/gpu.py --groups versions,janus-7b,janus-1b,vq,vl2-small,vl2-tiny,towers --profile \
    --brief --limit 150 --out "$out/gpu.json" --markdown "$out/gpu.md" --against benchmarks/results/h200.json
}

captions() {
  local failed=0
  timeout 120 $python benchmarks/throughput.py --model deepseek-ai/deepseek-vl2-tiny --random-weights --device cuda \
    --dtype bfloat16 --repeat 2 || failed=1
  for size in tiny small; do
    timeout 235 $python -m benchmarks.caption --model deepseek-ai/deepseek-vl2-$size --random-weights --device cuda \
      --images "${IMAGES:-512}" --batch-size 16 || failed=1
  done
  return $failed
}

vl2() {
  $mm train configs/nano_vl2_fifth.yaml --warm-start mm/nano/nano-vl2 --out "$out/vl2" \
    --session-seconds "${VL2_SECONDS:-540}"
}

vq() {
  $mm train configs/nano_janus_vq_second.yaml --warm-start mm/nano/nano-janus --out "$out/janus-vq" \
    --session-seconds "${VQ_SECONDS:-300}"
}

janus() {
  $mm train configs/nano_janus_second.yaml --warm-start "$out/janus-vq" --out "$out/janus" \
    --session-seconds "${JANUS_SECONDS:-540}"
}

scores() { # in float32, as those of the cards
  local failed=0
  if [[ -d $out/vl2 ]]; then
    timeout 400 $mm eval "$out/vl2" --device cuda --dtype float32 --processes 8 --batch-size 128 \
      --limit "${LIMIT:-500}" --control-limit 50 --json "$out/vl2.json" || failed=1
  fi
  if [[ -d $out/janus ]]; then
    timeout 180 $mm eval "$out/janus" --task draw --device cuda --dtype float32 --limit "${LIMIT:-500}" \
      --json "$out/janus.json" || failed=1
  fi
  return $failed
}

failed=()
for part in "$@"; do
  case $part in
  tests | times | captions | vl2 | vq | janus | scores) ;;
  *) echo "error: no part is called $part" >&2; exit 2 ;;
  esac
done
for part in "$@"; do
  SECONDS=0
  "$part" >"$out/$part.log" 2>&1 || failed+=("$part")
  echo "$part: $SECONDS s, $(tail -n 1 "$out/$part.log")"
done
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}; see $out/*.log" >&2; exit 1; }
