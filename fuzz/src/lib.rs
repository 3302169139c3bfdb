//! What the targets share: requests written as text, a body that misbehaves, and a runtime in which
//! nobody waits.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use portcullis::{Context, event::SecurityEvent};
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt as _};

pub type Answer = Response<Full<Bytes>>;
pub type Ask = Request<Full<Bytes>>;

/// The time of tests: who waits for a deadline is at it at once.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
});

pub fn run<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// What a service answers.
pub fn ask<S, A, B>(service: S, request: Request<A>) -> Response<B>
where
    S: Service<Request<A>, Response = Response<B>, Error = Infallible>,
{
    run(service.oneshot(request)).unwrap()
}

/// How often a handler ran: it may outlive its request, so it borrows nothing.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// A handler runs.
pub fn runs() {
    RUNS.fetch_add(1, Ordering::Relaxed);
}

/// Whether a handler ran since this was asked last.
pub fn ran() -> bool {
    match RUNS.swap(0, Ordering::Relaxed) {
        0 => false,
        once => once == 1 || panic!("a handler ran {once} times"),
    }
}

/// A context that writes nothing.
pub fn quiet() -> Context {
    Context::new().with_events_inline(|_: &SecurityEvent| {})
}

/// Puts values in the place of names in braces: what is secret stands in no corpus.
pub fn fill(text: &[u8], values: &[(&str, &str)]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let place = values
            .iter()
            .find(|(name, _)| rest.starts_with(name.as_bytes()));
        match place {
            Some((name, value)) => {
                filled.extend_from_slice(value.as_bytes());
                rest = &rest[name.len()..];
            }
            None => {
                filled.push(*first);
                rest = behind;
            }
        }
    }
    filled
}

/// A request as it is written on the wire, with `\n` for the ends of lines. Lines that no server
/// would hand on are left out.
pub fn request(text: &[u8]) -> Option<Ask> {
    let (head, body) = match text.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&text[..at], &text[at + 2..]),
        None => (text, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = Method::from_bytes(first.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(first.next()?).ok()?;
    *request.version_mut() = match first.next() {
        Some(b"HTTP/2") => Version::HTTP_2,
        Some(b"HTTP/1.0") => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    *request.headers_mut() = fields(lines);
    Some(request)
}

/// Header fields, a line each.
pub fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

/// All values of a field.
pub fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect()
}

/// All values of a cookie, read as RFC 6265 section 5.4 writes them.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    for field in headers.get_all("cookie") {
        for pair in field.as_bytes().split(|byte| *byte == b';') {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            if let (Some(own), Some(value)) = (parts.next(), parts.next())
                && own.trim_ascii() == name.as_bytes()
            {
                found.push(value.trim_ascii());
            }
        }
    }
    found
}

/// Whether a text holds another one that is long enough not to be there by chance.
pub fn holds(text: &[u8], secret: &[u8]) -> bool {
    secret.len() >= 8 && text.windows(secret.len()).any(|window| window == secret)
}

/// The bytes of a body that is there already.
pub fn bytes<B: Body<Data = Bytes>>(body: B) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    use http_body_util::BodyExt as _;
    run(body.collect()).unwrap().to_bytes()
}

/// Data in frames of a size.
pub fn framed(data: &[u8], size: usize) -> Script {
    Script::of(
        data.chunks(size.max(1))
            .map(|data| Step::Data(Bytes::copy_from_slice(data))),
    )
}

/// A body that goes by a script.
#[derive(Debug, Default)]
pub struct Script {
    steps: VecDeque<Step>,
    hint: SizeHint,
}

#[derive(Debug)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Error,
    Wait,
    Stall,
}

impl Script {
    fn of(steps: impl Iterator<Item = Step>) -> Self {
        Self {
            steps: steps.collect(),
            hint: SizeHint::default(),
        }
    }

    /// Steps with `\x1f` between them: the first byte says what it is.
    pub fn read(text: &[u8]) -> Self {
        let steps = text.split(|byte| *byte == 0x1f).map(|step| match step {
            [b't', rest @ ..] => Step::Trailers(fields(rest.split(|byte| *byte == b'\n'))),
            [b'e', ..] => Step::Error,
            [b'w', ..] => Step::Wait,
            [b's', ..] => Step::Stall,
            [b'd', rest @ ..] => Step::Data(Bytes::copy_from_slice(rest)),
            all => Step::Data(Bytes::copy_from_slice(all)),
        });
        Self::of(steps.filter(|step| !matches!(step, Step::Data(data) if data.is_empty())))
    }

    /// The data of all frames.
    pub fn data(&self) -> Vec<u8> {
        let data = self.steps.iter().filter_map(|step| match step {
            Step::Data(data) => Some(&data[..]),
            _ => None,
        });
        data.collect::<Vec<_>>().concat()
    }

    /// The same, which states what a `Content-Length` that a server has read would say.
    pub fn stating(self, bytes: Option<u64>) -> Self {
        let hint = bytes.map_or_else(SizeHint::default, SizeHint::with_exact);
        Self { hint, ..self }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Trailers(fields)) => Poll::Ready(Some(Ok(Frame::trailers(fields)))),
            Some(Step::Error) => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Stall) => {
                self.steps.push_front(Step::Stall);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.clone()
    }
}
