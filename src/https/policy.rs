//! Which hosts are served, and what becomes of plain HTTP.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{FORWARDED, HOST},
};

use crate::{
    client::Client,
    error::ConfigError,
    event::EventKind,
    head::Head,
    origin::{self, Origin},
    rejection::{Rejection, RejectionKind},
};

/// The public origin, the hosts beside it, and the exemptions; the rules stand in the
/// [module](super).
#[derive(Clone, Debug)]
#[must_use]
pub struct HttpsPolicy {
    origin: Origin,
    hosts: Option<Vec<Box<str>>>,
    redirect: bool,
    exempt: Option<fn(Head<'_>) -> bool>,
}

/// What the policy says of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    Admitted,
    Redirected(HeaderValue),
    Refused(Rejection),
}

impl HttpsPolicy {
    /// Serves the host of `public` alone. Where `public` is an HTTPS origin, plain HTTP is
    /// redirected there; where it is not, as in development, only the host is checked.
    pub fn new(public: Origin) -> Self {
        Self {
            hosts: Some(vec![public.authority().into()]),
            redirect: public.is_https(),
            origin: public,
            exempt: None,
        }
    }

    /// Serves another host too, with its port where it is not the scheme's own. Plain requests for
    /// it are redirected to the public origin all the same.
    ///
    /// # Errors
    ///
    /// Where the text is not a host as browsers send it.
    pub fn host(mut self, host: &str) -> Result<Self, ConfigError> {
        let scheme = if self.origin.is_https() {
            "https"
        } else {
            "http"
        };
        if let Some(problem) = origin::problem(&format!("{scheme}://{host}")) {
            return Err(ConfigError::new("https host", problem));
        }
        if let Some(hosts) = &mut self.hosts {
            hosts.push(host.into());
        }
        Ok(self)
    }

    /// Serves any host. For a service behind a proxy that already checks it.
    pub fn any_host(self) -> Self {
        Self {
            hosts: None,
            ..self
        }
    }

    /// Leaves plain HTTP alone, and checks the host only.
    pub fn without_redirect(self) -> Self {
        Self {
            redirect: false,
            ..self
        }
    }

    /// Admits these requests over plain HTTP and for any host.
    pub fn exempt(self, exempt: fn(Head<'_>) -> bool) -> Self {
        Self {
            exempt: Some(exempt),
            ..self
        }
    }

    /// The hosts that are served; `None` for any.
    pub(crate) fn hosts(&self) -> Option<&[Box<str>]> {
        self.hosts.as_deref()
    }

    /// Where plain HTTP is sent, if anywhere.
    pub(crate) fn redirects_to(&self) -> Option<&Origin> {
        self.redirect.then_some(&self.origin)
    }

    /// Judges a request by its head.
    pub(crate) fn decide(&self, head: Head<'_>) -> Verdict {
        if self.exempt.is_some_and(|exempt| exempt(head)) {
            return Verdict::Admitted;
        }
        if let Err(rejection) = self.check_host(head) {
            return Verdict::Refused(rejection);
        }
        if !self.redirect
            || Client::of(head).is_some_and(Client::is_secure)
            || head.uri.path().starts_with(ACME)
        {
            return Verdict::Admitted;
        }
        if claims_https(head.headers) {
            return Verdict::Refused(
                refuse(
                    RejectionKind::Forbidden,
                    "untrusted_proxy",
                    "The request came through a proxy that is not trusted here.",
                )
                .with_event(EventKind::Misconfigured),
            );
        }
        if !matches!(*head.method, Method::GET | Method::HEAD) {
            return Verdict::Refused(refuse(
                RejectionKind::Forbidden,
                "https_required",
                "This service takes requests over HTTPS alone.",
            ));
        }
        Verdict::Redirected(self.location(head.uri))
    }

    fn check_host(&self, head: Head<'_>) -> Result<(), Rejection> {
        let Some(hosts) = &self.hosts else {
            return Ok(());
        };
        let malformed = |reason, detail| Err(refuse(RejectionKind::BadRequest, reason, detail));
        let mut lines = head.headers.get_all(HOST).iter();
        let line = lines.next();
        if lines.next().is_some() {
            return malformed("several_hosts", "The request has several Host fields.");
        }
        let target = head.uri.authority().map(|authority| authority.as_str());
        let line = line.map(|line| line.to_str().unwrap_or_default());
        let (target, line) = (
            target.map(|host| self.bare(host)),
            line.map(|host| self.bare(host)),
        );
        let host = match (target, line) {
            // An absolute target outranks the field (RFC 9112 section 3.2.2), but what stands
            // behind this gate may read either.
            (Some(target), Some(line)) if !target.eq_ignore_ascii_case(line) => {
                return malformed("several_hosts", "The target and the Host field differ.");
            }
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => {
                return malformed("no_host", "The request does not say for which host it is.");
            }
        };
        if hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(refuse(
            RejectionKind::MisdirectedRequest,
            "unknown_host",
            "This host is not served here.",
        ))
    }

    /// The host without the port that is the scheme's own.
    fn bare<'a>(&self, host: &'a str) -> &'a str {
        let port = if self.origin.is_https() {
            ":443"
        } else {
            ":80"
        };
        host.strip_suffix(port).unwrap_or(host)
    }

    /// The same path and query at the public origin.
    fn location(&self, uri: &Uri) -> HeaderValue {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path } else { "/" };
        let mut location = self.origin.to_string();
        for byte in path.bytes() {
            // A target may hold UTF-8 as it is, a URI may not (RFC 3987 section 3.1).
            match byte.is_ascii_graphic() {
                true => location.push(byte.into()),
                false => location.push_str(&format!("%{byte:02X}")),
            }
        }
        HeaderValue::try_from(location).unwrap_or(HeaderValue::from_static("/"))
    }
}

/// Whether a forwarding header says that the client speaks HTTPS. Believed only as a hint that
/// something is set up wrongly.
fn claims_https(headers: &HeaderMap) -> bool {
    let proto = headers.get_all(X_FORWARDED_PROTO).iter().any(|value| {
        let mut claims = value.as_bytes().split(|byte| *byte == b',');
        claims.any(|claim| claim.trim_ascii().eq_ignore_ascii_case(b"https"))
    });
    let forwarded = || {
        headers.get_all(FORWARDED).iter().any(|value| {
            let value = value.as_bytes().to_ascii_lowercase();
            let has = |text: &[u8]| value.windows(text.len()).any(|window| window == text);
            has(b"proto=https") || has(b"proto=\"https\"")
        })
    };
    proto || forwarded()
}

fn refuse(kind: RejectionKind, reason: &'static str, detail: &'static str) -> Rejection {
    Rejection::new(kind, "https", reason).with_detail(detail)
}

const ACME: &str = "/.well-known/acme-challenge/";
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
