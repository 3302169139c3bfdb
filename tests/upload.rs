//! Uploads through the public API: what is taken, what is answered otherwise, and that the reader
//! behind the gate reads what the gate read.
#![cfg(feature = "upload")]

mod bodies;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bodies::{
    Script, Step,
    form::{FORM, field, file, form, multer_reads, part, png, post, send, tricks, untyped},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Head, Rejection,
    guarded::GuardedBody,
    upload::{CheckedUpload, KIB, MIB, Signatures, UploadLayer, UploadPolicy},
};
use tower::{Layer, ServiceExt, service_fn};

fn images() -> UploadLayer {
    UploadLayer::new(UploadPolicy::images())
}

fn anything() -> UploadLayer {
    let types = [
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "application/pdf",
        "application/zip",
        "text/plain",
    ];
    UploadLayer::new(UploadPolicy::new(types).unwrap())
}

async fn status(layer: &UploadLayer, parts: &[Vec<u8>]) -> (u16, &'static str) {
    let outcome = post(layer, FORM, Script::frames([form(parts)])).await;
    (outcome.status.as_u16(), outcome.reason)
}

#[tokio::test]
async fn a_real_picture_is_taken_and_a_program_is_not() {
    let real = include_bytes!("bodies/dot.png");
    let taken = status(&images(), &[file("dot.png", "image/png", real)]).await;
    assert_eq!(taken, (200, ""));
    let program = std::fs::read("/bin/true").unwrap_or_else(|_| b"\x7fELF\x02\x01\x01".to_vec());
    let refused = status(&images(), &[file("true.png", "image/png", &program)]).await;
    assert_eq!(refused, (422, "type_mismatch"));
    let refused = status(&images(), &[file("true", "image/png", &program)]).await;
    assert_eq!(refused, (422, "type_mismatch"));
}

#[tokio::test]
async fn types_are_allowed_and_agree() {
    let picture = png(100);
    let gif = b"GIF89a\x01\0\x01\0\0\0\0;";
    for (part, expected) in [
        (file("a.png", "image/png", &picture), (200, "")),
        (file("a.PNG", "IMAGE/PNG", &picture), (200, "")),
        (file("blob", "image/png", &picture), (200, "")),
        (file("a.png", "image/x-png", &picture), (200, "")),
        (untyped("a.png", &picture), (200, "")),
        (untyped("blob", &picture), (200, "")),
        (file("a.gif", "image/gif", gif), (200, "")),
        // Not allowed, whatever it holds.
        (
            file("a.png", "text/html", &picture),
            (415, "type_not_allowed"),
        ),
        (
            file("a.svg", "image/svg+xml", b"<svg/>"),
            (415, "type_not_allowed"),
        ),
        (
            file("a.png", "application/octet-stream", &picture),
            (415, "type_not_allowed"),
        ),
        (untyped("a.exe", b"MZ\x90\0"), (415, "type_not_allowed")),
        (untyped("a.png", b"MZ\x90\0"), (415, "type_not_allowed")),
        // Allowed, and something else.
        (file("a.png", "image/png", gif), (422, "type_mismatch")),
        (file("a.gif", "image/png", gif), (422, "type_mismatch")),
        (file("a.gif", "image/png", &picture), (422, "type_mismatch")),
        (file("a.php", "image/png", &picture), (422, "type_mismatch")),
        (file("a.png", "image/png", b""), (422, "type_mismatch")),
        (
            file("a.png", "image/png", b"\x89PNG"),
            (422, "type_mismatch"),
        ),
        (untyped("a.gif", &picture), (422, "type_mismatch")),
        (untyped("a.exe", &picture), (422, "type_mismatch")),
        // What is behind the end, and what has none.
        (
            file(
                "a.png",
                "image/png",
                &[&picture[..], b"PK\x03\x04"].concat(),
            ),
            (422, "trailing_data"),
        ),
        (
            file("a.png", "image/png", &picture[..60]),
            (422, "content_malformed"),
        ),
        (
            file("a.gif", "image/gif", b"GIF89a/*\0\0\0\0\0*/=1;alert(1)"),
            (422, "content_malformed"),
        ),
        // Names.
        (
            file("../a.png", "image/png", &picture),
            (422, "file_name_unsafe"),
        ),
        (
            file("a.php\0.png", "image/png", &picture),
            (422, "file_name_unsafe"),
        ),
        (
            file("a.php.png", "image/png", &picture),
            (422, "file_name_unsafe"),
        ),
    ] {
        let outcome = status(&images(), std::slice::from_ref(&part)).await;
        assert_eq!(outcome, expected, "{}", part.escape_ascii());
    }
}

#[tokio::test]
async fn documents_and_texts() {
    let pdf = b"%PDF-1.7\n1 0 obj\nendobj\n%%EOF\n";
    let late = [b"\n\n", &pdf[..]].concat();
    let behind = [&pdf[..], b"PK\x03\x04"].concat();
    for (part, expected) in [
        (file("a.pdf", "application/pdf", pdf), (200, "")),
        (
            file("a.pdf", "application/pdf", &late),
            (422, "type_mismatch"),
        ),
        (
            file("a.pdf", "application/pdf", &behind),
            (422, "trailing_data"),
        ),
        (file("a.txt", "text/plain", b"words"), (200, "")),
        (untyped("a.txt", b"words"), (200, "")),
        (
            file("a.txt", "text/plain", "\u{feff} k\u{e4}se".as_bytes()),
            (200, ""),
        ),
        (file("a.txt", "text/plain", &[b' '; 511]), (200, "")),
        (
            file(
                "a.txt",
                "text/plain",
                &[&[b' '; 600][..], b"<div>"].concat(),
            ),
            (422, "type_mismatch"),
        ),
        (
            file(
                "a.txt",
                "text/plain",
                &[&[b' '; 500][..], b"<div>"].concat(),
            ),
            (422, "type_mismatch"),
        ),
        (
            file("a.txt", "text/plain", b"a\xc2\x9bb"),
            (422, "type_mismatch"),
        ),
        (
            file("a.txt", "text/plain", b"a\x7fb"),
            (422, "type_mismatch"),
        ),
        (
            file("a.txt", "text/plain", &[&[b'x'; 9_000][..], b"\0"].concat()),
            (422, "content_malformed"),
        ),
        (untyped("a.pdf", pdf), (200, "")),
        (
            file("a.txt", "text/plain; charset=utf-16", b"words"),
            (400, "part_encoding"),
        ),
        (
            file("a.txt", "text/plain", b"\xff\xfew"),
            (422, "type_mismatch"),
        ),
        (
            file("a.txt", "text/plain", b" <html>"),
            (422, "type_mismatch"),
        ),
        (
            file("a.txt", "text/plain", b"x <SCRIPT src=y>"),
            (422, "active_content"),
        ),
        (
            file("a.zip", "application/x-zip-compressed", b"PK\x03\x04...."),
            (200, ""),
        ),
    ] {
        let outcome = status(&anything(), std::slice::from_ref(&part)).await;
        assert_eq!(outcome, expected, "{}", part.escape_ascii());
    }
}

#[tokio::test]
async fn sizes_and_counts() {
    let policy = || {
        UploadPolicy::images()
            .max_file(10 * KIB)
            .max_files(2)
            .max_field(100)
            .max_parts(4)
            .max_part_head(300)
            .max_name(20)
            .max_file_name(40)
    };
    let layer = UploadLayer::new(policy());
    let sized = |bytes: usize| file("a.png", "image/png", &png(bytes - png(0).len()));
    let small = || sized(100);
    let at_most = 10 * KIB as usize;
    for (parts, expected) in [
        (vec![sized(at_most)], (200, "")),
        (vec![sized(at_most + 1)], (413, "file_too_large")),
        (
            vec![file(
                "a.png",
                "image/png",
                &[&png(0)[..8], &[0; 20_000]].concat(),
            )],
            (413, "file_too_large"),
        ),
        (vec![small(), small()], (200, "")),
        (vec![small(), small(), small()], (413, "too_many_files")),
        (vec![field("a", &[b'x'; 100])], (200, "")),
        (vec![field("a", &[b'x'; 101])], (413, "field_too_large")),
        (vec![field("a", b"x"); 4], (200, "")),
        (vec![field("a", b"x"); 5], (413, "too_many_parts")),
        (vec![field(&"n".repeat(20), b"x")], (200, "")),
        (vec![field(&"n".repeat(21), b"x")], (413, "name_too_long")),
        (
            vec![file(
                &format!("{}.png", "n".repeat(37)),
                "image/png",
                &png(1),
            )],
            (413, "name_too_long"),
        ),
        (
            vec![field(&"n".repeat(300), b"x")],
            (413, "part_head_too_large"),
        ),
        (vec![], (200, "")),
    ] {
        let body = form(&parts);
        for frame in [1, 100, body.len()] {
            let outcome = post(&layer, FORM, Script::trickle(&body, frame)).await;
            assert_eq!(
                (outcome.status.as_u16(), outcome.reason),
                expected,
                "{frame}"
            );
        }
    }

    // The whole body, told by its length and counted without one.
    let whole = form(&[small()]);
    for (max, expected) in [(0, 200), (1, 413)] {
        let limit = whole.len() as u64 - max;
        let layer = UploadLayer::new(policy().max_body(limit));
        let body = Script::trickle(&whole, 50);
        let counted = post(&layer, FORM, body.clone()).await;
        let stated = post(&layer, FORM, body.with_length()).await;
        assert_eq!(
            (counted.status.as_u16(), stated.status.as_u16()),
            (expected, expected)
        );
    }
    let endless = Script::frames(vec![Bytes::from(vec![b'x'; 1_000]); 100_000]);
    assert_eq!(post(&layer, FORM, endless).await.status, 400);
}

