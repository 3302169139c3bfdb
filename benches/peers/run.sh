#!/usr/bin/env bash
# Builds and runs the comparisons, and prints one line for each budget, separated by tabs:
# name, ours, peer, ratio (or the figure itself where there is no peer), budget, ok or over; floor where
# the line is not ours but what the line above it could be at best.
# All figures stand on standard error. Exits 1 when a budget is not kept.
#
#   bash benches/peers/run.sh [GATE...]     all gates when none is named
#
# A gate is a program in src/bin; its modes below run in a process each.
set -euo pipefail
cd "$(dirname "$0")"

modes_of() {
    case $1 in
    rate_limit) echo layers keys heap spray threads ;;
    *) echo "" ;;
    esac
}

main() {
    local gates=("$@") table
    if ((${#gates[@]} == 0)); then
        mapfile -t gates < <(basename -s .rs src/bin/*.rs)
    fi
    cargo build --release --locked "${gates[@]/#/--bin=}" >&2
    if [[ " ${gates[*]} " == *" stack "* ]] && command -v npm >/dev/null; then
        install_express >&2
    fi
    if command -v redis-server >/dev/null; then
        export PORTCULLIS_TEST_REDIS=${PORTCULLIS_TEST_REDIS:-$(command -v redis-server)}
    fi
    table=$(mktemp)
    # Expanded here: at the exit this function and its variables are gone.
    trap "rm -f '$table'" EXIT
    local gate mode modes
    for gate in "${gates[@]}"; do
        read -ra modes <<<"$(modes_of "$gate")"
        for mode in "${modes[@]:-}"; do
            run "$gate" $mode | tee -a "$table"
        done
    done
    if grep -q $'\tover$' "$table"; then
        return 1
    fi
}

# What the whole stack is held against beside Rust's peers; without npm its lines are left out.
install_express() {
    export PORTCULLIS_PEERS_EXPRESS=${CARGO_TARGET_DIR:-$PWD/target}/express
    mkdir -p "$PORTCULLIS_PEERS_EXPRESS"
    cp src/express.mjs "$PORTCULLIS_PEERS_EXPRESS"
    (
        cd "$PORTCULLIS_PEERS_EXPRESS"
        npm install --ignore-scripts --no-audit --no-fund --no-save --loglevel=error \
            express@5.3.0 helmet@8.3.0 express-rate-limit@8.7.5 express-jwt@8.5.1
    )
}

# On one core, so that nothing moves between caches, except what is about two threads or a server and its client.
run() {
    local pin=()
    if [[ ${2:-} != threads && $1 != stack && $1 != redis ]] && command -v taskset >/dev/null; then
        pin=(taskset -c "$(($(nproc) - 1))")
    fi
    "${pin[@]}" "${CARGO_TARGET_DIR:-target}/release/$1" ${2:+"$2"}
}

main "$@"
