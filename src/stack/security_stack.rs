//! The parts of a service's security, put together once.

use std::{fmt, sync::Arc};

use tower::ServiceBuilder;
use tower_layer::Layer as _;

use super::{
    edge::{Edge, EdgeLayer},
    guard::{Guard, GuardLayer},
};
#[cfg(feature = "headers")]
use crate::headers::SecurityHeaders;
#[cfg(feature = "jwt")]
use crate::jwt::{Authenticate, JwtLayer};
#[cfg(feature = "rate-limit")]
use crate::rate_limit::RateLimitLayer;
use crate::{
    body::{OwnBody, OwnBodyLayer},
    client::ClientLayer,
    client::TrustedProxies,
    context::Context,
    error::ConfigError,
};

/// The gates of a service, in the written order. A clone is a reference count.
///
/// It hands out two layers, each one service that asks its gates in turn: [`layer`](Self::layer)
/// stands around the whole service, [`route`](Self::route) around one route. A part that is not set
/// is not there; a [`Guard`] that asks for it is a [`ConfigError`].
#[derive(Clone)]
#[must_use]
pub struct SecurityStack {
    parts: Arc<Parts>,
}

/// What the layers of a stack share.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) context: Context,
    pub(super) client: ClientLayer,
    #[cfg(feature = "headers")]
    pub(super) headers: Option<SecurityHeaders>,
    #[cfg(feature = "rate-limit")]
    pub(super) limits: Option<RateLimitLayer>,
    #[cfg(feature = "jwt")]
    pub(super) authentication: Option<Arc<dyn Authenticate>>,
}

impl SecurityStack {
    /// A stack without gates: it finds the client and catches panics.
    pub fn new(context: Context) -> Self {
        Self {
            parts: Arc::new(Parts {
                context,
                client: ClientLayer::new(TrustedProxies::none()),
                #[cfg(feature = "headers")]
                headers: None,
                #[cfg(feature = "rate-limit")]
                limits: None,
                #[cfg(feature = "jwt")]
                authentication: None,
            }),
        }
    }

    /// Finds the client by `client`; without it, the peer is the client.
    pub fn with_client(self, client: ClientLayer) -> Self {
        self.with(|parts| parts.client = client)
    }

    /// Puts `headers` on every answer.
    #[cfg(feature = "headers")]
    pub fn with_headers(self, headers: SecurityHeaders) -> Self {
        self.with(|parts| parts.headers = Some(headers))
    }

    /// Has the policies of `limits` at hand; a [`Guard`] picks them by name, and all routes that
    /// pick one share its counts.
    #[cfg(feature = "rate-limit")]
    pub fn with_limits(self, limits: RateLimitLayer) -> Self {
        self.with(|parts| parts.limits = Some(limits))
    }

    /// Authenticates by `jwt` where a [`Guard`] asks for it.
    #[cfg(feature = "jwt")]
    #[allow(private_bounds, reason = "every `JwtLayer` satisfies it")]
    pub fn with_jwt<C>(self, jwt: JwtLayer<C>) -> Self
    where
        JwtLayer<C>: Authenticate + 'static,
    {
        self.with(|parts| parts.authentication = Some(Arc::new(jwt)))
    }

    /// The layer around the whole service: client, security headers, panic catch.
    pub fn layer(&self) -> EdgeLayer {
        EdgeLayer::new(self.parts.clone())
    }

    /// Puts [`layer`](Self::layer) around a service. Around an axum `Router` this is the fastest
    /// place: every `Router::layer` inside it boxes.
    pub fn around<S>(&self, service: S) -> Edge<S> {
        self.layer().layer(service)
    }

    /// Puts [`layer`](Self::layer) around a service whose response body cannot hold a refusal; its
    /// answers then have a [`ResponseBody`](crate::ResponseBody).
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Empty;
    /// use portcullis::{Context, stack::SecurityStack};
    /// use tower::{ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let empty = service_fn(async |_: Request<()>| {
    ///     Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
    /// });
    /// let service = SecurityStack::new(Context::new()).around_any_body(empty);
    /// assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), 200);
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn around_any_body<S>(&self, service: S) -> Edge<OwnBody<S>> {
        ServiceBuilder::new()
            .layer(self.layer())
            .layer(OwnBodyLayer::new())
            .service(service)
    }

    /// The layer around the routes that `guard` describes.
    ///
    /// # Errors
    /// When `guard` asks for a limit or an authentication that the stack does not have.
    pub fn route(&self, guard: Guard) -> Result<GuardLayer, ConfigError> {
        GuardLayer::new(&self.parts, guard)
    }

    fn with(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.parts));
        self
    }
}

impl fmt::Debug for SecurityStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityStack").finish_non_exhaustive()
    }
}
