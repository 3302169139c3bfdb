//! A guard: what stands around a route.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::security_stack::Parts;
#[cfg(feature = "csrf")]
use crate::csrf::{CsrfPolicy, CsrfTokens};
#[cfg(feature = "jwt")]
use crate::jwt::Authenticate;
#[cfg(all(feature = "rate-limit", feature = "redis"))]
use crate::rate_limit::redis::{RedisLimits, SharedAdmitted};
#[cfg(feature = "rate-limit")]
use crate::rate_limit::{Admitted, RateLimitLayer};
#[cfg(feature = "upload")]
use crate::upload::{UploadPolicy, Uploads};
use crate::{
    authorize::RequireScopeLayer,
    body::RejectionBody,
    body_limit::Limit,
    context::Context,
    error::ConfigError,
    guarded::{self, BoxError, GuardedBody, GuardedFuture, Racer},
    head::Head,
    rejection::Rejection,
};

/// What a route asks of a request before its handler runs.
///
/// Whatever the order in which it is written, the order in which it is asked is: where the request
/// comes from, limits by client, the body's stated size, authentication, limits by identity, scopes,
/// the CSRF token, the upload's head; the body itself is watched while the handler reads it. A route
/// takes at most 16 KiB of body within 10 s unless its guard says otherwise.
///
/// ```
/// use portcullis::stack::Guard;
///
/// let guard = Guard::new().limit("model").authenticate().scope("model").body(256 * 1024);
/// # drop(guard);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Guard {
    limits: Vec<Box<str>>,
    authenticate: bool,
    scopes: Vec<Box<str>>,
    csrf_strict: bool,
    csrf_token: bool,
    body: BodyRule,
}

#[derive(Clone, Debug)]
enum BodyRule {
    Limited(Limit),
    #[cfg(feature = "upload")]
    Upload(Uploads),
}

impl Guard {
    /// A guard that only bounds the body.
    pub fn new() -> Self {
        let mut limit = Limit::new(BODY_BYTES);
        limit.total = BODY_TIME;
        Self {
            limits: Vec::new(),
            authenticate: false,
            scopes: Vec::new(),
            csrf_strict: false,
            csrf_token: false,
            body: BodyRule::Limited(limit),
        }
    }

    /// Charges the stack's policy of this name; several are charged together or not at all.
    pub fn limit(mut self, policy: impl Into<Box<str>>) -> Self {
        self.limits.push(policy.into());
        self
    }

    /// Admits only callers whom the stack's authentication knows.
    pub fn authenticate(mut self) -> Self {
        self.authenticate = true;
        self
    }

    /// Admits only callers who hold `scope`, and authenticates them.
    pub fn scope(mut self, scope: impl Into<Box<str>>) -> Self {
        self.scopes.push(scope.into());
        self.authenticate()
    }

    /// Refuses unsafe requests that do not say where they come from, whatever they carry, by the
    /// stack's cross-site rule made strict; charged to no limit. For sensitive routes that browsers
    /// alone use.
    pub fn csrf_strict(mut self) -> Self {
        self.csrf_strict = true;
        self
    }

    /// Refuses unsafe requests without an `X-CSRF-Token` of the session, by the stack's tokens.
    pub fn csrf_token(mut self) -> Self {
        self.csrf_token = true;
        self
    }

    /// Takes at most `max_bytes` of body, within 10 s.
    pub fn body(self, max_bytes: u64) -> Self {
        self.body_within(max_bytes, BODY_TIME)
    }

    /// Takes at most `max_bytes` of body, within `deadline`.
    pub fn body_within(mut self, max_bytes: u64, deadline: Duration) -> Self {
        let mut limit = Limit::new(max_bytes);
        limit.total = deadline;
        self.body = BodyRule::Limited(limit);
        self
    }

