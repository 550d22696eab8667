#!/usr/bin/env bash
# The whole road on a real training: calibrate, plan, run to a 60-s quota, kill it, resume, report.
set -euo pipefail
work=${ARZBENCH_DEMO_DIR:-$(mktemp -d)}
began=$SECONDS

step() { printf '\n$ %s\n' "$*"; "$@"; }

echo "working folder: $work"
step arzbench calibrate --steps 100 --repetitions 3 --dir "$work"
step arzbench plan --quota 12h --dir "$work"
step arzbench plan --quota 60s --dir "$work"

printf '\n$ arzbench run --auto-budget --quota 60s --dir %s   # killed after its third checkpoint\n' "$work"
arzbench run --auto-budget --quota 60s --dir "$work" &
run=$!
until [ "$(grep -hs '"kind":"checkpoint"' "$work"/reports/*/ledger.jsonl | wc -l)" -ge 3 ]; do
  kill -0 "$run" || { echo "the run ended before it could be killed" >&2; exit 1; }
  sleep 0.2
done
kill -9 "$run"
wait "$run" 2>/dev/null || echo "(killed with -9)"

step arzbench run --auto-budget --quota 60s --dir "$work"
step arzbench report --dir "$work"
printf '\narzbench took %s s in all; everything it wrote is in %s\n' "$((SECONDS - began))" "$work"
