//! Scanners and the spool: nothing of a file is final before its verdict, and with a spool nothing of
//! it is seen.
#![cfg(feature = "upload")]

mod bodies;

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bodies::{Script, Step};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use portcullis::{
    Head, Rejection,
    guarded::GuardedBody,
    upload::{
        CheckedUpload, KIB, MIB, Spool, UploadLayer, UploadPolicy,
        scan::{FileStream, ScanError, ScanVerdict, Scanner},
    },
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};

/// Finds the word `EVIL`, wherever pieces cut it.
struct Words {
    pause: Duration,
    seen: Arc<AtomicUsize>,
}

impl Words {
    fn new() -> Self {
        Self {
            pause: Duration::ZERO,
            seen: Arc::default(),
        }
    }
}

impl Scanner for Words {
    async fn scan(&self, mut file: FileStream) -> Result<ScanVerdict, ScanError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = file.chunk().await {
            bytes.extend(chunk);
            self.seen.fetch_add(1, Ordering::SeqCst);
            if self.pause > Duration::ZERO {
                tokio::time::sleep(self.pause).await;
            }
        }
        let has = |word: &[u8]| memchr::memmem::find(&bytes, word).is_some();
        match () {
            () if has(b"EVIL") => Ok(ScanVerdict::Infected {
                name: "evil\n".into(),
            }),
            () if has(b"HUGE") => Ok(ScanVerdict::TooLarge),
            () if has(b"BROKEN") => Err(ScanError::new("no engine")),
            () if has(b"HANG") => pending().await,
            () => Ok(ScanVerdict::Clean),
        }
    }
}

fn form(files: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for file in files {
        body.extend(
            b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n",
        );
        body.extend(file.as_bytes());
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    body
}

fn policy() -> UploadPolicy {
    UploadPolicy::new(["text/plain"])
        .unwrap()
        .max_file(64 * MIB)
}

/// What the handler read, and whether its reading ended cleanly.
type Seen = Arc<Mutex<(Vec<u8>, bool)>>;

async fn send<B>(policy: UploadPolicy, body: B) -> (u16, &'static str, Seen)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let seen = Seen::default();
    let reader = Arc::clone(&seen);
    let handler = move |request: Request<GuardedBody<B>>| {
        let reader = Arc::clone(&reader);
        async move {
            let upload = CheckedUpload::of(Head::of(&request)).unwrap();
            let mut body = Box::pin(request.into_body());
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    reader.lock().unwrap().0.extend(data);
                }
            }
            reader.lock().unwrap().1 = true;
            upload.accepted().await.unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    };
    let request = Request::post("/")
        .header("content-type", "multipart/form-data; boundary=B")
        .body(body)
        .unwrap();
    let response = UploadLayer::new(policy)
        .layer(service_fn(handler))
        .oneshot(request);
    let response = response.await.unwrap();
    let reason = response
        .extensions()
        .get::<Rejection>()
        .map_or("", Rejection::reason);
    if response.status() == 503 {
        assert_eq!(response.headers()["retry-after"], "10");
    }
    (response.status().as_u16(), reason, seen)
}

