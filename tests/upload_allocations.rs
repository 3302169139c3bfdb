//! How much the upload gate allocates. Alone in its program, which counts.
#![cfg(feature = "upload")]

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use portcullis::upload::{MIB, Signatures, TypeDetector as _, UploadLayer, UploadPolicy};
use tower::{Layer as _, Service as _, service_fn};

#[test]
fn the_type_of_a_head_is_told_without_memory() {
    let names = [
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/gif",
        "image/tiff",
        "image/avif",
        "application/pdf",
        "application/zip",
        "application/vnd.oasis.opendocument.text",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/gzip",
        "application/x-tar",
        "audio/mpeg",
        "video/mp4",
        "application/json",
        "text/plain",
    ];
    let tests = names.map(|name| Signatures.test_for(name).unwrap());
    let heads: [&[u8]; 8] = [
        b"\x89PNG\r\n\x1a\n",
        b"%PDF-1.7\n",
        b"PK\x03\x04\x14\0\0\0",
        b"\0\0\0\x18ftypisom",
        "[k\u{e4}se".as_bytes(),
        b"words",
        b"",
        &[0xff; 4_096],
    ];
    let counted = allocation_counter::measure(|| {
        for head in heads {
            let held = tests.iter().filter(|test| test.holds(head)).count();
            std::hint::black_box(held);
        }
    });
    assert_eq!(counted.count_total, 0);
}

/// The most that is held at once while a body of these mebibytes goes through the gate.
fn peak(mebibytes: u64) -> u64 {
    const FRAME: usize = 64 * 1_024;
    let policy = UploadPolicy::new(["application/gzip"]).unwrap();
    let layer = UploadLayer::new(policy.max_file(1_024 * MIB));
    let mut service = layer.layer(service_fn(async |request: Request<_>| {
        let mut body = std::pin::pin!(request.into_body());
        while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
            drop(frame);
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let counted = allocation_counter::measure(|| {
        let head: &[u8] =
            b"--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.gz\"\r\n\
            Content-Type: application/gzip\r\n\r\n\x1f\x8b\x08\0";
        // Every frame in memory of its own, as a socket's are, and with what may begin a boundary.
        let data = (0..mebibytes * 16).map(|_| {
            let mut data = vec![0x5a; FRAME];
            data[FRAME - 4..].copy_from_slice(b"\r\n--");
            Bytes::from(data)
        });
        let frames = [Bytes::from_static(head)]
            .into_iter()
            .chain(data)
            .chain([Bytes::from_static(b"\r\n--B--\r\n")]);
        let frames = frames.map(|data| Ok::<_, Infallible>(Frame::data(data)));
        let request = Request::post("/")
            .header("content-type", "multipart/form-data; boundary=B")
            .body(StreamBody::new(stream::iter(frames)).boxed_unsync())
            .unwrap();
        let answer = runtime.block_on(service.call(request)).unwrap();
        assert_eq!(answer.status(), 200);
    });
    counted.bytes_max
}

#[test]
fn memory_does_not_grow_with_the_body() {
    let (small, large) = (peak(2), peak(48));
    assert!(large <= small + 1_024, "{small} and {large} bytes");
    // A frame, the one before it while that is let go, and what is kept back.
    assert!(large <= 3 * 64 * 1_024, "{large} bytes");
}