    /// Takes uploads that `policy` admits, and no other body.
    #[cfg(feature = "upload")]
    pub fn upload(mut self, policy: UploadPolicy) -> Self {
        self.body = BodyRule::Upload(Uploads::new(policy));
        self
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

/// The layer that a [`Guard`] becomes. Made by [`SecurityStack::route`](super::SecurityStack::route).
///
/// Without a router, [`select`](Self::select) picks the guard of each request.
#[derive(Clone)]
#[must_use]
pub struct GuardLayer {
    choice: Choice,
}

#[derive(Clone)]
enum Choice {
    One(Arc<Route>),
    Select(Arc<dyn Fn(Head<'_>) -> GuardLayer + Send + Sync>),
}

/// A guard with the parts that it asks.
struct Route {
    context: Context,
    #[cfg(feature = "csrf")]
    csrf: Option<CsrfPolicy>,
    #[cfg(feature = "rate-limit")]
    by_client: Option<RateLimitLayer>,
    #[cfg(feature = "rate-limit")]
    by_identity: Option<RateLimitLayer>,
    /// Where the limits are those of a fleet.
    #[cfg(all(feature = "rate-limit", feature = "redis"))]
    redis: Option<RedisLimits>,
    #[cfg(feature = "jwt")]
    authentication: Option<Arc<dyn Authenticate>>,
    scopes: Option<RequireScopeLayer>,
    #[cfg(feature = "csrf")]
    csrf_tokens: Option<CsrfTokens>,
    body: BodyRule,
}

impl GuardLayer {
    pub(super) fn new(parts: &Parts, guard: Guard) -> Result<Self, ConfigError> {
        #[cfg(feature = "csrf")]
        let csrf = match (guard.csrf_strict, &parts.csrf) {
            (false, _) => None,
            (true, Some(csrf)) => Some(csrf.clone().strict()),
            (true, None) => return Err(missing("a cross-site rule")),
        };
        #[cfg(feature = "csrf")]
        let csrf_tokens = match (guard.csrf_token, &parts.csrf_tokens) {
            (false, _) => None,
            (true, Some(tokens)) => Some(tokens.clone()),
            (true, None) => return Err(missing("CSRF tokens")),
        };
        #[cfg(not(feature = "csrf"))]
        if guard.csrf_strict || guard.csrf_token {
            return Err(missing("protection from cross-site requests"));
        }
        #[cfg(feature = "rate-limit")]
        let (by_client, by_identity) = limits(parts, &guard.limits)?;
        #[cfg(not(feature = "rate-limit"))]
        if !guard.limits.is_empty() {
            return Err(missing("limits"));
        }
        #[cfg(feature = "jwt")]
        let authentication = match (guard.authenticate, &parts.authentication) {
            (false, _) => None,
            (true, Some(authentication)) => {
                protect_cookies(parts, &guard, &**authentication)?;
                Some(Arc::clone(authentication))
            }
            (true, None) => return Err(missing("authentication")),
        };
        #[cfg(not(feature = "jwt"))]
        if guard.authenticate {
            return Err(missing("authentication"));
        }
        let scopes = match guard.scopes.is_empty() {
            true => None,
            false => {
                let scopes = RequireScopeLayer::all(guard.scopes)?;
                let scopes = scopes.with_context(parts.context.clone());
                #[cfg(feature = "jwt")]
                let scopes = match &authentication {
                    Some(gate) => scopes.with_challenge(gate.challenge().clone()),
                    None => scopes,
                };
                Some(scopes)
            }
        };
        Ok(Self {
            choice: Choice::One(Arc::new(Route {
                context: parts.context.clone(),
                #[cfg(feature = "csrf")]
                csrf,
                #[cfg(feature = "rate-limit")]
                by_client,
                #[cfg(feature = "rate-limit")]
                by_identity,
                #[cfg(all(feature = "rate-limit", feature = "redis"))]
                redis: parts.redis.clone(),
                #[cfg(feature = "jwt")]
                authentication,
                scopes,
                #[cfg(feature = "csrf")]
                csrf_tokens,
                body: guard.body,
            })),
        })
    }

    /// A layer that stands around the whole service and picks each request's guard.
    ///
    /// ```
    /// use portcullis::{Context, stack::{Guard, GuardLayer, SecurityStack}};
    ///
    /// let stack = SecurityStack::new(Context::new());
    /// let small = stack.route(Guard::new().body(1024))?;
    /// let large = stack.route(Guard::new().body(1024 * 1024))?;
    /// let layer = GuardLayer::select(move |head| match head.uri.path() {
    ///     "/import" => large.clone(),
    ///     _ => small.clone(),
    /// });
    /// # drop(layer);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn select<F>(pick: F) -> Self
    where
        F: Fn(Head<'_>) -> GuardLayer + Send + Sync + 'static,
    {
        Self {
            choice: Choice::Select(Arc::new(pick)),
        }
    }

    fn pick(&self, head: Head<'_>) -> Arc<Route> {
        let mut picked = self.clone();
        loop {
            picked = match picked.choice {
                Choice::One(route) => return route,
                Choice::Select(pick) => pick(head),
            };
        }
    }
}

impl fmt::Debug for GuardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`GuardLayer`] makes. The inner service gets its body as a [`GuardedBody`].
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    layer: GuardLayer,
}

impl<S, A, B> Service<Request<A>> for Guarded<S>
where
    S: Service<Request<GuardedBody<A>>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: RejectionBody + Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = GuardFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let route = self.layer.pick(Head::of(&request));
        #[cfg(all(feature = "rate-limit", feature = "redis"))]
        if let Some(redis) = &route.redis
            && route.is_limited()
        {
            let next = self.inner.clone();
            let ready = std::mem::replace(&mut self.inner, next);
            let redis = redis.clone();
            return GuardFuture {
                state: State::Asked {
                    answer: Box::pin(ask(route, redis, ready, request)),
                },
            };
        }
        let mut charged = Charged::default();
        let inner = match route.admit(&mut request, &mut charged) {
            Ok(()) => route.pass(&mut self.inner, request),
            Err(rejection) => route.refuse(request, rejection),
        };
        GuardFuture {
            state: State::Decided { inner, charged },
        }
    }
}

/// The way of a request whose limits are those of a fleet.
#[cfg(all(feature = "rate-limit", feature = "redis"))]
async fn ask<S, A, B>(
    route: Arc<Route>,
    redis: RedisLimits,
    mut ready: S,
    mut request: Request<A>,
) -> Result<Response<B>, S::Error>
where
    S: Service<Request<GuardedBody<A>>, Response = Response<B>>,
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: RejectionBody,
{
    let mut charged = Vec::new();
    let inner = match route.admit_by(&redis, &mut request, &mut charged).await {
        Ok(()) => route.pass(&mut ready, request),
        Err(rejection) => route.refuse(request, rejection),
    };
    drop(ready);
    let mut response = inner.await?;
    for admitted in charged {
        admitted.finish(&mut response).await;
    }
    Ok(response)
}

impl Route {
    /// Everything that the request's head decides.
    fn admit<A: Body>(
        &self,
        request: &mut Request<A>,
        charged: &mut Charged,
    ) -> Result<(), Rejection> {
        self.before_limits(request)?;
        #[cfg(feature = "rate-limit")]
        if let Some(limits) = &self.by_client {
            let now = self.context.monotonic();
            charged.by_client = Some(limits.decide(request, now)?);
        }
        self.between_limits(request)?;
        #[cfg(feature = "rate-limit")]
        if let Some(limits) = &self.by_identity {
            let now = self.context.monotonic();
            charged.by_identity = Some(limits.decide(request, now)?);
        }
        let _ = charged;
        self.after_limits(request)
    }

