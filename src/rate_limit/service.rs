//! The service: decides at once, and calls the inner service directly.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    future::{RateLimitFuture, State},
    layer::RateLimitLayer,
};
use crate::{body::RejectionBody, context, head::Head, rejection::Rejection};

/// The service that [`RateLimitLayer`] makes.
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S> RateLimit<S> {
    pub(super) fn new(inner: S, layer: RateLimitLayer) -> Self {
        Self { inner, layer }
    }
}

impl<S, A, B> Service<Request<A>> for RateLimit<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    A: Body + Send + 'static,
    B: RejectionBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RateLimitFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<A>) -> Self::Future {
        let context = &self.layer.config().context;
        match self.layer.decide(Head::of(&request), context.monotonic()) {
            // Built where it is returned: each move of a future costs as much as a lookup.
            Ok(admitted) => RateLimitFuture {
                state: State::Admitted {
                    inner: self.inner.call(request),
                    admitted,
                },
            },
            Err(rejection) => refuse(context, request, rejection),
        }
    }
}

/// Apart, so that the request is not moved to and fro for it on the way of the admitted.
#[cold]
#[inline(never)]
fn refuse<F, A, B>(
    context: &context::Context,
    request: Request<A>,
    rejection: Rejection,
) -> RateLimitFuture<F, B>
where
    A: Body + Send + 'static,
    B: RejectionBody,
{
    let response = context.refuse(&request, rejection);
    RateLimitFuture::refused(request, response)
}
