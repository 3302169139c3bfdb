//! The services that clients call: refresh, logout, the list of sessions.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE},
};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use serde::Deserialize;
use serde_json::{Value, json as object};
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    cookie::{self, RefreshCookie},
    error::SessionError,
    sessions::{Sessions, TokenPair},
};
#[cfg(feature = "csrf")]
use crate::csrf::CsrfPolicy;
use crate::{
    body::RejectionBody,
    client::Client,
    future::drain,
    head::Head,
    identity::{Identity, IdentityKind, nobody},
    json,
    refresh_token::{EndReason, RefreshError, SessionId, SessionRecord},
    rejection::{Rejection, RejectionKind, WireForm},
};

/// Makes the services that clients call, and the answers that a login gives. A cheap clone.
///
/// | service | method | answers |
/// |---|---|---|
/// | [`refresh`](Self::refresh) | `POST` | 200 with a new pair of tokens |
/// | [`logout`](Self::logout) | `POST` | 204, also for a token that is not known |
/// | [`sessions`](Self::sessions) | `GET` | 200 with the caller's live sessions |
/// | | `DELETE` | 204; all of the caller's sessions are over |
/// | [`session`](Self::session) | `DELETE` | 204; the one that the path ends with is over, 404 if it is not the caller's |
///
/// The first two take the refresh token as `{"refresh_token": …}` in a JSON body (415 for another
/// type, 400 for what is not JSON, 422 for other members, 413 above 16 KiB, 408 after 10 s) or, with
/// [`with_cookie`](Self::with_cookie), in the cookie `__Host-refresh`; a refresh is answered the way
/// it was asked, and sets the new token in the cookie unless
/// [`with_kept_cookie`](Self::with_kept_cookie) says otherwise. Tokens in both places, or the cookie
/// twice, are 400. Another method is 405. What is wrong with the token is told as [`SessionError`]
/// says; when the store does not answer that is 503 with `Retry-After`, and cookies stay. A 401
/// takes the cookie away only when the session of its token is over for sure.
///
/// The others go by the [`Identity`] of an access token, so [`JwtLayer`](crate::jwt::JwtLayer)
/// stands around them; without one they answer 401, to an API key 403. Times in the list are Unix
/// seconds.
///
/// Every answer is `Cache-Control: no-store`. The client's address is the [`Client`] of
/// [`ClientLayer`](crate::ClientLayer). Time, events and the look of refusals come from the context
/// of the [`RefreshTokens`](crate::refresh_token::RefreshTokens).
///
/// Deployment caveat: browsers keep the cookie over HTTPS alone, or from loopback.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use portcullis::session::{SessionEndpoints, Sessions};
/// use tower::ServiceExt as _;
///
/// /// What axum's `route_service` does, and a hyper connection.
/// async fn serve(sessions: Sessions, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
///     let endpoints = SessionEndpoints::new(sessions);
///     let endpoint = match request.uri().path() {
///         "/auth/refresh" => endpoints.refresh(),
///         _ => endpoints.logout(),
///     };
///     endpoint.oneshot(request).await.unwrap_or_else(|never| match never {})
/// }
/// # drop(serve);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionEndpoints {
    config: Arc<Config>,
}

#[derive(Clone, Debug)]
struct Config {
    sessions: Sessions,
    cookie: RefreshCookie,
    keeps_cookie: bool,
    clear_site_data: Option<HeaderValue>,
}

impl SessionEndpoints {
    /// Services over `sessions` that take refresh tokens in JSON bodies. A logout tells browsers to
    /// forget caches and what scripts stored (`Clear-Site-Data: "cache", "storage"`).
    pub fn new(sessions: Sessions) -> Self {
        Self {
            config: Arc::new(Config {
                sessions,
                cookie: RefreshCookie::default(),
                keeps_cookie: false,
                clear_site_data: Some(CACHE_AND_STORAGE),
            }),
        }
    }

    /// Takes refresh tokens in the cookie `__Host-refresh` too. `csrf` judges every request to these
    /// services; one that carries the cookie and does not say where it comes from is 403.
    ///
    /// Deployment caveat: the route of the login sets the cookie, and needs the same rule around it
    /// ([`CsrfLayer`](crate::csrf::CsrfLayer)), or another site logs its visitors in as somebody.
    #[cfg(feature = "csrf")]
    pub fn with_cookie(self, csrf: CsrfPolicy) -> Self {
        self.with(|config| config.cookie = RefreshCookie::guarded_by(csrf))
    }

