//! `Reporting-Endpoints`, and a service that takes the reports.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use serde::Deserialize;
use tower_service::Service;

use super::csp::Directive;
use crate::{
    client::Client,
    context::Context,
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    future::drain,
    head::Head,
    rejection::{Rejection, RejectionKind, WireForm},
};

/// `Reporting-Endpoints`: where a browser sends reports, by name.
///
/// ```
/// use portcullis::headers::{Csp, Profile, ReportingEndpoints};
///
/// let endpoints = ReportingEndpoints::new().endpoint("csp", "/csp-reports")?;
/// let csp = Csp::html().edit().report_to("csp").report_uri(["/csp-reports"]).build()?;
/// let profile = Profile::html().csp(csp).reporting_endpoints(&endpoints);
/// # drop(profile);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct ReportingEndpoints {
    entries: Vec<String>,
}

impl ReportingEndpoints {
    /// No endpoint.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Adds an endpoint: a path of the same origin, or an HTTPS address.
    ///
    /// # Errors
    ///
    /// Where the name is not lower-case letters, digits, `-` and `_`, or browsers would not report
    /// to the address.
    pub fn endpoint(mut self, name: &str, url: &str) -> Result<Self, ConfigError> {
        let named = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        if !named {
            return Err(ConfigError::new(
                "reporting-endpoints",
                "an endpoint's name is lower-case letters, digits, `-` and `_`",
            ));
        }
        let reachable =
            url.starts_with('/') && !url.starts_with("//") || url.starts_with("https://");
        let quotable = url
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        if !reachable || !quotable {
            return Err(ConfigError::new(
                "reporting-endpoints",
                "an endpoint is a path that starts with one `/`, or an `https://` address",
            ));
        }
        self.entries.push(format!("{name}=\"{url}\""));
        Ok(self)
    }

    pub(super) fn value(&self) -> HeaderValue {
        super::value::from_checked(self.entries.join(", "))
    }
}

/// Takes browsers' reports of violated policies, and sends each as the event `csp_violation` with
/// the directive for its reason.
///
/// It reads `application/reports+json` and `application/csp-report`, at most 16 KiB within 5 s, and
/// counts the first 20 reports of a request; it answers 204. Anybody can send anything here, so of
/// a report nothing but the directive is kept, one of a closed list, and repeats of one client are
/// folded. Put a rate limit around it, and leave it out of CSRF checks of the strict kind: reports
/// come from the page's own origin without credentials.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use portcullis::headers::CspReports;
/// use tower::ServiceExt;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// let report = r#"{"csp-report":{"effective-directive":"script-src-elem"}}"#;
/// let request = Request::post("/csp-reports")
///     .header("content-type", "application/csp-report")
///     .body(Full::<Bytes>::from(report))?;
/// let response = CspReports::new().oneshot(request).await?;
/// assert_eq!(response.status(), 204);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CspReports {
    context: Context,
}

impl CspReports {
    /// The service.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends events to this context.
    pub fn with_context(self, context: Context) -> Self {
        Self { context }
    }

    fn refuse<A>(&self, request: Request<A>, rejection: Rejection) -> Answer
    where
        A: Body + Send + 'static,
    {
        let response = self.context.refuse(&request, rejection);
        let drain = drain(request);
        Box::pin(async move {
            if let Some(drain) = drain {
                drain.await;
            }
            Ok(response)
        })
    }
}

impl<A> Service<Request<A>> for CspReports
where
    A: Body + Send + 'static,
    A::Data: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<A>) -> Answer {
        if *request.method() != Method::POST {
            let rejection = Rejection::new(RejectionKind::MethodNotAllowed, "headers", "method")
                .with_header(ALLOW, HeaderValue::from_static("POST"));
            return self.refuse(request, rejection);
        }
        let content_type = request.headers().get(CONTENT_TYPE);
        if !content_type.is_some_and(|value| is_report(value.as_bytes())) {
            let rejection = Rejection::new(
                RejectionKind::UnsupportedMediaType,
                "headers",
                "report_type",
            );
            return self.refuse(request, rejection);
        }
        if request.body().size_hint().lower() > MAX_BYTES as u64 {
            return self.refuse(request, too_large());
        }
        let context = self.context.clone();
        let form = WireForm::of(Head::of(&request));
        let client = Client::of(Head::of(&request)).and_then(Client::ip);
        Box::pin(async move {
            let read = read(request.into_body());
            let directives = match tokio::time::timeout(MAX_TIME, read).await {
                Ok(Ok(bytes)) => directives(&bytes).ok_or_else(malformed),
                Ok(Err(rejection)) => Err(rejection),
                Err(_) => Err(Rejection::new(
                    RejectionKind::Timeout,
                    "headers",
                    "report_slow",
                )),
            };
            match directives {
                Ok(directives) => {
                    for directive in directives {
                        let event = SecurityEvent::new(EventKind::CspViolation)
                            .with_rule("headers", directive)
                            .with_client(client);
                        context.emit(event);
                    }
                    let mut response = Response::new(Full::default());
                    *response.status_mut() = StatusCode::NO_CONTENT;
                    Ok(response)
                }
                Err(rejection) => {
                    context.emit(
                        SecurityEvent::new(rejection.event())
                            .with_rule(rejection.gate(), rejection.reason())
                            .with_client(client),
                    );
                    Ok(context.render(rejection, form))
                }
            }
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

async fn read<A: Body>(body: A) -> Result<Vec<u8>, Rejection> {
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(malformed());
        };
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        if data.remaining() > MAX_BYTES - bytes.len() {
            return Err(too_large());
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let length = chunk.len();
            data.advance(length);
        }
    }
    Ok(bytes)
}

/// The directives of the reports, each the name of a [`Directive`] or `other`.
fn directives(bytes: &[u8]) -> Option<Vec<&'static str>> {
    let one_or_many = serde_json::from_slice(bytes).ok()?;
    let violated = match one_or_many {
        Message::Legacy { report } => vec![name(report.effective.as_deref(), &report.violated)],
        Message::Reports(reports) => reports
            .iter()
            .filter(|report| report.kind == "csp-violation")
            .take(MAX_REPORTS)
            .map(|report| name(report.body.effective.as_deref(), ""))
            .collect(),
    };
    Some(violated)
}

