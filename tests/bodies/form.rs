//! Requests with uploads, and a handler that reads them with multer.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use portcullis::{Rejection, guarded::GuardedBody, upload::UploadLayer};
use tower::{Layer, ServiceExt, service_fn};

use super::Script;

/// A part as a reader sees it: field name, file name, bytes.
pub type Part = (Option<String>, Option<String>, Vec<u8>);

/// What comes of one request.
#[derive(Debug)]
pub struct Outcome {
    pub status: StatusCode,
    pub reason: &'static str,
    /// The parts that multer read behind the gate to their end, where the whole was read.
    pub read: Option<Vec<Part>>,
}

/// The answer of multer alone to these bytes.
pub async fn multer_reads(content_type: &str, body: Script) -> Result<Vec<Part>, multer::Error> {
    let boundary = multer::parse_boundary(content_type)?;
    let frames = futures_util::stream::unfold(Box::pin(body), async |mut body| {
        let frame = body.frame().await?;
        Some((
            frame.map(|frame| frame.into_data().unwrap_or_default()),
            body,
        ))
    });
    read_parts(multer::Multipart::new(frames, boundary)).await
}

pub async fn read_parts(mut multipart: multer::Multipart<'_>) -> Result<Vec<Part>, multer::Error> {
    let mut parts = Vec::new();
    while let Some(field) = multipart.next_field().await? {
        let name = field.name().map(String::from);
        let file_name = field.file_name().map(String::from);
        parts.push((name, file_name, field.bytes().await?.to_vec()));
    }
    Ok(parts)
}

pub async fn post(layer: &UploadLayer, content_type: &str, body: Script) -> Outcome {
    let request = Request::post("/upload").header("content-type", content_type);
    send(layer, request.body(body).unwrap()).await
}

pub async fn send(layer: &UploadLayer, request: Request<Script>) -> Outcome {
    let read = Arc::new(Mutex::new(None));
    let reader = Arc::clone(&read);
    let handler = move |request: Request<GuardedBody<Script>>| {
        let reader = Arc::clone(&reader);
        async move {
            let content_type = request.headers()["content-type"]
                .to_str()
                .unwrap()
                .to_owned();
            let mut response = Response::new(Full::<Bytes>::default());
            let Ok(boundary) = multer::parse_boundary(content_type) else {
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                *reader.lock().unwrap() = Some(vec![(None, None, bytes.to_vec())]);
                return Ok::<_, Infallible>(response);
            };
            let body = Box::pin(request.into_body());
            let frames = futures_util::stream::unfold(body, async |mut body| {
                let frame = body.frame().await?;
                Some((
                    frame.map(|frame| frame.into_data().unwrap_or_default()),
                    body,
                ))
            });
            match read_parts(multer::Multipart::new(frames, boundary)).await {
                Ok(parts) => *reader.lock().unwrap() = Some(parts),
                Err(error) => {
                    eprintln!("reader: {error:?}");
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
            }
            Ok(response)
        }
    };
    let response = layer
        .layer(service_fn(handler))
        .oneshot(request)
        .await
        .unwrap();
    let rejection = response.extensions().get::<Rejection>();
    Outcome {
        status: response.status(),
        reason: rejection.map_or("", Rejection::reason),
        read: read.lock().unwrap().take(),
    }
}

/// A small PNG with `filler` bytes in it.
pub fn png(filler: usize) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = b"\0\0\0\x01\0\0\0\x01\x08\0\0\0\0".to_vec();
    for (name, body) in [
        (b"IHDR", header),
        (b"IDAT", vec![0x5a; filler]),
        (b"IEND", vec![]),
    ] {
        file.extend((body.len() as u32).to_be_bytes());
        file.extend(name);
        file.extend(body);
        file.extend([0; 4]);
    }
    file
}

pub fn part(head: &str, data: &[u8]) -> Vec<u8> {
    [b"--B\r\n", head.as_bytes(), b"\r\n\r\n", data, b"\r\n"].concat()
}