    /// The same with the limits of a fleet.
    #[cfg(all(feature = "rate-limit", feature = "redis"))]
    async fn admit_by<A: Body>(
        &self,
        redis: &RedisLimits,
        request: &mut Request<A>,
        charged: &mut Vec<SharedAdmitted>,
    ) -> Result<(), Rejection> {
        self.before_limits(request)?;
        if let Some(limits) = &self.by_client {
            let shared = limits.clone().shared(redis.clone());
            let start = shared.begin(request);
            charged.push(start.decision().await?);
        }
        self.between_limits(request)?;
        if let Some(limits) = &self.by_identity {
            let shared = limits.clone().shared(redis.clone());
            let start = shared.begin(request);
            charged.push(start.decision().await?);
        }
        self.after_limits(request)
    }

    #[cfg(all(feature = "rate-limit", feature = "redis"))]
    fn is_limited(&self) -> bool {
        self.by_client.is_some() || self.by_identity.is_some()
    }

    fn before_limits<A>(&self, request: &Request<A>) -> Result<(), Rejection> {
        #[cfg(feature = "csrf")]
        if let Some(csrf) = &self.csrf {
            csrf.decide(Head::of(request))?;
        }
        let _ = request;
        Ok(())
    }

    fn between_limits<A: Body>(&self, request: &mut Request<A>) -> Result<(), Rejection> {
        match &self.body {
            BodyRule::Limited(limit) => {
                limit.decide(Head::of(request), &request.body().size_hint())?;
            }
            #[cfg(feature = "upload")]
            BodyRule::Upload(uploads) => {
                uploads.decide_size(Head::of(request), &request.body().size_hint())?;
            }
        }
        #[cfg(feature = "jwt")]
        if let Some(authentication) = &self.authentication
            && let Some(grant) = authentication.authenticate(Head::of(request))?
        {
            grant.insert(request);
        }
        Ok(())
    }

