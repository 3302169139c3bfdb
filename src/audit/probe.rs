//! Synthetic requests through the final service.

use std::{collections::BTreeMap, fmt, net::Ipv6Addr};

use bytes::Bytes;
use http::{
    HeaderName, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CACHE_CONTROL,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY, SERVER,
        STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    },
    request::Builder,
};
use http_body_util::Full;
use tower::ServiceExt as _;
use tower_service::Service;

use super::{
    line::{Checklist, Line, Verdict},
    route::{Limit, Route, Site},
};
#[cfg(feature = "upload")]
use crate::rejection::Rejection;
use crate::{client::Peer, secret::random};

/// Sends synthetic requests to every route and says what the answers show. `service` is the final
/// one, as it will be served; [`with_peer`](crate::client::with_peer) is not needed around it.
///
/// A line for which no route was listed is the operator's.
pub async fn probe<S, B>(service: S, site: &Site, routes: &[Route]) -> Checklist
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
    S::Error: fmt::Display,
{
    let mut probe = Probe {
        service,
        site,
        seen: Seen::default(),
    };
    for route in routes {
        probe.edge(route).await;
        probe.plain(route).await;
        probe.cross_site(route).await;
        probe.strangers(route).await;
        probe.oversize(route).await;
        #[cfg(feature = "upload")]
        probe.planted(route).await;
        probe.flood(route).await;
    }
    probe.unknown().await;
    probe.seen.checklist(site, routes)
}

struct Probe<'a, S> {
    service: S,
    site: &'a Site,
    seen: Seen,
}

/// What was asked for each line, and the routes where it did not hold.
#[derive(Default)]
struct Seen {
    asked: BTreeMap<&'static str, u32>,
    faults: BTreeMap<&'static str, Vec<String>>,
    unseen: BTreeMap<&'static str, Vec<String>>,
}

impl Seen {
    fn note(&mut self, line: &'static str, holds: bool, fault: impl FnOnce() -> String) {
        *self.asked.entry(line).or_default() += 1;
        if !holds {
            self.faults.entry(line).or_default().push(fault());
        }
    }

    /// Takes note of a route that showed nothing, of which the line cannot be said to hold.
    fn hides(&mut self, line: &'static str, why: String) {
        self.unseen.entry(line).or_default().push(why);
    }

    fn verdict(&self, line: &'static str) -> (Verdict, String) {
        if let Some(faults) = self.faults.get(line) {
            return (Verdict::Fails, some_of(faults));
        }
        if let Some(unseen) = self.unseen.get(line) {
            return (Verdict::Operators, some_of(unseen));
        }
        match self.asked.get(line) {
            None => (
                Verdict::Operators,
                "no route was listed that shows it".to_owned(),
            ),
            Some(asked) => (
                Verdict::Observed,
                format!("{asked} probes through the service"),
            ),
        }
    }

    fn line(&self, id: &'static str, text: &'static str, to_do: &'static str) -> Line {
        let (verdict, how) = self.verdict(id);
        Line::new(id, text, verdict, how).to_do(to_do)
    }

