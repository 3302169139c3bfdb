//! Limits on the size and the time of a body.

mod bodies;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bodies::{Script, Step};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use portcullis::{Rejection, body_limit::BodyLimitLayer, guarded::GuardedBody};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};

type Answer = Response<Full<Bytes>>;

async fn read_all(request: Request<GuardedBody<Script>>) -> Result<Answer, Infallible> {
    let status = match request.into_body().collect().await {
        Ok(_) => 200,
        Err(_) => 500,
    };
    let response = Response::builder().status(status);
    Ok(response.body(Full::default()).unwrap())
}

async fn send(layer: &BodyLimitLayer, body: Script) -> Answer {
    let service = layer.layer(service_fn(read_all));
    service
        .oneshot(Request::post("/").body(body).unwrap())
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn sizes_are_exact_with_and_without_a_length() {
    let layer = BodyLimitLayer::new(1_000);
    for frame in [1, 3, 999, 1_000, 2_000] {
        for (bytes, status) in [
            (0, 200),
            (999, 200),
            (1_000, 200),
            (1_001, 413),
            (5_000, 413),
        ] {
            let body = Script::trickle(&vec![7; bytes], frame);
            let chunked = send(&layer, body.clone()).await;
            assert_eq!(chunked.status(), status, "{bytes} in {frame}");
            let stated = send(&layer, body.with_length()).await;
            assert_eq!(stated.status(), status, "{bytes} in {frame}, stated");
            // Every frame ready, and the last one known to be the last.
            let frames = vec![7; bytes]
                .chunks(frame)
                .map(Bytes::copy_from_slice)
                .collect::<Vec<_>>();
            let ready = send(&layer, Script::frames(frames).with_length()).await;
            assert_eq!(ready.status(), status, "{bytes} in {frame}, ready");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stated_length_is_refused_before_the_handler() {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let service = BodyLimitLayer::new(10).layer(service_fn(move |_: Request<_>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(Answer::default()) }
    }));
    for request in [
        Request::post("/").body(Script::frames(["01234567890"]).with_length()),
        Request::post("/")
            .header("content-length", "11")
            .body(Script::default().then(Step::Stall)),
    ] {
        let request: Request<Script> = request.unwrap();
        // An HTTP/1 client that waits to be told to go on is answered at once.
        let (mut parts, body) = request.into_parts();
        parts
            .headers
            .insert("expect", "100-continue".parse().unwrap());
        let request = Request::from_parts(parts, body);
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 413);
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(
            (rejection.gate(), rejection.reason()),
            ("body_limit", "body_too_large")
        );
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn stalls_and_trickles_are_timed() {
    let layer = BodyLimitLayer::new(1_000)
        .with_idle(Duration::from_secs(5))
        .with_deadline(Duration::from_secs(60));
    let start = Instant::now();
    let response = send(&layer, Script::frames(["ab"]).then(Step::Stall)).await;
    assert_eq!(
        (response.status().as_u16(), start.elapsed().as_secs()),
        (408, 5)
    );

    // One byte every four seconds never stalls, and still ends.
    let drip = futures_util::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let frame = http_body::Frame::data(Bytes::from_static(b"x"));
        Some((Ok::<_, Infallible>(frame), ()))
    });
    let body = http_body_util::StreamBody::new(drip);
    let start = Instant::now();
    let service = layer.layer(service_fn(async |request: Request<GuardedBody<_>>| {
        let _ = request.into_body().collect().await;
        Ok::<_, Infallible>(Answer::default())
    }));
    let response = service.oneshot(Request::new(body)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), start.elapsed().as_secs()),
        (408, 60)
    );
}

#[tokio::test(start_paused = true)]
async fn times_without_an_end_are_no_fault() {
    let layer = BodyLimitLayer::new(1_000)
        .with_idle(Duration::MAX)
        .with_deadline(Duration::MAX);
    assert_eq!(
        send(&layer, Script::trickle(&[0; 100], 1)).await.status(),
        200
    );
}

#[tokio::test(start_paused = true)]
async fn other_requests_pass() {
    let layer = BodyLimitLayer::new(1).only_if(|head| head.uri.path() != "/big");
    let service = layer.layer(service_fn(read_all));
    let big = Request::post("/big")
        .body(Script::trickle(&[0; 100], 10))
        .unwrap();
    assert_eq!(service.clone().oneshot(big).await.unwrap().status(), 200);
    let other = Request::post("/")
        .body(Script::trickle(&[0; 100], 10))
        .unwrap();
    assert_eq!(service.oneshot(other).await.unwrap().status(), 413);
}

#[test]
fn what_frameworks_ask_of_it() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sent<T: Send>(_: &T) {}
    let service = BodyLimitLayer::new(1).layer(service_fn(read_all));
    shared(&service);
    sent(&service.oneshot(Request::new(Script::default())));
}

#[tokio::test]
async fn a_counted_body_ends_where_it_ends() {
    let handler = async |request: Request<GuardedBody<Script>>| {
        let mut body = std::pin::pin!(request.into_body());
        let mut left = 10;
        while let Some(frame) = body.frame().await {
            left -= frame.unwrap().into_data().unwrap().len() as u64;
            assert_eq!(body.size_hint().exact(), Some(left));
            assert_eq!(body.is_end_stream(), left == 0);
        }
        assert_eq!(left, 0);
        Ok::<_, Infallible>(Answer::default())
    };
    let body = Script::frames(["01234", "567", "89"]).with_length();
    let service = BodyLimitLayer::new(10).layer(service_fn(handler));
    let response = service.oneshot(Request::post("/").body(body).unwrap());
    assert_eq!(response.await.unwrap().status(), 200);
}

/// A refusal by the head alone reads the body of an HTTP/1 client, so that it sees the answer; not of
/// one that waits to be told to go on, nor of HTTP/2.
#[tokio::test(start_paused = true)]
async fn a_body_refused_by_its_head_is_read_for_http1_only() {
    use http::Version;
    for (version, expects, read) in [
        (Version::HTTP_10, false, 100),
        (Version::HTTP_11, false, 100),
        (Version::HTTP_11, true, 0),
        (Version::HTTP_2, false, 0),
        (Version::HTTP_3, false, 0),
    ] {
        let frames = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&frames);
        let body = futures_util::stream::iter((0..100).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"x")))
        }));
        let mut request = Request::post("/")
            .version(version)
            .header("content-length", 100);
        if expects {
            request = request.header("expect", "100-continue");
        }
        let request = request.body(http_body_util::StreamBody::new(body)).unwrap();
        let handler = async |_: Request<GuardedBody<_>>| Ok::<_, Infallible>(Answer::default());
        let service = BodyLimitLayer::new(99).layer(service_fn(handler));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(frames.load(Ordering::SeqCst), read, "{version:?} {expects}");
    }
}
