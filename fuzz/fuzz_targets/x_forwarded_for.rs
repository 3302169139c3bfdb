//! `x-forwarded-for`: never a panic, and what a client wrote into its own line never changes who it is.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portcullis::client::{ForwardedHeader, Peer, TrustedProxies};

static PROXIES: LazyLock<TrustedProxies> = LazyLock::new(|| {
    TrustedProxies::new(["10.0.0.0/8"])
        .expect("a network")
        .with_header(ForwardedHeader::XForwardedFor)
});

fuzz_target!(|line: &[u8]| {
    let Ok(forged) = HeaderValue::from_bytes(line) else {
        return;
    };
    let peer = Peer::new(([10, 0, 0, 1], 443).into());
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", forged);
    let _ = PROXIES.client_behind(peer, &headers);
    headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
    let client = PROXIES.client_behind(peer, &headers);
    assert_eq!(client.ip(), Some([203, 0, 113, 7].into()));
});
