//! What a rate limit adds to a service, with raw `governor` beside it. The comparison with other
//! layers, memory and latencies under a spray are in `benches/peers`.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use governor::{Quota, RateLimiter};
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    Client,
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
};
use tower::{Layer, Service, service_fn};

#[path = "support/threads.rs"]
mod threads;

type Body = Full<Bytes>;

const WINDOW: Duration = Duration::from_secs(900);
const PLENTY: u32 = 100_000_000;

criterion_group!(benches, rate_limits);
criterion_main!(benches);

fn rate_limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rate_limit");
    let ip = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
    group.bench_function("inner alone", |bencher| {
        bencher.iter_batched(
            || request(ip),
            |request| call(&mut service_fn(inner), request),
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("governor, keyed check alone", |bencher| {
        let quota = Quota::with_period(Duration::from_nanos(1));
        let quota = quota.unwrap().allow_burst(NonZeroU32::MAX);
        let limiter = RateLimiter::keyed(quota);
        bencher.iter(|| black_box(limiter.check_key(&ip)));
    });
    group.bench_function("governor, two threads on one key", |bencher| {
        let quota = Quota::with_period(Duration::from_nanos(1));
        let quota = quota.unwrap().allow_burst(NonZeroU32::MAX);
        let limiter = RateLimiter::keyed(quota);
        let check = || drop(black_box(limiter.check_key(&ip)));
        bencher.iter_custom(|calls| threads::on_two(calls, || check));
    });
    let ring = Policy::strict("general", PLENTY, WINDOW).unwrap();
    let smooth = Policy::smooth("general", PLENTY, WINDOW).unwrap();
    let denied = Policy::strict("auth", 1, WINDOW).unwrap();
    let second = Policy::strict("model", PLENTY, WINDOW).unwrap();
    let shared = RateLimitLayer::new([ring.clone()]);
    let quiet =
        portcullis::Context::new().with_events_inline(|_: &portcullis::event::SecurityEvent| {});
    for (name, layer) in [
        ("strict", RateLimitLayer::new([ring.clone()])),
        ("smooth", RateLimitLayer::new([smooth])),
        ("two policies", RateLimitLayer::new([ring.clone(), second])),
        (
            "strict with fields",
            RateLimitLayer::new([ring]).with_fields(FieldsVersion::Draft10),
        ),
        ("denied", RateLimitLayer::new([denied])),
    ] {
        let mut service = layer.with_context(quiet.clone()).layer(service_fn(inner));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || request(ip),
                |request| call(&mut service, request),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("strict, two threads on one key", |bencher| {
        let work = || {
            let mut service = shared.layer(service_fn(inner));
            move || drop(call(&mut service, request(ip)))
        };
        bencher.iter_custom(|calls| threads::on_two(calls, work));
    });
    group.finish();
}

fn inner(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::default())))
}

fn request(ip: IpAddr) -> Request<Body> {
    let mut request = Request::new(Body::default());
    request
        .extensions_mut()
        .insert(Client::new(Some(ip), false));
    request
}

fn call<S>(service: &mut S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let future = pin!(service.call(request));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        _ => unreachable!("the service answers at once"),
    }
}
