//! A service and a body that notice when a layer breaks a rule of tower or of http-body.

use std::{
    collections::VecDeque,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use portcullis::RejectionBody;
use tower::Service;

/// A body of given data frames and, at its end, trailers; its hints are exact.
#[derive(Debug, Default)]
pub struct TestBody {
    frames: VecDeque<Frame<Bytes>>,
    left: u64,
}

impl TestBody {
    pub fn new(data: &[&'static str], trailers: Option<HeaderMap>) -> Self {
        let left = data.iter().map(|data| data.len() as u64).sum();
        let frames = data
            .iter()
            .map(|data| Frame::data(Bytes::from_static(data.as_bytes())))
            .chain(trailers.map(Frame::trailers))
            .collect();
        Self { frames, left }
    }
}

impl RejectionBody for TestBody {
    fn from_bytes(bytes: Bytes) -> Self {
        Self {
            left: bytes.len() as u64,
            frames: [Frame::data(bytes)].into(),
        }
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = TestError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TestError>>> {
        let frame = self.frames.pop_front();
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            self.left -= data.len() as u64;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// What the probe's own failures are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TestError;

impl std::fmt::Display for TestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the probe failed")
    }
}

impl std::error::Error for TestError {}

/// How the probe is to behave.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    #[default]
    Answer,
    /// `poll_ready` is pending.
    Busy,
    /// `poll_ready` fails.
    Broken,
    /// The answer fails.
    Fail,
}

/// A mark that must survive the way through a layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark(pub u32);

/// What the probe saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub calls: AtomicUsize,
    pub marked: AtomicUsize,
    pub exact: AtomicUsize,
    pub alive: AtomicUsize,
}

/// The inner service: panics when it is called without having been polled ready itself, and its
/// clones are not ready.
#[derive(Debug)]
pub struct Probe {
    pub mode: Mode,
    pub seen: Arc<Seen>,
    ready: bool,
}

impl Probe {
    pub fn new(mode: Mode) -> Self {
        let seen = Arc::new(Seen::default());
        seen.alive.fetch_add(1, Ordering::SeqCst);
        Self {
            mode,
            seen,
            ready: false,
        }
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        self.seen.alive.fetch_add(1, Ordering::SeqCst);
        Self {
            mode: self.mode,
            seen: self.seen.clone(),
            ready: false,
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.seen.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<A: Body> Service<Request<A>> for Probe {
    type Response = Response<TestBody>;
    type Error = TestError;
    type Future = Ready<Result<Response<TestBody>, TestError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TestError>> {
        match self.mode {
            Mode::Busy => Poll::Pending,
            Mode::Broken => Poll::Ready(Err(TestError)),
            Mode::Answer | Mode::Fail => {
                self.ready = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        assert!(self.ready, "called without having been polled ready");
        self.ready = false;
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        if request.extensions().get::<Mark>() == Some(&Mark(1)) {
            self.seen.marked.fetch_add(1, Ordering::SeqCst);
        }
        if request.body().size_hint().exact() == Some(REQUEST_DATA.len() as u64)
            && !request.body().is_end_stream()
        {
            self.seen.exact.fetch_add(1, Ordering::SeqCst);
        }
        if self.mode == Mode::Fail {
            return ready(Err(TestError));
        }
        if request.method() == Method::HEAD {
            let mut response = Response::new(TestBody::default());
            response.headers_mut().insert(CONTENT_LENGTH, 5.into());
            return ready(Ok(response));
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", "kept".parse().unwrap());
        let mut response = Response::new(TestBody::new(&["ab", "cde"], Some(trailers)));
        response.extensions_mut().insert(Mark(2));
        ready(Ok(response))
    }
}

pub const REQUEST_DATA: &str = "{\"a\":1}";
