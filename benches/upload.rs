//! What it costs to read along: the multipart walk beside `memchr::memmem` over the same bytes and
//! beside `multer`, the body limit beside tower-http's, and the type check.

#[path = "support/upload.rs"]
mod support;

use std::{convert::Infallible, hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use portcullis::{
    body_limit::BodyLimitLayer,
    upload::{MIB, Signatures, TypeDetector, UploadLayer, UploadPolicy},
};
use support::{
    BOUNDARY, FRAME, GZIP, Repeated, SIXTEEN, form, frames, handler, heads, multer_reads, payloads,
    read, request,
};
use tower::{Layer, Service, service_fn};
use tower_http::limit::RequestBodyLimitLayer;

const BODY: usize = 64 * MIB as usize;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn walk(criterion: &mut Criterion) {
    let policy = UploadPolicy::new([
        "application/gzip",
        "image/png",
        "application/pdf",
        "image/jpeg",
    ])
    .unwrap()
    .max_file(1_024 * MIB);
    let layer = UploadLayer::new(policy);
    for (name, mut payload) in payloads(BODY) {
        payload[..GZIP.len()].copy_from_slice(GZIP);
        let body = form("a.gz", "application/gzip", &payload);
        drop(payload);
        for size in [FRAME, 8 * 1_024] {
            let mut group = criterion.benchmark_group(format!("walk of {name}, {size}"));
            group.throughput(Throughput::Bytes(body.len() as u64));
            let delimiter = format!("--{BOUNDARY}");
            let finder = memchr::memmem::Finder::new(delimiter.as_bytes());
            group.bench_function("memmem", |bencher| {
                bencher.iter(|| {
                    body.chunks(size)
                        .filter_map(|frame| finder.find(frame))
                        .count()
                });
            });
            for waits in [false, true] {
                let kind = if waits { "network" } else { "ready" };
                let mut service = layer.layer(service_fn(handler));
                group.bench_function(format!("portcullis_{kind}"), |bencher| {
                    bencher.iter_batched(
                        || request(frames(&body, size, waits)),
                        |request| {
                            let response = run(service.call(request)).unwrap();
                            assert_eq!(response.status(), 200);
                        },
                        BatchSize::PerIteration,
                    );
                });
                if !waits && size < FRAME {
                    continue;
                }
                group.bench_function(format!("multer_{kind}"), |bencher| {
                    bencher.iter_batched(
                        || frames(&body, size, waits),
                        |frames| run(multer_reads(frames)),
                        BatchSize::PerIteration,
                    );
                });
            }
            group.finish();
        }
    }
    ended(criterion, &layer);
}

/// Files whose end is followed.
fn ended(criterion: &mut Criterion, layer: &UploadLayer) {
    for (name, media_type, file) in support::ended(16 * MIB as usize) {
        let body = form(name, media_type, &file);
        let mut group = criterion.benchmark_group(format!("ends_{}", &name[2..]));
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut service = layer.layer(service_fn(handler));
        group.bench_function("portcullis", |bencher| {
            bencher.iter_batched(
                || request(frames(&body, FRAME, false)),
                |request| {
                    let response = run(service.call(request)).unwrap();
                    assert_eq!(response.status(), 200);
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

async fn whole<B: Body<Data = Bytes>>(
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    black_box(read(Box::pin(request.into_body())).await);
    Ok(Response::new(Full::default()))
}

/// 1024 frames of 64 KiB, ready at once: what the limit costs a frame.
fn limit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit_1024_frames");
    // Boxed, as frameworks hand bodies on: an inlined loop over a constant measures nothing.
    let requests = || Request::new(Repeated(1_024).boxed_unsync());
    let mut bare = service_fn(whole::<UnsyncBoxBody<Bytes, Infallible>>);
    group.bench_function("bare", |bencher| {
        bencher.iter_batched(
            requests,
            |request| drop(bare.call(request).now_or_never()),
            BatchSize::SmallInput,
        );
    });
    let mut ours = BodyLimitLayer::new(u64::MAX).layer(service_fn(whole));
    group.bench_function("portcullis", |bencher| {
        bencher.iter_batched(
            requests,
            |request| drop(ours.call(request).now_or_never()),
            BatchSize::SmallInput,
        );
    });
    let mut theirs = RequestBodyLimitLayer::new(usize::MAX).layer(service_fn(whole));
    group.bench_function("tower_http", |bencher| {
        bencher.iter_batched(
            requests,
            |request| drop(theirs.call(request).now_or_never()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The heads of files against an allow-list of sixteen types, none declared.
fn types(criterion: &mut Criterion) {
    let tests = SIXTEEN.map(|name| Signatures.test_for(name).unwrap());
    let mut group = criterion.benchmark_group("types_of_16");
    for (name, _, head) in heads() {
        group.bench_function(name, |bencher| {
            bencher.iter(|| tests.iter().position(|test| test.holds(black_box(&head))));
        });
    }
    group.finish();
}

criterion_group! {
    name = groups;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = walk, limit, types
}
criterion_main!(groups);
