//! Multipart, differential: a body is refused, or the gate and multer behind it read the same parts,
//! however it came in frames; read strictly, multer alone reads the same bytes the same way. The first
//! byte chooses the grammar, the second the size of the frames.
#![no_main]

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Head,
    upload::{CheckedFile, CheckedUpload, UploadLayer, UploadPolicy},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

const FORM: &str = "multipart/form-data; boundary=B";

/// A part as a reader sees it: field name, file name, bytes.
type Part = (Option<String>, Option<String>, Bytes);

struct Setup {
    runtime: tokio::runtime::Runtime,
    strict: UploadLayer,
    compat: UploadLayer,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let policy = || UploadPolicy::new(["text/plain", "image/png"]).unwrap();
    Setup {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap(),
        strict: UploadLayer::new(policy()),
        compat: UploadLayer::new(policy().compat()),
    }
});

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

fn frames(body: &[u8], size: usize) -> Frames {
    let pieces = body.chunks(size).map(Bytes::copy_from_slice);
    pieces.map(|piece| Ok(Frame::data(piece))).collect()
}

async fn read<B>(body: B, content_type: &str) -> Result<Vec<Part>, multer::Error>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let boundary = multer::parse_boundary(content_type)?;
    let mut form = multer::Multipart::new(body.into_data_stream(), boundary);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await? {
        let (name, file) = (
            field.name().map(String::from),
            field.file_name().map(String::from),
        );
        parts.push((name, file, field.bytes().await?));
    }
    Ok(parts)
}

/// What multer read behind the gate, and what the gate says of it; `None`: refused.
async fn behind(layer: &UploadLayer, frames: Frames) -> Option<(Vec<Part>, Vec<CheckedFile>)> {
    let seen = Arc::new(Mutex::new(None));
    let handler = {
        let seen = Arc::clone(&seen);
        move |request: Request<_>| {
            let seen = Arc::clone(&seen);
            async move {
                let upload = CheckedUpload::of(Head::of(&request)).unwrap();
                let content_type = request.headers()["content-type"]
                    .to_str()
                    .unwrap()
                    .to_owned();
                let parts = read(request.into_body(), &content_type)
                    .await
                    .expect("accepted, and not read");
                let files = upload
                    .accepted()
                    .await
                    .expect("read to its end, and not accepted");
                *seen.lock().unwrap() = Some((parts, files));
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        }
    };
    let body = StreamBody::new(stream::iter(frames));
    let request = Request::post("/")
        .header("content-type", FORM)
        .body(body)
        .unwrap();
    let answer = layer
        .layer(service_fn(handler))
        .oneshot(request)
        .await
        .unwrap();
    let seen = seen.lock().unwrap().take();
    match answer.status().as_u16() {
        200 => Some(seen.expect("a success without a reading")),
        status => {
            assert!((400..500).contains(&status), "{status}");
            None
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [grammar, size, body @ ..] = input else {
        return;
    };
    let strict = grammar % 2 == 0;
    let layer = if strict { &SETUP.strict } else { &SETUP.compat };
    SETUP.runtime.block_on(async {
        let size = usize::from(*size).max(1);
        let whole = behind(layer, frames(body, body.len().max(1))).await;
        let cut = behind(layer, frames(body, size)).await;
        let Some((parts, files)) = cut else {
            assert!(whole.is_none(), "taken whole, refused in frames of {size}");
            return;
        };
        assert_eq!(
            Some(&parts),
            whole.as_ref().map(|(parts, _)| parts),
            "in frames of {size}"
        );
        let read_files: Vec<_> = parts
            .iter()
            .filter(|(_, name, _)| name.as_ref().is_some_and(|name| !name.is_empty()))
            .map(|(field, name, bytes)| {
                (
                    field.as_deref().unwrap(),
                    name.as_deref(),
                    bytes.len() as u64,
                )
            })
            .collect();
        let told: Vec<_> = files
            .iter()
            .map(|file| (file.field(), file.name(), file.bytes()))
            .collect();
        assert_eq!(read_files, told, "other files than were checked");
        if strict {
            let body = StreamBody::new(stream::iter(frames(body, size)));
            let alone = read(body, FORM)
                .await
                .expect("accepted, and multer alone does not read it");
            assert_eq!(alone, parts, "behind the gate and without it");
        }
    });
});
