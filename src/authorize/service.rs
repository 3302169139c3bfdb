//! The service of every layer of this module.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::layer::Gate;
use crate::{body::RejectionBody, future::ResponseFuture, head::Head};

/// The service that the layers of this module make.
#[derive(Clone, Debug)]
pub struct Authorize<S> {
    inner: S,
    gate: Gate,
}

impl<S> Authorize<S> {
    pub(super) fn new(inner: S, gate: Gate) -> Self {
        Self { inner, gate }
    }
}

impl<S, A, B> Service<Request<A>> for Authorize<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    A: Body + Send + 'static,
    B: RejectionBody,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        match self.gate.decide(Head::of(&request)) {
            Ok(()) => ResponseFuture::admitted(self.inner.call(request)),
            Err(rejection) => {
                let response = self.gate.context().refuse(&request, rejection);
                ResponseFuture::refused(request, response)
            }
        }
    }
}
