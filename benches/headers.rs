//! The same fourteen security headers by this crate and by fourteen of tower-http's layers.

use std::{convert::Infallible, hint::black_box};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use portcullis::{
    Client,
    headers::{CspNonce, EmbedderPolicy, Profile, SecurityHeaders, SecurityHeadersLayer},
};
use tower::{Layer, Service, service_fn};
use tower_http::set_header::SetResponseHeaderLayer;

type Answer = Response<Full<Bytes>>;

fn benches(criterion: &mut Criterion) {
    let ours = SecurityHeaders::pinned(fourteen()).no_store_when(|_| false);
    let map = map_of(&ours);
    assert_eq!(map.len(), 14);
    let ours = SecurityHeadersLayer::new(ours);
    let both = SecurityHeadersLayer::default();

    for (kind, handler) in [
        ("empty", empty as fn() -> Answer),
        ("two_headers", with_two as fn() -> Answer),
    ] {
        let inner =
            service_fn(move |_: Request<()>| std::future::ready(Ok::<_, Infallible>(handler())));
        measure(criterion, kind, "inner", inner);
        measure(criterion, kind, "portcullis", ours.layer(inner));
        measure(criterion, kind, "portcullis_by_type", both.layer(inner));
        macro_rules! stacked {
            ($($index:literal)*) => {{
                let service = inner;
                let mut values = map.iter();
                $(
                    let _ = $index;
                    let (name, value) = values.next().unwrap();
                    let layer = SetResponseHeaderLayer::overriding(name.clone(), value.clone());
                    let service = layer.layer(service);
                )*
                service
            }};
        }
        let stacked = stacked!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        measure(criterion, kind, "tower_http_14_layers", stacked);
    }
    let page = service_fn(|request: Request<()>| {
        let nonce = request.extensions().get::<CspNonce>().map(CspNonce::as_str);
        black_box(nonce);
        std::future::ready(Ok::<_, Infallible>(html()))
    });
    measure(criterion, "page", "inner", page);
    measure(criterion, "page", "portcullis_nonce", both.layer(page));
}

fn measure<S>(criterion: &mut Criterion, kind: &str, name: &str, mut service: S)
where
    S: Service<Request<()>, Response = Answer, Error = Infallible>,
{
    let mut call = |request| service.call(request).now_or_never();
    for _ in 0..10 {
        black_box(call(request()));
    }
    let mut once = Some(request());
    let mut response = None;
    let allocations = allocation_counter::measure(|| {
        response = once.take().and_then(&mut call);
    });
    println!(
        "{kind}/{name}: {} allocations, {} bytes",
        allocations.count_total, allocations.bytes_total
    );
    drop(response);

    criterion.bench_function(&format!("{kind}/{name}"), |bencher| {
        bencher.iter_batched(request, &mut call, BatchSize::SmallInput);
    });
}

/// A request as a server hands it on, with the client in its extensions.
fn request() -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(Client::new(None, true));
    request
}

fn empty() -> Answer {
    Response::new(Full::default())
}

fn with_two() -> Answer {
    let mut response = empty();
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

fn html() -> Answer {
    let mut response = empty();
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/html"),
    );
    response
}

fn fourteen() -> Profile {
    Profile::helmet()
        .embedder_policy(EmbedderPolicy::RequireCorp)
        .header(
            HeaderName::from_static("expect-ct"),
            HeaderValue::from_static("max-age=0"),
        )
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The headers that a policy puts on an empty answer.
fn map_of(headers: &SecurityHeaders) -> HeaderMap {
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(empty()));
    let mut service = SecurityHeadersLayer::new(headers.clone()).layer(inner);
    let Some(Ok(response)) = service.call(request()).now_or_never() else {
        return HeaderMap::new();
    };
    response.headers().clone()
}

criterion_group!(group, benches);
criterion_main!(group);
