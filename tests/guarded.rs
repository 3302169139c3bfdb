//! The verdict on a watched body and the handler race: whatever the handler does with the body, a
//! refusal is answered as a refusal, and a success only for a body that was checked to its end.
#![cfg(feature = "upload")]

mod bodies;

use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bodies::{Script, Step};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use portcullis::{
    Context, Head, Rejection,
    body_limit::BodyLimitLayer,
    event::SecurityEvent,
    guarded::GuardedBody,
    upload::{CheckedUpload, UploadLayer, UploadPolicy},
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};

type Guarded = GuardedBody<Script>;
type Answer = Response<Full<Bytes>>;

fn answer(status: u16) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status.try_into().unwrap();
    response
}

fn text_upload(parts: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend(
            b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
              Content-Type: text/plain\r\n\r\n",
        );
        body.extend(part.as_bytes());
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    body
}

fn good() -> Vec<u8> {
    let long = "fine words ".repeat(600);
    text_upload(&[&long, "short", &long])
}

/// The last of three files is refused, near its end.
fn evil() -> Vec<u8> {
    let long = "fine words ".repeat(600);
    text_upload(&[&long, "short", &format!("{long}<script>")])
}

fn layer() -> UploadLayer {
    UploadLayer::new(UploadPolicy::new(["text/plain"]).unwrap())
}

async fn send_to<F, T, E>(layer: UploadLayer, body: Script, handler: F) -> Result<Answer, E>
where
    F: Fn(Request<Guarded>) -> T,
    T: Future<Output = Result<Answer, E>>,
{
    let request = Request::post("/")
        .header("content-type", "multipart/form-data; boundary=B")
        .body(body)
        .unwrap();
    layer.layer(service_fn(handler)).oneshot(request).await
}

