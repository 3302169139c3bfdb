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

/// The service that [`UploadLayer`](super::UploadLayer) makes.
#[derive(Clone)]
pub struct Upload<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> Upload<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S: fmt::Debug> fmt::Debug for Upload<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, A, B> Service<Request<A>> for Upload<S>
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

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let Config {
            uploads,
            hold,
            context,
            only_if,
        } = &*self.config;
        let head = Head::of(&request);
        let decided = match only_if(head) {
            true => uploads.decide(head, &request.body().size_hint()),
            false => Ok(None),
        };
        match decided {
            Ok(Some(upload)) => {
                let check = upload.apply(&mut request);
                let terms = uploads.terms(*hold);
                let (request, racer) = guarded::watch(request, check, terms, context);
                GuardedFuture::watched(self.inner.call(request), racer)
            }
            Ok(None) => GuardedFuture::open(self.inner.call(request.map(GuardedBody::open))),
            Err(rejection) => {
                let response = context.refuse(&request, rejection);
                GuardedFuture::refused(request, response)
            }
        }
    }
}
