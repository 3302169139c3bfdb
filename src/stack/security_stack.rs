//! The parts of a service's security, put together once.

use std::{fmt, sync::Arc};

use tower::ServiceBuilder;
use tower_layer::Layer as _;

use super::{
    edge::{Edge, EdgeLayer},
    guard::{Guard, GuardLayer},
};
#[cfg(feature = "cors")]
use crate::cors::{CorsGate, CorsPolicy};
#[cfg(feature = "csrf")]
use crate::csrf::{CsrfPolicy, CsrfTokens};
#[cfg(feature = "headers")]
use crate::headers::SecurityHeaders;
#[cfg(feature = "jwt")]
use crate::jwt::{Authenticate, JwtLayer};
#[cfg(feature = "rate-limit")]
use crate::rate_limit::RateLimitLayer;
#[cfg(all(feature = "rate-limit", feature = "redis"))]
use crate::rate_limit::redis::{RedisLimits, SharedRateLimitLayer};
use crate::{
    body::{OwnBody, OwnBodyLayer},
    client::ClientLayer,
    client::TrustedProxies,
    context::Context,
    error::ConfigError,
    https::HttpsPolicy,
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
    #[cfg(feature = "cors")]
    pub(super) cors: Option<Cors>,
    pub(super) https: Option<HttpsPolicy>,
    #[cfg(feature = "csrf")]
    pub(super) csrf: Option<CsrfPolicy>,
    #[cfg(feature = "rate-limit")]
    pub(super) limits: Option<RateLimitLayer>,
    #[cfg(all(feature = "rate-limit", feature = "redis"))]
    pub(super) redis: Option<RedisLimits>,
    #[cfg(feature = "jwt")]
    pub(super) authentication: Option<Arc<dyn Authenticate>>,
    #[cfg(feature = "csrf")]
    pub(super) csrf_tokens: Option<CsrfTokens>,
}

/// What is asked, and what is told of it.
#[cfg(feature = "cors")]
#[derive(Clone)]
pub(super) struct Cors {
    pub(super) gate: CorsGate,
    pub(super) policy: CorsPolicy,
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
                #[cfg(feature = "cors")]
                cors: None,
                https: None,
                #[cfg(feature = "csrf")]
                csrf: None,
                #[cfg(feature = "rate-limit")]
                limits: None,
                #[cfg(all(feature = "rate-limit", feature = "redis"))]
                redis: None,
                #[cfg(feature = "jwt")]
                authentication: None,
                #[cfg(feature = "csrf")]
                csrf_tokens: None,
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

    /// Answers preflights, and puts CORS headers on every answer, refusals and panics included.
    #[cfg(feature = "cors")]
    pub fn with_cors(self, policy: CorsPolicy) -> Self {
        let gate = CorsGate::new(&policy, &self.parts.context);
        self.with(|parts| parts.cors = Some(Cors { gate, policy }))
    }

    /// Serves the hosts of `policy` alone, and over HTTPS where it says so.
    pub fn with_https(self, policy: HttpsPolicy) -> Self {
        self.with(|parts| parts.https = Some(policy))
    }

    /// Refuses cross-site requests, before any limit is charged.
    #[cfg(feature = "csrf")]
    pub fn with_csrf(self, policy: CsrfPolicy) -> Self {
        self.with(|parts| parts.csrf = Some(policy))
    }

    /// Has `tokens` at hand for a [`Guard`] that [asks](Guard::csrf_token) for one.
    #[cfg(feature = "csrf")]
    pub fn with_csrf_tokens(self, tokens: CsrfTokens) -> Self {
        self.with(|parts| parts.csrf_tokens = Some(tokens))
    }

    /// Has the policies of `limits` at hand; a [`Guard`] picks them by name, and all routes that
    /// pick one share its counts.
    #[cfg(feature = "rate-limit")]
    pub fn with_limits(self, limits: RateLimitLayer) -> Self {
        self.with(|parts| parts.limits = Some(limits))
    }

    /// The same with limits that hold for a fleet, through Redis.
    #[cfg(all(feature = "rate-limit", feature = "redis"))]
    pub fn with_shared_limits(self, limits: SharedRateLimitLayer) -> Self {
        self.with(|parts| {
            parts.limits = Some(limits.local().clone());
            parts.redis = Some(limits.redis().clone());
        })
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

    /// The layer around the whole service: client, security headers, panic catch, CORS, hosts and
    /// HTTPS, cross-site requests.
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
    /// let empty = service_fn(async |_: Request<Empty<Bytes>>| {
    ///     Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
    /// });
    /// let service = SecurityStack::new(Context::new()).around_any_body(empty);
    /// let answer = service.oneshot(Request::new(Empty::new())).await.unwrap();
    /// assert_eq!(answer.status(), 200);
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
    /// When `guard` asks for what the stack does not have, or authenticates by a cookie that another
    /// site's page could use: the stack's [`CsrfPolicy`] must name the cookie or be strict, or the
    /// guard ask for [strictness](Guard::csrf_strict) or a [token](Guard::csrf_token).
    ///
    /// [`CsrfPolicy`]: https://docs.rs/portcullis/latest/portcullis/csrf/struct.CsrfPolicy.html
    pub fn route(&self, guard: Guard) -> Result<GuardLayer, ConfigError> {
        GuardLayer::new(&self.parts, guard)
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
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
