#!/usr/bin/env bash
# Builds the fuzz targets with coverage, on the stable toolchain, and runs them.
#
#   fuzz/run.sh smoke             each target for 10 s, two side by side
#   fuzz/run.sh TARGET SECONDS    one target for so long; what it learns stays in fuzz/corpus
#   fuzz/run.sh TARGET FILE       one input once more
#   fuzz/run.sh seeds TARGET      the fewest inputs of the corpus that cover as much, as its seeds
#
# An input that is a finding stands in fuzz/artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")"

HOST=$(rustc -vV | sed -n 's/^host: //p')

main() {
    case ${1:-} in
        smoke)
            build --bins
            targets | xargs -P 2 -I{} bash run.sh quick {}
            ;;
        quick) quick "$2" ;;
        seeds) build --bin "$2" && seeds "$2" ;;
        "") sed -n '2,9s/^# \{0,1\}//p' run.sh ;;
        *) build --bin "$1" && fuzz "$1" "$2" ;;
    esac
}

# What libFuzzer asks of the compiler. No sanitizer: the crate has no `unsafe`.
build() {
    local flags="--cfg fuzzing -Cpasses=sancov-module"
    flags+=" -Cllvm-args=-sanitizer-coverage-level=4"
    flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    flags+=" -Cllvm-args=-sanitizer-coverage-pc-table"
    flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
    RUSTFLAGS=$flags CARGO_INCREMENTAL=0 \
        cargo build --locked --quiet --release --target "$HOST" "$@"
}

targets() {
    find fuzz_targets -name '*.rs' -exec basename {} .rs \; | sort
}

# An input that takes 10 s, or memory that grows past 1 GiB, is a finding too.
libfuzzer() {
    local target=$1
    shift
    mkdir -p "artifacts/$target" "corpus/$target" "seeds/$target"
    local options=(-max_len=4096 -timeout=10 -rss_limit_mb=1024)
    options+=("-artifact_prefix=artifacts/$target/")
    [[ -f dictionaries/$target ]] && options+=("-dict=dictionaries/$target")
    "target/$HOST/release/$target" "${options[@]}" "$@"
}

fuzz() {
    if [[ -f $2 ]]; then
        libfuzzer "$1" "$2"
    else
        libfuzzer "$1" -max_total_time="$2" -print_final_stats=1 "corpus/$1" "seeds/$1"
    fi
}

# Begins with the seeds alone, and keeps nothing.
quick() {
    local learnt
    learnt=$(mktemp -d)
    if libfuzzer "$1" -max_total_time=10 "$learnt" "seeds/$1" >"$learnt.log" 2>&1; then
        echo "$1: $(sed -n 's/^Done \([0-9]* runs\).*/\1/p' "$learnt.log")"
        rm -r "$learnt" "$learnt.log"
    else
        tail -n 60 "$learnt.log"
        echo "$1: a finding, in fuzz/artifacts/$1"
        return 1
    fi
}

seeds() {
    local fewest
    fewest=$(mktemp -d)
    libfuzzer "$1" -merge=1 "$fewest" "seeds/$1" "corpus/$1"
    rm -r "seeds/$1"
    mv "$fewest" "seeds/$1"
}

main "$@"