    fn checklist(&self, site: &Site, routes: &[Route]) -> Checklist {
        let https = self.line(
            "https",
            "always HTTPS",
            "serve an https origin, and put the redirect into the stack",
        );
        let https = match site.is_https {
            true => https,
            false => Line::new(
                "https",
                "always HTTPS",
                Verdict::Fails,
                "the service is reached over plain HTTP",
            )
            .to_do("serve an https origin, behind a trusted proxy or with TLS"),
        };
        let lines = [
            self.line(
                "security_headers",
                "security headers on every answer",
                "put the route inside the stack, or the headers into it",
            ),
            https.set_by("PUBLIC_ORIGIN"),
            self.line(
                "hsts",
                "browsers are told to use HTTPS alone",
                "let the security headers send Strict-Transport-Security",
            ),
            self.line(
                "cross_site",
                "CSRF: no unsafe request from another site",
                "put the route inside the stack, or a cross-site rule into it",
            ),
            self.line(
                "cors",
                "CORS for trusted origins alone",
                "name the origins one by one",
            )
            .set_by("CORS_ALLOWED_ORIGINS"),
            self.line(
                "authentication",
                "no access without a proof of identity",
                "let the route's guard authenticate",
            ),
            self.line(
                "hidden",
                "what is for operators is hidden from others",
                "guard the route by address or token",
            ),
            self.line(
                "body_size",
                "bodies have a largest size",
                "let the route's guard bound the body",
            ),
            self.line(
                "errors",
                "errors show no internals and are not cached",
                "answer errors by the gates and by `problem`",
            ),
        ];
        #[cfg(feature = "upload")]
        let scanner = routes.iter().any(|route| route.scanned.is_some()).then(|| {
            let (verdict, how) = self.verdict("scanner");
            super::scanner::line(verdict, how)
        });
        #[cfg(not(feature = "upload"))]
        let scanner = None::<Line>;
        let mut limits: Vec<&Limit> = Vec::new();
        for limit in routes.iter().filter_map(|route| route.limit.as_ref()) {
            if !limits.iter().any(|known| known.id == limit.id) {
                limits.push(limit);
            }
        }
        Checklist::new(lines)
            .and(limits.into_iter().map(|limit| self.limit(limit)))
            .and(scanner)
    }

    fn limit(&self, limit: &Limit) -> Line {
        let line = match limit.is_looser() {
            true => Line::new(
                limit.id,
                limit.text,
                Verdict::Fails,
                format!("{} in {:?} is looser", limit.most, limit.window),
            )
            .to_do("set it to what the policy allows, and its window"),
            false => self.line(
                limit.id,
                limit.text,
                "let the route's guard ask for the limit, by the client's address",
            ),
        };
        match limit.variable {
            Some(variable) => line.set_by(variable),
            None => line,
        }
    }
}

