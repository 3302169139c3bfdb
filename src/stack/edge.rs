//! The edge: what stands around the whole service.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::security_stack::Parts;
#[cfg(feature = "headers")]
use crate::headers::Pending;
use crate::{
    body::RejectionBody,
    context::Context,
    event::{EventKind, SecurityEvent},
    head::Head,
    rejection::{Rejection, RejectionKind, WireForm},
};

/// The layer around the whole service: client address, security headers, panic catch, in this
/// order from outside.
///
/// Made by [`SecurityStack::layer`](super::SecurityStack::layer).
#[derive(Clone)]
#[must_use]
pub struct EdgeLayer {
    parts: Arc<Parts>,
}

impl EdgeLayer {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }
}

impl fmt::Debug for EdgeLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge {
            inner,
            parts: self.parts.clone(),
        }
    }
}

/// The service that [`EdgeLayer`] makes.
#[derive(Clone)]
pub struct Edge<S> {
    inner: S,
    parts: Arc<Parts>,
}

impl<S: fmt::Debug> fmt::Debug for Edge<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, A, B> Service<Request<A>> for Edge<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: RejectionBody,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = EdgeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let parts = &*self.parts;
        if let Some(client) = parts.client.resolve(Head::of(&request)) {
            request.extensions_mut().insert(client);
        }
        let form = WireForm::of(Head::of(&request));
        #[cfg(feature = "headers")]
        let headers = parts
            .headers
            .as_ref()
            .map(|headers| headers.begin(&mut request));
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        EdgeFuture {
            inner: inner
                .inspect_err(|panic| report(&parts.context, &**panic))
                .ok(),
            rest: Rest {
                form,
                context: parts.context.clone(),
                #[cfg(feature = "headers")]
                headers,
            },
        }
    }
}

pin_project! {
    /// The future of [`Edge`]. A panic of the service becomes a 500.
    pub struct EdgeFuture<F> {
        // `None` once the service panicked.
        #[pin]
        inner: Option<F>,
        rest: Rest,
    }
}

/// What the answer gets.
struct Rest {
    form: WireForm,
    context: Context,
    #[cfg(feature = "headers")]
    headers: Option<Pending>,
}

impl<F, B, E> Future for EdgeFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: RejectionBody,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => catch_unwind(AssertUnwindSafe(|| inner.poll(cx)))
                .inspect_err(|panic| report(&this.rest.context, &**panic))
                .ok(),
            None => None,
        };
        #[allow(unused_mut, reason = "only headers change it")]
        let mut response = match polled {
            Some(polled) => ready!(polled)?,
            None => {
                this.inner.set(None);
                let rejection = Rejection::new(RejectionKind::Internal, "service", "panic");
                this.rest.context.render(rejection, this.rest.form)
            }
        };
        #[cfg(feature = "headers")]
        if let Some(headers) = this.rest.headers.take() {
            headers.finish(&mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> fmt::Debug for EdgeFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeFuture").finish_non_exhaustive()
    }
}

/// The panic's message goes to the operator alone.
fn report(context: &Context, panic: &(dyn Any + Send)) {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a text");
    tracing::error!(target: "portcullis", "a handler panicked: {}", crate::event::Printable(message));
    context.emit(SecurityEvent::new(EventKind::SysCrash).with_rule("service", "panic"));
}
