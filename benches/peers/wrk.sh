#!/usr/bin/env bash
# The servers of `stack` under wrk over loopback: requests a second, p50 and p99 latency, and
# processor time of the server for a request, one line each, separated by tabs. The servers are
# asked in turn, and the middle of the rounds counts.
#
#   bash benches/peers/wrk.sh [ROUNDS [SECONDS]]     3 rounds of 4 s
#
# Needs wrk; Redis and npm for their lines.
set -euo pipefail
cd "$(dirname "$0")"

rounds=${1:-3} seconds=${2:-4}
program=${CARGO_TARGET_DIR:-$PWD/target}/release/stack
folder=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$folder"' EXIT

main() {
    cargo build --release --locked --bin stack >&2
    local token
    read -r STACK_SECRET token < <("$program" secret)
    export STACK_SECRET
    local modes=(bare bare-bytes ours ours-cached)
    if command -v redis-server >/dev/null; then
        redis-server --port 0 --unixsocket "$folder/redis" --save '' --dir "$folder" >/dev/null &
        until [[ -S $folder/redis ]]; do sleep 0.1; done
        export STACK_REDIS=unix://$folder/redis
        modes+=(ours-redis)
    fi
    modes+=(peers-17 peers-around peers-extractor)
    local express=${PORTCULLIS_PEERS_EXPRESS:-${CARGO_TARGET_DIR:-$PWD/target}/express}
    if [[ -d $express/node_modules ]]; then
        modes+=(express)
    else
        echo "run.sh stack installs Express; its line is left out" >&2
    fi
    local mode
    declare -A address process
    for mode in "${modes[@]}"; do
        if [[ $mode == express ]]; then
            (cd "$express" && NODE_ENV=production exec node express.mjs) >"$folder/$mode" &
        else
            "$program" "$mode" >"$folder/$mode" &
        fi
        process[$mode]=$!
        until grep -qs http "$folder/$mode"; do sleep 0.1; done
        address[$mode]=$(head -1 "$folder/$mode")
    done
    local round
    for ((round = 0; round <= rounds; round++)); do
        for mode in "${modes[@]}"; do
            measure "${address[$mode]}" "${process[$mode]}" "$token" >"$folder/line"
            # The first round warms.
            ((round == 0)) || echo "$mode $(<"$folder/line")" >>"$folder/figures"
        done
    done
    printf 'server\trequests/s\tp50\tp99\tµs of the server for a request\n'
    for mode in "${modes[@]}"; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$mode" "$(middle "$mode" 2)" \
            "$(middle "$mode" 3) ms" "$(middle "$mode" 4) ms" "$(middle "$mode" 5)"
    done
}

# Requests a second, p50 and p99 in ms, and µs of the process for a request.
measure() {
    local before after
    before=$(nanos "$2")
    wrk -t1 -c64 -d"${seconds}s" --latency -H "authorization: Bearer $3" "$1/" >"$folder/wrk"
    after=$(nanos "$2")
    if grep -q 'Non-2xx' "$folder/wrk"; then
        cat "$folder/wrk" >&2
        return 1
    fi
    awk -v nanos=$((after - before)) '
        function ms(text) {
            if (text ~ /us$/) return text / 1000
            if (text ~ /ms$/) return text + 0
            return text * 1000
        }
        /^ *50%/ { p50 = ms($2) }
        /^ *99%/ { p99 = ms($2) }
        / requests in / { requests = $1 }
        /^Requests\/sec/ { rate = $2 }
        END { printf "%.0f %.2f %.2f %.1f\n", rate, p50, p99, nanos / requests / 1000 }
    ' "$folder/wrk"
}

# What all threads of a process have had of the processor.
nanos() {
    cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

middle() {
    awk -v mode="$1" -v field="$2" '$1 == mode { print $field }' "$folder/figures" | sort -n |
        awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'
}

main
