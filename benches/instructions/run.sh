#!/usr/bin/env bash
# Counts the instructions that each gate adds to a request, and holds them against counts.tsv:
# one line each, `name now stored ratio ok|over`, separated by tabs. Exits 1 when one has grown by
# more than a tenth.
#
#   bash benches/instructions/run.sh [--record]     --record stores the counts instead
#
# Instructions of user code under callgrind, which do not depend on what else the machine does. They
# do depend on the compiler and on what the processor can do: counts of another compiler are shown
# and fail nothing.
set -euo pipefail
cd "$(dirname "$0")"

program=${CARGO_TARGET_DIR:-target}/release/portcullis-instructions
# Calls that the program makes of what is counted.
calls=1000
# A count of few instructions may grow by so many.
slack=30

main() {
    cargo build --release --locked --quiet
    local counts
    counts=$(count)
    if [[ ${1:-} == --record ]]; then
        { compiler; echo "$counts"; } >counts.tsv
        return
    fi
    local binding=1
    if [[ $(head -1 counts.tsv) != $(compiler) ]]; then
        echo "counts.tsv is of $(head -1 counts.tsv); this is $(compiler)" >&2
        binding=0
    fi
    awk -F '\t' -v OFS='\t' -v slack="$slack" -v binding="$binding" '
        FNR == NR { stored[$1] = $2; next }
        {
            known = $1 in stored
            over = !known || $2 > stored[$1] * 1.1 && $2 > stored[$1] + slack
            ratio = known && stored[$1] > 0 ? sprintf("%.2f", $2 / stored[$1]) : "-"
            print $1, $2, known ? stored[$1] : "-", ratio, over ? "over" : "ok"
            grown += over
        }
        END { exit binding && grown > 0 }
    ' counts.tsv <(echo "$counts")
}

compiler() {
    rustc --version --verbose | sed -n 's/^release: //p; s/^host: //p' | paste -sd ' '
}

# Name and instructions of each gate, those of the service behind it taken off.
count() {
    local name over
    declare -A alone
    while IFS=$'\t' read -r name over; do
        local own
        own=$(collected "$name")
        if [[ $name == "$over" ]]; then
            alone[$name]=$own
        else
            printf '%s\t%s\n' "$name" $(((own - ${alone[$over]}) / calls))
        fi
    done < <("$program")
}

collected() {
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*counted*' \
        --callgrind-out-file=/dev/null "$program" "$1" 2>&1 | sed -n 's/^.*Collected : //p'
}

main "$@"
