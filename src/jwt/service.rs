//! The service.

use std::{
    fmt,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use serde::de::DeserializeOwned;
use tower_service::Service;

use super::{authenticate::Authenticate as _, layer::JwtLayer};
use crate::{body::RejectionBody, future::ResponseFuture, head::Head};

/// The service that [`JwtLayer`] makes.
pub struct Jwt<S, C = ()> {
    inner: S,
    layer: JwtLayer<C>,
}

impl<S, C> Jwt<S, C> {
    pub(super) fn new(inner: S, layer: JwtLayer<C>) -> Self {
        Self { inner, layer }
    }
}

impl<S: Clone, C> Clone for Jwt<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Jwt<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S, C, A, B> Service<Request<A>> for Jwt<S, C>
where
    S: Service<Request<A>, Response = Response<B>>,
    C: DeserializeOwned + Send + Sync + 'static,
    A: Body + Send + 'static,
    B: RejectionBody,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        match self.layer.authenticate(Head::of(&request)) {
            Ok(grant) => {
                if let Some(grant) = grant {
                    grant.insert(&mut request);
                }
                ResponseFuture::admitted(self.inner.call(request))
            }
            Err(rejection) => {
                let response = self.layer.context().refuse(&request, rejection);
                ResponseFuture::refused(request, response)
            }
        }
    }
}
