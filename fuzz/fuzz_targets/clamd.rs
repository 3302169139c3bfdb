//! Answers of clamd: a file is accepted for `stream: OK` and for nothing else that a daemon, or what
//! stands in its place, writes.
#![no_main]

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use libfuzzer_sys::fuzz_target;
use portcullis::{
    guarded::GuardedBody,
    upload::{MIB, Spool, UploadLayer, UploadPolicy, scan::Clamd},
};
use portcullis_fuzz::quiet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    runtime::{Builder, Runtime},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

struct Setup {
    runtime: Runtime,
    layer: UploadLayer,
    reply: Arc<Mutex<Vec<u8>>>,
    _folder: tempfile::TempDir,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clamd.sock");
    let reply = Arc::<Mutex<Vec<u8>>>::default();
    let entered = runtime.enter();
    let listener = UnixListener::bind(&path).unwrap();
    let told = Arc::clone(&reply);
    runtime.spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let reply = told.lock().unwrap().clone();
            let mut request = Vec::new();
            // The stream ends with a chunk of no bytes.
            while !request.ends_with(b"\0\0\0\0") {
                if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _ = connection.write_all(&reply).await;
        }
    });
    let policy = UploadPolicy::new(["text/plain"]).unwrap().raw_bodies();
    let policy = policy.scan_with(Clamd::unix(path)).spool(Spool::new(MIB));
    drop(entered);
    Setup {
        runtime,
        layer: UploadLayer::new(policy).with_context(quiet()),
        reply,
        _folder: folder,
    }
});

fuzz_target!(|reply: &[u8]| {
    let setup = &*SETUP;
    *setup.reply.lock().unwrap() = reply.to_vec();
    let handler = service_fn(async |request: Request<GuardedBody<Full<Bytes>>>| {
        let body = request.into_body().collect().await;
        assert_eq!(body.expect("it was spooled").to_bytes(), "hello");
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let request = Request::post("/").header("content-type", "text/plain");
    let request = request.body(Full::<Bytes>::from("hello")).unwrap();
    let answer = setup.layer.layer(handler).oneshot(request);
    let answer = setup.runtime.block_on(answer).unwrap();
    let end = reply.iter().rposition(|byte| !matches!(byte, 0 | b'\n'));
    let clean = &reply[..end.map_or(0, |end| end + 1)] == b"stream: OK";
    match answer.status().as_u16() {
        200 => assert!(clean, "{reply:?}"),
        status => {
            assert!(!clean);
            assert!(matches!(status, 413 | 422 | 503), "{status}");
        }
    }
});
