//! The service: asks Redis, then calls the inner service that was ready.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::layer::SharedRateLimitLayer;
use crate::{body::RejectionBody, future::ResponseFuture};

/// The service that [`SharedRateLimitLayer`] makes.
#[derive(Clone, Debug)]
pub struct SharedRateLimit<S> {
    inner: S,
    layer: SharedRateLimitLayer,
}

impl<S> SharedRateLimit<S> {
    pub(super) fn new(inner: S, layer: SharedRateLimitLayer) -> Self {
        Self { inner, layer }
    }
}

impl<S, A, B> Service<Request<A>> for SharedRateLimit<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    A: Body + Send + 'static,
    B: RejectionBody + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = SharedRateLimitFuture<B, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let next = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, next);
        let context = self.layer.local().config().context.clone();
        let start = self.layer.begin(&mut request);
        SharedRateLimitFuture(Box::pin(async move {
            match start.decision().await {
                Ok(admitted) => {
                    let mut response = ready.call(request).await?;
                    admitted.finish(&mut response).await;
                    Ok(response)
                }
                Err(rejection) => {
                    drop(ready);
                    let response = context.refuse(&request, rejection);
                    ResponseFuture::<S::Future, B>::refused(request, response).await
                }
            }
        }))
    }
}

/// The future of [`SharedRateLimit`].
pub struct SharedRateLimitFuture<B, E>(
    Pin<Box<dyn Future<Output = Result<Response<B>, E>> + Send>>,
);

impl<B, E> Future for SharedRateLimitFuture<B, E> {
    type Output = Result<Response<B>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<B, E> fmt::Debug for SharedRateLimitFuture<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRateLimitFuture")
            .finish_non_exhaustive()
    }
}
