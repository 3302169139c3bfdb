//! The layer that puts the policy on every answer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::policy::{Pending, SecurityHeaders};
use crate::head::Head;

/// Puts security headers on every answer. It stands outside every gate, so that refusals have them
/// too, and inside [`ClientLayer`](crate::ClientLayer), which knows whether the client speaks HTTPS.
///
/// It takes no [`Context`](crate::Context): it refuses nothing and reads no clock.
#[derive(Clone)]
#[must_use]
pub struct SecurityHeadersLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
struct Config {
    headers: SecurityHeaders,
    only_if: Option<fn(Head<'_>) -> bool>,
}

impl SecurityHeadersLayer {
    /// Applies `headers`.
    pub fn new(headers: SecurityHeaders) -> Self {
        Self {
            config: Arc::new(Config {
                headers,
                only_if: None,
            }),
        }
    }

    /// Leaves the answers to other requests as they are.
    pub fn only_if(mut self, only_if: fn(Head<'_>) -> bool) -> Self {
        Arc::make_mut(&mut self.config).only_if = Some(only_if);
        self
    }
}

impl Default for SecurityHeadersLayer {
    fn default() -> Self {
        Self::new(SecurityHeaders::new())
    }
}

impl fmt::Debug for SecurityHeadersLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityHeadersLayer")
            .field("headers", &self.config.headers)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for SecurityHeadersLayer {
    type Service = SecurityHeadersService<S>;

    fn layer(&self, inner: S) -> SecurityHeadersService<S> {
        SecurityHeadersService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`SecurityHeadersLayer`] makes.
#[derive(Clone, Debug)]
pub struct SecurityHeadersService<S> {
    inner: S,
    layer: SecurityHeadersLayer,
}

impl<S, A, B> Service<Request<A>> for SecurityHeadersService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = SecurityHeadersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let config = &self.layer.config;
        let applies = config
            .only_if
            .is_none_or(|only_if| only_if(Head::of(&request)));
        let pending = applies.then(|| config.headers.begin(&mut request));
        SecurityHeadersFuture {
            inner: self.inner.call(request),
            pending,
        }
    }
}

pin_project! {
    /// The future of [`SecurityHeadersService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct SecurityHeadersFuture<F> {
        #[pin]
        inner: F,
        pending: Option<Pending>,
    }
}

impl<F, B, E> Future for SecurityHeadersFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(pending) = this.pending.take() {
            pending.finish(&mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> fmt::Debug for SecurityHeadersFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityHeadersFuture")
            .finish_non_exhaustive()
    }
}
