//! Refusals: what a gate answers instead of the service, in one shape for all gates.
//!
//! A gate makes a [`Rejection`]; the [`Context`](crate::Context) renders it through a [`Render`]
//! (RFC 9457 problem details by default, a gRPC status for gRPC requests), leaves the rejection in
//! the response's extensions, and sends the event.
//!
//! Every answer to a refused request is `Cache-Control: no-store`. The [reason](Rejection::reason) is
//! for operators and never in the answer.
//!
//! Deployment caveat: a [`Render`] of one's own decides what strangers read. Show
//! [`detail`](Rejection::detail) and never the reason.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Context, Rejection, RejectionKind, WireForm, body_limit::BodyLimitLayer};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # tokio_test::block_on(async {
//! let context = Context::new().with_render(|rejection: &Rejection, _: WireForm| {
//!     let mut answer = Response::new(Bytes::from_static(b"no"));
//!     *answer.status_mut() = rejection.status();
//!     answer
//! });
//! let service = BodyLimitLayer::new(1).with_context(context).layer(service_fn(async |_: Request<_>| {
//!     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//! }));
//! let answer = service.oneshot(Request::new(Full::<Bytes>::from("too long"))).await.unwrap();
//! let rejection = answer.extensions().get::<Rejection>().unwrap();
//! assert_eq!(rejection.kind(), RejectionKind::PayloadTooLarge);
//! # });
//! ```

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};

use crate::{event::EventKind, head::Head};

/// A refusal: a status, the gate and the rule that refused, and the header fields of the answer.
///
/// It holds no input of the client, so it can be logged and shown.
///
/// ```
/// use portcullis::{Rejection, RejectionKind};
///
/// let rejection = Rejection::new(RejectionKind::Conflict, "accounts", "username_taken")
///     .with_detail("The name is taken.");
/// assert_eq!(rejection.status(), 409);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rejection {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: RejectionKind,
    gate: &'static str,
    reason: &'static str,
    event: Option<EventKind>,
    problem_type: Option<&'static str>,
    detail: Option<Cow<'static, str>>,
    violated: Option<Arc<[Arc<str>]>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of the default answer, where a gate has made it ahead.
    body: Option<Bytes>,
}

/// What kind of refusal it is; each has one status.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RejectionKind {
    /// 400: the request is malformed.
    BadRequest,
    /// 401: no proof of identity, or one that does not hold.
    Unauthenticated,
    /// 403: the caller may not do this.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 405: the thing has no such method.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    Timeout,
    /// 409: the state of the thing forbids it.
    Conflict,
    /// 413: the body, or a part of it, is too large.
    PayloadTooLarge,
    /// 415: the body's type is not accepted.
    UnsupportedMediaType,
    /// 421: the host is not served here.
    MisdirectedRequest,
    /// 422: the body is well-formed and still unusable.
    Unprocessable,
    /// 429: too many requests.
    RateLimited,
    /// 500: a fault of the service.
    Internal,
    /// 503: a part that the answer needs is away.
    Unavailable,
}

impl RejectionKind {
    /// The status that the refusal is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn grpc_status(self) -> &'static str {
        match self {
            Self::BadRequest | Self::UnsupportedMediaType | Self::Unprocessable => "3",
            Self::Timeout => "4",
            Self::NotFound | Self::MisdirectedRequest => "5",
            Self::Forbidden => "7",
            Self::PayloadTooLarge | Self::RateLimited => "8",
            Self::Conflict => "10",
            Self::MethodNotAllowed => "12",
            Self::Internal => "13",
            Self::Unavailable => "14",
            Self::Unauthenticated => "16",
        }
    }

    const fn event(self) -> EventKind {
        match self {
            Self::Unauthenticated | Self::Forbidden => EventKind::AuthzFail,
            Self::RateLimited => EventKind::ExcessRateLimitExceeded,
            Self::Unavailable => EventKind::StoreUnavailable,
            Self::Internal => EventKind::SysCrash,
            _ => EventKind::InputValidationFail,
        }
    }
}