    /// Leaves the cookie as it is when its token is younger than the grace window: the refresh is
    /// 200 with a new access token and no `Set-Cookie`
    /// ([`refresh_by_cookie`](crate::refresh_token::RefreshTokens::refresh_by_cookie)).
    ///
    /// For browsers whose tabs refresh over several HTTP/1.1 connections, where answers overtake
    /// each other: one that sets an older token after a newer one leaves a token in the browser that
    /// ends the session once the window is over.
    ///
    /// It costs the rule that each use of the cookie replaces the token, on which a client may
    /// count: a token works as often as it is presented until the window after its making is over.
    /// A copy of it is found at the next rotation, as ever.
    #[cfg(feature = "csrf")]
    pub fn with_kept_cookie(self) -> Self {
        self.with(|config| config.keeps_cookie = true)
    }

    /// Sets what browsers forget at a logout, or that they are told nothing. The directive
    /// `"cookies"` takes away every cookie of the registrable domain, those of other services too.
    pub fn with_clear_site_data(self, value: Option<HeaderValue>) -> Self {
        self.with(|config| config.clear_site_data = value)
    }

    /// `POST`: a refresh token for a new pair.
    pub fn refresh(&self) -> SessionEndpoint {
        self.endpoint(Action::Refresh)
    }

    /// `POST`: the end of a refresh token's session.
    pub fn logout(&self) -> SessionEndpoint {
        self.endpoint(Action::Logout)
    }

    /// `GET`: the caller's live sessions. `DELETE`: the end of all of them.
    pub fn sessions(&self) -> SessionEndpoint {
        self.endpoint(Action::Sessions)
    }

    /// `DELETE`: the end of the session whose id is the last part of the path.
    pub fn session(&self) -> SessionEndpoint {
        self.endpoint(Action::Session)
    }

    /// The refresh token in a request's cookie: the session that a login takes the place of. `None`
    /// without [`with_cookie`](Self::with_cookie).
    ///
    /// # Errors
    /// 400 when the cookie comes twice.
    pub fn cookie<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Rejection> {
        self.config.cookie.read(headers)
    }

    /// 200 with a pair of tokens (RFC 6749 section 5.1); with `by_cookie` the refresh token comes in
    /// the cookie instead of the body, where these endpoints take one.
    #[must_use]
    pub fn answer<B: RejectionBody>(&self, pair: &TokenPair, by_cookie: bool) -> Response<B> {
        self.config.pair(pair, by_cookie).map(B::from_bytes)
    }

    fn endpoint(&self, action: Action) -> SessionEndpoint {
        SessionEndpoint {
            config: Arc::clone(&self.config),
            action,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

/// A service that [`SessionEndpoints`] makes. For an axum route, a hyper connection, or anything
/// else that takes a [`Service`] over `http::Request`.
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionEndpoint {
    config: Arc<Config>,
    action: Action,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Refresh,
    Logout,
    Sessions,
    Session,
}

/// What an action is with the method of a request.
enum Task {
    Refresh,
    Logout,
    List,
    EndAll,
    EndOne,
}

impl<A> Service<Request<A>> for SessionEndpoint
where
    A: Body + Send + 'static,
    A::Data: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = SessionFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<A>) -> SessionFuture {
        let Self { config, action } = self.clone();
        SessionFuture {
            answer: Box::pin(config.answer(action, request.map(Box::pin))),
        }
    }
}

/// The future of [`SessionEndpoint`].
#[must_use = "futures do nothing unless polled"]
pub struct SessionFuture {
    answer: Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>,
}

impl Future for SessionFuture {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for SessionFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture").finish_non_exhaustive()
    }
}

/// Why a request is not answered as it asked.
enum Refused {
    /// By a rule of the endpoint.
    Here(Rejection),
    /// By the session of a token that came in the cookie, or did not.
    Session(SessionError, bool),
}

impl From<SessionError> for Refused {
    fn from(error: SessionError) -> Self {
        Self::Session(error, false)
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self::Here(rejection)
    }
}

/// The refresh token that a request carries.
struct Presented {
    token: Zeroizing<String>,
    by_cookie: bool,
}

#[derive(Deserialize)]
struct TokenBody {
    refresh_token: String,
}

#[derive(Deserialize)]
struct CookieBody {
    refresh_token: Option<Value>,
}

