//! The future of every gate that decides at once, and the bounded drain of a refused request.
//!
//! A refusal over HTTP/1 reads on for at most 256 KiB or 500 ms before it is given, so that a client
//! that is still sending sees the answer and not a reset. Never with `Expect: 100-continue`, and never
//! over HTTP/2. An admitted request is the inner service's own future, unboxed.
//!
//! Deployment caveat: the time needs Tokio's timer.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Version, header::EXPECT};
use http_body::Body;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;

pin_project! {
    /// The answer of a gate: the inner service's, or the gate's own refusal.
    ///
    /// A refusal first drains what is left of an unfinished HTTP/1 request body, at most 256 KiB
    /// and 500 ms: closing a connection under a client that is still sending resets it, and the
    /// client never sees the answer. A request with `Expect: 100-continue` is not drained, since
    /// its client waits for the answer, nor is one of HTTP/2, which has streams for that.
    pub struct ResponseFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        Admitted { #[pin] inner: F },
        Refused { refusal: Refusal<B> },
    }
}

impl<F, B> ResponseFuture<F, B> {
    /// The inner service answers.
    pub fn admitted(inner: F) -> Self {
        Self {
            state: State::Admitted { inner },
        }
    }

    /// An answer to a request that is gone.
    pub(crate) fn answered(response: Response<B>) -> Self {
        Self {
            state: State::Refused {
                refusal: Refusal::answered(response),
            },
        }
    }

    /// The gate answers `response` to `request`.
    pub fn refused<A>(request: Request<A>, response: Response<B>) -> Self
    where
        A: Body + Send + 'static,
    {
        Self {
            state: State::Refused {
                refusal: Refusal::new(request, response),
            },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Admitted { inner } => inner.poll(cx),
            StateProjection::Refused { refusal } => refusal.poll(cx).map(Ok),
        }
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// A refusal that waits for its drain. For gates whose future has more states than
/// [`ResponseFuture`].
pub(crate) struct Refusal<B> {
    response: Option<Response<B>>,
    drain: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B> Refusal<B> {
    pub(crate) fn new<A>(request: Request<A>, response: Response<B>) -> Self
    where
        A: Body + Send + 'static,
    {
        Self {
            response: Some(response),
            drain: drain(request),
        }
    }

    pub(crate) fn answered(response: Response<B>) -> Self {
        Self {
            response: Some(response),
            drain: None,
        }
    }

    /// A refusal of a request that was given away; `body` is what is left of its body where it is
    /// worth a drain.
    pub(crate) fn late<A>(body: Option<A>, response: Response<B>) -> Self
    where
        A: Body + Send + 'static,
    {
        Self {
            response: Some(response),
            drain: body.and_then(drain_body),
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<B>> {
        if let Some(drain) = &mut self.drain {
            std::task::ready!(drain.as_mut().poll(cx));
            self.drain = None;
        }
        Poll::Ready(self.response.take().expect("polled after completion"))
    }
}

/// Reads a refused request's body to a bound, so that its client reads the answer.
pub(crate) fn drain<A>(request: Request<A>) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>>
where
    A: Body + Send + 'static,
{
    let http1 = request.version() < Version::HTTP_2;
    let waits = request.headers().contains_key(EXPECT);
    if !http1 || waits {
        return None;
    }
    drain_body(request.into_body())
}

fn drain_body<A>(body: A) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>>
where
    A: Body + Send + 'static,
{
    // Without a runtime there is no timer to bound the drain, and no socket to protect.
    if body.is_end_stream() || tokio::runtime::Handle::try_current().is_err() {
        return None;
    }
    Some(Box::pin(async move {
        let mut body = Box::pin(body);
        let read = async {
            let mut left = DRAIN_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.data_ref().map_or(0, bytes::Buf::remaining);
                match left.checked_sub(bytes) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIME, read).await;
    }))
}

const DRAIN_BYTES: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(500);
