#!/usr/bin/env bash
# Breaks the decisions of these gates, or of all, one at a time, and tells which break no test
# notices. Takes long: nothing that CI waits for.
set -euo pipefail
cd "$(dirname "$0")"

if (($# == 0)); then
    mapfile -t gates < <(cut -d ' ' -f 1 gates.txt)
    set -- "${gates[@]}"
fi
CARGO_TARGET_DIR=../../target/mutants/tool cargo run --locked --quiet -- "$@"
