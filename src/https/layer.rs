//! The layer that serves its own hosts over HTTPS.

use std::{
    sync::Arc,
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, LOCATION},
};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::policy::{HttpsPolicy, Verdict};
use crate::{body::RejectionBody, context::Context, future::ResponseFuture, head::Head};

/// Serves its own hosts, over HTTPS; the rules stand in the [module](super).
#[derive(Clone, Debug)]
#[must_use]
pub struct HttpsLayer {
    config: Arc<Config>,
}

#[derive(Clone, Debug)]
struct Config {
    policy: HttpsPolicy,
    context: Context,
    only_if: Option<fn(Head<'_>) -> bool>,
}

impl HttpsLayer {
    /// Goes by `policy`.
    pub fn new(policy: HttpsPolicy) -> Self {
        Self {
            config: Arc::new(Config {
                policy,
                context: Context::new(),
                only_if: None,
            }),
        }
    }

    /// Sends events to this context and renders refusals as it says.
    pub fn with_context(mut self, context: Context) -> Self {
        Arc::make_mut(&mut self.config).context = context;
        self
    }

    /// Lets other requests pass.
    pub fn only_if(mut self, only_if: fn(Head<'_>) -> bool) -> Self {
        Arc::make_mut(&mut self.config).only_if = Some(only_if);
        self
    }
}

impl<S> Layer<S> for HttpsLayer {
    type Service = Https<S>;

    fn layer(&self, inner: S) -> Https<S> {
        Https {
            inner,
            config: Arc::clone(&self.config),
        }
    }
}

/// The service that [`HttpsLayer`] makes.
#[derive(Clone, Debug)]
pub struct Https<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S, A, B> Service<Request<A>> for Https<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    A: Body + Send + 'static,
    B: RejectionBody,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let head = Head::of(&request);
        let passes = self.config.only_if.is_some_and(|only_if| !only_if(head));
        if passes {
            return ResponseFuture::admitted(self.inner.call(request));
        }
        match self.config.policy.decide(head) {
            Verdict::Admitted => ResponseFuture::admitted(self.inner.call(request)),
            Verdict::Redirected(location) => ResponseFuture::refused(request, redirect(location)),
            Verdict::Refused(rejection) => {
                let response = self.config.context.refuse(&request, rejection);
                ResponseFuture::refused(request, response)
            }
        }
    }
}

/// The answer that sends a client to HTTPS.
pub(crate) fn redirect<B: RejectionBody>(location: HeaderValue) -> Response<B> {
    let mut response = Response::new(B::from_bytes(Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, AN_HOUR);
    response
}

/// A change of mind reaches everybody within an hour.
const AN_HOUR: HeaderValue = HeaderValue::from_static("max-age=3600");