/// The statuses for a good and a refused body, each in frames of several sizes.
async fn matrix<F, T, E>(handler: F) -> (Vec<u16>, Vec<u16>)
where
    F: Fn(Request<Guarded>) -> T,
    T: Future<Output = Result<Answer, E>>,
    E: std::fmt::Debug,
{
    let mut statuses = (Vec::new(), Vec::new());
    for size in [1, 7, 1_000, 64 * 1_024] {
        for (body, statuses) in [(good(), &mut statuses.0), (evil(), &mut statuses.1)] {
            let response = send_to(layer(), Script::trickle(&body, size), &handler).await;
            statuses.push(response.unwrap().status().as_u16());
        }
    }
    statuses.0.dedup();
    statuses.1.dedup();
    statuses
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_reads_all() {
    let statuses = matrix(async |request: Request<Guarded>| {
        let read = request.into_body().collect().await;
        Ok::<_, Infallible>(answer(if read.is_ok() { 201 } else { 500 }))
    })
    .await;
    assert_eq!(statuses, (vec![201], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_reads_half() {
    let statuses = matrix(async |request: Request<Guarded>| {
        let mut body = request.into_body();
        let mut read = 0;
        while read < 8_000 {
            let frame = body.frame().await.unwrap().unwrap();
            read += frame.into_data().unwrap().len();
        }
        Ok::<_, Infallible>(answer(200))
    })
    .await;
    assert_eq!(statuses, (vec![200], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_reads_nothing() {
    let statuses = matrix(async |_| Ok::<_, Infallible>(answer(200))).await;
    assert_eq!(statuses, (vec![200], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_failure_is_its_own() {
    // Nobody is told that anything was taken, so nothing waits and nothing is overruled.
    let statuses = matrix(async |_| Ok::<_, Infallible>(answer(409))).await;
    assert_eq!(statuses, (vec![409], vec![409]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_reads_in_a_task() {
    let statuses = matrix(async |request: Request<Guarded>| {
        tokio::spawn(request.into_body().collect());
        Ok::<_, Infallible>(answer(202))
    })
    .await;
    assert_eq!(statuses, (vec![202], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_passes_the_error_on() {
    let statuses = matrix(async |request: Request<Guarded>| {
        request.into_body().collect().await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer(201))
    })
    .await;
    assert_eq!(statuses, (vec![201], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_on_the_error() {
    let statuses = matrix(async |request: Request<Guarded>| {
        request.into_body().collect().await.unwrap();
        Ok::<_, Infallible>(answer(201))
    })
    .await;
    assert_eq!(statuses, (vec![201], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_an_error_for_the_end() {
    let statuses = matrix(async |request: Request<Guarded>| {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        Ok::<_, Infallible>(answer(201))
    })
    .await;
    assert_eq!(statuses, (vec![201], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_on_the_error() {
    let statuses = matrix(async |request: Request<Guarded>| {
        if request.into_body().collect().await.is_err() {
            pending::<()>().await;
        }
        Ok::<_, Infallible>(answer(201))
    })
    .await;
    assert_eq!(statuses, (vec![201], vec![422]));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_in_the_poll_that_refuses() {
    // Every frame is ready, so a body that is not is one with a verdict.
    async fn gives_up(request: Request<Guarded>) -> Result<Answer, &'static str> {
        let mut body = Box::pin(request.into_body());
        std::future::poll_fn(move |cx| {
            loop {
                match body.as_mut().poll_frame(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(None) => return Poll::Ready(Ok(answer(201))),
                    Poll::Ready(Some(Err(_))) | Poll::Pending => return Poll::Ready(Err("read")),
                }
            }
        })
        .await
    }
    for (bytes, status) in [(good(), 201), (evil(), 422)] {
        let body = Script::frames(bytes.chunks(100).map(Bytes::copy_from_slice));
        let response = send_to(layer(), body, gives_up).await;
        assert_eq!(response.unwrap().status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_keeps_the_body_is_timed_out() {
    let kept = Arc::new(Mutex::new(None));
    let start = Instant::now();
    let keeper = Arc::clone(&kept);
    let handler = move |request: Request<Guarded>| {
        *keeper.lock().unwrap() = Some(request.into_body());
        async { Ok::<_, Infallible>(answer(200)) }
    };
    let policy = UploadPolicy::images().deadline(Duration::from_secs(60));
    let layer = UploadLayer::new(policy);
    let response = send_to(layer, Script::trickle(&good(), 1_000), handler)
        .await
        .unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(start.elapsed().as_secs(), 60);

    // Whoever reads it later is told once, and then there is nothing.
    let mut body = kept.lock().unwrap().take().unwrap();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref::<Rejection>().unwrap().status(), 408);
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_streamed_echo_needs_early_answers() {
    async fn echo(request: Request<Guarded>) -> Result<Response<Full<Bytes>>, Infallible> {
        // The answer is out before the body is read.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let error = request.into_body().collect().await.unwrap_err();
            assert!(error.downcast_ref::<Rejection>().is_some());
        });
        Ok(answer(200))
    }
    let start = Instant::now();
    let early = layer().with_early_answers();
    let response = send_to(early, Script::trickle(&evil(), 100), echo)
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), start.elapsed().as_secs()),
        (200, 0)
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_the_response_is_told_once() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let handler = |request: Request<Guarded>| {
        let tell = tell.lock().unwrap().take().unwrap();
        tokio::spawn(async move {
            let mut body = request.into_body();
            let error = loop {
                match body.frame().await.unwrap() {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            let after = body.frame().await;
            let _ = tell.send((error, after.is_none(), body.is_end_stream()));
        });
        async { Ok::<_, Infallible>(answer(202)) }
    };
    let response = send_to(layer(), Script::trickle(&evil(), 100), handler)
        .await
        .unwrap();
    assert_eq!(response.status(), 422);
    let (error, nothing_after, ended) = told.await.unwrap();
    let rejection = error.downcast_ref::<Rejection>().unwrap();
    assert_eq!(rejection.reason(), "active_content");
    assert!(nothing_after && ended);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_dropped_request_is_told_too() {
    let slot = Arc::new(Mutex::new(None));
    let taker = Arc::clone(&slot);
    let future = send_to(layer(), Script::trickle(&evil(), 100), move |request| {
        *taker.lock().unwrap() = Some(request.into_body());
        pending::<Result<Answer, Infallible>>()
    });
    tokio::time::timeout(Duration::from_secs(1), future)
        .await
        .unwrap_err();
    let body = slot.lock().unwrap().take().unwrap();
    let error = body.collect().await.unwrap_err();
    assert_eq!(error.downcast_ref::<Rejection>().unwrap().status(), 422);
}

#[tokio::test(start_paused = true)]
async fn a_refused_handler_is_dropped() {
    struct Counted(Arc<AtomicU32>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicU32::new(0));
    let response = send_to(layer(), Script::trickle(&evil(), 100), |request| {
        let counted = Counted(Arc::clone(&dropped));
        async move {
            let read = request.into_body().collect().await;
            drop(counted);
            read.unwrap();
            Ok::<_, Infallible>(answer(201))
        }
    });
    assert_eq!(response.await.unwrap().status(), 422);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_one_event_and_leaves_its_reason() {
    let events = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&events);
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        assert_eq!(event.kind().as_str(), "upload_validation");
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let layer = layer().with_context(context);
    let body = Script::trickle(&evil(), 100);
    let response = send_to(layer, body, async |request: Request<Guarded>| {
        let _ = request.into_body().collect().await;
        Ok::<_, Infallible>(answer(201))
    })
    .await
    .unwrap();
    let rejection = response.extensions().get::<Rejection>().unwrap();
    assert_eq!(
        (rejection.gate(), rejection.reason()),
        ("upload", "active_content")
    );
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(events.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_transport_is_no_success() {
    let mut cut = good();
    cut.truncate(10_000);
    for size in [100, 64 * 1_024] {
        let body = Script::trickle(&cut, size).then(Step::Fail);
        let response = send_to(layer(), body, async |request: Request<Guarded>| {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            Ok::<_, Infallible>(answer(201))
        });
        assert_eq!(response.await.unwrap().status(), 400);
    }
}

#[tokio::test(start_paused = true)]
async fn length_end_and_trailers_are_the_bodys_own() {
    let bytes = good();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    for size in [1, 100, 5_000, bytes.len()] {
        for with_trailers in [false, true] {
            let mut script = Script::frames(bytes.chunks(size).map(Bytes::copy_from_slice));
            if with_trailers {
                script = script.then(Step::Trailers(trailers.clone()));
            }
            let script = script.with_length();
            let expected = bytes.clone();
            let trailers = with_trailers.then(|| trailers.clone());
            let response = send_to(layer(), script, |request| {
                let (expected, trailers) = (expected.clone(), trailers.clone());
                async move {
                    let mut body = request.into_body();
                    let mut read = Vec::new();
                    let mut seen = None;
                    while !body.is_end_stream() {
                        // Exact at every step, with bytes kept back in between.
                        let left = (expected.len() - read.len()) as u64;
                        assert_eq!(body.size_hint().exact(), Some(left));
                        match body.frame().await.unwrap().unwrap().into_data() {
                            Ok(data) => read.extend(data),
                            Err(frame) => seen = Some(frame.into_trailers().unwrap()),
                        }
                    }
                    assert_eq!(read, expected);
                    assert_eq!(seen, trailers);
                    // A reader that goes by the length asks no further.
                    if !with_trailers {
                        assert!(body.frame().await.is_none());
                    }
                    Ok::<_, Infallible>(answer(201))
                }
            });
            assert_eq!(response.await.unwrap().status(), 201);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn acceptance_comes_after_the_last_byte_and_only_then() {
    for (body, accepted) in [(good(), true), (evil(), false)] {
        let commits = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&commits);
        let response = send_to(layer(), Script::trickle(&body, 512), move |request| {
            let counter = Arc::clone(&counter);
            async move {
                let upload = CheckedUpload::of(Head::of(&request)).unwrap();
                assert!(upload.files().is_empty());
                // The handler reads some and lets go; the gate reads the rest meanwhile.
                let mut body = request.into_body();
                body.frame().await;
                drop(body);
                let files = upload.accepted().await.unwrap();
                assert_eq!(files.len(), 3);
                assert!(files.iter().all(|file| file.is_complete()));
                assert_eq!(files[1].bytes(), 5);
                assert_eq!(files[1].name(), Some("a.txt"));
                assert_eq!(files[1].media_type(), "text/plain");
                counter.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(answer(201))
            }
        });
        let status = response.await.unwrap().status();
        assert_eq!(status.as_u16(), if accepted { 201 } else { 422 });
        assert_eq!(commits.load(Ordering::SeqCst), u32::from(accepted));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_acceptance_without_reading_ends_at_the_deadline() {
    let response = send_to(layer(), Script::trickle(&good(), 512), async |request| {
        let upload = CheckedUpload::of(Head::of(&request)).unwrap();
        let _ = upload.accepted().await;
        drop(request);
        Ok::<_, Infallible>(answer(201))
    });
    assert_eq!(response.await.unwrap().status(), 408);
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_timed_from_when_somebody_waits() {
    let mut part = good();
    part.truncate(10_000);
    let start = Instant::now();
    let body = Script::trickle(&part, 5_000).then(Step::Stall);
    let response = send_to(layer(), body, async |request: Request<Guarded>| {
        let mut body = request.into_body();
        body.frame().await;
        // The handler's own slowness is not the client's.
        tokio::time::sleep(Duration::from_secs(100)).await;
        let _ = body.collect().await;
        Ok::<_, Infallible>(answer(201))
    });
    assert_eq!(response.await.unwrap().status(), 408);
    assert_eq!(start.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_plain_limit_holds_nothing_back() {
    let limited = |handler| BodyLimitLayer::new(1_000).layer(service_fn(handler));
    async fn early(request: Request<Guarded>) -> Result<Answer, Infallible> {
        tokio::spawn(async move {
            let error = request.into_body().collect().await.unwrap_err();
            assert_eq!(error.downcast_ref::<Rejection>().unwrap().status(), 413);
        });
        Ok(answer(202))
    }
    let body = Script::trickle(&[0; 1_001], 10);
    let response = limited(early).oneshot(Request::new(body)).await.unwrap();
    assert_eq!(response.status(), 202);
}

/// Frames of 1 KiB that are always there, without a length, and how many of them were asked for.
fn metered(
    frames: usize,
) -> (
    impl http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    Arc<AtomicU64>,
) {
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let frames = futures_util::stream::iter((0..frames).map(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(http_body::Frame::data(Bytes::from_static(&[b'x'; 1_024])))
    }));
    (http_body_util::StreamBody::new(frames), read)
}

/// How many frames of `frames` are read of a body that is refused at its fourth.
async fn read_of_a_refused_body(version: http::Version, frames: usize) -> u64 {
    let (body, read) = metered(frames);
    let mut request = Request::new(body);
    *request.version_mut() = version;
    let handler = async |request: Request<GuardedBody<_>>| {
        let _ = request.into_body().collect().await;
        Ok::<_, Infallible>(answer(200))
    };
    let service = BodyLimitLayer::new(3 * 1_024).layer(service_fn(handler));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 413);
    read.load(Ordering::SeqCst)
}

/// An HTTP/1 connection that is closed under a client that still sends is reset, and the client sees
/// no answer; a stream of HTTP/2 ends by itself.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_refused_body_is_read_for_http1_only() {
    for version in [http::Version::HTTP_10, http::Version::HTTP_11] {
        assert_eq!(read_of_a_refused_body(version, 100).await, 100);
        // Not without a bound: 256 KiB, and the frame that is above.
        assert_eq!(read_of_a_refused_body(version, 1_000).await, 4 + 257);
    }
    for version in [http::Version::HTTP_2, http::Version::HTTP_3] {
        assert_eq!(read_of_a_refused_body(version, 100).await, 4);
    }
}

/// A body that has stopped is not waited for once more.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_body_that_stalled_is_not_waited_for() {
    let refused = async |body: Script| {
        let layer = BodyLimitLayer::new(10).with_idle(Duration::from_secs(7));
        let service = layer.layer(service_fn(async |request: Request<Guarded>| {
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(answer(200))
        }));
        let start = Instant::now();
        let response = service.oneshot(Request::new(body)).await.unwrap();
        (response.status().as_u16(), start.elapsed().as_millis())
    };
    let stalled = Script::frames(["ab"]).then(Step::Stall);
    assert_eq!(refused(stalled).await, (408, 7_000));
    let too_large = Script::frames(["01234567890"]).then(Step::Stall);
    assert_eq!(refused(too_large).await, (413, 500));
}
