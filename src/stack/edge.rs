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
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::security_stack::Parts;
#[cfg(feature = "cors")]
use crate::cors;
#[cfg(feature = "headers")]
use crate::headers::Pending;
use crate::{
    body::RejectionBody,
    context::Context,
    event::{EventKind, SecurityEvent},
    future::ResponseFuture,
    head::Head,
    https,
    rejection::{Rejection, RejectionKind, WireForm},
};

/// The layer around the whole service: client address, security headers, panic catch, CORS, hosts
/// and HTTPS, cross-site requests, in this order from outside.
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
    A: Body + Send + 'static,
    B: RejectionBody,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = EdgeFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let parts = &*self.parts;
        if let Some(client) = parts.client.resolve(Head::of(&request)) {
            client.leave(request.extensions_mut());
        }
        let form = WireForm::of(Head::of(&request));
        #[cfg(feature = "headers")]
        let headers = parts
            .headers
            .as_ref()
            .map(|headers| headers.begin(&mut request));
        let mut rest = Rest {
            form,
            parts: self.parts.clone(),
            #[cfg(feature = "headers")]
            headers,
            #[cfg(feature = "cors")]
            cors: None,
        };
        let inner = catch_unwind(AssertUnwindSafe(|| match rest.admit(Head::of(&request)) {
            Ok(()) => ResponseFuture::admitted(self.inner.call(request)),
            Err(turned) => {
                let response = turned.answer(&request, &parts.context);
                ResponseFuture::refused(request, response)
            }
        }));
        let inner = inner.unwrap_or_else(|panic| rest.panicked(&*panic));
        EdgeFuture { inner, rest }
    }
}

/// A request that goes no further, and its answer.
enum Turned {
    #[cfg(feature = "cors")]
    Preflight(http::HeaderMap),
    Redirected(http::HeaderValue),
    Refused(Rejection),
}

impl Turned {
    fn answer<A, B: RejectionBody>(self, request: &Request<A>, context: &Context) -> Response<B> {
        match self {
            #[cfg(feature = "cors")]
            Self::Preflight(headers) => {
                let mut response = Response::new(B::from_bytes(bytes::Bytes::new()));
                *response.headers_mut() = headers;
                response
            }
            Self::Redirected(location) => https::redirect(location),
            Self::Refused(rejection) => context.refuse(request, rejection),
        }
    }
}

/// What the answer gets.
struct Rest {
    form: WireForm,
    parts: Arc<Parts>,
    #[cfg(feature = "headers")]
    headers: Option<Pending>,
    /// `None` where nothing was asked, or was answered.
    #[cfg(feature = "cors")]
    cors: Option<cors::Named>,
}

impl Rest {
    /// The gates of the edge that decide, in their order.
    fn admit(&mut self, head: Head<'_>) -> Result<(), Turned> {
        #[cfg(feature = "cors")]
        if let Some(cors) = &self.parts.cors {
            match cors.gate.decide(head) {
                cors::Verdict::Answered(headers) => return Err(Turned::Preflight(headers)),
                cors::Verdict::Admitted(named) => self.cors = Some(named),
            }
        }
        if let Some(https) = &self.parts.https {
            match https.decide(head) {
                https::Verdict::Admitted => {}
                https::Verdict::Redirected(location) => return Err(Turned::Redirected(location)),
                https::Verdict::Refused(rejection) => return Err(Turned::Refused(rejection)),
            }
        }
        #[cfg(feature = "csrf")]
        if let Some(csrf) = &self.parts.csrf {
            csrf.decide(head).map_err(Turned::Refused)?;
        }
        Ok(())
    }

    /// The panic's message goes to the operator alone.
    fn panicked<F, B: RejectionBody>(&self, panic: &(dyn Any + Send)) -> ResponseFuture<F, B> {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("not a text");
        tracing::error!(target: "portcullis", "a handler panicked: {}", crate::event::Printable(message));
        let context = &self.parts.context;
        context.emit(SecurityEvent::new(EventKind::SysCrash).with_rule("service", "panic"));
        let rejection = Rejection::new(RejectionKind::Internal, "service", "panic");
        ResponseFuture::answered(context.render(rejection, self.form))
    }

    /// Puts on the answer what the gates have for it, from the inside.
    #[allow(unused_variables, reason = "without any such gate")]
    fn finish<B>(&mut self, response: &mut Response<B>) {
        #[cfg(feature = "cors")]
        if let Some(cors) = &self.parts.cors
            && let Some(named) = self.cors.take()
        {
            cors.gate.finish(named, response.headers_mut());
        }
        #[cfg(feature = "headers")]
        if let Some(headers) = self.headers.take() {
            headers.finish(response);
        }
    }
}

pin_project! {
    /// The future of [`Edge`]. A panic of the service becomes a 500.
    pub struct EdgeFuture<F, B> {
        #[pin]
        inner: ResponseFuture<F, B>,
        rest: Rest,
    }
}

impl<F, B, E> Future for EdgeFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: RejectionBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let polled = catch_unwind(AssertUnwindSafe(|| this.inner.as_mut().poll(cx)));
        let polled = polled.unwrap_or_else(|panic| {
            this.inner.set(this.rest.panicked(&*panic));
            this.inner.poll(cx)
        });
        let mut response = ready!(polled)?;
        this.rest.finish(&mut response);
        Poll::Ready(Ok(response))
    }
}

impl<F, B> fmt::Debug for EdgeFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeFuture").finish_non_exhaustive()
    }
}