#[tokio::test]
async fn fields_pass_beside_files() {
    let parts = [
        field("note", b"a\r\nb"),
        file("a.png", "image/png", &png(9)),
        field("x", b""),
    ];
    let outcome = post(&images(), FORM, Script::trickle(&form(&parts), 3)).await;
    assert_eq!(outcome.status, 200);
    let read = outcome.read.unwrap();
    assert_eq!(read[0], (Some("note".into()), None, b"a\r\nb".to_vec()));
    assert_eq!(read[1], (Some("file".into()), Some("a.png".into()), png(9)));
    assert_eq!(read[2], (Some("x".into()), None, vec![]));
}

#[tokio::test]
async fn an_empty_file_input_is_no_file() {
    let parts = [file("", "application/octet-stream", b"")];
    assert_eq!(status(&images(), &parts).await, (200, ""));
    let parts = [file("", "application/octet-stream", b"x")];
    assert_eq!(status(&images(), &parts).await, (422, "file_name_unsafe"));
}

#[tokio::test]
async fn only_forms_are_taken() {
    let body = || Script::frames([form(&[file("a.png", "image/png", &png(1))])]);
    for (content_type, expected) in [
        ("application/json", 415),
        ("image/png", 415),
        ("multipart/mixed; boundary=B", 415),
        ("multipart/form-data-x; boundary=B", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=A; boundary=B", 400),
        ("nonsense", 400),
    ] {
        assert_eq!(
            post(&images(), content_type, body()).await.status,
            expected,
            "{content_type}"
        );
    }
    let none = Request::post("/").body(body()).unwrap();
    assert_eq!(send(&images(), none).await.status, 415);
    let twice = Request::post("/")
        .header("content-type", FORM)
        .header("content-type", FORM);
    assert_eq!(
        send(&images(), twice.body(body()).unwrap()).await.status,
        400
    );
    let encoded = Request::post("/")
        .header("content-type", FORM)
        .header("content-encoding", "gzip");
    assert_eq!(
        send(&images(), encoded.body(body()).unwrap()).await.status,
        415
    );
    let identity = Request::post("/")
        .header("content-type", FORM)
        .header("content-encoding", "identity");
    assert_eq!(
        send(&images(), identity.body(body()).unwrap()).await.status,
        200
    );
    let empty = post(&images(), FORM, Script::default().with_length()).await;
    assert_eq!(
        (empty.status.as_u16(), empty.reason),
        (400, "multipart_incomplete")
    );
}

#[tokio::test]
async fn what_is_no_upload_passes() {
    let seen = |request: Request<Script>| {
        let handler = async |request: Request<GuardedBody<Script>>| {
            let engaged = CheckedUpload::of(Head::of(&request)).is_some();
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            assert!(!engaged);
            Ok::<_, Infallible>(Response::new(Full::new(bytes)))
        };
        images().layer(service_fn(handler)).oneshot(request)
    };
    let grpc = Request::post("/").header("content-type", "application/grpc");
    let response = seen(grpc.body(Script::frames(["message"])).unwrap())
        .await
        .unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "message"
    );
    let get = Request::get("/")
        .body(Script::default().with_length())
        .unwrap();
    assert_eq!(seen(get).await.unwrap().status(), 200);
    let upgrade = Request::get("/")
        .header("upgrade", "websocket")
        .header("content-type", FORM);
    let response = seen(upgrade.body(Script::default().with_length()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    // Where a whole body may be a file, every body is looked at; and a form is one by any method.
    let raw = UploadLayer::new(UploadPolicy::images().raw_bodies());
    let program = || Script::frames(["\x7fELF"]);
    let grpc = Request::put("/").header("content-type", "application/grpc");
    let refused = raw
        .layer(service_fn(async |_: Request<GuardedBody<Script>>| {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }))
        .oneshot(grpc.body(program()).unwrap())
        .await
        .unwrap();
    assert_eq!(refused.headers()["grpc-status"], "3");
    let connect = |content_type: Option<&str>| {
        let request = Request::builder().method("CONNECT").uri("example.org:443");
        match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        }
        .body(program())
        .unwrap()
    };
    assert_eq!(send(&raw, connect(None)).await.status, 415);
    assert_eq!(send(&raw, connect(Some("image/png"))).await.status, 422);
    assert_eq!(send(&images(), connect(Some(FORM))).await.status, 400);
    assert_eq!(seen(connect(None)).await.unwrap().status(), 200);
    // An upgrade with a body is an upload like any other.
    let upgrade = Request::post("/")
        .header("upgrade", "websocket")
        .header("content-type", FORM);
    let refused = send(&images(), upgrade.body(Script::frames(["x"])).unwrap()).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn one_file_as_the_whole_body() {
    let layer = UploadLayer::new(UploadPolicy::images().max_file(MIB).raw_bodies());
    for size in [0, 5_000, 500_000] {
        let file = png(size);
        for frame in [1_000, 4_096, file.len()] {
            let outcome = post(&layer, "image/png", Script::trickle(&file, frame)).await;
            assert_eq!(outcome.status, 200);
            assert_eq!(outcome.read.unwrap()[0].2, file);
        }
    }
    let behind = [&png(9_000)[..], b"<?php"].concat();
    for (content_type, body, expected) in [
        ("image/png", b"\x7fELF".to_vec(), 422),
        ("image/png", behind, 422),
        ("image/png", png(2_000_000), 413),
        ("image/jpeg", png(9), 422),
        ("text/html", png(9), 415),
    ] {
        let outcome = post(&layer, content_type, Script::trickle(&body, 1_000)).await;
        assert_eq!(outcome.status, expected);
        assert_eq!(outcome.read, None, "the body ended cleanly");
    }
}

#[tokio::test]
async fn every_split_is_read_the_same() {
    let parts = [
        field("note", b"\r\n--\r\n-\r\n--A"),
        file("a.png", "image/png", &[&png(40)[..]].concat()),
        field("x", b"\r"),
        field("y", b"\r\n"),
        field("z", b""),
        file("b.gif", "image/gif", b"GIF89a\x01\0\x01\0\0\0\0;"),
    ];
    let body = form(&parts);
    let expected = multer_reads(FORM, Script::frames([body.clone()]))
        .await
        .unwrap();
    assert_eq!(expected.len(), parts.len());
    for at in 0..body.len() {
        for then in [at + 1, at + 2, at + 9, body.len()] {
            let then = then.min(body.len());
            let frames = [&body[..at], &body[at..then], &body[then..]];
            let frames = Script::frames(frames.map(Bytes::copy_from_slice));
            let outcome = post(&images(), FORM, frames).await;
            assert_eq!(outcome.status, 200, "{at} {then} {}", outcome.reason);
            assert_eq!(outcome.read.as_ref(), Some(&expected), "{at} {then}");
        }
    }
    for frame in 1..70 {
        let outcome = post(&images(), FORM, Script::trickle(&body, frame)).await;
        assert_eq!(outcome.read.as_ref(), Some(&expected), "{frame}");
    }
}

/// The tricks that are none: all readers agree on them.
const HARMLESS: [&str; 6] = [
    "plain",
    "empty form",
    "end without a line end",
    "data that looks like a delimiter",
    "charset field, UTF-8",
    "binary",
];

#[tokio::test]
async fn every_trick_is_refused_or_read_the_same() {
    let layer = anything();
    let mut taken = Vec::new();
    for (name, content_type, body) in tricks() {
        let alone = multer_reads(content_type, Script::frames([body.clone()])).await;
        for frame in [1, 5, 64, body.len()] {
            let outcome = post(&layer, content_type, Script::trickle(&body, frame)).await;
            if outcome.status == 200 {
                let read = outcome.read.as_ref();
                assert_eq!(read, Some(alone.as_ref().expect(name)), "{name} in {frame}");
                taken.push(name);
            } else {
                assert!(outcome.status.is_client_error(), "{name}: {outcome:?}");
                assert!(!outcome.reason.is_empty(), "{name}: refused by the handler");
            }
        }
    }
    for (name, content_type, body) in tricks() {
        // Wherever it is cut, it is the same.
        let whole = post(&layer, content_type, Script::frames([body.clone()])).await;
        for at in 0..body.len().min(400) {
            let frames = [&body[..at], &body[at..]].map(Bytes::copy_from_slice);
            let outcome = post(&layer, content_type, Script::frames(frames)).await;
            let seen = (outcome.status, outcome.reason, outcome.read);
            assert_eq!(
                seen,
                (whole.status, whole.reason, whole.read.clone()),
                "{name} at {at}"
            );
        }
    }
    taken.dedup();
    taken.sort_unstable();
    let mut harmless = HARMLESS.to_vec();
    harmless.sort_unstable();
    assert_eq!(taken, harmless);
}

#[tokio::test]
async fn files_of_two_types_are_refused() {
    let types = [
        "application/json",
        "application/pdf",
        "application/x-tar",
        "audio/mpeg",
        "image/tiff",
        "text/plain",
        "video/mp4",
    ];
    let layer = UploadLayer::new(UploadPolicy::new(types).unwrap());
    let zip = b"PK\x05\x06\0\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    let tar = |name: &[u8]| {
        let mut tar = vec![0; 1_024];
        tar[..name.len()].copy_from_slice(name);
        tar[257..265].copy_from_slice(b"ustar\x0000");
        tar
    };
    let film = b"\0\0\0\x18ftypisom\0\0\x02\0isommp41\0\0\0\x10mdat........".to_vec();
    let sound = [&b"ID3\x04\0\0\0\0\0\0"[..], &[0x55; 500]].concat();
    let scan = [&b"II*\0\x08\0\0\0"[..], &[0; 500]].concat();
    let pdf = b"%PDF-1.7\n1 0 obj\nendobj\n".to_vec();
    let of = |file: &[u8], second: &[u8]| [file, second].concat();
    for (name, media_type, bytes, expected) in [
        ("a.mp4", "video/mp4", film.clone(), ""),
        ("a.mp4", "video/mp4", of(&film, zip), "stacked_types"),
        ("a.mp4", "video/mp4", of(&film, b"<?php x"), "stacked_types"),
        (
            "a.mp4",
            "video/mp4",
            of(b"MZ\x90\0", &film[4..]),
            "type_mismatch",
        ),
        ("a.mp3", "audio/mpeg", sound.clone(), ""),
        ("a.mp3", "audio/mpeg", of(&sound, zip), "stacked_types"),
        ("a.tif", "image/tiff", scan.clone(), ""),
        (
            "a.tif",
            "image/tiff",
            of(&scan, b"<script>"),
            "stacked_types",
        ),
        ("a.tar", "application/x-tar", tar(b"a.txt"), ""),
        (
            "a.tar",
            "application/x-tar",
            tar(b"MZ\x90"),
            "type_mismatch",
        ),
        (
            "a.tar",
            "application/x-tar",
            tar(b"<html>"),
            "type_mismatch",
        ),
        ("a.pdf", "application/pdf", of(&pdf, b"%%EOF\n"), ""),
        (
            "a.pdf",
            "application/pdf",
            of(&pdf, b"<?php x\n%%EOF"),
            "stacked_types",
        ),
        (
            "a.pdf",
            "application/pdf",
            of(&pdf, b"<html>\n%%EOF"),
            "stacked_types",
        ),
        (
            "a.txt",
            "text/plain",
            b"#!/bin/sh\n".to_vec(),
            "type_mismatch",
        ),
        ("a.json", "application/json", b" [1]".to_vec(), ""),
        (
            "a.json",
            "application/json",
            b"words".to_vec(),
            "type_mismatch",
        ),
    ] {
        let (status, reason) = status(&layer, &[file(name, media_type, &bytes)]).await;
        let expected = (if expected.is_empty() { 200 } else { 422 }, expected);
        assert_eq!(
            (status, reason),
            expected,
            "{name} {}",
            bytes.escape_ascii()
        );
    }
}

#[tokio::test]
async fn heads_have_few_lines() {
    let compat = UploadLayer::new(UploadPolicy::images().compat());
    let strict = UploadLayer::new(UploadPolicy::images().max_part_headers(2));
    let plain = "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain";
    for (layer, more, expected) in [
        (&compat, 6, (200, "")),
        (&compat, 7, (413, "too_many_part_headers")),
        (&strict, 0, (200, "")),
        (&strict, 1, (413, "too_many_part_headers")),
    ] {
        let part = part(&format!("{plain}{}", "\r\nX-A: b".repeat(more)), b"x");
        assert_eq!(status(layer, &[part]).await, expected, "{more}");
    }
}

#[tokio::test]
async fn an_old_charset_is_taken_where_it_makes_no_difference() {
    let compat = UploadLayer::new(UploadPolicy::images().compat());
    let head = "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain; charset=ISO-8859-1";
    assert_eq!(
        status(&compat, &[part(head, b"words")]).await,
        (200, ""),
        "ASCII is ASCII"
    );
    for words in [&b"k\xe4se"[..], "k\u{e4}se".as_bytes()] {
        assert_eq!(
            status(&compat, &[part(head, words)]).await,
            (400, "part_encoding")
        );
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn encoded(policy: UploadPolicy, coding: &str, body: Script) -> (u16, &'static str, Vec<u8>) {
    let read = Arc::new(Mutex::new(Vec::new()));
    let reader = Arc::clone(&read);
    let handler = move |request: Request<GuardedBody<Script>>| {
        let reader = Arc::clone(&reader);
        async move {
            for gone in ["content-encoding", "content-length"] {
                assert!(!request.headers().contains_key(gone));
            }
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= 80_000, "a frame of {}", data.len());
                reader.lock().unwrap().extend(data);
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    };
    let request = Request::post("/")
        .header("content-type", FORM)
        .header("content-encoding", coding)
        .header("content-length", "7")
        .body(body)
        .unwrap();
    let service = UploadLayer::new(policy).layer(service_fn(handler));
    let response = service.oneshot(request).await.unwrap();
    let rejection = response.extensions().get::<Rejection>();
    let reason = rejection.map_or("", Rejection::reason);
    let read = std::mem::take(&mut *read.lock().unwrap());
    (response.status().as_u16(), reason, read)
}

#[tokio::test]
async fn an_encoded_body_is_taken_only_where_it_is_asked_for() {
    let policy = || UploadPolicy::images().max_file(4 * MIB).accept_gzip(50);
    let plain = form(&[
        file("a.png", "image/png", &png(100_000)),
        field("note", b"hi"),
    ]);
    let short = form(&[field("note", b"hi")]);
    let packed = gzip(&plain);
    for frame in [1, 7, 1_000, packed.len()] {
        let taken = encoded(
            policy().accept_gzip(5_000),
            "GZip",
            Script::trickle(&packed, frame),
        );
        let (status, reason, read) = taken.await;
        assert_eq!((status, reason), (200, ""));
        assert!(read == plain);
    }
    let packed = gzip(&short);
    let spool = portcullis::upload::Spool::new(MIB).memory(0);
    let spooled = policy().spool(spool.clone());
    let (status, _, read) = encoded(spooled, "x-gzip", Script::trickle(&packed, 3)).await;
    assert_eq!((status, read), (200, short.clone()));
    assert_eq!(spool.free(), MIB);

    let bomb = gzip(&form(&[file("a.png", "image/png", &png(3_000_000))]));
    let huge = gzip(&form(&[file("a.png", "image/png", &png(5_000_000))]));
    let inner = form(&[file("a.png", "image/png", b"MZ\x90\0")]);
    // A stored block of nothing, again and again.
    let idle = [&gzip(b"")[..10], &[0, 0, 0, 0xff, 0xff].repeat(900_000)].concat();
    let damaged = [&packed[..packed.len() - 8], &[0; 8]].concat();
    for (policy, body, expected) in [
        (policy(), bomb, (413, "content_encoding_ratio")),
        (
            policy().accept_gzip(u32::MAX),
            huge,
            (413, "file_too_large"),
        ),
        (policy().max_body(4 * MIB), idle, (413, "body_too_large")),
        (policy(), gzip(&inner), (422, "type_mismatch")),
        (
            policy(),
            [&packed[..], &packed].concat(),
            (400, "content_encoding_malformed"),
        ),
        (
            policy(),
            packed[..packed.len() - 9].to_vec(),
            (400, "content_encoding_malformed"),
        ),
        (policy(), damaged, (400, "content_encoding_malformed")),
        (policy(), short.clone(), (400, "content_encoding_malformed")),
        (policy(), gzip(&short[..9]), (400, "multipart_incomplete")),
        (
            UploadPolicy::images(),
            packed.clone(),
            (415, "content_encoding_not_accepted"),
        ),
    ] {
        for frame in [1_000, 64 * 1_024] {
            let (status, reason, _) =
                encoded(policy.clone(), "gzip", Script::trickle(&body, frame)).await;
            assert_eq!((status, reason), expected);
        }
    }
    for coding in ["br", "deflate", "gzip, gzip", "gzip;q=1", ""] {
        let (status, ..) = encoded(policy(), coding, Script::frames([packed.clone()])).await;
        assert_eq!(status, 415, "{coding}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_keeps_moving() {
    // The head of a part at once, then the same frame again and again.
    let sent = async |policy: UploadPolicy, frame: &'static [u8], pause: u64, times: usize| {
        let start = tokio::time::Instant::now();
        let head = b"--B\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n";
        let frames = futures_util::stream::unfold(0, move |at| async move {
            if at > 0 {
                tokio::time::sleep(std::time::Duration::from_secs(pause)).await;
            }
            let frame = if at == 0 { &head[..] } else { frame };
            let frame = http_body::Frame::data(Bytes::from_static(frame));
            (at < times).then(|| (Ok::<_, Infallible>(frame), at + 1))
        });
        let request = Request::post("/").header("content-type", FORM);
        let service = UploadLayer::new(policy).layer(service_fn(async |request: Request<_>| {
            let _ = BodyExt::collect(request.into_body()).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }));
        let body = http_body_util::StreamBody::new(Box::pin(frames));
        let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
        let rejection = response.extensions().get::<Rejection>();
        let reason = rejection.map_or("", Rejection::reason);
        (
            response.status().as_u16(),
            reason,
            start.elapsed().as_secs(),
        )
    };
    let images = UploadPolicy::images;
    // A byte now and then, and frames without any.
    assert_eq!(
        sent(images(), b"x", 3, 999).await,
        (408, "body_trickled", 20)
    );
    assert_eq!(sent(images(), b"", 3, 999).await, (408, "body_stalled", 20));
    // A little more than has to be, and a little less.
    let (slow, slower) = (&[b'x'; 1_000], &[b'x'; 500]);
    let whole = (400, "multipart_incomplete", 87 + 3);
    assert_eq!(sent(images(), slow, 3, 30).await, whole);
    assert_eq!(sent(images(), slower, 3, 30).await.1, "body_trickled");
    assert_eq!(sent(images().min_rate(0), slower, 3, 30).await, whole);
    let deadline = images().deadline(std::time::Duration::from_secs(30));
    assert_eq!(
        sent(deadline, slow, 3, 30).await,
        (408, "body_deadline", 30)
    );
    let stalled = Script::frames(["--B\r\n"]).then(Step::Stall);
    let stalled = post(&UploadLayer::new(images()), FORM, stalled).await;
    assert_eq!(stalled.reason, "body_stalled");
}

#[tokio::test]
async fn files_get_a_name_to_store_them_under() {
    let handler = async |request: Request<GuardedBody<Script>>| {
        let upload = CheckedUpload::of(Head::of(&request)).unwrap();
        request.into_body().collect().await.unwrap();
        let files = upload.accepted().await.unwrap();
        let names: Vec<_> = files.iter().map(|file| file.storage_name()).collect();
        assert_ne!(names[0], names[1]);
        for name in names {
            let (id, extension) = name.split_once('.').unwrap();
            assert_eq!((id.len(), extension), (32, "jpg"));
            assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    };
    let jpeg = b"\xff\xd8\xff\xda\0\x02x\xff\xd9";
    let parts = [
        file("holiday.JPEG", "image/jpeg", jpeg),
        untyped("blob", jpeg),
    ];
    let request = Request::post("/").header("content-type", FORM);
    let request = request.body(Script::frames([form(&parts)])).unwrap();
    let service = images().layer(service_fn(handler));
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_handle_agrees_with_what_was_read() {
    let parts = [
        file("a.png", "image/png", &png(5_000)),
        field("note", b"x"),
        untyped("b.png", &png(7)),
    ];
    let handler = async |request: Request<GuardedBody<Script>>| {
        let upload = CheckedUpload::of(Head::of(&request)).unwrap();
        request.into_body().collect().await.unwrap();
        let files = upload.accepted().await.unwrap();
        let told: Vec<_> = files
            .iter()
            .map(|file| {
                (
                    file.field(),
                    file.name().unwrap(),
                    file.media_type(),
                    file.bytes(),
                )
            })
            .collect();
        let sizes = [png(5_000).len() as u64, png(7).len() as u64];
        assert_eq!(
            told,
            [
                ("file", "a.png", "image/png", sizes[0]),
                ("file", "b.png", "image/png", sizes[1])
            ]
        );
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    };
    let request = Request::post("/").header("content-type", FORM);
    let request = request.body(Script::trickle(&form(&parts), 1_000)).unwrap();
    let service = images().layer(service_fn(handler));
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
}

#[test]
fn policies_that_cannot_hold_are_faults() {
    assert!(UploadPolicy::new::<&str>([]).is_err());
    assert!(UploadPolicy::new(["image/svg+xml"]).is_err());
    assert!(UploadPolicy::new(["application/octet-stream"]).is_err());
    let error = UploadPolicy::with_detector(["x/y"], &Signatures).unwrap_err();
    assert_eq!(error.setting(), "upload types");
}

/// Bodies as real clients sent them, by `clients/capture.py`: a line of `Content-Type`, then the body.
/// Beside each: the reason for which the strict form refuses it, if it does.
const CLIENTS: &[(&str, &[u8], &str)] = &[
    (
        "chromium_form",
        include_bytes!("clients/chromium_form.http"),
        "",
    ),
    (
        "chromium_fetch",
        include_bytes!("clients/chromium_fetch.http"),
        "",
    ),
    ("curl", include_bytes!("clients/curl.http"), ""),
    ("curl_utf8", include_bytes!("clients/curl_utf8.http"), ""),
    ("undici", include_bytes!("clients/undici.http"), ""),
    ("httpx", include_bytes!("clients/httpx.http"), ""),
    ("httpx_utf8", include_bytes!("clients/httpx_utf8.http"), ""),
    ("requests", include_bytes!("clients/requests.http"), ""),
    (
        "requests_typed",
        include_bytes!("clients/requests_typed.http"),
        "",
    ),
    (
        "requests_utf8",
        include_bytes!("clients/requests_utf8.http"),
        "",
    ),
    (
        "requests_utf8_typed",
        include_bytes!("clients/requests_utf8_typed.http"),
        "",
    ),
    ("urllib3", include_bytes!("clients/urllib3.http"), ""),
    ("java_jdk", include_bytes!("clients/java_jdk.http"), ""),
    (
        "java_apache_browser",
        include_bytes!("clients/java_apache_browser.http"),
        "content_type_malformed",
    ),
    (
        "java_apache",
        include_bytes!("clients/java_apache.http"),
        "part_encoding",
    ),
    (
        "java_okhttp",
        include_bytes!("clients/java_okhttp.http"),
        "part_head_malformed",
    ),
    (
        "aiohttp",
        include_bytes!("clients/aiohttp.http"),
        "part_head_malformed",
    ),
    (
        "aiohttp_utf8",
        include_bytes!("clients/aiohttp_utf8.http"),
        "part_head_malformed",
    ),
    (
        "dotnet",
        include_bytes!("clients/dotnet.http"),
        "part_head_malformed",
    ),
    (
        "dotnet_utf8",
        include_bytes!("clients/dotnet_utf8.http"),
        "part_head_malformed",
    ),
    ("go", include_bytes!("clients/go.http"), "type_not_allowed"),
];

#[tokio::test]
async fn real_clients_are_understood() {
    let compat = UploadLayer::new(UploadPolicy::images().compat());
    for (name, captured, refusal) in CLIENTS {
        let line = captured.iter().position(|byte| *byte == b'\n').unwrap();
        let content_type = std::str::from_utf8(&captured[..line]).unwrap();
        let body = &captured[line + 1..];
        let mut alone = multer_reads(content_type, Script::frames([body.to_vec()]))
            .await
            .unwrap();
        let at = alone
            .iter()
            .position(|part| part.0.as_deref() == Some("file"));
        assert_eq!(
            alone[at.unwrap()].2,
            include_bytes!("bodies/dot.png"),
            "{name}"
        );
        for frame in [1, 7, 100, body.len()] {
            let outcome = post(&images(), content_type, Script::trickle(body, frame)).await;
            assert_eq!(outcome.reason, *refusal, "{name}");
            if refusal.is_empty() {
                assert_eq!(outcome.read.as_ref(), Some(&alone), "{name}");
            }
            if *name == "dotnet_utf8" {
                // multer does not read what the name really is.
                alone[at.unwrap()].1 = Some("käse 1.png".into());
            }
            let outcome = post(&compat, content_type, Script::trickle(body, frame)).await;
            assert_eq!(outcome.status, 200, "{name}: {outcome:?}");
            assert_eq!(outcome.read.as_ref(), Some(&alone), "{name}, written anew");
        }
    }
}

#[tokio::test]
async fn reqwest_is_understood() {
    let form = reqwest::multipart::Form::new().text("note", "hi").part(
        "file",
        reqwest::multipart::Part::bytes(png(100)).file_name("käse 1.png"),
    );
    let content_type = format!("multipart/form-data; boundary={}", form.boundary());
    let request = reqwest::Client::new()
        .post("http://127.0.0.1/")
        .multipart(form)
        .build();
    let body = request.unwrap().body_mut().take().unwrap();
    let bytes = body.collect().await.unwrap().to_bytes();
    let outcome = post(&images(), &content_type, Script::trickle(&bytes, 10)).await;
    assert_eq!(outcome.status, 200, "{}", outcome.reason);
    let read = outcome.read.unwrap();
    assert_eq!(read[1].1.as_deref(), Some("käse 1.png"));
    assert_eq!(read[1].2, png(100));
}

#[tokio::test]
async fn what_more_clients_send_is_taken_and_written_anew() {
    let compat = UploadLayer::new(
        UploadPolicy::new(["image/png", "text/plain"])
            .unwrap()
            .compat(),
    );
    let data = png(10);
    let of = |head: &str| form(&[part(head, &data)]);
    let read_as = |name: &str| {
        Some(vec![(
            Some("file".to_owned()),
            Some(name.to_owned()),
            data.clone(),
        )])
    };
    for (client, content_type, body, name) in [
        (
            ".NET",
            "multipart/form-data; boundary=\"B\"",
            of(
                "Content-Type: image/png\r\nContent-Disposition: form-data; name=file; filename=a.png; filename*=utf-8''k%C3%A4se.png",
            ),
            "käse.png",
        ),
        (
            "OkHttp",
            "multipart/form-data; boundary=B",
            of(
                "Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\nContent-Length: 81",
            ),
            "a.png",
        ),
        (
            "Apache HttpClient",
            "multipart/form-data; charset=ISO-8859-1; boundary=B",
            of(
                "Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary",
            ),
            "a.png",
        ),
        (
            "Dart",
            "multipart/form-data; boundary=B",
            of(
                "content-type: image/png\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.png\"",
            ),
            "a.png",
        ),
        (
            "Django's test client",
            "Multipart/Form-Data; BOUNDARY=B",
            of(
                "Content-Disposition: form-data;name=\"file\" ;filename=\"a.png\" ; \r\nContent-Type: image/png",
            ),
            "a.png",
        ),
        (
            "one with a preamble line and an epilogue",
            "multipart/form-data; boundary=B",
            [
                b"\r\n",
                &of("Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"")[..],
                b"epilogue",
            ]
            .concat(),
            "a.png",
        ),
    ] {
        for frame in [1, 10, body.len()] {
            let outcome = post(&compat, content_type, Script::trickle(&body, frame)).await;
            assert_eq!(outcome.status, 200, "{client}: {}", outcome.reason);
            assert_eq!(outcome.read, read_as(name), "{client}");
        }
    }
    let padded = b"--B \t\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--B  --\r\n";
    assert_eq!(
        post(&compat, FORM, Script::frames([padded.to_vec()]))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn compat_has_one_meaning_for_every_trick() {
    let types = ["text/plain", "image/png"];
    let compat = UploadLayer::new(UploadPolicy::new(types).unwrap().compat());
    let strict = UploadLayer::new(UploadPolicy::new(types).unwrap());
    for (name, content_type, body) in tricks() {
        let mut first = None;
        for frame in [1, 5, 64, body.len()] {
            let outcome = post(&compat, content_type, Script::trickle(&body, frame)).await;
            assert!(
                outcome.status == 200 || !outcome.reason.is_empty(),
                "{name}: refused by the handler: {outcome:?}"
            );
            // Whatever the frames: one verdict, one reading.
            let seen = (outcome.status, outcome.read);
            assert_eq!(
                first.get_or_insert_with(|| seen.clone()),
                &seen,
                "{name} in {frame}"
            );
        }
        let strictly = post(&strict, content_type, Script::frames([body.clone()])).await;
        if strictly.status == 200 {
            assert_eq!(first.unwrap(), (strictly.status, strictly.read), "{name}");
        } else if let Some((StatusCode::OK, Some(read))) = first {
            // What is taken beyond the strict form hides nothing.
            for (field, file_name, bytes) in read {
                assert!(
                    ["file", "a", "x", "--B"].contains(&field.unwrap().as_str()),
                    "{name}"
                );
                assert!(
                    file_name.is_none_or(|file_name| file_name == "a.txt"),
                    "{name}"
                );
                assert!(bytes == b"words" || bytes == b"x", "{name}");
            }
        }
    }
}

const OFFICE: &str = "application/vnd.openxmlformats-officedocument";
const OPEN: &str = "application/vnd.oasis.opendocument";

/// Documents by `bodies/office/make.py`, under the plain document's name and type.
#[tokio::test]
async fn real_documents_are_told_from_templates_and_macros() {
    let [docx, xlsx, pptx] = [
        "wordprocessingml.document",
        "spreadsheetml.sheet",
        "presentationml.presentation",
    ]
    .map(|name| format!("{OFFICE}.{name}"));
    let [odt, ods, odp] =
        ["text", "spreadsheet", "presentation"].map(|name| format!("{OPEN}.{name}"));
    let types = [&docx, &xlsx, &pptx, &odt, &ods, &odp];
    let layer = UploadLayer::new(UploadPolicy::new(types).unwrap());
    let (template, macros) = ("type_mismatch", "macros");
    for (kind, name, documents) in [
        (
            &docx,
            "a.docx",
            &[
                ("python_docx.docx", ""),
                ("text.docx", ""),
                ("text.dotx", template),
                ("text.docm", macros),
                ("text.odt", "content_malformed"),
                ("openpyxl.xlsx", template),
            ][..],
        ),
        (
            &xlsx,
            "a.xlsx",
            &[
                ("openpyxl.xlsx", ""),
                ("xlsxwriter.xlsx", ""),
                ("table.xlsx", ""),
                ("table.xltx", template),
                ("table.xlsm", macros),
            ],
        ),
        (
            &pptx,
            "a.pptx",
            &[
                ("python_pptx.pptx", ""),
                ("slides.pptx", ""),
                ("slides.potx", template),
                ("slides.pptm", macros),
            ],
        ),
        (
            &odt,
            "a.odt",
            &[
                ("text.odt", ""),
                ("text.ott", template),
                ("basic.odt", macros),
                ("text.docx", template),
                ("table.ods", template),
            ],
        ),
        (&ods, "a.ods", &[("table.ods", ""), ("table.ots", template)]),
        (
            &odp,
            "a.odp",
            &[("slides.odp", ""), ("slides.otp", template)],
        ),
    ] {
        for (document, expected) in documents {
            let bytes = std::fs::read(format!(
                "{}/tests/bodies/office/{document}",
                env!("CARGO_MANIFEST_DIR")
            ))
            .unwrap();
            let body = form(&[file(name, kind, &bytes)]);
            for frame in [1_000, body.len()] {
                let outcome = post(&layer, FORM, Script::trickle(&body, frame)).await;
                assert_eq!(outcome.reason, *expected, "{document}");
                assert_eq!(outcome.status == 200, expected.is_empty(), "{document}");
            }
            // A zip behind its end, or cut.
            let behind = [&bytes[..], b"PK\x05\x06"].concat();
            for changed in [&bytes[..bytes.len() - 1], &behind] {
                let (status, _) = status(&layer, &[file(name, kind, changed)]).await;
                assert_eq!(status, 422, "{document}");
            }
        }
    }
}

/// A document whose list of types is followed by empty entries, stored.
fn document_of(entries: usize) -> Vec<u8> {
    let types = b"<Types><Override ContentType=\"application/vnd.openxmlformats-officedocument.\
        wordprocessingml.document.main+xml\"/></Types>";
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for at in 0..entries {
        let (name, data) = match at {
            0 => ("[Content_Types].xml".to_owned(), &types[..]),
            _ => (format!("{at:05}"), &b""[..]),
        };
        let place = (file.len() as u32).to_le_bytes();
        let size = (data.len() as u32).to_le_bytes();
        let length = (name.len() as u16).to_le_bytes();
        let common = [&[20, 0][..], &[0; 12], &size, &size, &length, &[0; 2]].concat();
        file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
        list.extend(
            [
                b"PK\x01\x02\x14\0",
                &common[..],
                &[0; 10],
                &place,
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let list_at = (file.len() as u32).to_le_bytes();
    let count = (entries as u16).to_le_bytes();
    let bytes = (list.len() as u32).to_le_bytes();
    let end = [
        b"PK\x05\x06\0\0\0\0",
        &count[..],
        &count,
        &bytes,
        &list_at,
        &[0; 2],
    ]
    .concat();
    [file, list, end].concat()
}

/// Each entry of a package is remembered until its end, so there is a bound on them.
#[tokio::test]
async fn a_package_has_a_bounded_number_of_entries() {
    let docx = format!("{OFFICE}.wordprocessingml.document");
    let layer = UploadLayer::new(UploadPolicy::new([&docx]).unwrap());
    for (entries, expected) in [
        (1, (200, "")),
        (10_000, (200, "")),
        (10_001, (422, "content_malformed")),
    ] {
        let body = file("a.docx", &docx, &document_of(entries));
        assert_eq!(status(&layer, &[body]).await, expected, "{entries}");
    }
}

#[tokio::test]
async fn svg_is_taken_only_where_it_is_asked_for() {
    let plain = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- k\xc3\xa4se -->\n<svg \
        xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 0\"/></svg>"
        .to_vec();
    let with = |inner: &str| format!("<svg>{}{inner}</svg>", " ".repeat(9_000)).into_bytes();
    let svg = |bytes: &[u8]| file("a.svg", "image/svg+xml", bytes);
    let icons = UploadLayer::new(UploadPolicy::images().allow_svg());
    for (part, expected) in [
        (svg(&plain), (200, "")),
        (untyped("a.svg", &plain), (200, "")),
        (file("a.svg", "image/svg", &plain), (200, "")),
        (svg(&with("<g fill='red'>on x</g>")), (200, "")),
        (svg(&with("<script>")), (422, "active_content")),
        (svg(&with("<x:SCRIPT>")), (422, "active_content")),
        (svg(&with("<g onclick = 'x'/>")), (422, "active_content")),
        (svg(&with("<?PHP x ?>")), (422, "active_content")),
        (svg(&with("<?= x ?>")), (422, "active_content")),
        (svg(&with("<% x %>")), (422, "active_content")),
        (svg(&with("<foreignObject>")), (422, "active_content")),
        (
            svg(&with("<a href='javascript:x'/>")),
            (422, "active_content"),
        ),
        (
            svg(&with("<a href='&#106;avascript:x'/>")),
            (422, "active_content"),
        ),
        (
            svg(b"<!DOCTYPE svg [<!ENTITY x 'y'>]><svg/>"),
            (422, "type_mismatch"),
        ),
        (svg(b"<html><svg/>"), (422, "type_mismatch")),
        (svg(b"\xff\xfe<\0s\0v\0g\0"), (422, "type_mismatch")),
        (svg(&png(1)), (422, "type_mismatch")),
        (file("a.png", "image/png", &plain), (422, "type_mismatch")),
        (file("a.svg", "image/png", &plain), (422, "type_mismatch")),
    ] {
        let outcome = status(&icons, std::slice::from_ref(&part)).await;
        assert_eq!(outcome, expected, "{}", part.escape_ascii());
    }
    // By any other way it is no type that can be allowed.
    #[derive(Debug)]
    struct All;
    impl portcullis::upload::TypeDetector for All {
        fn test_for(&self, _: &str) -> Option<portcullis::upload::TypeTest> {
            Some(portcullis::upload::TypeTest::new(|_| true))
        }
    }
    for name in ["image/svg+xml", "IMAGE/SVG+XML", "image/svg"] {
        assert!(UploadPolicy::new([name]).is_err());
        assert!(UploadPolicy::with_detector([name], &All).is_err());
    }
    let refused = status(&images(), &[svg(&plain)]).await;
    assert_eq!(refused, (415, "type_not_allowed"));
}

#[tokio::test]
async fn every_limit_has_a_default() {
    let gate = |policy: UploadPolicy| UploadLayer::new(policy);
    let strict = gate(UploadPolicy::images());
    let compat = gate(UploadPolicy::images().compat());
    let sized = |bytes: u64| file("a.png", "image/png", &png(bytes as usize - png(0).len()));
    let named = |bytes: usize| field(&"n".repeat(bytes), b"x");
    let filed = |bytes: usize| {
        file(
            &format!("{}.png", "n".repeat(bytes - 4)),
            "image/png",
            &png(1),
        )
    };
    let lined = |lines: usize| {
        let more = "\r\nX-A: b".repeat(lines - 1);
        part(
            &format!("Content-Disposition: form-data; name=\"a\"{more}"),
            b"x",
        )
    };
    let headed = |bytes: usize| {
        let head = "Content-Disposition: form-data; name=\"a\"\r\nX-A: ";
        part(&format!("{head}{}", "b".repeat(bytes - head.len())), b"x")
    };
    for (layer, taken, refused, reason) in [
        (
            &strict,
            vec![sized(5 * MIB)],
            vec![sized(5 * MIB + 1)],
            "file_too_large",
        ),
        (
            &strict,
            vec![sized(99); 8],
            vec![sized(99); 9],
            "too_many_files",
        ),
        (
            &strict,
            vec![field("a", b"x"); 64],
            vec![field("a", b"x"); 65],
            "too_many_parts",
        ),
        (
            &strict,
            vec![field("a", &[b'x'; 64 * KIB as usize])],
            vec![field("a", &[b'x'; 64 * KIB as usize + 1])],
            "field_too_large",
        ),
        (&strict, vec![named(128)], vec![named(129)], "name_too_long"),
        (&strict, vec![filed(255)], vec![filed(256)], "name_too_long"),
        (
            &compat,
            vec![lined(8)],
            vec![lined(9)],
            "too_many_part_headers",
        ),
        (
            &compat,
            vec![headed(4_096)],
            vec![headed(4_097)],
            "part_head_too_large",
        ),
    ] {
        assert_eq!(status(layer, &taken).await, (200, ""), "{reason}");
        assert_eq!(status(layer, &refused).await, (413, reason));
    }
    let bounded = async |length: usize| {
        let boundary = "b".repeat(length);
        let body = format!("--{boundary}--\r\n");
        let content_type = format!("multipart/form-data; boundary={boundary}");
        post(&strict, &content_type, Script::frames([body]))
            .await
            .status
    };
    assert_eq!(
        (bounded(70).await, bounded(71).await),
        (StatusCode::OK, StatusCode::BAD_REQUEST)
    );
    // All files at their largest, and 1 MiB: known from the head.
    let stated = async |bytes: u64| {
        let request = Request::post("/").header("content-type", FORM);
        let request = request
            .header("content-length", bytes)
            .body(Script::default());
        send(&strict, request.unwrap()).await.reason
    };
    assert_eq!(stated(41 * MIB).await, "multipart_incomplete");
    assert_eq!(stated(41 * MIB + 1).await, "body_too_large");
}

#[tokio::test]
async fn a_form_keeps_its_length_and_trailers() {
    let body = form(&[file("a.png", "image/png", &png(9_000)), field("note", b"x")]);
    for compat in [false, true] {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-checksum", "1".parse().unwrap());
        let script = Script::trickle(&body, 700).with_length();
        let script = script.then(Step::Trailers(trailers));
        let whole = body.len() as u64;
        let handler = move |request: Request<GuardedBody<Script>>| async move {
            use http_body::Body as _;
            let mut body = std::pin::pin!(request.into_body());
            let (mut read, mut trailers) = (0, None);
            loop {
                // What is written anew has another length, which nobody knows.
                let told = body.size_hint().exact();
                assert_eq!(told, (!compat).then(|| whole - read));
                match BodyExt::frame(&mut body).await.transpose().unwrap() {
                    Some(frame) => match frame.into_data() {
                        Ok(data) => read += data.len() as u64,
                        Err(frame) => trailers = frame.into_trailers().ok(),
                    },
                    None => break,
                }
                if compat && trailers.is_some() {
                    break;
                }
            }
            assert_eq!(trailers.unwrap()["x-checksum"], "1");
            assert!(compat || read == whole);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        };
        let policy = UploadPolicy::images();
        let policy = if compat { policy.compat() } else { policy };
        let service = UploadLayer::new(policy).layer(service_fn(handler));
        let request = Request::post("/").header("content-type", FORM);
        let response = service
            .oneshot(request.body(script).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{compat}");
    }
}

#[tokio::test]
async fn what_follows_the_last_boundary_is_refused_at_once() {
    let whole = form(&[field("a", b"x")]);
    let whole = whole.strip_suffix(b"\r\n").unwrap_or(&whole);
    assert!(whole.ends_with(b"--"));
    let refused = (StatusCode::BAD_REQUEST, "multipart_epilogue");
    let cut = post(&images(), FORM, Script::frames([[whole, b"\r"].concat()])).await;
    assert_eq!((cut.status, cut.reason), refused);
    // Without waiting for the end of what is too much.
    let endless = Script::frames([[whole, b"\r\nx"].concat()]).then(Step::Stall);
    let endless = post(&images(), FORM, endless).await;
    assert_eq!((endless.status, endless.reason), refused);
}

#[tokio::test]
async fn trailers_come_behind_the_last_byte_without_a_length_too() {
    let body = form(&[file("a.png", "image/png", &png(9_000))]);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    let whole = body.len();
    let handler = move |request: Request<GuardedBody<Script>>| async move {
        let mut body = std::pin::pin!(request.into_body());
        let mut read = 0;
        while let Some(frame) = BodyExt::frame(&mut body).await.transpose().unwrap() {
            match frame.into_data() {
                Ok(data) => read += data.len(),
                Err(_) => assert_eq!(read, whole),
            }
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    };
    let script = Script::trickle(&body, 700).then(Step::Trailers(trailers));
    let request = Request::post("/").header("content-type", FORM);
    let service = images().layer(service_fn(handler));
    let response = service
        .oneshot(request.body(script).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_redirect_waits_for_the_verdict_as_a_success_does() {
    let handler = async |_: Request<GuardedBody<Script>>| {
        let redirect = Response::builder().status(303).header("location", "/done");
        Ok::<_, Infallible>(redirect.body(Full::<Bytes>::default()).unwrap())
    };
    for (content, expected) in [(png(9), 303), (b"MZ\x90\0".to_vec(), 422)] {
        let body = Script::trickle(&form(&[file("a.png", "image/png", &content)]), 50);
        let request = Request::post("/").header("content-type", FORM);
        let service = images().layer(service_fn(handler));
        let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), expected);
    }
}

#[tokio::test]
async fn a_raw_file_that_says_it_is_too_large_reaches_no_handler() {
    let layer = UploadLayer::new(UploadPolicy::images().raw_bodies().max_file(1_000));
    let body = Script::frames([png(2_000)]).with_length();
    let request = Request::put("/").header("content-type", "image/png");
    let refused = send(&layer, request.body(body).unwrap()).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason),
        (413, "body_too_large")
    );
}

#[tokio::test]
async fn what_is_said_twice_is_refused_in_compat_too() {
    let layer = UploadLayer::new(UploadPolicy::images().compat());
    let plain = "Content-Disposition: form-data; name=\"a\"";
    for (head, expected) in [
        (
            format!("{plain}; filename=\"b.php\"; filename=\"a.png\""),
            "disposition_malformed",
        ),
        (format!("{plain}; name=\"b\""), "disposition_malformed"),
        (
            format!("{plain}; filename*=iso-8859-1''a.png"),
            "part_encoding",
        ),
        (
            format!("{plain}\r\nContent-Transfer-Encoding: base64"),
            "part_encoding",
        ),
        (
            format!(
                "{plain}\r\nContent-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: binary"
            ),
            "part_encoding",
        ),
    ] {
        assert_eq!(
            status(&layer, &[part(&head, b"x")]).await,
            (400, expected),
            "{head}"
        );
    }
    let twice = post(
        &layer,
        "multipart/form-data; boundary=A; boundary=B",
        Script::frames([form(&[field("a", b"x")])]),
    );
    let twice = twice.await;
    assert_eq!(
        (twice.status.as_u16(), twice.reason),
        (400, "content_type_malformed")
    );
    let strict =
        format!("{plain}\r\nContent-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 8bit");
    let strict = status(&images(), &[part(&strict, b"x")]).await;
    assert_eq!(strict, (400, "part_head_malformed"));
}

#[tokio::test]
async fn a_body_that_is_written_anew_has_no_stated_length() {
    let handler = async |request: Request<GuardedBody<Script>>| {
        let length = request.headers().get("content-length").cloned();
        request.into_body().collect().await.unwrap();
        assert_eq!(length, None);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    };
    let body = form(&[field("a", b"x")]);
    let request = Request::post("/")
        .header("content-type", FORM)
        .header("content-length", body.len());
    let service = UploadLayer::new(UploadPolicy::images().compat()).layer(service_fn(handler));
    let request = request.body(Script::frames([body]).with_length()).unwrap();
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_short_body_is_no_bomb_and_none_is_packed_twice() {
    let body = form(&[field("a", &[b'x'; 3_000])]);
    let policy = UploadPolicy::images().accept_gzip(1);
    let packed = gzip(&body);
    let (status, reason, _) = encoded(policy.clone(), "gzip", Script::frames([packed])).await;
    assert_eq!((status, reason), (200, ""));
    let twice = Request::post("/")
        .header("content-type", FORM)
        .header("content-encoding", "gzip")
        .header("content-encoding", "gzip");
    let twice = twice.body(Script::frames([gzip(&gzip(&body))])).unwrap();
    assert_eq!(send(&UploadLayer::new(policy), twice).await.status, 415);
}

#[test]
fn heads_that_are_almost_of_a_type() {
    let holds = |media_type: &str, head: &[u8]| {
        let test = portcullis::upload::TypeDetector::test_for(&Signatures, media_type);
        test.unwrap().holds(head)
    };
    let text = "application/vnd.oasis.opendocument.text";
    let mut document = vec![0; 30];
    document[..4].copy_from_slice(b"PK\x03\x04");
    document[18] = text.len() as u8;
    document[26] = 8;
    document.extend(b"mimetype");
    document.extend(text.bytes());
    assert!(holds(text, &document));
    // Compressed, of another size, with an extra field.
    for at in [8, 18, 28] {
        let mut other = document.clone();
        other[at] ^= 1;
        assert!(!holds(text, &other), "{at}");
    }

    // Frames of MPEG 1, 2 and 2.5, with and without a checksum; of no bit rate, or no sample rate, is none.
    for frame in [0xfb_u8, 0xfa, 0xf3, 0xf2, 0xe3, 0xe2] {
        assert!(holds("audio/mpeg", &[0xff, frame, 0x44, 0x64]), "{frame:x}");
    }
    for (frame, rate) in [(0xe3, 0x04), (0xe3, 0xf4), (0xfa, 0x4c), (0xfe, 0x44)] {
        assert!(!holds("audio/mpeg", &[0xff, frame, rate, 0x64]), "{rate:x}");
    }
    // Android's recorder names no brand of sound.
    assert!(holds("audio/mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"));
    assert!(holds("audio/mp4", b"\0\0\0\x1cftypM4A \0\0\0\0"));
    assert!(!holds("video/mp4", b"\0\0\0\x1cftypM4A \0\0\0\0"));

    // What a client declares as `video/x-m4v`; of a box that could be another file's signature, no.
    assert!(holds("video/mp4", b"\0\0\0\x1cftypM4V \0\0\0\x01"));
    assert!(!holds("video/mp4", b"MZ\0\x1cftypM4V \0\0\0\x01"));

    assert!(holds("image/webp", b"RIFF\x04\0\0\0WEBPVP8 "));
    assert!(!holds("image/webp", b"MZxx\x04\0\0\0WEBPVP8 "));
    assert!(!holds("text/plain", b"ab\x7f"));

    // A tar of before POSIX: told by its sum.
    let mut tar = vec![0; 1_024];
    tar[..5].copy_from_slice(b"a.txt");
    tar[100..107].copy_from_slice(b"0000644");
    tar[148..156].copy_from_slice(b"        ");
    let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(holds("application/x-tar", &tar));
    assert!(!holds("application/x-tar", &tar[..511]));
    for (at, byte) in [(0, b'b'), (500, 1), (148, b'x'), (155, b'x')] {
        let mut other = tar.clone();
        other[at] = byte;
        assert!(!holds("application/x-tar", &other), "{at}");
    }
}

/// Sends one file as the whole body, and returns the answer and the sizes of the frames that the
/// handler got.
async fn raw(policy: UploadPolicy, media_type: &str, body: Script) -> (u16, Vec<usize>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let handler = move |request: Request<GuardedBody<Script>>| {
        let seen = Arc::clone(&seen);
        async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                seen.lock()
                    .unwrap()
                    .push(frame.data_ref().map_or(0, Bytes::len));
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    };
    let request = Request::put("/").header("content-type", media_type);
    let service = UploadLayer::new(policy.raw_bodies()).layer(service_fn(handler));
    let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
    let sizes = sizes.lock().unwrap().clone();
    (response.status().as_u16(), sizes)
}

#[tokio::test]
async fn a_raw_file_goes_on_once_its_head_was_seen() {
    let picture = png(20_000);
    for (frame, first) in [(1_000, 5_000), (4_095, 8_190), (4_096, 4_096)] {
        let body = Script::trickle(&picture, frame);
        let (status, sizes) = raw(UploadPolicy::images(), "image/png", body).await;
        assert_eq!((status, sizes[0]), (200, first), "{frame}");
    }
    // Cut, and within the body's limit though not the file's.
    let cut = Script::trickle(&picture[..picture.len() - 1], 1_000);
    assert_eq!(raw(UploadPolicy::images(), "image/png", cut).await.0, 422);
    for (limit, expected) in [(picture.len() as u64, 200), (picture.len() as u64 - 1, 413)] {
        let policy = UploadPolicy::images().max_body(limit);
        let body = Script::frames([picture.clone()]).with_length();
        assert_eq!(raw(policy, "image/png", body).await.0, expected);
    }
    // No body is no file, and not half a form either.
    let empty = Script::default().with_length();
    assert_eq!(
        raw(UploadPolicy::images(), "text/plain", empty.clone())
            .await
            .0,
        200
    );
    assert_eq!(raw(UploadPolicy::images(), FORM, empty).await.0, 400);
}

#[tokio::test]
async fn parameters_are_read_in_one_way_in_compat_too() {
    let compat = UploadLayer::new(UploadPolicy::new(["text/plain"]).unwrap().compat());
    let whole = |of: &str| form(&[part(of, b"words")]);
    let plain = "Content-Disposition: form-data; name=\"a\"";
    for content_type in [
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"B \"",
        "multipart/form-data; boundary=\"B\\\"",
        "multipart/form-data; boundary=\"B\"x",
        "multipart/form-data; a b=c; boundary=B",
    ] {
        let outcome = post(&compat, content_type, Script::frames([whole(plain)])).await;
        assert_eq!(outcome.status, 400, "{content_type}");
    }
    for parameters in ["; x=\"a\\b\"", "; a b=c", "; boundary=B", "; x=\"a\"b"] {
        let head = format!("{plain}\r\nContent-Type: text/plain{parameters}");
        for layer in [&compat, &anything()] {
            let outcome = post(layer, FORM, Script::frames([whole(&head)])).await;
            assert_eq!(outcome.status, 400, "{parameters}");
        }
    }
}

/// What makes no sense in the middle is not forgotten when the end does.
#[tokio::test]
async fn a_picture_that_breaks_off_and_goes_on_is_refused() {
    let picture = png(9_000);
    let end = picture.len() - 12;
    let broken = [&picture[..end], b"\0\0\0\0\0\0\0\0"].concat();
    let head = &file("a.png", "image/png", &[])[..];
    let head = &head[..head.len() - 2];
    let frames = [head, &broken, &picture[end..], b"\r\n--B--\r\n"].map(Bytes::copy_from_slice);
    let outcome = post(&images(), FORM, Script::frames(frames)).await;
    assert_eq!(outcome.reason, "content_malformed");
    let svg = UploadLayer::new(UploadPolicy::images().allow_svg());
    let drawing = |end: &[u8]| {
        let open = b"<svg xmlns=\"http://www.w3.org/2000/svg\">";
        [&open[..], &[b' '; 6_000], end, b"</svg>"].concat()
    };
    for (end, expected) in [(&b"\xc3\xa4"[..], 200), (b"\xc3\x28", 422)] {
        let body = [file("a.svg", "image/svg+xml", &drawing(end))];
        assert_eq!(status(&svg, &body).await.0, expected);
    }
}

/// A head of each type, which no other type takes for its own.
#[test]
fn every_type_has_a_head_of_its_own() {
    let heads: [(&str, &[u8]); 25] = [
        ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\x0d"),
        ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("image/webp", b"RIFF\x04\0\0\0WEBPVP8 "),
        ("image/gif", b"GIF89a\x01\0\x01\0\0\0"),
        ("image/tiff", b"II*\0\x08\0\0\0\0\0\0\0"),
        ("image/avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"),
        ("image/heif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("image/x-icon", b"\0\0\x01\0\x01\0\x10\x10\0\0\0\0"),
        ("application/pdf", b"%PDF-1.7\n%\xe2\xe3"),
        ("application/zip", b"PK\x03\x04\x14\0\0\0\0\0\0\0"),
        ("application/gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\0\0"),
        ("application/x-bzip2", b"BZh91AY&SY\0\0"),
        ("application/x-xz", b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46"),
        ("application/zstd", b"\x28\xb5\x2f\xfd\x04\x58\0\0\0\0\0\0"),
        (
            "application/x-7z-compressed",
            b"7z\xbc\xaf\x27\x1c\0\x04\0\0\0\0",
        ),
        ("application/vnd.rar", b"Rar!\x1a\x07\x01\0\0\0\0\0"),
        ("audio/mpeg", b"ID3\x04\0\0\0\0\0\0\0\0"),
        ("audio/ogg", b"OggS\0\x02\0\0\0\0\0\0"),
        ("audio/flac", b"fLaC\0\0\0\x22\x12\0\x12\0"),
        ("audio/wav", b"RIFF\x24\0\0\0WAVEfmt "),
        ("audio/mp4", b"\0\0\0\x1cftypM4A \0\0\0\0"),
        ("video/mp4", b"\0\0\0\x18ftypisom\0\0\x02\0"),
        (
            "video/webm",
            b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm",
        ),
        (
            "video/x-matroska",
            b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska\x42\x87\x81\x04",
        ),
        ("video/quicktime", b"\0\0\0\x14ftypqt  \0\0\0\0"),
    ];
    let holds = |media_type: &str, head: &[u8]| {
        let test = portcullis::upload::TypeDetector::test_for(&Signatures, media_type);
        test.unwrap().holds(head)
    };
    for (media_type, head) in heads {
        let head = [head, &[0; 256]].concat();
        for (other, _) in heads {
            // One container for both.
            if (media_type, other) != ("video/mp4", "audio/mp4") {
                assert_eq!(
                    holds(other, &head),
                    other == media_type,
                    "{media_type} as {other}"
                );
            }
        }
        // Nor is it text, a document, or what a program's first bytes stand before.
        assert!(!holds("text/plain", &head), "{media_type}");
        let program = [b"MZ", &head[2..]].concat();
        assert!(!holds(media_type, &program), "{media_type}");
    }
    let docx = format!("{OFFICE}.wordprocessingml.document");
    assert!(holds(&docx, b"PK\x03\x04\x14\0") && !holds(&docx, b"PK\x05\x06\0\0"));
    assert!(!holds("image/x-icon", b"\0\0\x01\0\0\0\x10\x10\0\0\0\0"));
    // White space as far as is looked hides what follows it; a character may be cut by that.
    assert!(holds("text/plain", &[b' '; 511]) && !holds("text/plain", &[b' '; 512]));
    let cut = format!("a{}", "\u{e4}".repeat(300));
    assert!(holds("text/plain", cut.as_bytes()));
}