fn verdicts() -> Vec<(Vec<u8>, (u16, &'static str))> {
    let long = "fine words ".repeat(1_000);
    let last = |word: &str| format!("{long}{word}");
    vec![
        (form(&["clean"]), (200, "")),
        (form(&[&long, "clean", ""]), (200, "")),
        (form(&[]), (200, "")),
        (form(&["EVIL"]), (422, "malware_found")),
        (form(&[&last("EVIL")]), (422, "malware_found")),
        (
            form(&["clean", &last("EVIL"), "clean"]),
            (422, "malware_found"),
        ),
        (form(&["EVIL", "clean", &long]), (422, "malware_found")),
        (form(&["clean", "HUGE"]), (413, "too_large_to_scan")),
        (form(&["BROKEN", "clean"]), (503, "scanner_unavailable")),
        (form(&["clean", "HANG"]), (503, "scanner_unavailable")),
    ]
}

#[tokio::test(start_paused = true)]
async fn verdicts_become_answers_before_a_file_ends() {
    for (body, expected) in verdicts() {
        for frame in [1, 30, 1_000, body.len()] {
            let policy = policy().scan_with(Words::new());
            let (status, reason, seen) = send(policy, Script::trickle(&body, frame)).await;
            assert_eq!((status, reason), expected, "{frame}");
            let (read, ended) = &*seen.lock().unwrap();
            assert_eq!(*ended, status == 200);
            if status == 200 {
                assert_eq!(*read, body);
            } else {
                // The refused part has no end in what was read.
                let word = ["EVIL", "HUGE", "BROKEN", "HANG"].iter().find_map(|word| {
                    memchr::memmem::rfind(&body, word.as_bytes()).map(|at| at + word.len())
                });
                assert!(read.len() <= word.unwrap());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_spool_no_byte_is_seen_before_the_verdict() {
    for memory in [0, 100, 4 * KIB, MIB] {
        for (body, expected) in verdicts() {
            for frame in [7, 1_000, body.len()] {
                let spool = Spool::new(MIB).memory(memory);
                let policy = policy().scan_with(Words::new()).spool(spool.clone());
                let (status, reason, seen) = send(policy, Script::trickle(&body, frame)).await;
                assert_eq!((status, reason), expected, "{memory} {frame}");
                let (read, ended) = &*seen.lock().unwrap();
                assert_eq!(*ended, status == 200);
                let expected: &[u8] = if status == 200 { &body } else { b"" };
                assert!(read == expected, "{memory} {frame}");
                assert_eq!(spool.free(), MIB, "the budget is given back");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_spooled_body_keeps_its_length_and_trailers() {
    let body = form(&[&"fine words ".repeat(100_000), "short"]);
    let spool = Spool::new(4 * MIB).memory(64 * KIB);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    let script = Script::frames(body.chunks(10_000).map(Bytes::copy_from_slice))
        .then(Step::Trailers(trailers))
        .with_length();
    let expected = body.clone();
    let handler = move |request: Request<GuardedBody<Script>>| {
        let expected = expected.clone();
        async move {
            let mut body = request.into_body();
            let mut read = Vec::new();
            let mut trailers = None;
            while !body.is_end_stream() {
                let left = (expected.len() - read.len()) as u64;
                assert_eq!(body.size_hint().exact(), Some(left));
                match body.frame().await.unwrap().unwrap().into_data() {
                    Ok(data) => read.extend(data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            assert!(read == expected);
            assert_eq!(trailers.unwrap()["x-checksum"], "1");
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    };
    let layer = UploadLayer::new(policy().spool(spool.clone()));
    let request = Request::post("/").header("content-type", "multipart/form-data; boundary=B");
    let response = layer
        .layer(service_fn(handler))
        .oneshot(request.body(script).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(spool.free(), 4 * MIB);
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_one_for_all() {
    let body = form(&[&"fine words ".repeat(10_000)]);
    let spool = Spool::new(150 * KIB);
    let policy = policy().spool(spool.clone());
    let first = Script::frames([body[..100_000].to_vec()]).then(Step::Stall);
    let first = tokio::spawn(send(policy.clone(), first));
    tokio::task::yield_now().await;
    assert!(spool.free() < 60 * KIB);
    let second = send(policy.clone(), Script::trickle(&body, 1_000)).await;
    assert_eq!((second.0, second.1), (503, "spool_full"));
    // The client of the first goes away.
    first.abort();
    let _ = first.await;
    assert_eq!(spool.free(), 150 * KIB);
    assert_eq!(send(policy, Script::trickle(&body, 1_000)).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_is_503() {
    let spool = Spool::new(MIB).memory(0).dir("/nonexistent/spool");
    let policy = policy().spool(spool.clone());
    let body = form(&[&"fine words ".repeat(1_000)]);
    let (status, reason, seen) = send(policy, Script::trickle(&body, 1_000)).await;
    assert_eq!((status, reason), (503, "spool_failed"));
    assert!(seen.lock().unwrap().0.is_empty());
    assert_eq!(spool.free(), MIB);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_in_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(16 * MIB).memory(0).dir(dir.path());
    let policy = policy().spool(spool.clone()).idle(Duration::from_secs(5));
    let body = form(&[&"fine words ".repeat(1_000)]);
    let count = || std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(
        send(policy.clone(), Script::trickle(&body, 1_000)).await.0,
        200
    );
    let cut = Script::frames([body[..5_000].to_vec()]).then(Step::Fail);
    assert_eq!(send(policy.clone(), cut).await.0, 400);
    let stalled = Script::frames([body[..5_000].to_vec()]).then(Step::Stall);
    assert_eq!(send(policy, stalled).await.0, 408);
    assert_eq!(count(), 0);
    assert_eq!(spool.free(), 16 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_slow_scanner_slows_the_client_and_holds_no_more_than_a_frame() {
    let taken = Arc::new(AtomicU64::new(0));
    let words = Words {
        pause: Duration::from_secs(1),
        seen: Arc::default(),
    };
    let seen = Arc::clone(&words.seen);
    let body = form(&[&"fine words ".repeat(10_000)]);
    let frames: Vec<Bytes> = body.chunks(10_000).map(Bytes::copy_from_slice).collect();
    let total = frames.len();
    let counter = Arc::clone(&taken);
    let stream = futures_util::stream::iter(frames.into_iter().map(move |frame| {
        let ahead = counter.fetch_add(1, Ordering::SeqCst) as usize;
        assert!(ahead <= seen.load(Ordering::SeqCst) + 3, "{ahead}");
        Ok::<_, Infallible>(http_body::Frame::data(frame))
    }));
    let start = Instant::now();
    let body = http_body_util::StreamBody::new(stream);
    let (status, ..) = send(policy().scan_with(words), body).await;
    assert_eq!(status, 200);
    assert!(start.elapsed().as_secs() as usize >= total - 1);
}

/// The one signal to act on comes after the scans, not with the body's last byte.
#[tokio::test(start_paused = true)]
async fn nothing_is_accepted_before_its_scan() {
    for (word, expected) in [("fine", true), ("EVIL", false)] {
        let told = Arc::new(Mutex::new(None));
        let teller = Arc::clone(&told);
        let handler = move |request: Request<GuardedBody<Script>>| {
            let upload = CheckedUpload::of(Head::of(&request)).unwrap();
            let teller = Arc::clone(&teller);
            // It outlives a handler that is dropped.
            let waiting = tokio::spawn(async move {
                let accepted = upload.accepted().await.is_ok();
                *teller.lock().unwrap() = Some(accepted);
            });
            async move {
                let _ = request.into_body().collect().await;
                waiting.await.unwrap();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        };
        let words = Words {
            pause: Duration::from_secs(1),
            ..Words::new()
        };
        let service = UploadLayer::new(policy().scan_with(words)).layer(service_fn(handler));
        let request = Request::post("/")
            .header("content-type", "multipart/form-data; boundary=B")
            // One frame, known to be the last: it is seen to its end before the scanner has judged.
            .body(Script::frames([form(&[word])]).with_length())
            .unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status() == 200, expected, "{word}");
        drop(response);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*told.lock().unwrap(), Some(expected), "{word}");
    }
}

/// A reader that goes by `is_end_stream` asks no further: while a scan is under way, and with a spool
/// nothing is left to give out, that would be a clean end of a body without a verdict.
#[tokio::test(start_paused = true)]
async fn a_body_does_not_end_during_a_scan() {
    for spooled in [false, true] {
        let handler = async |request: Request<GuardedBody<Script>>| {
            let mut body = std::pin::pin!(request.into_body());
            let mut waits = 0;
            while !body.is_end_stream() {
                let mut waited = false;
                let frame = std::future::poll_fn(|cx| {
                    let polled = body.as_mut().poll_frame(cx);
                    if polled.is_pending() {
                        waited = true;
                        assert!(!body.is_end_stream());
                    }
                    polled
                });
                frame.await.unwrap().unwrap();
                waits += usize::from(waited);
            }
            assert_eq!(waits, 1);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        };
        let mut policy = policy().scan_with(Words {
            pause: Duration::from_secs(1),
            ..Words::new()
        });
        if spooled {
            policy = policy.spool(Spool::new(MIB));
        }
        let request = Request::post("/")
            .header("content-type", "multipart/form-data; boundary=B")
            // One frame, known to be the last.
            .body(Script::frames([form(&["fine"])]).with_length())
            .unwrap();
        let service = UploadLayer::new(policy).layer(service_fn(handler));
        assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    }
}
