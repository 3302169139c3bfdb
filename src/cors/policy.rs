//! The checked origin list, and the layer that it makes.

use std::{fmt, sync::Arc, time::Duration};

use http::{
    HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    },
    request::Parts,
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    client::Client,
    context::Context,
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    head::Head,
    origin::{self, Origin},
};

/// Who may call from another origin, with what, and what he may read.
#[derive(Clone, Debug)]
#[must_use]
pub struct CorsPolicy {
    origins: Arc<[Pattern]>,
    credentials: bool,
    methods: Vec<Method>,
    request_headers: Vec<HeaderName>,
    exposed_headers: Vec<HeaderName>,
    max_age: Duration,
}

impl CorsPolicy {
    /// Allows these origins to call with `GET`, `POST`, `PUT`, `PATCH` and `DELETE`, with
    /// `Authorization`, `Content-Type`, `X-API-Key` and `X-CSRF-Token`, without cookies, and to read
    /// the fields of rate limits and of 401. Browsers remember it for two hours.
    ///
    /// # Errors
    ///
    /// Where a text is not an origin as browsers send it, or `https://*.` and a domain of at least
    /// two labels. `*` and `null` are not.
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        Ok(Self {
            origins: origins
                .into_iter()
                .map(Pattern::new)
                .collect::<Result<_, _>>()?,
            credentials: false,
            methods: vec![
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ],
            request_headers: vec![AUTHORIZATION, CONTENT_TYPE, X_API_KEY, X_CSRF_TOKEN],
            exposed_headers: vec![RATELIMIT, RATELIMIT_POLICY, RETRY_AFTER, WWW_AUTHENTICATE],
            max_age: Duration::from_secs(2 * 3600),
        })
    }

    /// Says whether calls may carry cookies.
    pub fn credentials(self, credentials: bool) -> Self {
        Self {
            credentials,
            ..self
        }
    }

    /// Allows these methods alone.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        Self {
            methods: methods.into_iter().collect(),
            ..self
        }
    }

    /// Allows these request headers beside those that need no leave.
    pub fn request_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self {
            request_headers: names.into_iter().collect(),
            ..self
        }
    }

    /// Lets scripts read these headers of answers, beside those that need no leave.
    pub fn exposed_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self {
            exposed_headers: names.into_iter().collect(),
            ..self
        }
    }

    /// Lets browsers remember a preflight for so long, in whole seconds; they cap it at two hours
    /// or a day.
    pub fn max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Whether the policy allows an `Origin`, byte for byte.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        allows(&self.origins, origin)
    }

    /// The exact origins of the list, to be trusted by [`CsrfPolicy::trust`] too; wildcards are
    /// not among them.
    ///
    /// [`CsrfPolicy::trust`]: https://docs.rs/portcullis/latest/portcullis/csrf/struct.CsrfPolicy.html#method.trust
    pub fn exact_origins(&self) -> impl Iterator<Item = Origin> {
        self.origins.iter().filter_map(|pattern| match pattern {
            Pattern::Exact(origin) => Some(origin.clone()),
            Pattern::Below { .. } => None,
        })
    }

    /// The list, as it was written.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = String> {
        self.origins.iter().map(Pattern::to_string)
    }

    pub(crate) fn allows_credentials(&self) -> bool {
        self.credentials
    }

    /// The layer. It stands inside the security headers and outside every gate that refuses.
    pub fn layer(&self, context: &Context) -> CorsLayer {
        let origins = Arc::clone(&self.origins);
        let context = context.clone();
        let allowed = move |origin: &HeaderValue, parts: &Parts| {
            let allowed = allows(&origins, origin);
            if !allowed && is_preflight(parts) {
                report(&context, parts);
            }
            allowed
        };
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(allowed))
            .allow_credentials(self.credentials)
            .allow_methods(self.methods.clone())
            .allow_headers(self.request_headers.clone())
            .expose_headers(self.exposed_headers.clone())
            .max_age(self.max_age)
    }
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(Origin),
    /// One label between the scheme and the rest, which starts with a dot.
    Below {
        scheme: Box<str>,
        rest: Box<str>,
    },
}

impl Pattern {
    fn new(text: &str) -> Result<Self, ConfigError> {
        let Some((scheme, rest)) = text.split_once("://*.") else {
            return Origin::new(text)
                .map(Self::Exact)
                .map_err(|error| error.named("cors origin"));
        };
        let host = rest.split(':').next().unwrap_or_default();
        if !host.contains('.') || host.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(ConfigError::new(
                "cors origin",
                "takes a wildcard above a domain of at least two labels: `https://*.example.com`",
            ));
        }
        if let Some(problem) = origin::problem(&format!("{scheme}://{rest}")) {
            return Err(ConfigError::new("cors origin", problem));
        }
        Ok(Self::Below {
            scheme: format!("{scheme}://").into(),
            rest: format!(".{rest}").into(),
        })
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == origin,
            Self::Below { scheme, rest } => {
                let label = origin
                    .strip_prefix(&**scheme)
                    .and_then(|host| host.strip_suffix(&**rest));
                label.is_some_and(|label| !label.contains('.')) && origin::problem(origin).is_none()
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(origin) => origin.fmt(f),
            Self::Below { scheme, rest } => write!(f, "{scheme}*{rest}"),
        }
    }
}

fn allows(origins: &[Pattern], origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    origins.iter().any(|pattern| pattern.matches(origin))
}

/// A page's own origin sends `Origin` too, but never a preflight.
fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn report(context: &Context, parts: &Parts) {
    let client = Client::of(Head::of_parts(parts)).and_then(Client::ip);
    context.emit(
        SecurityEvent::new(EventKind::MaliciousCors)
            .with_rule("cors", "unknown_origin")
            .with_client(client),
    );
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label() {
        let policy = CorsPolicy::new(["https://*.example.com:8443"]).unwrap();
        for (origin, allowed) in [
            ("https://a.example.com:8443", true),
            ("https://a-b.example.com:8443", true),
            ("https://a.b.example.com:8443", false),
            ("https://.example.com:8443", false),
            ("https://example.com:8443", false),
            ("http://a.example.com:8443", false),
            ("https://a.example.com", false),
            ("https://evil.net/.example.com:8443", false),
            ("https://evil@.example.com:8443", false),
            ("https://evil#.example.com:8443", false),
            ("https://evilexample.com:8443", false),
            ("https://A.example.com:8443", false),
            ("null", false),
            ("", false),
        ] {
            let origin = HeaderValue::from_static(origin);
            assert_eq!(policy.allows(&origin), allowed, "{origin:?}");
        }
    }

    #[test]
    fn what_could_trust_everybody_is_refused() {
        for origin in [
            "*",
            "null",
            "",
            "https://*",
            "https://*.com",
            "https://*.com:8443",
            "https://*.*.example.com",
            "https://a.*.example.com",
            "https://*example.com",
            "https://*.10.0.0.1",
            "https://*.Example.com",
            "https://*.example.com/",
            "example.com",
            "https://example.com/",
            "https://EXAMPLE.com",
        ] {
            assert!(CorsPolicy::new([origin]).is_err(), "{origin}");
        }
    }
}
