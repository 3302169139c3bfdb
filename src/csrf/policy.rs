//! The rule over `Sec-Fetch-Site` and `Origin`.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{COOKIE, ORIGIN, UPGRADE},
};

use crate::{
    error::ConfigError,
    event::EventKind,
    head::Head,
    origin::Origin,
    rejection::{Rejection, RejectionKind},
};

/// Which requests are the service's own; the rules stand in the [module](super).
#[derive(Clone, Debug)]
#[must_use]
pub struct CsrfPolicy {
    origins: Vec<Origin>,
    cookies: Vec<Box<str>>,
    strict: bool,
    exempt: Option<fn(Head<'_>) -> bool>,
}

impl CsrfPolicy {
    /// A service whose pages live at these origins, as users type them.
    pub fn new(public: impl IntoIterator<Item = Origin>) -> Self {
        Self {
            origins: public.into_iter().collect(),
            cookies: Vec::new(),
            strict: false,
            exempt: None,
        }
    }

    /// Admits unsafe requests from other origins too, such as those that CORS allows.
    pub fn trust(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.origins.extend(origins);
        self
    }

    /// Refuses requests that carry this cookie and say nothing of where they come from.
    ///
    /// # Errors
    ///
    /// Where the name is not a cookie's name (RFC 6265 section 4.1.1).
    pub fn cookie(mut self, name: &str) -> Result<Self, ConfigError> {
        // A cookie's name is a token, as a header's is.
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(ConfigError::new(
                "csrf cookie",
                "takes a cookie's name: letters, digits and `!#$%&'*+-.^_|~`",
            ));
        }
        self.cookies.push(name.into());
        Ok(self)
    }

    /// Refuses every unsafe request that says nothing of where it comes from: for routes that only
    /// browsers use.
    pub fn strict(self) -> Self {
        Self {
            strict: true,
            ..self
        }
    }

