//! Bodies that were changed at random, and a reader that is not ours: each is refused, or multer reads
//! exactly what the gate reported.
#![cfg(feature = "upload")]

mod bodies;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bodies::{
    Script,
    form::{FORM, Part, multer_reads, read_parts, tricks},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Head, Rejection,
    guarded::GuardedBody,
    upload::{CheckedFile, CheckedUpload, UploadLayer, UploadPolicy},
};
use tower::{Layer, ServiceExt, service_fn};

/// Xorshift: the same bodies in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % below.max(1)
    }

    fn range(&mut self, of: &[u8]) -> std::ops::Range<usize> {
        let from = self.next(of.len());
        from..from + self.next((of.len() - from).min(60) + 1)
    }
}

/// What the grammar is made of, and what readers of it stumble over.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"--B",
    b"--B\r\n",
    b"--B--",
    b"--B--\r\n",
    b"\r\n--B",
    b"--",
    b"-",
    b"B",
    b"\"",
    b"\\\"",
    b"\\",
    b"'",
    b";",
    b"; ",
    b" ",
    b"\t",
    b"=",
    b":",
    b"\0",
    b"\xff",
    b"name",
    b"name=\"b\"",
    b"; name=\"b\"",
    b"filename",
    b"; filename=\"b.txt\"",
    b"filename=b.txt",
    b"; filename*=utf-8''b.txt",
    b"FileName=\"c.txt\"",
    b"Content-Disposition: form-data; name=\"b\"",
    b"\r\nContent-Disposition: form-data; name=\"b\"\r\n",
    b"\r\nContent-Type: text/plain",
    b"\r\nContent-Type: text/plain; charset=utf-16",
    b"\r\nContent-Transfer-Encoding: base64",
    b"\r\n folded",
    b"form-data",
    b"attachment",
    b"%22",
    b"../",
    b".php",
    b"_charset_",
    b"x",
];

fn mutated(random: &mut Random, mut body: Vec<u8>) -> Vec<u8> {
    for _ in 0..=random.next(4) {
        let range = random.range(&body);
        match random.next(5) {
            0 => drop(body.drain(range)),
            1 => {
                let copied = body[range].to_vec();
                let at = random.next(body.len() + 1);
                body.splice(at..at, copied);
            }
            2 => {
                let token = TOKENS[random.next(TOKENS.len())];
                body.splice(range, token.iter().copied());
            }
            3 if !body.is_empty() => {
                let at = random.next(body.len());
                body[at] = u8::try_from(random.next(256)).unwrap();
            }
            _ => {
                let at = random.next(body.len() + 1);
                let token = TOKENS[random.next(TOKENS.len())];
                body.splice(at..at, token.iter().copied());
            }
        }
    }
    body
}

type Seen = Option<(Vec<Part>, Vec<CheckedFile>)>;

/// Refused by the gate, or what multer read behind it and what the gate reported.
async fn send(layer: &UploadLayer, body: Script) -> Result<(Vec<Part>, Vec<CheckedFile>), u16> {
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let reader = Arc::clone(&seen);
    let handler = move |request: Request<GuardedBody<Script>>| {
        let reader = Arc::clone(&reader);
        async move {
            let upload = CheckedUpload::of(Head::of(&request)).unwrap();
            let boundary =
                multer::parse_boundary(request.headers()["content-type"].to_str().unwrap());
            let frames =
                futures_util::stream::unfold(Box::pin(request.into_body()), async |mut body| {
                    let frame = body.frame().await?;
                    Some((
                        frame.map(|frame| frame.into_data().unwrap_or_default()),
                        body,
                    ))
                });
            let multipart = multer::Multipart::new(frames, boundary.unwrap());
            let parts = read_parts(multipart).await.expect("accepted, and not read");
            *reader.lock().unwrap() = Some((parts, upload.accepted().await.unwrap()));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    };
    let request = Request::post("/")
        .header("content-type", FORM)
        .body(body)
        .unwrap();
    let response = layer
        .layer(service_fn(handler))
        .oneshot(request)
        .await
        .unwrap();
    match response.extensions().get::<Rejection>() {
        Some(_) => Err(response.status().as_u16()),
        None => Ok(seen
            .lock()
            .unwrap()
            .take()
            .expect("an answer without a reading")),
    }
}

/// Files as the gate reported them, and as a reader finds them among the parts.
fn agree(parts: &[Part], files: &[CheckedFile]) -> bool {
    let read = parts.iter().filter_map(|(field, name, bytes)| {
        let name = name.as_deref().filter(|name| !name.is_empty())?;
        Some((field.as_deref()?, name, bytes.len() as u64))
    });
    let told = files
        .iter()
        .map(|file| (file.field(), file.name().unwrap_or_default(), file.bytes()));
    read.eq(told)
}

async fn fuzz(seed: u64, compat: bool, rounds: usize) -> usize {
    let policy = || UploadPolicy::new(["text/plain"]).unwrap();
    let layer = UploadLayer::new(if compat { policy().compat() } else { policy() });
    let plain = b"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nwords\r\n\
        --B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\
        Content-Type: text/plain\r\n\r\nmore\r\nwords\r\n--B\r\n\
        Content-Disposition: form-data; name=\"g\"; filename=\"b.txt\"\r\n\r\n\r\n--B--\r\n";
    let mut bodies: Vec<Vec<u8>> = tricks()
        .into_iter()
        .filter(|(_, content_type, body)| *content_type == FORM && body.len() < 2_000)
        .map(|(.., body)| body)
        .collect();
    bodies.extend(std::iter::repeat_n(plain.to_vec(), bodies.len()));
    let mut random = Random(seed);
    let mut taken = 0;
    for _ in 0..rounds {
        let at = random.next(bodies.len());
        let body = mutated(&mut random, bodies[at].clone());
        let size = 1 + random.next(body.len().max(1));
        let outcome = send(&layer, Script::trickle(&body, size)).await;
        let whole = send(&layer, Script::frames([body.clone()])).await;
        let shown = body.escape_ascii();
        assert_eq!(outcome.is_ok(), whole.is_ok(), "{size}: {shown}");
        let Ok((parts, files)) = outcome else {
            continue;
        };
        taken += 1;
        assert!(agree(&parts, &files), "{shown}\n{parts:?}\n{files:?}");
        assert_eq!(parts, whole.unwrap().0, "{shown}");
        if !compat {
            let alone = multer_reads(FORM, Script::trickle(&body, size)).await;
            assert_eq!(parts, alone.unwrap(), "{shown}");
        }
    }
    taken
}

#[tokio::test]
async fn strictly_multer_reads_what_was_sent_and_reported() {
    let taken = fuzz(0x9e37_79b9_7f4a_7c15, false, 20_000).await;
    assert!(taken > 300, "{taken}");
}

#[tokio::test]
async fn written_anew_multer_reads_what_was_reported() {
    let taken = fuzz(0xd1b5_4a32_d192_ed03, true, 20_000).await;
    assert!(taken > 300, "{taken}");
}
