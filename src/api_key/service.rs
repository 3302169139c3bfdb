//! The service, and its future.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{error::ApiKeyError, keys::Checked, layer::ApiKeyLayer};
use crate::{
    body::RejectionBody, client::Client, future::ResponseFuture, head::Head, rejection::WireForm,
};

/// The service that [`ApiKeyLayer`] makes.
#[derive(Clone, Debug)]
pub struct ApiKeyGate<S> {
    inner: S,
    layer: ApiKeyLayer,
}

impl<S> ApiKeyGate<S> {
    pub(super) fn new(inner: S, layer: ApiKeyLayer) -> Self {
        Self { inner, layer }
    }
}

impl<S, A, B> Service<Request<A>> for ApiKeyGate<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    A: Body + Send + 'static,
    B: RejectionBody + Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ApiKeyFuture<S::Future, B, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let state = match self.layer.decide(Head::of(&request)) {
            Ok(Some(Checked::Ask(presented))) => {
                let clone = self.inner.clone();
                let mut inner = mem::replace(&mut self.inner, clone);
                let layer = self.layer.clone();
                let client = Client::of(Head::of(&request)).and_then(|client| client.ip());
                let answer = async move {
                    match layer.keys().ask(presented, client).await {
                        Ok(key) => {
                            layer.insert(key, &mut request);
                            inner.call(request).await
                        }
                        Err(error) => {
                            drop(inner);
                            let context = layer.context();
                            let response = match &error {
                                // Whoever asked the store has told.
                                ApiKeyError::Store(_) => {
                                    context.render(error.into(), WireForm::of(Head::of(&request)))
                                }
                                _ => context.refuse(&request, error.into()),
                            };
                            ResponseFuture::<S::Future, B>::refused(request, response).await
                        }
                    }
                };
                State::Asking {
                    answer: Box::pin(answer),
                }
            }
            decided => State::Decided {
                inner: match decided {
                    Ok(known) => {
                        if let Some(Checked::Known(key)) = known {
                            self.layer.insert(key, &mut request);
                        }
                        ResponseFuture::admitted(self.inner.call(request))
                    }
                    Err(rejection) => {
                        let response = self.layer.context().refuse(&request, rejection);
                        ResponseFuture::refused(request, response)
                    }
                },
            },
        };
        ApiKeyFuture { state }
    }
}

pin_project! {
    /// The future of [`ApiKeyGate`]: boxed only where the store is asked.
    pub struct ApiKeyFuture<F, B, E> {
        #[pin]
        state: State<F, B, E>,
    }
}

type Answer<B, E> = Pin<Box<dyn Future<Output = Result<Response<B>, E>> + Send>>;

pin_project! {
    #[project = StateProjection]
    enum State<F, B, E> {
        Decided { #[pin] inner: ResponseFuture<F, B> },
        Asking { answer: Answer<B, E> },
    }
}

impl<F, B, E> Future for ApiKeyFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Decided { inner } => inner.poll(cx),
            StateProjection::Asking { answer } => answer.as_mut().poll(cx),
        }
    }
}

impl<F, B, E> fmt::Debug for ApiKeyFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyFuture").finish_non_exhaustive()
    }
}
