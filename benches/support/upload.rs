//! Uploads to measure: bodies in frames, what they hold, and who reads them. `benches/upload.rs` and
//! `benches/peers` measure the same ones.
#![allow(dead_code, unreachable_pub)]

use std::{
    convert::Infallible,
    hint::black_box,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};

pub const BOUNDARY: &str = "----WebKitFormBoundaryq3Yj0sTq9XkqEyPV";
pub const FRAME: usize = 64 * 1_024;

/// Frames that are ready at once, or each after one wait, as from a socket.
pub struct Frames {
    body: Bytes,
    size: usize,
    at: usize,
    /// Which bytes of the body come again and again, and how often.
    again: (usize, usize, usize),
    waits: bool,
    waited: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.waits && !mem::replace(&mut self.waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        let (from, to) = (self.at, self.body.len().min(self.at + self.size));
        self.at = to;
        let (begin, end, times) = self.again;
        if to >= end && times > 0 {
            self.at = begin;
            self.again.2 = times - 1;
        }
        Poll::Ready((from < to).then(|| Ok(Frame::data(self.body.slice(from..to)))))
    }
}

pub fn frames(body: &Bytes, size: usize, waits: bool) -> Frames {
    Frames {
        body: body.clone(),
        size,
        at: 0,
        again: (0, 0, 0),
        waits,
        waited: false,
    }
}

/// The second to the ninth frame come `times` more: a reader's buffers are used again too, so what
/// is measured is the work on bytes that the kernel has just copied, and not main memory.
pub fn looped(body: &Bytes, times: usize, waits: bool) -> Frames {
    Frames {
        again: (FRAME, 9 * FRAME, times),
        ..frames(body, FRAME, waits)
    }
}

/// A form with one file.
pub fn form(name: &str, media_type: &str, file: &[u8]) -> Bytes {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {media_type}\r\n\r\n"
    );
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    [head.as_bytes(), file, end.as_bytes()].concat().into()
}

pub fn request<B>(body: B) -> Request<B> {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    Request::post("/")
        .header("content-type", content_type)
        .body(body)
        .unwrap()
}

/// Reads a body to its end.
pub async fn read<B: Body<Data = Bytes> + Unpin>(mut body: B) -> usize {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.into_data().map_or(0, |data| data.len());
    }
    bytes
}

/// Reads all, as a handler does.
pub async fn handler<B: Body<Data = Bytes> + Unpin>(
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    black_box(read(request.into_body()).await);
    Ok(Response::new(Full::default()))
}

pub async fn multer_reads(frames: Frames) -> usize {
    let frames = stream::unfold(frames, async |mut frames| {
        let frame = frames.frame().await?;
        Some((
            frame.map(|frame| frame.into_data().unwrap_or_default()),
            frames,
        ))
    });
    let mut form = multer::Multipart::new(Box::pin(frames), BOUNDARY);
    let mut bytes = 0;
    while let Some(mut field) = form.next_field().await.unwrap() {
        while let Some(chunk) = field.chunk().await.unwrap() {
            bytes += chunk.len();
        }
    }
    bytes
}

pub fn noise(bytes: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    });
    words.take(bytes).collect()
}

/// Random, text, and what is almost a boundary again and again.
pub fn payloads(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let repeat = |text: &str| text.bytes().cycle().take(bytes).collect::<Vec<u8>>();
    let almost = format!("\r\n--{}", &BOUNDARY[..BOUNDARY.len() - 1]);
    vec![
        ("random", noise(bytes)),
        (
            "text",
            repeat("The quick brown fox jumps over the lazy dog, -- and again.\r\n"),
        ),
        ("dashes", repeat("-")),
        ("line ends", repeat("\r\n--")),
        ("near miss", repeat(&almost)),
    ]
}

/// What stands in front of a file whose type has no end to be followed.
pub const GZIP: &[u8] = b"\x1f\x8b\x08\0";

/// Files around so many random bytes, whose end is followed and in which a second one is looked for:
/// their names, types and bytes.
pub fn ended(bytes: usize) -> [(&'static str, &'static str, Vec<u8>); 3] {
    let noise = noise(bytes);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for piece in noise.chunks(8_192).chain([&b""[..]]) {
        png.extend((piece.len() as u32).to_be_bytes());
        png.extend(if piece.is_empty() { b"IEND" } else { b"IDAT" });
        png.extend(piece);
        png.extend([0; 4]);
    }
    let mut jpeg = b"\xff\xd8\xff\xda\0\x02".to_vec();
    for byte in &noise {
        jpeg.push(*byte);
        if *byte == 0xff {
            jpeg.push(0);
        }
    }
    jpeg.extend(b"\xff\xd9");
    let pdf = [b"%PDF-1.7\n", &noise[..], b"\n%%EOF\n"].concat();
    [
        ("a.png", "image/png", png),
        ("a.jpg", "image/jpeg", jpeg),
        ("a.pdf", "application/pdf", pdf),
    ]
}

/// An allow-list.
pub const SIXTEEN: [&str; 16] = [
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/tiff",
    "image/avif",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/x-7z-compressed",
    "audio/mpeg",
    "audio/ogg",
    "video/mp4",
    "video/webm",
    "text/plain",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
];

/// Heads of files: their names, whether they are usual ones, and their bytes.
pub fn heads() -> Vec<(&'static str, bool, Vec<u8>)> {
    let pad = |head: &[u8]| [head, &[0x42; 4_096][head.len()..]].concat();
    vec![
        ("png", true, pad(b"\x89PNG\r\n\x1a\n")),
        ("jpeg", true, pad(b"\xff\xd8\xff\xe0\0\x10JFIF")),
        ("pdf", true, pad(b"%PDF-1.7\n")),
        ("zip", true, pad(b"PK\x03\x04\x14\0\0\0")),
        ("mp4", true, pad(b"\0\0\0\x18ftypisom")),
        ("docx", true, pad(b"PK\x03\x04\x14\0\x06\0")),
        ("nothing", true, pad(b"\x01\x02")),
        ("text", false, pad(b"hello")),
        (
            "text of wide characters",
            false,
            "\u{20ac}".repeat(1_365).into_bytes(),
        ),
        ("white space", false, vec![b' '; 4_096]),
        ("zeros", false, vec![0; 4_096]),
    ]
}

/// The same frame again and again, that many times.
pub struct Repeated(pub usize);

impl Body for Repeated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static DATA: [u8; FRAME] = [0; FRAME];
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(black_box(&DATA))))))
    }
}