    /// Admits these requests wherever they come from: for what other sites are meant to send, and
    /// what therefore does nothing in its visitor's name.
    pub fn exempt(self, exempt: fn(Head<'_>) -> bool) -> Self {
        Self {
            exempt: Some(exempt),
            ..self
        }
    }

    /// Whether requests with this cookie must say where they come from.
    #[cfg(feature = "jwt")]
    pub(crate) fn covers(&self, cookie: &str) -> bool {
        self.strict || self.cookies.iter().any(|own| **own == *cookie)
    }

    pub(crate) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    pub(crate) fn cookies(&self) -> &[Box<str>] {
        &self.cookies
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Judges a request by its head.
    pub(crate) fn decide(&self, head: Head<'_>) -> Result<(), Rejection> {
        if is_safe(head) || self.exempt.is_some_and(|exempt| exempt(head)) {
            return Ok(());
        }
        let (Ok(site), Ok(origin)) = (
            only(head.headers, &SEC_FETCH_SITE),
            only(head.headers, &ORIGIN),
        ) else {
            return Err(refuse(
                "ambiguous",
                "The request says more than once where it comes from.",
            ));
        };
        let known = || {
            origin.is_some_and(|origin| {
                self.origins
                    .iter()
                    .any(|known| known.as_str().as_bytes() == origin)
            })
        };
        match (site, origin) {
            (Some(b"same-origin" | b"none"), _) => Ok(()),
            (Some(_), _) if known() => Ok(()),
            (Some(_), _) => Err(refuse("cross_site", FROM_ELSEWHERE)),
            (None, Some(_)) if known() => Ok(()),
            (None, Some(_)) => Err(refuse("unknown_origin", FROM_ELSEWHERE)),
            (None, None) if self.strict || self.has_cookie(head.headers) => Err(refuse(
                "no_origin",
                "The request does not say where it comes from: neither Sec-Fetch-Site nor Origin.",
            )),
            (None, None) => Ok(()),
        }
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        if self.cookies.is_empty() {
            return false;
        }
        headers
            .get_all(COOKIE)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
            .map(|pair| {
                let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
                name.trim_ascii()
            })
            .any(|name| self.cookies.iter().any(|cookie| cookie.as_bytes() == name))
    }
}

/// Whether a request may not change anything. `TRACE` may: nothing legitimate sends it.
pub(super) fn is_safe(head: Head<'_>) -> bool {
    matches!(*head.method, Method::GET | Method::HEAD | Method::OPTIONS)
        && !head.headers.contains_key(UPGRADE)
}

pub(super) fn refuse(reason: &'static str, detail: &'static str) -> Rejection {
    Rejection::new(RejectionKind::Forbidden, "csrf", reason)
        .with_event(EventKind::MaliciousCsrf)
        .with_detail(detail)
}

/// The one value of a field; an empty one is none.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next().filter(|value| !value.is_empty());
    match values.next() {
        None => Ok(first),
        Some(_) => Err(()),
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FROM_ELSEWHERE: &str = "The request comes from another site.";

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn policy() -> CsrfPolicy {
        CsrfPolicy::new([Origin::new("https://example.com").unwrap()])
            .trust([Origin::new("https://app.example.net").unwrap()])
            .cookie("__Host-refresh")
            .unwrap()
    }

    fn judge(policy: &CsrfPolicy, method: &str, headers: &[(&str, &str)]) -> Result<(), String> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        policy
            .decide(Head::of(&request))
            .map_err(|rejection| rejection.reason().to_owned())
    }

    #[test]
    fn each_rule() {
        let [own, trusted, evil] = [
            ("origin", "https://example.com"),
            ("origin", "https://app.example.net"),
            ("origin", "https://evil.example"),
        ];
        let cross = ("sec-fetch-site", "cross-site");
        let same_site = ("sec-fetch-site", "same-site");
        let cookie = ("cookie", "a=b; __Host-refresh=x");
        for (method, headers, verdict) in [
            ("GET", &[cross, evil][..], Ok(())),
            ("HEAD", &[cross, evil], Ok(())),
            ("OPTIONS", &[cross, evil], Ok(())),
            ("TRACE", &[cross, evil], Err("cross_site")),
            ("CONNECT", &[cross, evil], Err("cross_site")),
            (
                "GET",
                &[("upgrade", "websocket"), evil],
                Err("unknown_origin"),
            ),
            ("GET", &[("upgrade", "websocket"), own], Ok(())),
            ("GET", &[("upgrade", "websocket"), cookie], Err("no_origin")),
            ("POST", &[("sec-fetch-site", "same-origin")], Ok(())),
            ("POST", &[("sec-fetch-site", "none")], Ok(())),
            (
                "POST",
                &[("sec-fetch-site", "Same-Origin")],
                Err("cross_site"),
            ),
            ("POST", &[cross], Err("cross_site")),
            ("POST", &[cross, evil], Err("cross_site")),
            ("POST", &[cross, trusted], Ok(())),
            ("POST", &[same_site], Err("cross_site")),
            ("POST", &[same_site, own], Ok(())),
            ("POST", &[own], Ok(())),
            ("POST", &[trusted], Ok(())),
            ("POST", &[evil], Err("unknown_origin")),
            ("POST", &[("origin", "null")], Err("unknown_origin")),
            (
                "POST",
                &[("origin", "http://example.com")],
                Err("unknown_origin"),
            ),
            (
                "POST",
                &[evil, ("host", "evil.example")],
                Err("unknown_origin"),
            ),
            ("POST", &[own, evil], Err("ambiguous")),
            (
                "POST",
                &[("sec-fetch-site", "same-origin"), cross],
                Err("ambiguous"),
            ),
            ("POST", &[], Ok(())),
            ("POST", &[("cookie", "other=__Host-refresh")], Ok(())),
            ("POST", &[cookie], Err("no_origin")),
            (
                "POST",
                &[("cookie", "a=b"), ("cookie", "__Host-refresh=x")],
                Err("no_origin"),
            ),
            (
                "POST",
                &[cookie, ("authorization", "Bearer x")],
                Err("no_origin"),
            ),
            ("POST", &[("origin", ""), ("sec-fetch-site", "")], Ok(())),
        ] {
            let verdict = verdict.map_err(str::to_owned);
            assert_eq!(
                judge(&policy(), method, headers),
                verdict,
                "{method} {headers:?}"
            );
        }
    }

    #[test]
    fn strict_mode_asks_everybody() {
        let strict = policy().strict();
        assert_eq!(judge(&strict, "POST", &[]), Err("no_origin".into()));
        assert_eq!(judge(&strict, "GET", &[]), Ok(()));
        let own = ("origin", "https://example.com");
        assert_eq!(judge(&strict, "POST", &[own]), Ok(()));
    }

    #[test]
    fn a_cookie_name_that_never_comes_is_refused() {
        for name in ["", "a b", "a=b", "a;b"] {
            assert!(policy().cookie(name).is_err());
        }
    }
}
