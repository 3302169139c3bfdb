//! What it costs to read along: the multipart walk beside `memchr::memmem` over the same bytes and
//! beside `multer`, the body limit beside tower-http's, and the type check.

use std::{
    convert::Infallible,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt as _, stream};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use portcullis::{
    body_limit::BodyLimitLayer,
    upload::{MIB, Signatures, TypeDetector, UploadLayer, UploadPolicy},
};
use tower::{Layer, Service, service_fn};
use tower_http::limit::RequestBodyLimitLayer;

const BOUNDARY: &str = "----WebKitFormBoundaryq3Yj0sTq9XkqEyPV";
const BODY: usize = 64 * MIB as usize;

/// Frames that are ready at once, or each after one wait, as from a socket.
struct Frames {
    frames: std::vec::IntoIter<Bytes>,
    waits: bool,
    wait: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.waits && self.wait {
            self.wait = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.wait = true;
        Poll::Ready(self.frames.next().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

fn frames(body: &Bytes, size: usize, waits: bool) -> Frames {
    let frames: Vec<Bytes> = (0..body.len())
        .step_by(size)
        .map(|at| body.slice(at..body.len().min(at + size)))
        .collect();
    Frames {
        frames: frames.into_iter(),
        waits,
        wait: false,
    }
}

/// A form with one file whose type has no end to be followed.
fn form(name: &str, media_type: &str, file: &[u8]) -> Bytes {
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {media_type}\r\n\r\n"
    )
    .into_bytes();
    body.extend(file);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
    body.into()
}

/// The payloads: noise, text, and what is almost a boundary again and again.
fn payloads() -> Vec<(&'static str, Vec<u8>)> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = (0..BODY / 8).flat_map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    });
    let repeat = |text: &str| text.bytes().cycle().take(BODY).collect::<Vec<u8>>();
    vec![
        ("noise", noise.collect()),
        (
            "text",
            repeat("The quick brown fox jumps over the lazy dog, -- and again.\r\n"),
        ),
        ("dashes", repeat("-")),
        ("line_ends", repeat("\r\n--")),
        (
            "near_miss",
            repeat(&format!("\r\n--{}", &BOUNDARY[..BOUNDARY.len() - 1])),
        ),
    ]
}

/// Reads a body to its end, as a handler does.
async fn read<B: Body<Data = Bytes> + Unpin>(mut body: B) -> usize {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.into_data().map_or(0, |data| data.len());
    }
    bytes
}

fn request(body: Frames) -> Request<Frames> {
    Request::post("/")
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(body)
        .unwrap()
}

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
    for (name, mut payload) in payloads() {
        payload[..4].copy_from_slice(b"\x1f\x8b\x08\0");
        let body = form("a.gz", "application/gzip", &payload);
        drop(payload);
        for size in [64 * 1_024, 8 * 1_024] {
            let mut group = criterion.benchmark_group(format!("walk_{name}_{size}"));
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
                let mut service = layer.layer(service_fn(async |request: Request<_>| {
                    black_box(read(request.into_body()).await);
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }));
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
                if !waits && size < 64 * 1_024 {
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

async fn multer_reads(frames: Frames) -> usize {
    let stream = stream::unfold(frames, async |mut frames| {
        let frame = frames.frame().await?;
        Some((
            frame.map(|frame| frame.into_data().unwrap_or_default()),
            frames,
        ))
    });
    let mut multipart = multer::Multipart::new(Box::pin(stream), BOUNDARY);
    let mut bytes = 0;
    while let Some(mut field) = multipart.next_field().await.unwrap() {
        while let Some(chunk) = field.chunk().await.unwrap() {
            bytes += chunk.len();
        }
    }
    bytes
}

/// Files whose end is followed.
fn ended(criterion: &mut Criterion, layer: &UploadLayer) {
    let (_, noise) = payloads().swap_remove(0);
    let noise = &noise[..16 * MIB as usize];
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for piece in noise.chunks(8_192).chain([&b""[..]]) {
        png.extend((piece.len() as u32).to_be_bytes());
        png.extend(if piece.is_empty() { b"IEND" } else { b"IDAT" });
        png.extend(piece);
        png.extend([0; 4]);
    }
    let mut jpeg = b"\xff\xd8\xff\xda\0\x02".to_vec();
    for byte in noise {
        jpeg.push(*byte);
        if *byte == 0xff {
            jpeg.push(0);
        }
    }
    jpeg.extend(b"\xff\xd9");
    let pdf = [b"%PDF-1.7\n", noise, b"\n%%EOF\n"].concat();
    for (name, media_type, file) in [
        ("a.png", "image/png", png),
        ("a.jpg", "image/jpeg", jpeg),
        ("a.pdf", "application/pdf", pdf),
    ] {
        let body = form(name, media_type, &file);
        let mut group = criterion.benchmark_group(format!("ends_{}", &name[2..]));
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut service = layer.layer(service_fn(async |request: Request<_>| {
            black_box(read(request.into_body()).await);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }));
        group.bench_function("portcullis", |bencher| {
            bencher.iter_batched(
                || request(frames(&body, 64 * 1_024, false)),
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

/// The same frame again and again.
struct Repeated {
    left: usize,
}

impl Body for Repeated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static FRAME: [u8; 65_536] = [0; 65_536];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(black_box(&FRAME))))))
    }
}

/// 1024 frames of 64 KiB, ready at once: what the limit costs a frame.
fn limit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit_1024_frames");
    // Boxed, as frameworks hand bodies on: an inlined loop over a constant measures nothing.
    let requests = || Request::new(Repeated { left: 1_024 }.boxed_unsync());
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
    let names = [
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/gif",
        "image/tiff",
        "image/avif",
        "application/pdf",
        "application/zip",
        "application/gzip",
        "application/x-7z-compressed",
        "audio/mpeg",
        "audio/ogg",
        "video/mp4",
        "video/webm",
        "video/quicktime",
        "audio/flac",
    ];
    let tests: Vec<_> = names
        .iter()
        .map(|name| Signatures.test_for(name).unwrap())
        .collect();
    let mut group = criterion.benchmark_group("types_of_16");
    let pad = |head: &[u8]| [head, &[0x42; 4_096][head.len()..]].concat();
    for (name, head) in [
        ("png", pad(b"\x89PNG\r\n\x1a\n")),
        ("pdf", pad(b"%PDF-1.7\n")),
        ("zip", pad(b"PK\x03\x04\x14\0\0\0")),
        ("mp4", pad(b"\0\0\0\x18ftypisom")),
        ("none", pad(b"hello")),
        ("zeros", vec![0; 4_096]),
    ] {
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
