//! Bodies of answers: how a gate that refuses says so in the inner service's own body type.
//!
//! A gate keeps the type of the body behind it, so that layers do not nest types and `option_layer`
//! works. The body has to be one that a refusal can be put into ([`RejectionBody`]); any other takes
//! an [`OwnBodyLayer`] innermost.
//!
//! Deployment caveat: a body of one's own that implements [`RejectionBody`] must give back exactly
//! the bytes, or clients read broken refusals.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Full};
//! use portcullis::RejectionBody;
//!
//! # tokio_test::block_on(async {
//! let refusal = Full::from_bytes(Bytes::from("{}"));
//! assert_eq!(refusal.collect().await.unwrap().to_bytes(), "{}");
//! # });
//! ```

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{
    BodyExt as _, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// A response body that can also hold a gate's own few bytes.
///
/// Gates keep the inner service's body type and build refusals in it. It is implemented for
/// [`Full<Bytes>`], the boxed bodies of `http-body-util`, [`ResponseBody`], and, behind features,
/// the bodies of axum and tonic. Put [`OwnBodyLayer`] innermost for any other body.
#[diagnostic::on_unimplemented(
    message = "portcullis cannot build a refusal in the response body `{Self}`",
    note = "put `portcullis::OwnBodyLayer` around the service, inside every gate"
)]
pub trait RejectionBody: Sized {
    /// A body of exactly `bytes`.
    fn from_bytes(bytes: Bytes) -> Self;
}

impl RejectionBody for Full<Bytes> {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl<E> RejectionBody for BoxBody<Bytes, E> {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::new(Full::new(bytes).map_err(|never| match never {}))
    }
}

impl<E> RejectionBody for UnsyncBoxBody<Bytes, E> {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::new(Full::new(bytes).map_err(|never| match never {}))
    }
}

#[cfg(feature = "axum")]
impl RejectionBody for axum::body::Body {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::from(bytes)
    }
}

#[cfg(feature = "tonic")]
impl RejectionBody for tonic::body::Body {
    fn from_bytes(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self::new(Full::new(bytes))
        }
    }
}

impl<B> RejectionBody for ResponseBody<B> {
    fn from_bytes(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Own {
                own: Full::new(bytes),
            },
        }
    }
}

pin_project! {
    /// The body of a service behind [`OwnBodyLayer`]: the inner body, or a gate's own bytes.
    ///
    /// Its [`Default`] is empty and asks nothing of `B`.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Own { own: Full<Bytes> },
        Inner { #[pin] inner: B },
    }
}

impl<B> ResponseBody<B> {
    /// The inner body, passed through.
    pub fn inner(inner: B) -> Self {
        Self {
            kind: Kind::Inner { inner },
        }
    }
}

impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::from_bytes(Bytes::new())
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Own { own } => {
                Pin::new(own).poll_frame(cx).map_err(|never| match never {})
            }
            KindProjection::Inner { inner } => inner.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own { own } => own.is_end_stream(),
            Kind::Inner { inner } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own { own } => own.size_hint(),
            Kind::Inner { inner } => inner.size_hint(),
        }
    }
}

/// Gives a service of any response body one that gates can refuse in: [`ResponseBody`].
///
/// Stands innermost, once.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use portcullis::OwnBodyLayer;
/// use tower::{ServiceBuilder, service_fn};
///
/// // `Empty` cannot hold a refusal; behind `OwnBodyLayer` it can.
/// let service = ServiceBuilder::new()
///     // gates stand here
///     .layer(OwnBodyLayer::new())
///     .service(service_fn(async |_: Request<Empty<Bytes>>| {
///         Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
///     }));
/// # drop(service);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct OwnBodyLayer(());

impl OwnBodyLayer {
    /// The layer.
    pub const fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for OwnBodyLayer {
    type Service = OwnBody<S>;

    fn layer(&self, inner: S) -> OwnBody<S> {
        OwnBody { inner }
    }
}

/// The service that [`OwnBodyLayer`] makes.
#[derive(Clone, Debug)]
pub struct OwnBody<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for OwnBody<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = OwnBodyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        OwnBodyFuture {
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`OwnBody`].
    #[derive(Debug)]
    pub struct OwnBodyFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, B, E> Future for OwnBodyFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().inner.poll(cx))?;
        Poll::Ready(Ok(response.map(ResponseBody::inner)))
    }
}
