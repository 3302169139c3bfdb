//! The future of the gate: the inner answer with its fields, or the refusal.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;

use super::layer::Admitted;
use crate::future::Refusal;

pin_project! {
    /// The future of [`RateLimit`](super::RateLimit).
    pub struct RateLimitFuture<F, B> {
        #[pin]
        pub(super) state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    pub(super) enum State<F, B> {
        Admitted { #[pin] inner: F, admitted: Admitted },
        Refused { refusal: Refusal<B> },
    }
}

impl<F, B> RateLimitFuture<F, B> {
    pub(super) fn refused<A>(request: Request<A>, response: Response<B>) -> Self
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

impl<F, B, E> Future for RateLimitFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            // The answer goes straight to the caller where nothing is written into it: each move of
            // a response costs 20 ns.
            StateProjection::Admitted { inner, admitted } if !admitted.has_more() => inner.poll(cx),
            StateProjection::Admitted { inner, admitted } => finish(inner, admitted, cx),
            StateProjection::Refused { refusal } => refusal.poll(cx).map(Ok),
        }
    }
}

#[inline(never)]
fn finish<F, B, E>(
    inner: Pin<&mut F>,
    admitted: &Admitted,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<B>, E>>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    // Where the caller wants it: see above.
    let mut answer = inner.poll(cx);
    if let Poll::Ready(Ok(response)) = &mut answer {
        admitted.finish(response);
    }
    answer
}

impl<F, B> fmt::Debug for RateLimitFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitFuture").finish_non_exhaustive()
    }
}