impl Config {
    async fn answer<A>(
        self: Arc<Self>,
        action: Action,
        mut request: Request<Pin<Box<A>>>,
    ) -> Response<Full<Bytes>>
    where
        A: Body + Send + 'static,
        A::Data: Send,
    {
        let refused = match self.act(action, &mut request).await {
            Ok(response) => return response.map(Full::new),
            Err(refused) => refused,
        };
        let context = self.sessions.context();
        let response = match refused {
            Refused::Here(rejection) => context.refuse(&request, rejection),
            Refused::Session(error, by_cookie) => {
                let head = Head::of(&request);
                let rejection = Rejection::from(&error);
                // What is wrong with a token was told when it was found out.
                if !matches!(error, SessionError::Refresh(_) | SessionError::Disabled) {
                    context.report(head, &rejection);
                }
                let mut response: Response<Full<Bytes>> =
                    context.render(rejection, WireForm::of(head));
                if by_cookie && is_to_be_cleared(&error) {
                    response.headers_mut().append(SET_COOKIE, cookie::clear());
                }
                response
            }
        };
        if let Some(drain) = drain(request) {
            drain.await;
        }
        response
    }

    async fn act<A>(
        &self,
        action: Action,
        request: &mut Request<Pin<Box<A>>>,
    ) -> Result<Response<Bytes>, Refused>
    where
        A: Body + Send,
        A::Data: Send,
    {
        let task = action.task(request.method())?;
        self.cookie.judge(Head::of(request))?;
        let client = Client::of(Head::of(request)).and_then(Client::ip);
        match task {
            Task::Refresh => {
                let Presented { token, by_cookie } = self.presented(request).await?;
                let refreshed = match by_cookie && self.keeps_cookie {
                    true => self.sessions.refresh_by_cookie(&token, client).await,
                    false => self.sessions.refresh(&token, client).await,
                };
                match refreshed {
                    Ok(pair) => Ok(self.pair(&pair, by_cookie)),
                    Err(error) => Err(Refused::Session(error, by_cookie)),
                }
            }
            Task::Logout => {
                let Presented { token, by_cookie } = self.presented(request).await?;
                self.sessions.end(&token, client).await?;
                let mut response = no_content();
                let headers = response.headers_mut();
                if by_cookie {
                    headers.append(SET_COOKIE, cookie::clear());
                }
                if let Some(value) = &self.clear_site_data {
                    headers.insert(CLEAR_SITE_DATA, value.clone());
                }
                Ok(response)
            }
            Task::List => {
                let identity = caller(request)?;
                let sessions = self.sessions.list(identity.subject()).await?;
                let current = identity.session().and_then(|id| id.parse().ok());
                let response = respond(&list(&sessions, current));
                Ok(match *request.method() {
                    Method::HEAD => headless(response),
                    _ => response,
                })
            }
            Task::EndAll => {
                let identity = caller(request)?;
                let reason = EndReason::LogoutElsewhere;
                self.sessions.end_all(identity.subject(), reason).await?;
                Ok(no_content())
            }
            Task::EndOne => {
                let identity = caller(request)?;
                let last = request.uri().path().rsplit('/').next();
                let id = last.and_then(|last| last.parse().ok());
                let id = id.ok_or_else(no_such_session)?;
                let reason = EndReason::LogoutElsewhere;
                let subject = identity.subject();
                if self.sessions.end_one(subject, id, reason).await? {
                    Ok(no_content())
                } else {
                    Err(no_such_session().into())
                }
            }
        }
    }

    /// The one token that a request carries, in its cookie or its body.
    async fn presented<A>(&self, request: &mut Request<Pin<Box<A>>>) -> Result<Presented, Rejection>
    where
        A: Body + Send,
        A::Data: Send,
    {
        let cookie = self.cookie.read(request.headers())?;
        let cookie = cookie.map(|token| Zeroizing::new(token.to_owned()));
        if cookie.is_none() {
            json::check_type(request.headers())?;
        }
        let bytes = read(request.body_mut().as_mut()).await?;
        let Some(token) = cookie else {
            let TokenBody { refresh_token } = json::parse(&bytes)?;
            return Ok(Presented {
                token: Zeroizing::new(refresh_token),
                by_cookie: false,
            });
        };
        if !bytes.is_empty() {
            json::check_type(request.headers())?;
            let CookieBody { refresh_token } = json::parse(&bytes)?;
            if refresh_token.is_some() {
                return Err(cookie::several());
            }
        }
        Ok(Presented {
            token,
            by_cookie: true,
        })
    }

