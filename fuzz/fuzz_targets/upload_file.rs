//! Files: a verdict is the same however the file came in frames, the bytes that pass are the bytes
//! that came, and what is accepted begins and ends as its type does and is no second file. The first
//! byte chooses the type, the second the size of the frames.
#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use libfuzzer_sys::fuzz_target;
use portcullis::{
    guarded::GuardedBody,
    upload::{MIB, UploadLayer, UploadPolicy},
};
use portcullis_fuzz::{Script, ask, bytes, framed, quiet};
use tower::{Layer as _, service_fn};

const OFFICE: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
const OPEN: &str = "application/vnd.oasis.opendocument.text";
const TYPES: [&str; 14] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "application/pdf",
    "text/plain",
    "application/json",
    "image/svg+xml",
    OFFICE,
    OPEN,
    "audio/wav",
    "image/tiff",
    "application/x-tar",
    "video/mp4",
];

static LAYER: LazyLock<UploadLayer> = LazyLock::new(|| {
    let types = TYPES.iter().filter(|name| **name != "image/svg+xml");
    let policy = UploadPolicy::new(types)
        .unwrap()
        .allow_svg()
        .raw_bodies()
        .max_file(MIB);
    UploadLayer::new(policy).with_context(quiet())
});

/// What the handler read; `None`: refused.
fn behind(kind: &str, body: Script) -> Option<Bytes> {
    let handler = service_fn(async |request: Request<GuardedBody<Script>>| {
        let read = request
            .into_body()
            .collect()
            .await
            .expect("it is not told of a refusal");
        Ok::<_, Infallible>(Response::new(Full::new(read.to_bytes())))
    });
    let request = Request::put("/")
        .header("content-type", kind)
        .body(body)
        .unwrap();
    let answer = ask(LAYER.layer(handler), request);
    match answer.status().as_u16() {
        200 => Some(bytes(answer.into_body())),
        status => {
            assert!((400..500).contains(&status), "{status}");
            None
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [kind, size, file @ ..] = input else {
        return;
    };
    if file.is_empty() {
        return;
    }
    let kind = TYPES[usize::from(*kind) % TYPES.len()];
    let whole = behind(kind, framed(file, file.len()));
    let cut = behind(kind, framed(file, usize::from(*size)));
    assert_eq!(whole, cut, "in frames of {size}");
    let Some(passed) = whole else {
        return;
    };
    assert_eq!(passed, file);
    let lower = file.to_ascii_lowercase();
    let has = |text: &[u8]| lower.windows(text.len()).any(|window| window == text);
    // Zeros may fill up what is behind a picture or a sound.
    let is_filled = |from: usize| file[from..].iter().all(|byte| *byte == 0);
    let ends_by = |end: &[u8], more: usize| {
        let mut places = (0..=file.len().saturating_sub(end.len() + more)).rev();
        places.any(|at| file[at..].starts_with(end) && is_filled(at + end.len() + more))
    };
    let riff = || {
        let length = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize + 8;
        file.starts_with(b"RIFF") && file.len() >= length && is_filled(length)
    };
    assert!(
        match kind {
            "image/png" => {
                file.starts_with(b"\x89PNG\r\n\x1a\n") && ends_by(b"\0\0\0\0IEND", 4)
            }
            "image/jpeg" => file.starts_with(b"\xff\xd8\xff") && ends_by(b"\xff\xd9", 0),
            "image/gif" => file.starts_with(b"GIF8") && ends_by(b";", 0),
            "image/webp" => riff() && &file[8..12] == b"WEBP",
            "audio/wav" => riff() && &file[8..12] == b"WAVE",
            "application/pdf" => {
                let end = file
                    .iter()
                    .rposition(|byte| !b"\0\t\n\x0c\r ".contains(byte))
                    .unwrap();
                file.starts_with(b"%PDF-") && file[..=end].ends_with(b"%%EOF")
            }
            "text/plain" | "application/json" | "image/svg+xml" => {
                str::from_utf8(file).is_ok()
                    && !file.contains(&0)
                    && !file.contains(&0x1b)
                    && !has(b"<script")
                    && !has(b"<?php")
            }
            OFFICE | OPEN => {
                let end = file.len().saturating_sub(22 + 65_535);
                file.starts_with(b"PK\x03\x04")
                    && file[end..].windows(4).any(|four| four == b"PK\x05\x06")
            }
            _ => true,
        },
        "{kind}"
    );
    if kind.starts_with("image/") && kind != "image/svg+xml" {
        assert!(!has(b"<?php") && !has(b"<script"));
        assert!(
            !file[..file.len().min(1024)]
                .windows(5)
                .any(|five| five == b"%PDF-")
        );
    }
});