    fn after_limits<A>(&self, request: &Request<A>) -> Result<(), Rejection> {
        if let Some(scopes) = &self.scopes {
            scopes.decide(Head::of(request))?;
        }
        #[cfg(feature = "csrf")]
        if let Some(tokens) = &self.csrf_tokens {
            tokens.decide(Head::of(request))?;
        }
        Ok(())
    }

    /// Calls the service, with the body watched.
    fn pass<S, A, B>(&self, inner: &mut S, request: Request<A>) -> GuardedFuture<S::Future, B>
    where
        S: Service<Request<GuardedBody<A>>, Response = Response<B>>,
        A: Body<Data = Bytes> + Send + 'static,
        A::Error: Into<BoxError>,
        B: RejectionBody,
    {
        match self.watch(request) {
            Ok((request, racer)) => {
                let inner = inner.call(request);
                match racer {
                    Some(racer) => GuardedFuture::watched(inner, racer),
                    None => GuardedFuture::open(inner),
                }
            }
            Err((request, rejection)) => self.refuse(request, rejection),
        }
    }

    /// Puts the check of the body between the body and the handler.
    #[allow(clippy::result_large_err, reason = "a refusal gives the request back")]
    fn watch<A>(&self, request: Request<A>) -> Watched<A>
    where
        A: Body<Data = Bytes> + Send + 'static,
        A::Error: Into<BoxError>,
    {
        match &self.body {
            BodyRule::Limited(_) if request.body().is_end_stream() => {
                Ok((request.map(GuardedBody::open), None))
            }
            // The size that the head states was judged with the head.
            BodyRule::Limited(limit) => {
                let (request, racer) =
                    guarded::watch(request, limit.counter(), limit.terms(), &self.context);
                Ok((request, Some(racer)))
            }
            #[cfg(feature = "upload")]
            BodyRule::Upload(uploads) => {
                let hint = request.body().size_hint();
                match uploads.decide(Head::of(&request), &hint) {
                    Ok(Some(upload)) => {
                        let mut request = request;
                        let check = upload.apply(&mut request);
                        let terms = uploads.terms(true);
                        let (request, racer) = guarded::watch(request, check, terms, &self.context);
                        Ok((request, Some(racer)))
                    }
                    Ok(None) => Ok((request.map(GuardedBody::open), None)),
                    Err(rejection) => Err((request, rejection)),
                }
            }
        }
    }

