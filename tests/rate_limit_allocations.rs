//! How often the rate-limit gate allocates. Alone in its program, which counts.

#![cfg(feature = "rate-limit")]

use std::{convert::Infallible, future::ready, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use portcullis::{
    Client, Context,
    event::SecurityEvent,
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
};
use tower::{Layer, Service, service_fn};

const WINDOW: Duration = Duration::from_secs(900);

/// Allocations of one request under `layer` whose key has an entry, with those of the service alone.
fn counted(layer: Option<RateLimitLayer>, expected: u16) -> (u64, u64) {
    let inner = service_fn(|_: Request<Full<Bytes>>| {
        let mut response = Response::new(Full::<Bytes>::default());
        let text = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, text);
        ready(Ok::<_, Infallible>(response))
    });
    let request = || {
        let mut request = Request::new(Full::<Bytes>::default());
        let client = Client::new(Some("203.0.113.7".parse().unwrap()), false);
        request.extensions_mut().insert(client);
        request
    };
    let quiet = Context::new().with_events_inline(|_: &SecurityEvent| {});
    let mut alone = inner;
    let mut limited = layer.map(|layer| layer.with_context(quiet).layer(inner));
    let mut call = |request| match &mut limited {
        Some(limited) => limited.call(request).now_or_never().unwrap().unwrap(),
        None => alone.call(request).now_or_never().unwrap().unwrap(),
    };
    for _ in 0..3 {
        call(request());
    }
    let mut once = Some(request());
    let mut response = None;
    let held = allocation_counter::measure(|| response = once.take().map(&mut call));
    assert_eq!(response.unwrap().status(), expected);
    (held.count_total, held.bytes_total)
}

#[test]
fn a_charge_costs_no_allocation_and_its_fields_one() {
    let (alone, _) = counted(None, 200);
    for policy in [
        Policy::strict("auth", 5, WINDOW).unwrap(),
        Policy::strict("general", 100, WINDOW).unwrap(),
        Policy::smooth("general", 100, WINDOW).unwrap(),
    ] {
        let second = Policy::strict("second", 100, WINDOW).unwrap();
        let plain = RateLimitLayer::new([policy.clone()]);
        assert_eq!(counted(Some(plain), 200).0, alone);
        let pair = RateLimitLayer::new([policy.clone(), second]);
        assert_eq!(counted(Some(pair), 200).0, alone);
        let fields = RateLimitLayer::new([policy]).with_fields(FieldsVersion::Draft10);
        assert!(counted(Some(fields), 200).0 <= alone + 2);
    }
}

#[test]
fn a_refusal_costs_few_allocations() {
    let auth = RateLimitLayer::new([Policy::strict("auth", 1, WINDOW).unwrap()]);
    let (count, bytes) = counted(Some(auth), 429);
    // The labels of a counter are one.
    let most = if cfg!(feature = "metrics") { 9 } else { 8 };
    assert!(count <= most && bytes <= 2_048, "{count} of {bytes} bytes");
}