impl Rejection {
    /// A refusal by `gate` for `reason`; both are short fixed names that may become metric labels.
    pub fn new(kind: RejectionKind, gate: &'static str, reason: &'static str) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                gate,
                reason,
                event: None,
                problem_type: None,
                detail: None,
                violated: None,
                headers: Vec::new(),
                body: None,
            }),
        }
    }

    /// Adds a sentence for the caller. It must not repeat the request's input.
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.with_body(|inner| inner.detail = Some(detail.into()))
    }

    /// Adds a header field to the answer, beside others of the same name.
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        self.with(|inner| inner.headers.push((name, value)))
    }

    /// Adds `Retry-After`: the wait in whole seconds, rounded up, at least 1.
    pub fn with_retry_after(self, wait: std::time::Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Sets the problem type's URI (`about:blank` where none is set).
    pub fn with_problem_type(self, uri: &'static str) -> Self {
        self.with_body(|inner| inner.problem_type = Some(uri))
    }

    /// Adds the names of the policies that were violated.
    pub fn with_violated_policies(self, names: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.with_body(|inner| {
            let held = inner.violated.iter().flat_map(|held| held.iter().cloned());
            inner.violated = Some(held.chain(names).collect());
        })
    }

    /// Sets the event to send, where the usual one of the kind does not fit.
    pub fn with_event(self, event: EventKind) -> Self {
        self.with(|inner| inner.event = Some(event))
    }

    /// What kind of refusal it is.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.inner.kind
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.inner.kind.status()
    }

    /// The gate that refused.
    #[must_use]
    pub fn gate(&self) -> &'static str {
        self.inner.gate
    }

    /// The rule that refused.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.inner.reason
    }

    /// The sentence for the caller.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.inner.detail.as_deref()
    }

    /// The problem type's URI.
    #[must_use]
    pub fn problem_type(&self) -> &'static str {
        self.inner.problem_type.unwrap_or("about:blank")
    }

    /// The names of the policies that were violated.
    pub fn violated_policies(&self) -> impl Iterator<Item = &str> {
        let names = self.inner.violated.as_deref().unwrap_or_default();
        names.iter().map(AsRef::as_ref)
    }

    /// The header fields of the answer.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.inner.headers.iter().map(|(name, value)| (name, value))
    }

    /// The event that the refusal is sent as.
    #[must_use]
    pub fn event(&self) -> EventKind {
        self.inner.event.unwrap_or(self.inner.kind.event())
    }

    /// Renders the answer and puts on it what no renderer may leave out: the rejection's header
    /// fields, `Cache-Control: no-store`, and the rejection itself in the extensions.
    pub(crate) fn respond(self, render: &dyn Render, form: WireForm) -> Response<Bytes> {
        self.respond_in(render, form, Extensions::new())
    }

    /// The same with `extensions` for those of the answer, where the renderer set none.
    pub(crate) fn respond_in(
        self,
        render: &dyn Render,
        form: WireForm,
        extensions: Extensions,
    ) -> Response<Bytes> {
        let mut response = render.render(&self, form);
        if response.extensions().is_empty() {
            *response.extensions_mut() = extensions;
        }
        let headers = response.headers_mut();
        headers.reserve(self.inner.headers.len() + 1);
        headers.insert(CACHE_CONTROL, NO_STORE);
        for (name, value) in &self.inner.headers {
            headers.append(name.clone(), value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }

    /// Makes the body of the default answer ahead, for a refusal that is answered often.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn with_body_ahead(self) -> Self {
        let body = problem_json(&self);
        self.with(|inner| inner.body = Some(body))
    }

    /// This refusal with these header fields for its answer, all at once.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn having(&self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        let inner = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                kind: inner.kind,
                gate: inner.gate,
                reason: inner.reason,
                event: inner.event,
                problem_type: inner.problem_type,
                detail: inner.detail.clone(),
                violated: inner.violated.clone(),
                headers,
                body: inner.body.clone(),
            }),
        }
    }

    /// Changes what stands in the body of the default answer.
    fn with_body(self, change: impl FnOnce(&mut Inner)) -> Self {
        self.with(|inner| {
            change(inner);
            inner.body = None;
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("kind", &self.inner.kind)
            .field("gate", &self.inner.gate)
            .field("reason", &self.inner.reason)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by {}: {}", self.inner.gate, self.inner.reason)
    }
}

impl std::error::Error for Rejection {}

/// The default answer over HTTP, for what refuses outside a gate: extractors and handlers. A gate
/// answers through its [`Context`](crate::Context), which also sends the event.
#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Rejection {
    fn into_response(self) -> axum::response::Response {
        crate::event::metric::rejected(self.gate(), self.reason());
        self.respond(&ProblemDetails, WireForm::Http)
            .map(axum::body::Body::from)
    }
}

/// The form in which a client understands a refusal. It is read off the request before the request
/// is given away.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum WireForm {
    /// An HTTP status with a body.
    #[default]
    Http,
    /// HTTP 200 with a `grpc-status` and no body: a body would be read as a broken message.
    Grpc,
}

impl WireForm {
    /// The form that the sender of this request understands.
    #[must_use]
    pub fn of(head: Head<'_>) -> Self {
        let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        match content_type.and_then(|value| value.strip_prefix(b"application/grpc")) {
            // grpc-web is its own framing and reads HTTP statuses.
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            _ => Self::Http,
        }
    }
}

/// How refusals look. Implemented for closures of the same shape.
///
/// Whatever it answers, the rejection's own header fields (`WWW-Authenticate`, `Retry-After`, …)
/// and `Cache-Control: no-store` are put on it.
///
/// ```
/// use http::Response;
/// use portcullis::{Context, Rejection, WireForm};
///
/// let context = Context::new().with_render(|rejection: &Rejection, _: WireForm| {
///     Response::builder()
///         .status(rejection.status())
///         .body(rejection.reason().into())
///         .unwrap()
/// });
/// # drop(context);
/// ```
pub trait Render: Send + Sync + 'static {
    /// The answer to a refused request.
    fn render(&self, rejection: &Rejection, form: WireForm) -> Response<Bytes>;
}