    fn pair(&self, pair: &TokenPair, by_cookie: bool) -> Response<Bytes> {
        let by_cookie = by_cookie && self.cookie.is_accepted();
        let mut body = object!({
            "access_token": pair.access_token.as_str(),
            "token_type": "Bearer",
            "expires_in": whole_seconds(pair.expires_in),
            "refresh_expires_in": whole_seconds(pair.refresh_expires_in),
        });
        if !by_cookie {
            body["refresh_token"] = pair.refresh_token.expose().into();
        }
        let mut response = respond(&body);
        if by_cookie && !pair.kept {
            response.headers_mut().append(SET_COOKIE, cookie::set(pair));
        }
        response
    }
}

impl Action {
    fn task(self, method: &Method) -> Result<Task, Rejection> {
        let task = match self {
            Self::Refresh => (*method == Method::POST).then_some(Task::Refresh),
            Self::Logout => (*method == Method::POST).then_some(Task::Logout),
            Self::Sessions => match *method {
                Method::GET | Method::HEAD => Some(Task::List),
                Method::DELETE => Some(Task::EndAll),
                _ => None,
            },
            Self::Session => (*method == Method::DELETE).then_some(Task::EndOne),
        };
        task.ok_or_else(|| {
            let allow = match self {
                Self::Refresh | Self::Logout => "POST",
                Self::Sessions => "GET,HEAD,DELETE",
                Self::Session => "DELETE",
            };
            Rejection::new(RejectionKind::MethodNotAllowed, GATE, "no_method")
                .with_header(ALLOW, HeaderValue::from_static(allow))
        })
    }
}

/// Whose access token it is.
fn caller<A>(request: &Request<A>) -> Result<Identity, Rejection> {
    let identity = request.extensions().get::<Identity>().ok_or_else(nobody)?;
    match identity.kind() {
        IdentityKind::ApiKey => Err(Rejection::new(
            RejectionKind::Forbidden,
            GATE,
            "needs_a_login",
        )),
        _ => Ok(identity.clone()),
    }
}

fn no_such_session() -> Rejection {
    Rejection::new(RejectionKind::NotFound, GATE, "no_such_session")
}

/// Whether the cookie of a refused refresh is of no use any more. When a login took the session's
/// place, the browser has the cookie of that one, and it must stay.
fn is_to_be_cleared(error: &SessionError) -> bool {
    error.is_over()
        && !matches!(
            error,
            SessionError::Refresh(RefreshError::Ended(_, EndReason::Replaced))
        )
}

fn list(sessions: &[SessionRecord], current: Option<SessionId>) -> Value {
    let sessions = sessions.iter().map(|session| {
        object!({
            "id": session.id.to_string(),
            "created_at": session.created_at.as_secs(),
            "last_used_at": session.last_used_at.as_secs(),
            "expires_at": session.expires_at.as_secs(),
            "current": Some(session.id) == current,
            "label": session.device.label,
            "user_agent": session.device.user_agent,
            "ip": session.device.ip.map(|ip| ip.to_string()),
        })
    });
    object!({"sessions": sessions.collect::<Value>()})
}

/// A whole body, within bounds of size and time.
async fn read<A>(mut body: Pin<&mut A>) -> Result<Zeroizing<Vec<u8>>, Rejection>
where
    A: Body,
{
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(json::too_large());
    }
    // At its full size at once: growing would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::new());
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(mut data) = frame.map_err(|_| json::incomplete())?.into_data() else {
                continue;
            };
            if data.remaining() > BODY_BYTES - bytes.len() {
                return Err(json::too_large());
            }
            if bytes.capacity() == 0 {
                bytes.reserve_exact(BODY_BYTES);
            }
            while data.has_remaining() {
                let chunk = data.chunk();
                bytes.extend_from_slice(chunk);
                let read = chunk.len();
                data.advance(read);
            }
        }
        Ok(())
    };
    tokio::time::timeout(BODY_TIME, read)
        .await
        .unwrap_or_else(|_| {
            Err(Rejection::new(
                RejectionKind::Timeout,
                GATE,
                "body_too_slow",
            ))
        })?;
    Ok(bytes)
}

fn respond(body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

fn no_content() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// The answer to `HEAD`.
fn headless(mut response: Response<Bytes>) -> Response<Bytes> {
    let length = response.body().len().into();
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response.map(|_| Bytes::new())
}

/// A token ends on a whole second, so the part of one that has begun counts.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

const GATE: &str = "session";
const BODY_BYTES: usize = 16 * 1024;
const BODY_TIME: Duration = Duration::from_secs(10);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CACHE_AND_STORAGE: HeaderValue = HeaderValue::from_static("\"cache\", \"storage\"");
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
