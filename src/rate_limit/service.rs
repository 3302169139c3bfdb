//! The service: decides at once, and calls the inner service directly.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    future::{RateLimitFuture, State},
    layer::RateLimitLayer,
};
use crate::{body::RejectionBody, context, rejection::Rejection};

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
    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let config = self.layer.config();
        // Looks at the extensions alone: a request whose own address is shown around is copied
        // when it goes on.
        match config.charge(request.extensions_mut(), config.context.monotonic()) {
            // Built where it is returned: each move of a future costs as much as a lookup.
            Some(Ok(left)) => RateLimitFuture {
                state: State::Admitted {
                    inner: self.inner.call(request),
                    admitted: self.layer.admitted_alone(left),
                },
            },
            Some(Err(denied)) => refuse(&config.context, request, config.refuse_alone(denied)),
            None => self.call_together(request),
        }
    }
}

impl<S> RateLimit<S> {
    /// The way of requests that are not a matter of one slot.
    #[inline(never)]
    fn call_together<A, B>(&mut self, mut request: Request<A>) -> RateLimitFuture<S::Future, B>
    where
        S: Service<Request<A>, Response = Response<B>>,
        A: Body + Send + 'static,
        B: RejectionBody,
    {
        let context = &self.layer.config().context;
        let now = context.monotonic();
        match self.layer.decide_together(&mut request, now) {
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
    mut request: Request<A>,
    rejection: Rejection,
) -> RateLimitFuture<F, B>
where
    A: Body + Send + 'static,
    B: RejectionBody,
{
    let response = context.refuse_last(&mut request, rejection);
    RateLimitFuture::refused(request, response)
}