impl<F> Render for F
where
    F: Fn(&Rejection, WireForm) -> Response<Bytes> + Send + Sync + 'static,
{
    fn render(&self, rejection: &Rejection, form: WireForm) -> Response<Bytes> {
        self(rejection, form)
    }
}

/// The default renderer: `application/problem+json` (RFC 9457), or a trailers-only gRPC answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemDetails;

impl Render for ProblemDetails {
    fn render(&self, rejection: &Rejection, form: WireForm) -> Response<Bytes> {
        match form {
            WireForm::Grpc => {
                let mut response = Response::new(Bytes::new());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, GRPC);
                let status = rejection.kind().grpc_status();
                headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
                if let Ok(message) = HeaderValue::from_str(rejection.reason()) {
                    headers.insert(GRPC_MESSAGE, message);
                }
                response
            }
            WireForm::Http => {
                let body = match &rejection.inner.body {
                    Some(body) => body.clone(),
                    None => problem_json(rejection),
                };
                let mut response = Response::new(body);
                *response.status_mut() = rejection.status();
                // With room for what every answer gets beside it.
                let mut headers = HeaderMap::with_capacity(rejection.inner.headers.len() + 2);
                headers.insert(CONTENT_TYPE, PROBLEM_JSON);
                *response.headers_mut() = headers;
                response
            }
        }
    }
}

fn problem_json(rejection: &Rejection) -> Bytes {
    let status = rejection.status();
    let mut json = String::with_capacity(256);
    json.push_str("{\"type\":");
    push_json_string(&mut json, rejection.problem_type());
    json.push_str(",\"title\":");
    push_json_string(&mut json, status.canonical_reason().unwrap_or_default());
    json.push_str(",\"status\":");
    json.push_str(status.as_str());
    if let Some(detail) = rejection.detail() {
        json.push_str(",\"detail\":");
        push_json_string(&mut json, detail);
    }
    for (index, name) in rejection.violated_policies().enumerate() {
        json.push_str(if index == 0 {
            ",\"violated-policies\":["
        } else {
            ","
        });
        push_json_string(&mut json, name);
    }
    if rejection.violated_policies().next().is_some() {
        json.push(']');
    }
    json.push('}');
    json.into()
}

fn push_json_string(json: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let escaped = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    json.push('"');
    let mut rest = text;
    // Escaped bytes are ASCII, so they stand at the boundaries of characters.
    while let Some(at) = rest.as_bytes().iter().position(escaped) {
        let (plain, from) = rest.split_at(at);
        json.push_str(plain);
        match from.as_bytes()[0] {
            b'"' => json.push_str("\\\""),
            b'\\' => json.push_str("\\\\"),
            control => {
                json.push_str("\\u00");
                json.push(DIGITS[usize::from(control >> 4)].into());
                json.push(DIGITS[usize::from(control & 15)].into());
            }
        }
        rest = &from[1..];
    }
    json.push_str(rest);
    json.push('"');
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

#[cfg(test)]
mod tests {
    use http::Request;
    use std::time::Duration;

    use super::*;

    fn respond(rejection: Rejection, form: WireForm) -> Response<Bytes> {
        rejection.respond(&ProblemDetails, form)
    }

    #[test]
    fn a_problem_is_valid_json_whatever_the_detail_holds() {
        let detail = "a \"quote\", a \\, a\nnewline and \u{1b}[31m";
        let rejection = Rejection::new(RejectionKind::RateLimited, "rate_limit", "exceeded")
            .with_detail(detail)
            .with_violated_policies([Arc::from("auth"), Arc::from("x\"y")]);
        let response = respond(rejection, WireForm::Http);
        assert_eq!(response.status(), 429);
        let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(json["detail"], detail);
        assert_eq!(json["violated-policies"][1], "x\"y");
        assert_eq!(json["status"], 429);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (millis, seconds) in [
            (0, "1"),
            (1, "1"),
            (1_000, "1"),
            (1_001, "2"),
            (59_999, "60"),
        ] {
            let rejection = Rejection::new(RejectionKind::RateLimited, "g", "r")
                .with_retry_after(Duration::from_millis(millis));
            assert_eq!(
                respond(rejection, WireForm::Http).headers()[RETRY_AFTER],
                seconds
            );
        }
    }

    #[test]
    fn grpc_gets_a_status_and_no_body() {
        let request = |value: &str| {
            Request::get("/")
                .header(CONTENT_TYPE, value)
                .body(())
                .unwrap()
        };
        for (value, form) in [
            ("application/grpc", WireForm::Grpc),
            ("application/grpc+proto", WireForm::Grpc),
            ("application/grpc-web", WireForm::Http),
            ("application/json", WireForm::Http),
        ] {
            assert_eq!(WireForm::of(Head::of(&request(value))), form, "{value}");
        }
        let rejection = Rejection::new(RejectionKind::Unauthenticated, "jwt", "missing_token");
        let response = respond(rejection, WireForm::Grpc);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "16");
        assert!(response.body().is_empty());
        assert!(response.extensions().get::<Rejection>().is_some());
    }
}
