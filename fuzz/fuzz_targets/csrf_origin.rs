//! `Sec-Fetch-Site` and `Origin`, differential: the gate admits what the four rules of its module say,
//! told here once more, and nothing else.
#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Origin,
    csrf::{CsrfLayer, CsrfPolicy},
};
use portcullis_fuzz::{Ask, ask, cookies, quiet, ran, request, runs, values};
use tower::{Layer as _, service_fn};

const KNOWN: [&str; 2] = ["https://example.com", "https://app.example.net"];

static LAYERS: LazyLock<[CsrfLayer; 2]> = LazyLock::new(|| {
    let [own, friend] = KNOWN.map(|text| Origin::new(text).unwrap());
    let policy = CsrfPolicy::new([own])
        .trust([friend])
        .cookie("__Host-refresh")
        .unwrap();
    [policy.clone(), policy.strict()].map(|policy| CsrfLayer::new(policy).with_context(quiet()))
});

fuzz_target!(|text: &[u8]| {
    let Some((strict, text)) = text.split_first() else {
        return;
    };
    let strict = strict % 2 == 1;
    let Some(request) = request(text) else {
        return;
    };
    let headers = request.headers();
    let (sites, origins) = (values(headers, "sec-fetch-site"), values(headers, "origin"));
    let safe = matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS")
        && !headers.contains_key("upgrade");
    let site = sites.first().copied().unwrap_or_default();
    let origin = origins.first().copied().unwrap_or_default();
    let from_own_page = matches!(site, b"same-origin" | b"none");
    let known = KNOWN.iter().any(|known| known.as_bytes() == origin);
    let silent = site.is_empty() && origin.is_empty();
    let closed = strict || !cookies(headers, "__Host-refresh").is_empty();
    // A cookie without `=` is one that some readers take for a name.
    let bare = headers.get_all("cookie").iter().any(|field| {
        let mut pairs = field.as_bytes().split(|byte| *byte == b';');
        pairs.any(|pair| pair.trim_ascii() == b"__Host-refresh")
    });
    let once = sites.len() < 2 && origins.len() < 2;
    let admitted = safe || once && (from_own_page || known || silent && !closed && !bare);
    let handler = service_fn(async |_: Ask| {
        runs();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let answer = ask(LAYERS[usize::from(strict)].layer(handler), request);
    assert_eq!(ran(), admitted);
    assert_eq!(answer.status().as_u16(), if admitted { 200 } else { 403 });
});
