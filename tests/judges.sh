#!/usr/bin/env bash
# Asks judges of others about the headers: MDN's HTTP Observatory, Google's CSP evaluator, and helmet
# for the parity test. Needs npm, node and openssl; the packages go to target/judges.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
judges=$target/judges
mkdir -p "$judges"
cp tests/judges.mjs "$judges"
(
    cd "$judges"
    npm install --ignore-scripts --no-audit --no-fund --no-save --loglevel=error \
        @mdn/mdn-http-observatory@1.4.8 csp_evaluator@1.1.8 helmet@8.3.0
    # What its install script would fetch from the network; no host here is on either list.
    conf=node_modules/@mdn/mdn-http-observatory/conf
    echo '{}' >$conf/hsts-preload.json
    echo '[]' >$conf/tld-list.json
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout key.pem -out cert.pem 2>/dev/null
)
cargo build --locked --all-features --example secure_api
cd "$judges"
NODE_EXTRA_CA_CERTS=cert.pem node judges.mjs \
    "$target/debug/examples/secure_api" cert.pem key.pem helmet.json
cd - >/dev/null
PORTCULLIS_TEST_HELMET=$judges/helmet.json \
    cargo test --locked --all-features --test headers helmet_is_sent_value_for_value
