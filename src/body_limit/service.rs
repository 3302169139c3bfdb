//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::layer::Config;
use crate::{
    body::RejectionBody,
    guarded::{self, BoxError, GuardedBody, GuardedFuture},
    head::Head,
};

/// The service that [`BodyLimitLayer`](super::BodyLimitLayer) makes.
#[derive(Clone)]
pub struct BodyLimit<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> BodyLimit<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S: fmt::Debug> fmt::Debug for BodyLimit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyLimit")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, A, B> Service<Request<A>> for BodyLimit<S>
where
    S: Service<Request<GuardedBody<A>>, Response = Response<B>>,
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: RejectionBody,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let Config {
            limit,
            context,
            only_if,
        } = &*self.config;
        let head = Head::of(&request);
        if request.body().is_end_stream() || !only_if(head) {
            return GuardedFuture::open(self.inner.call(request.map(GuardedBody::open)));
        }
        match limit.decide(head, &request.body().size_hint()) {
            Ok(counter) => {
                let (request, racer) = guarded::count(request, counter, limit.terms(), context);
                GuardedFuture::watched(self.inner.call(request), racer)
            }
            Err(rejection) => {
                let response = context.refuse(&request, rejection);
                GuardedFuture::refused(request, response)
            }
        }
    }
}
