//! What the upload gate costs: beside `memchr::memmem` over the same bytes, beside `multer`, on a
//! handler with axum's `Multipart`, and in memory.
//!
//!     upload limit                   the body limit alone
//!     upload types DIRECTORY...      the types of the files in there, told by the gate and by others

#[path = "../../../support/upload.rs"]
mod support;

use std::{
    convert::Infallible,
    hint::black_box,
    io::{Read as _, Write as _},
    net::TcpStream,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::extract::{DefaultBodyLimit, Multipart};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use portcullis::{
    body_limit::BodyLimitLayer,
    upload::{MIB, Signatures, TypeDetector as _, UploadLayer, UploadPolicy},
};
use portcullis_peers::{Budget, Candidate, Counting, live, measure, median, row, take_peak};
use support::{
    BOUNDARY, FRAME, GZIP, Repeated, SIXTEEN, form, frames, handler, heads, looped, multer_reads,
    noise, payloads, read, request,
};
use tower::{Layer, Service, ServiceExt as _, service_fn};
use tower_http::limit::RequestBodyLimitLayer;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Larger than the caches, as a stream is.
const BODY: usize = 32 * MIB as usize;
/// 32 MiB in all.
const LOOPS: usize = 63;

/// Gigabytes a second of each candidate, by the median of rounds in which they run in turn.
fn speeds(bytes: usize, candidates: &mut [Box<dyn FnMut() + '_>]) -> Vec<f64> {
    let mut times = vec![Vec::new(); candidates.len()];
    for round in 0..16 {
        for (times, work) in times.iter_mut().zip(candidates.iter_mut()) {
            let start = Instant::now();
            work();
            if round > 0 {
                times.push(start.elapsed().as_nanos() as f64);
            }
        }
    }
    times.into_iter().map(|times| bytes as f64 / median(times)).collect()
}

fn walk(runtime: &tokio::runtime::Runtime, layer: &UploadLayer) {
    for (name, mut payload) in payloads(12 * FRAME) {
        payload[..GZIP.len()].copy_from_slice(GZIP);
        let body = form("a.gz", "application/gzip", &payload);
        let bytes = body.len() + LOOPS * 8 * FRAME;
        let delimiter = format!("--{BOUNDARY}");
        let finder = memchr::memmem::Finder::new(delimiter.as_bytes());
        let gate = |waits: bool| {
            let mut service = layer.layer(service_fn(handler));
            let body = &body;
            move || {
                let answer = runtime.block_on(service.call(request(looped(body, LOOPS, waits))));
                assert_eq!(answer.unwrap().status(), 200);
            }
        };
        let speeds = speeds(
            bytes,
            &mut [
                Box::new(|| {
                    let found = (0..bytes / FRAME).filter(|at| {
                        let frame = &body[(1 + at % 8) * FRAME..][..FRAME];
                        finder.find(black_box(frame)).is_some()
                    });
                    black_box(found.count());
                }),
                Box::new(gate(false)),
                Box::new(gate(true)),
                Box::new(|| {
                    black_box(runtime.block_on(multer_reads(looped(&body, LOOPS, true))));
                }),
            ],
        );
        eprintln!("{name}: GB/s memmem, ready, network, multer on a network: {speeds:.2?}");
        let [memmem, ready, network, multer] = speeds[..] else {
            return;
        };
        let name = |what: &str| format!("upload {name}, {what}");
        row(&name("of memmem"), ready, Some(memmem), ready / memmem, Budget::AtLeast(0.6));
        row(&name("of multer"), network, Some(multer), network / multer, Budget::AtLeast(1.5));
        row(&name("GB/s"), ready, None, ready, Budget::AtLeast(5.0));
    }
}

/// Files whose end is followed, and in which a second one is looked for.
fn ended(runtime: &tokio::runtime::Runtime, layer: &UploadLayer) {
    for (name, media_type, file) in support::ended(BODY) {
        let body = form(name, media_type, &file);
        let mut service = layer.layer(service_fn(handler));
        let speeds = speeds(
            body.len(),
            &mut [Box::new(|| {
                let answer = runtime.block_on(service.call(request(frames(&body, FRAME, false))));
                assert_eq!(answer.unwrap().status(), 200);
            })],
        );
        let name = format!("upload {media_type} with end checks, GB/s");
        row(&name, speeds[0], None, speeds[0], Budget::AtLeast(2.0));
    }
}

/// The head of a file that declares no type against an allow-list of sixteen.
fn types() {
    let tests = SIXTEEN.map(|name| Signatures.test_for(name).unwrap());
    let mut typical = Vec::new();
    let mut worst = 0.0_f64;
    for (name, usual, head) in heads() {
        let time = measure(
            &format!("the type of {name}"),
            9,
            vec![
                Candidate::new("nothing", || {
                    black_box(&head);
                }),
                Candidate::new("asked type by type", || {
                    black_box(tests.iter().position(|test| test.holds(black_box(&head))));
                }),
            ],
        );
        assert!(time[1].allocations < 0.01, "{name} allocates");
        if usual {
            typical.push(time[1].time);
        }
        worst = worst.max(time[1].time);
    }
    let typical = median(typical);
    row("upload type of a typical head, ns", typical, None, typical, Budget::AtMost(60.0));
    row("upload type of any head, ns", worst, None, worst, Budget::AtMost(2_000.0));
}

/// A body around another, which hands on and does nothing.
struct Through(UnsyncBoxBody<Bytes, Infallible>);

impl Body for Through {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }
}

fn limit() {
    const FRAMES: usize = 8_192;
    let call = |length: usize| Request::new(Repeated(length).boxed_unsync());
    let mut bare = service_fn(|request: Request<_>| async {
        black_box(read(request.into_body()).await);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let mut gate = BodyLimitLayer::new(u64::MAX).layer(service_fn(|request: Request<_>| async {
        black_box(read(Box::pin(request.into_body())).await);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let mut theirs = RequestBodyLimitLayer::new(usize::MAX).layer(service_fn(|request: Request<_>| async {
        black_box(read(Box::pin(request.into_body())).await);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let mut wrapped = service_fn(|request: Request<_>| async {
        black_box(read(request.into_body()).await);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let wrap = |request: Request<UnsyncBoxBody<Bytes, Infallible>>| request.map(|body| Box::pin(Through(body)));
    let measured = measure(
        "8192 frames",
        31,
        vec![
            Candidate::new("bare", || drop(bare.call(call(FRAMES)).now_or_never())),
            Candidate::new("tower-http", || drop(theirs.call(call(FRAMES)).now_or_never())),
            Candidate::new("body limit", || drop(gate.call(call(FRAMES)).now_or_never())),
            Candidate::new("a body around it that does nothing", || {
                drop(wrapped.call(wrap(call(FRAMES))).now_or_never());
            }),
        ],
    );
    let frame = |at: usize| measured[at].added / FRAMES as f64;
    // Beyond a body that only hands a frame on, its error in a box; tower-http's stands beside it.
    row("body limit, ns a frame", frame(2), Some(frame(1)), frame(2) - frame(3), Budget::AtMost(1.0));
}

/// axum's `Multipart`, as its users read a file.
async fn extracted(mut form: Multipart) -> &'static str {
    let mut bytes = 0;
    while let Some(mut field) = form.next_field().await.unwrap() {
        while let Some(chunk) = field.chunk().await.unwrap() {
            bytes += chunk.len();
        }
    }
    black_box(bytes);
    "read"
}

/// A server of its own thread, and a connection to it.
fn connected(router: axum::Router) -> TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    TcpStream::connect(address).unwrap()
}

/// A handler with `Multipart` over loopback: bare, and behind the gate.
fn multipart(layer: &UploadLayer) {
    let route = || {
        axum::routing::post(extracted).layer::<_, Infallible>(DefaultBodyLimit::disable())
    };
    let router = |route| axum::Router::new().route("/", route);
    let mut bare = connected(router(route()));
    let mut gate = connected(router(route().layer(layer.clone())));
    for size in [32 * MIB, MIB, 64 * 1_024] {
        let mut file = noise(size as usize);
        file[..GZIP.len()].copy_from_slice(GZIP);
        let body = form("a.gz", "application/gzip", &file);
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}\r\n\
             content-length: {}\r\n\r\n",
            body.len(),
        );
        let calls = (BODY / body.len()).clamp(1, 64);
        let ask = |stream: &mut TcpStream| {
            let start = Instant::now();
            for _ in 0..calls {
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&body).unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"read") {
                    let mut some = [0; 1_024];
                    let read = stream.read(&mut some).unwrap();
                    assert!(read > 0, "{}", answer.escape_ascii());
                    answer.extend(&some[..read]);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"));
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        };
        // Pairs that run one after the other, and the middle of their ratios.
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..31 {
            theirs.push(ask(&mut bare));
            ours.push(ask(&mut gate));
            ratios.push(ours[ours.len() - 1] / theirs[theirs.len() - 1]);
        }
        let name = format!("upload on axum's Multipart, {} KiB", size / 1_024);
        row(&name, median(ours), Some(median(theirs)), median(ratios), Budget::AtMost(1.2));
    }
}

/// Twenty uploads of 300 MiB at once: what the gate holds beside the frames that the reader has.
fn memory(runtime: &tokio::runtime::Runtime) {
    const UPLOADS: usize = 20;
    let policy = UploadPolicy::new(["application/gzip"]).unwrap().max_file(512 * MIB);
    let layer = UploadLayer::new(policy);
    let mut piece = vec![0x5a; 3 * MIB as usize];
    piece[..GZIP.len()].copy_from_slice(GZIP);
    let form = form("a.gz", "application/gzip", &piece);
    drop(piece);
    let upload = |mebibytes: usize| {
        let head = form.slice(..form.len() / 2);
        let end = form.slice(form.len() / 2..);
        let middle = form.slice(MIB as usize..2 * MIB as usize);
        let pieces = (0..mebibytes - 3).map(move |_| middle.clone());
        let frames = [head].into_iter().chain(pieces).chain([end]);
        let frames = frames.flat_map(|piece| {
            // Every frame in memory of its own, as a socket's are.
            (0..piece.len()).step_by(FRAME).map(move |at| {
                let frame = &piece[at..piece.len().min(at + FRAME)];
                Bytes::copy_from_slice(frame)
            })
        });
        let frames = frames.map(|frame| Ok::<_, Infallible>(Frame::data(frame)));
        let frames = stream::iter(frames).then_yield();
        let service = layer.clone().layer(service_fn(handler));
        async move {
            let answer = service.oneshot(request(http_body_util::StreamBody::new(frames))).await;
            assert_eq!(answer.unwrap().status(), 200);
        }
    };
    let mut peaks = Vec::new();
    for mebibytes in [30, 300] {
        take_peak();
        let before = live();
        runtime.block_on(async {
            let uploads = (0..UPLOADS).map(|_| upload(mebibytes));
            futures_util::future::join_all(uploads).await;
        });
        peaks.push((take_peak() - before) as f64 / 1_024.0);
    }
    eprintln!("peak KiB of 20 uploads of 30 and of 300 MiB: {peaks:?}");
    let each = peaks[1] / UPLOADS as f64;
    // A frame that is read, one that is kept back, the window, and what a request has.
    row("upload memory of 20 x 300 MiB, KiB each", each, None, each, Budget::AtMost(160.0));
    let growth = peaks[1] / peaks[0];
    row("upload memory, 300 MiB to 30 MiB", peaks[1], Some(peaks[0]), growth, Budget::AtMost(1.05));
}

/// A wait before each frame, so that the uploads take turns.
trait ThenYield: Sized {
    fn then_yield(self) -> Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;
}

impl<S> ThenYield for S
where
    S: stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
{
    fn then_yield(self) -> Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>> {
        use futures_util::StreamExt as _;
        Box::pin(self.then(|frame| async {
            tokio::task::yield_now().await;
            frame
        }))
    }
}

/// The types that are told apart, with an extension of each, and what else they are called.
const TYPES: [(&str, &str, &[&str]); 34] = [
    ("image/png", "png", &[]),
    ("image/jpeg", "jpg jpeg", &[]),
    ("image/webp", "webp", &[]),
    ("image/gif", "gif", &[]),
    ("image/tiff", "tif tiff", &[]),
    ("image/avif", "avif", &[]),
    ("image/heif", "heic heif", &["image/heic"]),
    ("image/x-icon", "ico", &["image/vnd.microsoft.icon"]),
    ("application/pdf", "pdf", &[]),
    ("application/zip", "zip", &[]),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx", &[]),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx", &[]),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx", &[]),
    ("application/vnd.oasis.opendocument.text", "odt", &[]),
    ("application/vnd.oasis.opendocument.spreadsheet", "ods", &[]),
    ("application/vnd.oasis.opendocument.presentation", "odp", &[]),
    ("application/gzip", "gz tgz", &["application/x-gzip"]),
    ("application/x-bzip2", "bz2", &["application/bzip2", "application/x-bzip"]),
    ("application/x-xz", "xz", &[]),
    ("application/zstd", "zst", &["application/x-zstd"]),
    ("application/x-7z-compressed", "7z", &[]),
    ("application/x-tar", "tar", &[]),
    ("audio/mpeg", "mp3", &["audio/mp3"]),
    ("audio/ogg", "ogg oga", &["application/ogg", "audio/opus"]),
    ("audio/flac", "flac", &["audio/x-flac"]),
    ("audio/wav", "wav", &["audio/x-wav", "audio/vnd.wave"]),
    ("audio/mp4", "m4a", &["audio/m4a", "audio/x-m4a"]),
    ("video/mp4", "mp4 m4v", &["video/x-m4v"]),
    ("video/webm", "webm", &[]),
    ("video/x-matroska", "mkv", &["video/matroska"]),
    ("video/quicktime", "mov", &[]),
    ("text/plain", "txt md log", &[]),
    ("text/csv", "csv", &["text/plain"]),
    ("application/json", "json", &["text/plain"]),
];
/// Of one type, so that none outweighs the others.
const MOST: usize = 150;

/// Files below a directory, with the index of their type, which their extension tells.
fn files(directory: &std::path::Path, found: &mut Vec<(usize, std::path::PathBuf)>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
            files(&path, found);
        } else if kind.is_ok_and(|kind| kind.is_file())
            && let Some(extension) = path.extension().and_then(|name| name.to_str())
            && let Some(at) = TYPES.iter().position(|(_, known, _)| {
                known.split(' ').any(|known| known.eq_ignore_ascii_case(extension))
            })
        {
            found.push((at, path));
        }
    }
}

/// How well types are told: by the gate, which is asked whether a file is of a declared type, and by
/// others, which are asked for the type. A table on standard output.
fn accuracy(runtime: &tokio::runtime::Runtime, directories: &[String]) {
    let mut found = Vec::new();
    for directory in directories {
        files(directory.as_ref(), &mut found);
    }
    found.sort();
    let policy = UploadPolicy::new(TYPES.map(|(name, ..)| name)).unwrap().max_file(64 * MIB);
    let layer = UploadLayer::new(policy);
    let taken = |media_type: &str, extension: &str, file: &[u8]| {
        let body = form(&format!("a.{extension}"), media_type, file);
        let mut service = layer.layer(service_fn(handler));
        let answer = runtime.block_on(service.call(request(frames(&body, FRAME, false))));
        answer.unwrap().status() == 200
    };
    // The gate takes it as what it is; as something else; infer, file-format, mimetype-detector:
    // right, wrong, unknown.
    let (mut total, mut signed) = ([0_usize; 12], [0_usize; 12]);
    println!("type\tfiles\ttaken\ttaken as another\tinfer\tfile-format\tmimetype-detector (right/wrong/unknown)");
    for (at, (name, extensions, aliases)) in TYPES.iter().enumerate() {
        let mut of_type: Vec<_> = found.iter().filter(|(type_, _)| *type_ == at).collect();
        let step = of_type.len().div_ceil(MOST).max(1);
        of_type = of_type.into_iter().step_by(step).collect();
        let mut counts = [0_usize; 12];
        for (_, path) in of_type {
            let Some(file) = std::fs::read(path).ok().filter(|file| (1..8 << 20).contains(&file.len())) else {
                continue;
            };
            counts[0] += 1;
            match taken(name, extensions.split(' ').next().unwrap(), &file) {
                true => counts[1] += 1,
                false => eprintln!("refused as {name}: {}", path.display()),
            }
            for (other, (media_type, extension, _)) in TYPES.iter().enumerate() {
                let text = |at: usize| at >= 31;
                if other != at && !(text(other) && text(at)) && taken(media_type, extension.split(' ').next().unwrap(), &file) {
                    counts[2] += 1;
                    eprintln!("taken as {media_type}: {}", path.display());
                }
            }
            let told = [
                infer::get(&file).map(|kind| kind.mime_type().to_owned()),
                Some(file_format::FileFormat::from_bytes(&file).media_type().to_owned()),
                Some(mimetype_detector::detect(&file).mime().to_owned()),
            ];
            for (at, told) in told.into_iter().enumerate() {
                let told = told.unwrap_or_default();
                let told = told.split(';').next().unwrap().trim();
                counts[3 + 3 * at + match told {
                    told if told == *name || aliases.contains(&told) => 0,
                    "" | "application/octet-stream" => 2,
                    _ => 1,
                }] += 1;
            }
        }
        println!(
            "{name}\t{}\t{}\t{}\t{}/{}/{}\t{}/{}/{}\t{}/{}/{}",
            counts[0], counts[1], counts[2], counts[3], counts[4], counts[5], counts[6], counts[7],
            counts[8], counts[9], counts[10], counts[11],
        );
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        if !(10..=15).contains(&at) && at < 31 {
            signed.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
    }
    println!("without documents and texts: {signed:?}");
    println!("all: files, taken, taken as another, then right, wrong, unknown of each: {total:?}");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("types") => return accuracy(&runtime, &arguments.collect::<Vec<_>>()),
        Some("limit") => return limit(),
        _ => {}
    }
    let types_ = ["application/gzip", "image/png", "application/pdf", "image/jpeg"];
    let policy = UploadPolicy::new(types_).unwrap().max_file(1_024 * MIB);
    let layer = UploadLayer::new(policy);
    types();
    limit();
    walk(&runtime, &layer);
    ended(&runtime, &layer);
    multipart(&layer);
    memory(&runtime);
}