fn name(effective: Option<&str>, violated: &str) -> &'static str {
    // Older browsers put the whole directive into `violated-directive`.
    let violated = violated.split(' ').next().unwrap_or_default();
    let name = effective.unwrap_or(violated);
    Directive::ALL
        .iter()
        .map(|directive| directive.as_str())
        .find(|known| *known == name)
        .unwrap_or("other")
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Legacy {
        #[serde(rename = "csp-report")]
        report: Legacy,
    },
    Reports(Vec<Report>),
}

#[derive(Deserialize)]
struct Legacy {
    #[serde(rename = "effective-directive")]
    effective: Option<String>,
    #[serde(rename = "violated-directive", default)]
    violated: String,
}

#[derive(Deserialize)]
struct Report {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    body: Violation,
}

#[derive(Default, Deserialize)]
struct Violation {
    #[serde(rename = "effectiveDirective")]
    effective: Option<String>,
}

fn is_report(content_type: &[u8]) -> bool {
    let essence = content_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    essence.eq_ignore_ascii_case(b"application/reports+json")
        || essence.eq_ignore_ascii_case(b"application/csp-report")
}

fn too_large() -> Rejection {
    Rejection::new(
        RejectionKind::PayloadTooLarge,
        "headers",
        "report_too_large",
    )
}

fn malformed() -> Rejection {
    Rejection::new(RejectionKind::BadRequest, "headers", "report_malformed")
}

const MAX_BYTES: usize = 16 * 1024;
const MAX_REPORTS: usize = 20;
const MAX_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_report_only_a_known_directive_is_kept() {
        let read = |text: &str| directives(text.as_bytes());
        assert_eq!(
            read(r#"{"csp-report":{"violated-directive":"script-src 'self'"}}"#),
            Some(vec!["script-src"])
        );
        assert_eq!(
            read(r#"{"csp-report":{"effective-directive":"<script>"}}"#),
            Some(vec!["other"])
        );
        assert_eq!(
            read(
                r#"[{"type":"csp-violation","body":{"effectiveDirective":"img-src"}},
                    {"type":"deprecation","body":{"id":"x"}},
                    {"type":"csp-violation"}]"#
            ),
            Some(vec!["img-src", "other"])
        );
        let many = format!(
            "[{}]",
            vec![r#"{"type":"csp-violation"}"#; MAX_REPORTS + 5].join(",")
        );
        assert_eq!(read(&many).unwrap().len(), MAX_REPORTS);
        for malformed in ["", "{}", "null", "[1]", "{\"csp-report\":1}", "\u{0}"] {
            assert_eq!(read(malformed), None, "{malformed}");
        }
        let deep = "[".repeat(8000);
        assert_eq!(read(&deep), None);
    }

    #[test]
    fn endpoints() {
        let endpoints = ReportingEndpoints::new()
            .endpoint("csp", "/csp-reports")
            .unwrap()
            .endpoint("other", "https://r.example/a?b=c")
            .unwrap();
        assert_eq!(
            endpoints.value(),
            "csp=\"/csp-reports\", other=\"https://r.example/a?b=c\""
        );
        for (name, url) in [
            ("", "/a"),
            ("A", "/a"),
            ("a b", "/a"),
            ("a", ""),
            ("a", "a"),
            ("a", "//evil.example"),
            ("a", "http://a.example"),
            ("a", "/a\", b=\"https://evil.example"),
            ("a", "/a\r\nx: y"),
        ] {
            assert!(ReportingEndpoints::new().endpoint(name, url).is_err());
        }
    }
}