pub fn file(name: &str, media_type: &str, data: &[u8]) -> Vec<u8> {
    let head = format!(
        "Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {media_type}"
    );
    part(&head, data)
}

pub fn untyped(name: &str, data: &[u8]) -> Vec<u8> {
    part(
        &format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\""),
        data,
    )
}

pub fn field(name: &str, data: &[u8]) -> Vec<u8> {
    part(
        &format!("Content-Disposition: form-data; name=\"{name}\""),
        data,
    )
}

pub fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = parts.concat();
    body.extend(b"--B--\r\n");
    body
}

pub const FORM: &str = "multipart/form-data; boundary=B";

/// Every trick by which readers of multipart are set against each other.
pub fn tricks() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain";
    let body = |text: &str| text.as_bytes().to_vec();
    let head = |head: &str| form(&[part(head, b"words")]);
    let named = |rest: &str| head(&format!("Content-Disposition: form-data; {rest}"));
    let whole = form(&[part(FILE, b"words")]);
    let without = |text: &str| {
        String::from_utf8(whole.clone())
            .unwrap()
            .replace(text, "")
            .into_bytes()
    };
    vec![
        ("two boundaries", "multipart/form-data; boundary=A; boundary=B", whole.clone()),
        ("two boundaries, swapped", "multipart/form-data; boundary=B; boundary=A", whole.clone()),
        ("extended boundary", "multipart/form-data; boundary*=B", whole.clone()),
        ("continued boundary", "multipart/form-data; boundary*0=B", whole.clone()),
        ("boundary with a space before =", "multipart/form-data; boundary =B", whole.clone()),
        ("boundary with a comma", "multipart/form-data; boundary=B, x", whole.clone()),
        ("boundary with junk", "multipart/form-data; boundary=B x", whole.clone()),
        ("charset after the boundary", "multipart/form-data; boundary=B; charset=utf-8", whole.clone()),
        ("other subtype", "multipart/mixed; boundary=B", whole.clone()),
        ("preamble", FORM, [b"junk\r\n", &whole[..]].concat()),
        ("empty preamble line", FORM, [b"\r\n", &whole[..]].concat()),
        ("first delimiter inside a line", FORM, [b"junk", &whole[..]].concat()),
        ("parts after the end", FORM, [&whole[..], &whole].concat()),
        ("junk after the end", FORM, [&whole[..], b"junk"].concat()),
        ("end with junk on its line", FORM, without("--B--\r\n").into_iter().chain(*b"--B--junk").collect()),
        ("no end", FORM, without("--B--\r\n")),
        ("end without its dashes", FORM, [&without("--B--\r\n")[..], b"--B"].concat()),
        ("one dash at the end", FORM, [&without("--B--\r\n")[..], b"--B-\r\n"].concat()),
        ("lines end in LF", FORM, without("\r")),
        ("lines end in CR", FORM, without("\n")),
        ("LF before a delimiter", FORM, form(&[part(FILE, b"words\n--B\r\nhidden")])),
        ("CR before a delimiter", FORM, form(&[part(FILE, b"words\r--B\r\nhidden")])),
        ("delimiter inside a line", FORM, form(&[part(FILE, b"words --B\r\nhidden")])),
        ("delimiter at the start of data", FORM, form(&[part(FILE, b"--B\r\nhidden")])),
        ("hidden part behind LF", FORM, form(&[part(FILE, b"words\n--B\nContent-Disposition: form-data; name=\"file\"; filename=\"x.php\"\n\n<?php")])),
        ("head ends in LF LF", FORM, body("--B\r\nContent-Disposition: form-data; name=\"a\"\n\nwords\r\n--B--\r\n")),
        ("delimiter with a longer boundary", FORM, form(&[part(FILE, b"words\r\n--Bxy\r\nhidden")])),
        ("padding after a delimiter", FORM, body("--B \t\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--B--\r\n")),
        ("no head", FORM, body("--B\r\n\r\nwords\r\n--B--\r\n")),
        ("two dispositions", FORM, head(&format!("{FILE}\r\nContent-Disposition: form-data; name=\"x\""))),
        ("two content types", FORM, head(&format!("{FILE}\r\nContent-Type: text/html"))),
        ("two file names", FORM, named("name=\"file\"; filename=\"a.txt\"; filename=\"x.php\"")),
        ("two names", FORM, named("name=\"file\"; name=\"x\"; filename=\"a.txt\"")),
        ("extended file name before", FORM, named("name=\"file\"; filename*=utf-8''x.php; filename=\"a.txt\"")),
        ("extended file name after", FORM, named("name=\"file\"; filename=\"a.txt\"; filename*=utf-8''x.php")),
        ("extended file name alone", FORM, named("name=\"file\"; filename*=utf-8''x.php")),
        ("continued file name", FORM, named("name=\"file\"; filename*0=\"x.\"; filename*1=\"php\"")),
        ("parameter names in capitals", FORM, named("NAME=\"file\"; FileName=\"x.php\"")),
        ("name in a file name", FORM, named("filename=\"x; name=evil; .txt\"; name=\"file\"")),
        ("name in a file name, in order", FORM, named("name=\"file\"; filename=\"x; name=evil; .txt\"")),
        ("file name in a name", FORM, named("name=\"x; filename=ok.txt; \"; filename=\"x.php\"")),
        ("file name in a name, unassigned", FORM, named("name=\"a filename b\"; filename=\"a.txt\"")),
        ("escaped quote", FORM, named("name=\"file\"; filename=\"a\\\".txt\"")),
        ("escape at the end", FORM, named("name=\"file\"; filename=\"a.txt\\\"")),
        ("escaped backslash at the end", FORM, named("name=\"file\"; filename=\"a.txt\\\\\"")),
        ("single quotes", FORM, named("name='file'; filename='a.txt'")),
        ("unclosed quote", FORM, named("name=\"file\"; filename=\"a.txt")),
        ("unquoted with a space", FORM, named("name=file; filename=a b.txt")),
        ("no semicolons", FORM, named("name=\"file\" filename=\"a.txt\"")),
        ("space before =", FORM, named("name=\"file\"; filename =\"a.txt\"")),
        ("NUL in a file name", FORM, named("name=\"file\"; filename=\"x.php\0.txt\"")),
        ("NUL in a name", FORM, named("name=\"fi\0le\"; filename=\"a.txt\"")),
        ("percent-encoded dots", FORM, named("name=\"file\"; filename=\"%2e%2e%2fa.txt\"")),
        ("percent-encoded quote", FORM, named("name=\"file\"; filename=\"a%22.txt\"")),
        ("encoded word", FORM, named("name=\"file\"; filename=\"=?utf-8?q?x=2Ephp?=\"")),
        ("path", FORM, named("name=\"file\"; filename=\"C:\\x\\a.txt\"")),
        ("traversal", FORM, named("name=\"file\"; filename=\"../a.txt\"")),
        ("not UTF-8", FORM, form(&[[b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\xff.txt\"\r\n\r\n", &b"words\r\n"[..]].concat()])),
        ("folded", FORM, head("Content-Disposition: form-data; name=\"file\";\r\n filename=\"a.txt\"")),
        ("disposition attachment", FORM, head("Content-Disposition: attachment; name=\"file\"; filename=\"a.txt\"")),
        ("disposition file", FORM, head("Content-Disposition: file; filename=\"a.txt\"")),
        ("no disposition", FORM, head("Content-Type: text/plain")),
        ("no name", FORM, named("filename=\"a.txt\"")),
        ("empty name", FORM, named("name=\"\"; filename=\"a.txt\"")),
        ("empty file name", FORM, named("name=\"file\"; filename=\"\"")),
        ("base64", FORM, head(&format!("{FILE}\r\nContent-Transfer-Encoding: base64"))),
        ("quoted-printable", FORM, head(&format!("{FILE}\r\nContent-Transfer-Encoding: quoted-printable"))),
        ("binary", FORM, head(&format!("{FILE}\r\nContent-Transfer-Encoding: binary"))),
        ("utf-7", FORM, head("Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain; charset=utf-7")),
        ("utf-16", FORM, head("Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain; charset=utf-16")),
        ("charset field", FORM, form(&[field("_charset_", b"utf-7"), part(FILE, b"words")])),
        ("charset field, in pieces", FORM, form(&[field("_Charset_", b"shift_jis, or any other"), part(FILE, b"words")])),
        ("charset field, UTF-8", FORM, form(&[field("_charset_", b"UTF-8"), part(FILE, b"words")])),
        ("delimiter in a name", FORM, named("name=\"--B\"")),
        ("delimiter in a file name", FORM, named("name=\"file\"; filename=\"--B.txt\"")),
        ("delimiter in a content type", FORM, head("Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain; x=\"--B\"")),
        ("word for file names twice", FORM, named("name=\"a-filenamefilename\"; filename=\"a.txt\"")),
        ("boundary that begins with the stated one", FORM, String::from_utf8(whole.clone()).unwrap().replace("--B", "--BB").into_bytes()),
        ("boundary that the stated one begins with", "multipart/form-data; boundary=BB", whole.clone()),
        ("NUL before a delimiter", FORM, form(&[part(FILE, b"words\0--B\r\nhidden")])),
        ("NUL inside a delimiter", FORM, form(&[part(FILE, b"words\r\n--\0B\r\nhidden")])),
        ("NUL behind a delimiter", FORM, form(&[part(FILE, b"words\r\n--B\0\r\nhidden")])),
        ("NUL in a header's name", FORM, head(&format!("{FILE}\r\nX\0: b"))),
        ("two ends", FORM, [&whole[..], b"--B--\r\n"].concat()),
        ("encoded part", FORM, head(&format!("{FILE}\r\nContent-Encoding: gzip"))),
        ("length of a part", FORM, head(&format!("{FILE}\r\nContent-Length: 1"))),
        ("a form in a form", FORM, head(&format!("{FILE}, multipart/form-data; boundary=B"))),
        ("a message", FORM, head("Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: message/rfc822")),
        ("header without a colon", FORM, head(&format!("{FILE}\r\nX"))),
        ("CR in a header", FORM, head("Content-Disposition: form-data; name=\"a\"\rContent-Type: text/html")),
        ("LF in a header", FORM, head("Content-Disposition: form-data; name=\"a\"\nContent-Type: text/html")),
        ("vertical tab in a header", FORM, head("Content-Disposition: form-data;\x0bname=\"a\"")),
        ("latin charset", FORM, head("Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain; charset=ISO-8859-1")),
        ("charset twice", FORM, head("Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain; charset=utf-8; charset=utf-16")),
        ("both sets of quotes", FORM, named("name=\"file\"; filename=\"'a.txt'\"")),
        ("backslash in a name", FORM, named("name=\"fi\\le\"; filename=\"a.txt\"")),
        ("nested", FORM, head("Content-Disposition: form-data; name=\"file\"\r\nContent-Type: multipart/mixed; boundary=C")),
        ("octet-stream without a file name", FORM, head("Content-Disposition: form-data; name=\"a\"\r\nContent-Type: application/octet-stream")),
        ("forty headers", FORM, head(&format!("{FILE}{}", "\r\nX-A: b".repeat(40)))),
        ("a header of 20 KB", FORM, head(&format!("{FILE}\r\nX-A: {}", "b".repeat(20_000)))),
        ("space before the colon", FORM, head("Content-Disposition : form-data; name=\"a\"")),
        ("unprintable in a header's name", FORM, head(&format!("{FILE}\r\nX\u{7f}: b"))),
        ("plain", FORM, whole.clone()),
        ("empty form", FORM, body("--B--\r\n")),
        ("end without a line end", FORM, whole[..whole.len() - 2].to_vec()),
        ("data that looks like a delimiter", FORM, form(&[part(FILE, b"\r\n--\r\n--A\r\n--b\r\n-\r\n")])),
    ]
}
