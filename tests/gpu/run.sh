#!/usr/bin/env bash
# What only a GPU can tell, in one go within ten minutes, without a network: the tests of tests/gpu,
# benchmarks/real_model.py, and a comparison on SmolLM2 (tests/gpu/compare.py). It has not seen a GPU yet.
#
#     tests/gpu/run.sh
#
# A line a part, with its seconds; logs, and the comparison's table and page, under $OUT. It fails
# where a part does, or where none could run. What a part lacks is named, and that part skipped.
#
#   OUT     folder of what is left behind (runs/gpu)
#   PYTHON  the Python to run with; else the project's own environment where it is set up or a package
#           index can be reached, since its packages are pinned; else the python3 at hand
#   MODEL   folder of SmolLM2 (models/smollm2); where it must travel in small files,
#           `benchmarks/make_smollm2.py --parts FOLDER` writes one
#   SHARED  folder of the data (../shared)
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-runs/gpu} MODEL=${MODEL:-models/smollm2} SHARED=${SHARED:-../shared}
mkdir -p "$OUT" || exit 2
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

index_answers() {
  timeout 30 python3 -m pip download --quiet --no-deps --no-cache-dir --retries 0 --timeout 10 \
    --dest "$WORK" "$(grep '^iniconfig==' requirements.txt)" >/dev/null 2>&1
}

choose_python() {
  if [ -n "${PYTHON:-}" ]; then
    chosen="python: $PYTHON, as asked"
  elif [ -e .venv/.installed ]; then
    PYTHON=.venv/bin/python
    chosen="python: $PYTHON, which is set up"
  elif index_answers && make .venv/.installed >"$OUT/install.log" 2>&1; then
    PYTHON=.venv/bin/python
    chosen="python: $PYTHON, set up with the pinned packages"
  else
    PYTHON=python3
    chosen="python: $(command -v python3), at hand, as no package index answers; its packages are not the pinned ones"
  fi
}

# lacks NAME…: those packages that cannot be imported
lacks() {
  "$PYTHON" -c 'import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))' "$@"
}

ran=0 failed=0 parts=0

# part NAME SECONDS REASON COMMAND…: runs it, or says why not where there is a reason
part() {
  local name=$1 limit=$2 reason=$3 status=0 started=$SECONDS
  shift 3
  parts=$((parts + 1))
  if [ -n "$reason" ]; then
    echo "$name: skipped: $reason" | tee -a "$OUT/summary.txt"
    return
  fi
  timeout --kill-after=10 "$limit" "$@" >"$OUT/$name.log" 2>&1 || status=$?
  ran=$((ran + 1))
  local told="passed"
  if [ "$status" -ne 0 ]; then
    failed=$((failed + 1))
    told="failed with status $status"
    [ "$status" -ne 124 ] || told="failed: stopped after $limit s"
    tail -n 20 "$OUT/$name.log"
  fi
  echo "$name: $told, $((SECONDS - started)) s" | tee -a "$OUT/summary.txt"
}

missing() { # the first of these that is not there, and what makes it
  while [ $# -gt 0 ]; do
    [ -e "$1" ] || { echo "$1 is not there; $2"; return; }
    shift 2
  done
}

: >"$OUT/summary.txt"
choose_python
echo "$chosen" | tee -a "$OUT/summary.txt"
if [ -n "$(lacks torch transformers peft)" ]; then
  echo "$PYTHON lacks: $(lacks torch transformers peft); name another one as PYTHON" >&2
  exit 2
fi
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "torch finds no CUDA device here, and this script is for one" >&2
  exit 2
fi
if ! "$PYTHON" -c 'from importlib.metadata import version; version("tiltune")' 2>/dev/null; then
  # not installed: runs ask for its version all the same
  mkdir "$WORK/tiltune-0.1.0.dist-info"
  printf 'Metadata-Version: 2.1\nName: tiltune\nVersion: 0.1.0\n' >"$WORK/tiltune-0.1.0.dist-info/METADATA"
  PYTHONPATH="$PYTHONPATH:$WORK"
fi

absent=$(lacks pytest beartype hypothesis)
part tests 150 "${absent:+not installed: $absent}" "$PYTHON" -m pytest -q tests/gpu
part real_model 180 "" "$PYTHON" benchmarks/real_model.py --device cuda
reason=$(missing "$MODEL/config.json" "\`make smollm2\` makes it" \
  "$SHARED/data/corpus/comments.train.jsonl" "name the folder of the data as SHARED" \
  classifiers/toxicity "examples/compare_smollm2.toml says how it is trained")
part compare 240 "$reason" "$PYTHON" tests/gpu/compare.py --out "$WORK/compare" --model "$MODEL" \
  --shared "$SHARED"
cp "$WORK"/compare/comparison.* "$OUT" 2>/dev/null

echo "$ran of $parts parts ran, $failed failed; logs and results in $OUT" | tee -a "$OUT/summary.txt"
[ "$failed" -eq 0 ] && [ "$ran" -gt 0 ]