impl<S, B> Probe<'_, S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
    S::Error: fmt::Display,
{
    /// What stands around the whole service is on every answer.
    async fn edge(&mut self, route: &Route) {
        let Some(answer) = self
            .send(route, fresh(), |builder| builder, Bytes::new())
            .await
        else {
            return;
        };
        let headers = answer.headers();
        for name in [
            X_CONTENT_TYPE_OPTIONS,
            CONTENT_SECURITY_POLICY,
            REFERRER_POLICY,
        ] {
            let count = headers.get_all(&name).iter().count();
            self.seen.note("security_headers", count == 1, || {
                told(route, &format!("{count} {name}"))
            });
        }
        for name in [SERVER, X_POWERED_BY] {
            self.seen
                .note("security_headers", !headers.contains_key(&name), || {
                    told(route, &format!("sends {name}"))
                });
        }
        if self.site.is_https {
            let says = headers.contains_key(STRICT_TRANSPORT_SECURITY);
            self.seen
                .note("hsts", says, || told(route, "does not say so"));
        }
        let cors = |builder: Builder| {
            builder
                .header(ORIGIN, STRANGE_ORIGIN)
                .header(ACCESS_CONTROL_REQUEST_METHOD, route.method.as_str())
        };
        let preflight = Route::new(Method::OPTIONS, route.path);
        for asked in [&preflight, route] {
            if let Some(answer) = self.send(asked, fresh(), cors, Bytes::new()).await {
                let allowed = answer.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
                self.seen.note("cors", allowed.is_none(), || {
                    told(asked, "lets any origin read")
                });
            }
        }
    }

    /// Plain HTTP is answered by a redirect to HTTPS, or refused.
    async fn plain(&mut self, route: &Route) {
        if !self.site.is_https || route.plain {
            return;
        }
        let request = self.request(route, Bytes::new(), |builder| builder);
        let answer = self.answer(request, fresh(), false).await;
        if let Some(answer) = answer {
            let status = answer.status();
            let location = answer.headers().get(http::header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            let moved = status.is_redirection()
                && location.is_some_and(|location| location.starts_with("https://"));
            let turned = moved || matches!(status.as_u16(), 403 | 421 | 426);
            self.seen.note("https", turned, || {
                told(route, &format!("answers plain HTTP with {status}"))
            });
        }
    }

    /// An unsafe request that a browser says comes from elsewhere is refused.
    async fn cross_site(&mut self, route: &Route) {
        if !route.is_unsafe() {
            return;
        }
        let by_metadata = |builder: Builder| builder.header(SEC_FETCH_SITE, "cross-site");
        let by_origin = |builder: Builder| builder.header(ORIGIN, STRANGE_ORIGIN);
        for change in [&by_metadata as &dyn Fn(Builder) -> Builder, &by_origin] {
            let answer = self.send(route, fresh(), change, Bytes::new()).await;
            if let Some(answer) = answer {
                let status = answer.status();
                self.seen
                    .note("cross_site", status == StatusCode::FORBIDDEN, || {
                        told(route, &format!("answers {status}"))
                    });
            }
        }
    }

    /// Whoever brings no proof, or one that anybody can make, is a stranger.
    async fn strangers(&mut self, route: &Route) {
        for token in [None, Some(UNSIGNED)] {
            let change = |builder: Builder| match token {
                Some(token) => builder.header(AUTHORIZATION, token),
                None => builder,
            };
            let Some(answer) = self.send(route, fresh(), change, Bytes::new()).await else {
                return;
            };
            let status = answer.status();
            if route.authenticated {
                self.seen
                    .note("authentication", status == StatusCode::UNAUTHORIZED, || {
                        told(route, &format!("answers {status} to a stranger"))
                    });
                self.error(route, &answer);
            }
            if route.hidden {
                let hidden = matches!(status.as_u16(), 401 | 403 | 404);
                self.seen.note("hidden", hidden, || {
                    told(route, &format!("answers {status} to a stranger"))
                });
            }
        }
    }

    /// A byte more than allowed is refused, also to whoever may come in.
    async fn oversize(&mut self, route: &Route) {
        let Some((most, media_type)) = route.body else {
            return;
        };
        let size = usize::try_from(most).unwrap_or(usize::MAX);
        let body = vec![b' '; size.saturating_add(1)];
        let Some(answer) = self.enter(route, "body_size", media_type, body).await else {
            return;
        };
        let status = answer.status();
        self.seen
            .note("body_size", status == StatusCode::PAYLOAD_TOO_LARGE, || {
                told(route, &format!("answers {status} to {most} + 1 bytes"))
            });
    }

    /// A file that a scanner must find is refused because it was found.
    #[cfg(feature = "upload")]
    async fn planted(&mut self, route: &Route) {
        let Some((field, carrier)) = route.scanned else {
            return;
        };
        let (name, media_type) = (carrier.file_name(), carrier.media_type());
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; \
             filename=\"{name}\"\r\nContent-Type: {media_type}\r\n\r\n"
        )
        .into_bytes();
        body.extend(carrier.planted());
        body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
        let media_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let Some(answer) = self.enter(route, "scanner", &media_type, body).await else {
            return;
        };
        let reason = answer
            .extensions()
            .get::<Rejection>()
            .map(Rejection::reason);
        let status = answer.status();
        self.seen
            .note("scanner", reason == Some("malware_found"), || {
                let answered = reason.unwrap_or(status.as_str());
                told(route, &format!("answers {answered} to the EICAR test file"))
            });
    }

    /// What a route answers to a body of a user, if it looks at it.
    async fn enter(
        &mut self,
        route: &Route,
        line: &'static str,
        media_type: &str,
        body: Vec<u8>,
    ) -> Option<Response<B>> {
        let proof = self.site.proof.as_ref().filter(|_| route.authenticated);
        let change = |builder: Builder| {
            let builder = builder.header(CONTENT_TYPE, media_type);
            match proof {
                Some(proof) => builder.header(AUTHORIZATION, proof),
                None => builder,
            }
        };
        let answer = self.send(route, fresh(), change, body.into()).await?;
        if route.authenticated && answer.status() == StatusCode::UNAUTHORIZED {
            let why = "looks at the body of a user alone, and the site has no token of one";
            self.seen.hides(line, told(route, why));
            return None;
        }
        Some(answer)
    }

    /// As many as allowed go through and one more does not, whatever the client says of itself.
    async fn flood(&mut self, route: &Route) {
        let Some(limit) = &route.limit else {
            return;
        };
        let client = fresh();
        for sent in 0..=limit.most.min(MOST_SENT) {
            let change = |builder: Builder| builder.header(X_FORWARDED_FOR, forged(sent));
            let answer = self.send(route, client, change, Bytes::new()).await;
            let Some(answer) = answer else {
                return;
            };
            let refused = answer.status() == StatusCode::TOO_MANY_REQUESTS;
            let is_last = sent == limit.most;
            if refused != is_last {
                let fault = match is_last {
                    true => format!("takes {} + 1", limit.most),
                    false => format!("refuses after {sent}"),
                };
                return self.seen.note(limit.id, false, || told(route, &fault));
            }
            if is_last {
                self.error(route, &answer);
                self.seen.note(limit.id, true, String::new);
            }
        }
    }

    /// What no route knows is answered like an error of the service.
    async fn unknown(&mut self) {
        let nowhere = Route::new(Method::GET, "/portcullis-audit-knows-no-such-route");
        self.edge(&nowhere).await;
        let answer = self.send(&nowhere, fresh(), |builder| builder, Bytes::new());
        if let Some(answer) = answer.await {
            self.error(&nowhere, &answer);
        }
    }

    fn error(&mut self, route: &Route, answer: &Response<B>) {
        if !answer.status().is_client_error() && !answer.status().is_server_error() {
            return;
        }
        let headers = answer.headers();
        let is = |name, wanted: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.is_some_and(|value| value.contains(wanted))
        };
        let shaped = is(CONTENT_TYPE, "application/problem+json") && is(CACHE_CONTROL, "no-store");
        self.seen.note("errors", shaped, || {
            told(route, &format!("its {} has another shape", answer.status()))
        });
    }

    async fn send(
        &mut self,
        route: &Route,
        client: Ipv6Addr,
        change: impl Fn(Builder) -> Builder,
        body: Bytes,
    ) -> Option<Response<B>> {
        let request = self.request(route, body, change);
        self.answer(request, client, self.site.is_https).await
    }

    fn request(
        &self,
        route: &Route,
        body: Bytes,
        change: impl Fn(Builder) -> Builder,
    ) -> Option<Request<Full<Bytes>>> {
        let builder = Request::builder()
            .method(route.method.clone())
            .uri(route.path)
            .header(HOST, &self.site.host);
        change(builder).body(Full::new(body)).ok()
    }

    async fn answer(
        &mut self,
        request: Option<Request<Full<Bytes>>>,
        client: Ipv6Addr,
        is_https: bool,
    ) -> Option<Response<B>> {
        let Some(mut request) = request else {
            self.seen
                .note("errors", false, || "a path or host that is none".to_owned());
            return None;
        };
        let peer = Peer::new((client, 443).into()).with_tls(is_https);
        request.extensions_mut().insert(peer);
        match self.service.clone().oneshot(request).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.seen
                    .note("errors", false, || format!("the service failed: {error}"));
                None
            }
        }
    }
}

/// The first few.
fn some_of(told: &[String]) -> String {
    let shown = &told[..told.len().min(SHOWN)];
    match told.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

fn told(route: &Route, fault: &str) -> String {
    format!("{} {}: {fault}", route.method, route.path)
}

/// An address that no client has (RFC 3849), and that was never counted before.
fn fresh() -> Ipv6Addr {
    let mut octets = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    octets[4..8].copy_from_slice(&random::<4>());
    octets.into()
}

fn forged(sent: u32) -> String {
    format!("192.0.2.{}", sent % 256)
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
const STRANGE_ORIGIN: &str = "https://portcullis-audit.invalid";
/// `{"alg":"none"}` and a subject, not signed.
const UNSIGNED: &str = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.";
#[cfg(feature = "upload")]
const BOUNDARY: &str = "portcullis-audit";
const SHOWN: usize = 3;
/// A limit past this is looser than any policy, and is not sent.
const MOST_SENT: u32 = 10_000;