    fn refuse<F, A, B>(&self, request: Request<A>, rejection: Rejection) -> GuardedFuture<F, B>
    where
        A: Body + Send + 'static,
        B: RejectionBody,
    {
        let response = self.context.refuse(&request, rejection);
        GuardedFuture::refused(request, response)
    }
}

/// A watched request with its end of the race, or the request and why it is refused.
type Watched<A> = Result<(Request<GuardedBody<A>>, Option<Racer>), (Request<A>, Rejection)>;

#[cfg(feature = "rate-limit")]
type Limits = (Option<RateLimitLayer>, Option<RateLimitLayer>);

/// The named policies, those that need no identity first.
#[cfg(feature = "rate-limit")]
fn limits(parts: &Parts, names: &[Box<str>]) -> Result<Limits, ConfigError> {
    if names.is_empty() {
        return Ok((None, None));
    }
    let limits = parts.limits.as_ref().ok_or_else(|| missing("limits"))?;
    let named = limits.only(names.iter().map(AsRef::as_ref))?;
    Ok(named.around_authentication())
}

/// Refuses to authenticate by a cookie that another site's page could use.
#[cfg(feature = "jwt")]
fn protect_cookies(
    parts: &Parts,
    guard: &Guard,
    authentication: &dyn Authenticate,
) -> Result<(), ConfigError> {
    #[cfg(feature = "csrf")]
    let covers = |cookie: &str| parts.csrf.as_ref().is_some_and(|csrf| csrf.covers(cookie));
    #[cfg(not(feature = "csrf"))]
    let covers = |_: &str| {
        let _ = parts;
        false
    };
    if guard.csrf_strict || guard.csrf_token {
        return Ok(());
    }
    match authentication
        .cookies()
        .into_iter()
        .find(|cookie| !covers(cookie))
    {
        None => Ok(()),
        Some(cookie) => Err(ConfigError::new(
            "guard",
            format!(
                "authenticates by the cookie {cookie}, which browsers send with other sites' \
                 requests too; name it in the stack's cross-site rule (feature `csrf`)"
            ),
        )),
    }
}

fn missing(part: &'static str) -> ConfigError {
    ConfigError::new(
        "guard",
        format!("asks for {part}, which the stack does not have"),
    )
}

/// What the request was charged, and so what its answer says.
#[derive(Default)]
struct Charged {
    #[cfg(feature = "rate-limit")]
    by_client: Option<Admitted>,
    #[cfg(feature = "rate-limit")]
    by_identity: Option<Admitted>,
}

pin_project! {
    /// The future of [`Guarded`].
    pub struct GuardFuture<F, B>
    where
        F: Future,
    {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B>
    where
        F: Future,
    {
        Decided { #[pin] inner: GuardedFuture<F, B>, charged: Charged },
        Asked { answer: Pin<Box<dyn Future<Output = F::Output> + Send>> },
    }
}

impl<F, B, E> Future for GuardFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: RejectionBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let (inner, charged) = match self.project().state.project() {
            StateProjection::Asked { answer } => return answer.as_mut().poll(cx),
            StateProjection::Decided { inner, charged } => (inner, charged),
        };
        #[allow(unused_mut, reason = "only limits change it")]
        let mut answer = ready!(inner.poll(cx));
        #[cfg(feature = "rate-limit")]
        if let Ok(response) = &mut answer {
            let charged = [charged.by_client.take(), charged.by_identity.take()];
            for admitted in charged.into_iter().flatten() {
                admitted.finish(response);
            }
        }
        let _ = charged;
        Poll::Ready(answer)
    }
}

impl<F: Future, B> fmt::Debug for GuardFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}

const BODY_BYTES: u64 = 16 * 1024;
const BODY_TIME: Duration = Duration::from_secs(10);
