//! The order of the stack's gates, and what it puts on answers, by behaviour.
#![cfg(all(
    feature = "axum",
    feature = "cors",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "rate-limit",
    feature = "upload"
))]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use portcullis::{
    ClientLayer, Context, Origin, Peer, Rejection, TrustedProxies, client,
    cors::CorsPolicy,
    csrf::{CsrfPolicy, CsrfTokens},
    guarded::GuardedBody,
    headers::SecurityHeaders,
    https::HttpsPolicy,
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, KeySet, SigningKey, TokenSource, Verifier},
    rate_limit::{Policy, RateLimitLayer},
    secret::Secret,
    stack::{Guard, GuardLayer, SecurityStack},
    time::{Clock as _, ManualClock},
    upload::UploadPolicy,
};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

type Body = Full<Bytes>;

/// A stack with one policy of two requests, and a token with the scope `read`.
fn stack(policy: Policy) -> (SecurityStack, String) {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let secret = Secret::generate();
    let key = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
    let issuer = Issuer::new(key, "iss", "aud").unwrap();
    let token = AccessToken::new("user-1").with_scopes(["read"]);
    let token = issuer.issue(&token, clock.wall()).unwrap().into_string();
    let keys = KeySet::from_secrets(Algorithm::HS256, &secret.into()).unwrap();
    let verifier = Verifier::new(keys, "iss", "aud").unwrap();
    let jwt = JwtLayer::new(verifier).with_context(context.clone());
    let jwt = jwt.with_realm("api").unwrap().with_scope_hint("read write");
    let stack = SecurityStack::new(context.clone())
        .with_headers(SecurityHeaders::new())
        .with_limits(RateLimitLayer::new([policy]).with_context(context))
        .with_jwt(jwt.unwrap());
    (stack, token)
}

fn two() -> Policy {
    Policy::strict("two", 2, Duration::from_secs(60)).unwrap()
}

async fn call(
    stack: &SecurityStack,
    guard: GuardLayer,
    token: Option<&str>,
    body: &'static str,
    answer: StatusCode,
) -> Response<Body> {
    let handler = service_fn(move |_: Request<GuardedBody<Body>>| async move {
        assert!(answer != StatusCode::IM_A_TEAPOT, "a handler's own fault");
        let mut response = Response::new(Body::default());
        *response.status_mut() = answer;
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::post("/").body(Body::from(body)).unwrap();
    request
        .extensions_mut()
        .insert(Peer::new("192.0.2.1:4711".parse().unwrap()));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let response = stack.around(guard.layer(handler)).oneshot(request).await;
    let response = response.unwrap();
    assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    response
}

#[tokio::test]
async fn gates_refuse_in_the_written_order() {
    let (stack, token) = stack(two());
    let guard = Guard::new().limit("two").body(4).scope("write");
    let guard = stack.route(guard).unwrap();
    // Too large, without a token and without the scope: the size speaks before the token, the token
    // before the scope; each was charged, so the third is refused for its number.
    for (token, body, status) in [
        (None, "too large", 413),
        (None, "x", 401),
        (Some(token.as_str()), "too large", 429),
    ] {
        let answer = call(&stack, guard.clone(), token, body, StatusCode::OK).await;
        assert_eq!(answer.status(), status);
    }
    let scoped = stack.route(Guard::new().scope("write")).unwrap();
    let answer = call(&stack, scoped, Some(&token), "x", StatusCode::OK).await;
    assert_eq!(answer.status(), 403);
    // The challenge names what those of the authentication do, and the scopes of the route.
    assert_eq!(
        answer.headers()["www-authenticate"],
        "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"write\""
    );
    let scoped = stack.route(Guard::new().scope("read")).unwrap();
    let answer = call(&stack, scoped, Some(&token), "x", StatusCode::OK).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_success_gives_back_what_counts_failures_only() {
    let (stack, _) = stack(two().failures_only());
    let guard = stack.route(Guard::new().limit("two")).unwrap();
    let call = |answer| call(&stack, guard.clone(), None, "x", answer);
    for _ in 0..5 {
        assert_eq!(call(StatusCode::OK).await.status(), 200);
    }
    for _ in 0..2 {
        assert_eq!(call(StatusCode::UNAUTHORIZED).await.status(), 401);
    }
    assert_eq!(call(StatusCode::OK).await.status(), 429);
}

#[tokio::test]
async fn a_subject_is_counted_behind_authentication() {
    let (stack, token) = stack(two().by_subject());
    let guard = stack
        .route(Guard::new().limit("two").authenticate())
        .unwrap();
    for (token, status) in [
        (None, 401),
        (None, 401),
        (None, 401),
        (Some(&token), 200),
        (Some(&token), 200),
        (Some(&token), 429),
    ] {
        let token = token.map(String::as_str);
        let answer = call(&stack, guard.clone(), token, "x", StatusCode::OK).await;
        assert_eq!(answer.status(), status);
    }
}

/// The router's guard and the route's, and an edge between them that finds the client again.
#[tokio::test]
async fn a_limit_of_two_guards_counts_a_request_once() {
    let (stack, _) = stack(two());
    let guard = stack.route(Guard::new().limit("two")).unwrap();
    let handler = service_fn(async |_: Request<GuardedBody<GuardedBody<Body>>>| {
        Ok::<_, Infallible>(Response::new(Body::default()))
    });
    let service = stack.around(guard.layer(stack.around(guard.layer(handler))));
    for status in [200, 200, 429] {
        let mut request = Request::new(Body::default());
        let peer = Peer::new("192.0.2.1:4711".parse().unwrap());
        request.extensions_mut().insert(peer);
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_headers() {
    let (stack, _) = stack(two());
    let guard = stack.route(Guard::new()).unwrap();
    let answer = call(&stack, guard, None, "x", StatusCode::IM_A_TEAPOT).await;
    assert_eq!(answer.status(), 500);
}

#[tokio::test]
async fn a_guard_that_asks_for_what_is_not_there_is_an_error() {
    let bare = SecurityStack::new(Context::new());
    assert!(bare.route(Guard::new().authenticate()).is_err());
    assert!(bare.route(Guard::new().limit("two")).is_err());
    let (stack, _) = stack(two());
    assert!(stack.route(Guard::new().limit("three")).is_err());
}

// ---- the whole order, gate by gate ---------------------------------------------------------

const OWN: &str = "https://example.com";
const FRIEND: &str = "https://app.example.net";

/// Every part of a stack, and what its requests need.
struct Whole {
    stack: SecurityStack,
    clock: ManualClock,
    issuer: Issuer,
    csrf: CsrfTokens,
}

fn whole() -> Whole {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let secret = Secret::generate();
    let key = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
    let issuer = Issuer::new(key, "iss", "aud").unwrap();
    let csrf = CsrfTokens::new(&secret.clone().into());
    let keys = KeySet::from_secrets(Algorithm::HS256, &secret.into()).unwrap();
    let verifier = Verifier::new(keys, "iss", "aud").unwrap();
    let minute = Duration::from_secs(60);
    let limits = [
        Policy::strict("client", 10, minute).unwrap(),
        Policy::strict("subject", 1, minute * 60)
            .unwrap()
            .by_subject(),
    ];
    let own = Origin::new(OWN).unwrap();
    let https = HttpsPolicy::new(own.clone()).exempt(|head| {
        assert!(head.uri.path() != "/bug", "the application's own exemption");
        head.uri.path() == "/healthz"
    });
    let stack = SecurityStack::new(context.clone())
        .with_client(ClientLayer::new(
            TrustedProxies::new(["192.0.2.1"]).unwrap(),
        ))
        .with_headers(SecurityHeaders::new())
        .with_cors(CorsPolicy::new([FRIEND]).unwrap().credentials(true))
        .with_https(https)
        .with_csrf(CsrfPolicy::new([own]))
        .with_limits(RateLimitLayer::new(limits).with_context(context.clone()))
        .with_jwt(JwtLayer::new(verifier).with_context(context))
        .with_csrf_tokens(csrf.clone());
    Whole {
        stack,
        clock,
        issuer,
        csrf,
    }
}

impl Whole {
    fn token(&self, subject: &str, scope: &str) -> String {
        let token = AccessToken::new(subject)
            .with_session("session-1")
            .with_scopes([scope]);
        let token = self.issuer.issue(&token, self.clock.wall()).unwrap();
        format!("Bearer {}", token.into_string())
    }

    /// The gate and reason of a refusal, or the handler's answer; security headers on both.
    async fn ask(&self, guard: &GuardLayer, headers: &[(&str, &str)], body: &'static str) -> Told {
        self.send(guard, "POST", "/", headers, body).await
    }

    async fn send(
        &self,
        guard: &GuardLayer,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Told {
        let handler = service_fn(async |_: Request<GuardedBody<Body>>| {
            Ok::<_, Infallible>(
                Response::builder()
                    .header("x-handler", "ran")
                    .header("vary", "accept-encoding, origin")
                    .body(Body::default())
                    .unwrap(),
            )
        });
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body)).unwrap();
        request
            .extensions_mut()
            .insert(Peer::new("192.0.2.1:4711".parse().unwrap()));
        let service = self.stack.around(guard.layer(handler));
        let answer = service.oneshot(request).await.unwrap();
        let headers = answer.headers();
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        let vary = headers.get_all("vary").iter();
        let names = vary.flat_map(|line| line.to_str().unwrap().split(','));
        let origins = names.filter(|name| name.trim().eq_ignore_ascii_case("origin"));
        assert_eq!(origins.count(), 1, "{headers:?}");
        let rejection = answer.extensions().get::<Rejection>();
        Told {
            status: answer.status().as_u16(),
            why: rejection.map(|rejection| (rejection.gate(), rejection.reason())),
            ran: headers.contains_key("x-handler"),
            readable_by: headers
                .get("access-control-allow-origin")
                .map(|origin| origin.to_str().unwrap().to_owned()),
        }
    }
}

/// What an answer says.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    why: Option<(&'static str, &'static str)>,
    ran: bool,
    readable_by: Option<String>,
}

/// A request with every fault at once is refused by the outermost gate; with one fault less, by the
/// next; without any, the handler runs.
#[tokio::test]
async fn each_gate_stands_where_it_is_written() {
    let whole = whole();
    let guard = Guard::new()
        .csrf_token()
        .scope("write")
        .body(4)
        .limit("subject")
        .limit("client")
        .csrf_strict();
    let guard = whole.stack.route(guard).unwrap();
    let other = whole
        .stack
        .route(Guard::new().limit("client").authenticate())
        .unwrap();
    let spend = whole
        .stack
        .route(Guard::new().limit("subject").authenticate())
        .unwrap();

    let good = [
        ("host", "example.com"),
        ("x-forwarded-proto", "https"),
        ("sec-fetch-site", "same-origin"),
        ("origin", FRIEND),
    ];
    let (spent, reader, writer) = (
        whole.token("spent", "write"),
        whole.token("reader", "read"),
        whole.token("writer", "write"),
    );
    // One subject has used up his limit, and the client his.
    let used = [&good[..], &[("authorization", spent.as_str())]].concat();
    assert_eq!(whole.ask(&spend, &used, "").await.status, 200);
    for _ in 0..10 {
        whole.ask(&other, &good, "").await;
    }

    let csrf = whole.csrf.issue("session-1");
    let step = |headers: [(&'static str, &'static str); 4], token: Option<&str>, body| {
        let mut headers: Vec<_> = headers
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        headers.extend(token.map(|token| ("authorization", token.to_owned())));
        (headers, body)
    };
    let at = |host, proto, site, origin| {
        [
            ("host", host),
            ("x-forwarded-proto", proto),
            ("sec-fetch-site", site),
            ("origin", origin),
        ]
    };
    let (all, own) = ("other.example", "example.com");
    let ladder = [
        (
            step(at(all, "http", "cross-site", FRIEND), None, "too large"),
            421,
            "https",
            "unknown_host",
        ),
        (
            step(at(own, "http", "cross-site", FRIEND), None, "too large"),
            403,
            "https",
            "https_required",
        ),
        (
            step(at(own, "https", "cross-site", FRIEND), None, "too large"),
            403,
            "csrf",
            "cross_site",
        ),
        (
            step(at(own, "https", "", ""), None, "too large"),
            403,
            "csrf",
            "no_origin",
        ),
        (step(good, None, "too large"), 429, "rate_limit", "exceeded"),
        (
            step(good, None, "too large"),
            413,
            "body_limit",
            "body_too_large",
        ),
        (step(good, None, "x"), 401, "jwt", "missing_token"),
        (step(good, Some(&spent), "x"), 429, "rate_limit", "exceeded"),
        (
            step(good, Some(&reader), "x"),
            403,
            "authorize",
            "insufficient_scope",
        ),
        (step(good, Some(&writer), "x"), 403, "csrf", "no_token"),
    ];
    for (index, ((headers, body), status, gate, reason)) in ladder.into_iter().enumerate() {
        if index == 5 {
            whole.clock.advance(Duration::from_secs(61));
        }
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let told = whole.ask(&guard, &headers, body).await;
        assert_eq!(told.status, status, "step {index}: {told:?}");
        assert_eq!(told.why, Some((gate, reason)), "step {index}");
        assert!(!told.ran);
        let named = headers.iter().any(|(name, _)| *name == "origin");
        assert_eq!(
            told.readable_by.as_deref(),
            named.then_some(FRIEND),
            "step {index}"
        );
    }
    let another = whole.token("another", "write");
    let headers = [
        &good[..],
        &[
            ("authorization", another.as_str()),
            ("x-csrf-token", csrf.as_str()),
        ],
    ]
    .concat();
    let told = whole.ask(&guard, &headers, "x").await;
    assert_eq!((told.status, told.ran), (200, true));
}

#[tokio::test]
async fn an_upload_is_looked_at_last() {
    let whole = whole();
    let policy = UploadPolicy::new(["image/png"]).unwrap();
    let guard = Guard::new().authenticate().csrf_token().upload(policy);
    let guard = whole.stack.route(guard).unwrap();
    let good = [
        ("host", "example.com"),
        ("x-forwarded-proto", "https"),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "multipart/form-data"),
    ];
    let (token, csrf) = (whole.token("user", "any"), whole.csrf.issue("session-1"));
    let authenticated = [&good[..], &[("authorization", token.as_str())]].concat();
    let complete = [&authenticated[..], &[("x-csrf-token", csrf.as_str())]].concat();
    for (headers, gate) in [
        (&good[..], "jwt"),
        (&authenticated, "csrf"),
        (&complete, "upload"),
    ] {
        let told = whole.ask(&guard, headers, "x").await;
        assert_eq!(told.why.map(|(gate, _)| gate), Some(gate), "{told:?}");
        assert!(!told.ran);
    }
}

/// Nobody is asked who he is before a body that states too much is refused, whatever takes the body.
#[tokio::test]
async fn a_stated_size_is_judged_before_authentication() {
    let whole = whole();
    let upload = UploadPolicy::new(["image/png"]).unwrap().max_file(1000);
    let good = [
        ("host", "example.com"),
        ("x-forwarded-proto", "https"),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "multipart/form-data; boundary=x"),
    ];
    for guard in [
        Guard::new().authenticate().upload(upload),
        Guard::new().authenticate().body(1000),
    ] {
        let guard = whole.stack.route(guard).unwrap();
        for (stated, status) in [("1000", 401), ("100000000", 413)] {
            let headers = [&good[..], &[("content-length", stated)]].concat();
            let told = whole.ask(&guard, &headers, "x").await;
            assert_eq!((told.status, told.ran), (status, false), "{told:?}");
        }
    }
}

#[tokio::test]
async fn preflights_and_cross_site_refusals_spend_no_limit() {
    let whole = whole();
    let guard = whole.stack.route(Guard::new().limit("client")).unwrap();
    let tls = [("host", "example.com"), ("x-forwarded-proto", "https")];
    for _ in 0..30 {
        let cross = [
            &tls[..],
            &[("sec-fetch-site", "cross-site"), ("origin", FRIEND)],
        ]
        .concat();
        assert_eq!(whole.ask(&guard, &cross, "").await.status, 403);
        let preflight = [
            &tls[..],
            &[
                ("origin", FRIEND),
                ("access-control-request-method", "POST"),
            ],
        ]
        .concat();
        let told = whole.send(&guard, "OPTIONS", "/", &preflight, "").await;
        assert_eq!((told.status, told.ran), (200, false));
        assert_eq!(told.readable_by.as_deref(), Some(FRIEND));
        let foreign = [("host", "other.example")];
        assert_eq!(whole.ask(&guard, &foreign, "").await.status, 421);
    }
    let own = [&tls[..], &[("sec-fetch-site", "same-origin")]].concat();
    for _ in 0..10 {
        assert_eq!(whole.ask(&guard, &own, "").await.status, 200);
    }
    assert_eq!(whole.ask(&guard, &own, "").await.status, 429);
}

#[tokio::test]
async fn a_preflight_is_answered_before_the_host_and_the_scheme_are_judged() {
    let whole = whole();
    let guard = whole.stack.route(Guard::new()).unwrap();
    let headers = [
        ("host", "other.example"),
        ("origin", FRIEND),
        ("access-control-request-method", "PUT"),
    ];
    let told = whole.send(&guard, "OPTIONS", "/", &headers, "").await;
    assert_eq!((told.status, told.ran), (200, false));
}

#[tokio::test]
async fn plain_http_is_redirected_with_the_headers_of_the_outer_gates() {
    let whole = whole();
    let guard = whole.stack.route(Guard::new()).unwrap();
    let headers = [("host", "example.com"), ("origin", FRIEND)];
    let told = whole.send(&guard, "GET", "/page", &headers, "").await;
    assert_eq!((told.status, told.ran), (308, false));
    assert_eq!(told.readable_by.as_deref(), Some(FRIEND));
    let told = whole.send(&guard, "GET", "/healthz", &headers, "").await;
    assert_eq!((told.status, told.ran), (200, true));
}

#[tokio::test]
async fn a_panic_in_a_gate_is_caught_outside_it() {
    let whole = whole();
    let guard = whole.stack.route(Guard::new()).unwrap();
    let headers = [("host", "example.com"), ("origin", FRIEND)];
    let told = whole.send(&guard, "GET", "/bug", &headers, "").await;
    assert_eq!((told.status, told.why), (500, Some(("service", "panic"))));
    // Whoever may read answers may read that one.
    assert_eq!(told.readable_by.as_deref(), Some(FRIEND));
}

#[tokio::test]
async fn what_a_browser_sends_by_itself_needs_the_cross_site_rule() {
    let secret = Secret::generate();
    let jwt = |cookie: &str| {
        let keys = KeySet::from_secrets(Algorithm::HS256, &secret.clone().into()).unwrap();
        let verifier = Verifier::new(keys, "iss", "aud").unwrap();
        let sources = [TokenSource::bearer(), TokenSource::cookie(cookie).unwrap()];
        JwtLayer::new(verifier).with_sources(sources).unwrap()
    };
    let own = || CsrfPolicy::new([Origin::new(OWN).unwrap()]);
    let bare = SecurityStack::new(Context::new()).with_jwt(jwt("__Host-at"));
    let tokens = CsrfTokens::new(&secret.clone().into());
    let (user, strict, token) = (
        Guard::new().authenticate(),
        Guard::new().authenticate().csrf_strict(),
        Guard::new().authenticate().csrf_token(),
    );

    let error = bare.route(user.clone()).unwrap_err();
    assert!(error.to_string().contains("__Host-at"), "{error}");
    assert!(bare.route(strict.clone()).is_err());
    assert!(bare.route(token.clone()).is_err());
    // The rule must be about that cookie.
    let blind = bare.clone().with_csrf(own());
    assert!(blind.route(user.clone()).is_err());
    assert!(blind.route(strict).is_ok());
    let other = bare
        .clone()
        .with_csrf(own().cookie("__Host-other").unwrap());
    assert!(other.route(user.clone()).is_err());
    let named = bare.clone().with_csrf(own().cookie("__Host-at").unwrap());
    assert!(named.route(user.clone()).is_ok());
    assert!(
        bare.clone()
            .with_csrf(own().strict())
            .route(user.clone())
            .is_ok()
    );
    assert!(bare.with_csrf_tokens(tokens).route(token).is_ok());

    // A header is nothing that a browser sends by itself.
    let keys = KeySet::from_secrets(Algorithm::HS256, &secret.clone().into()).unwrap();
    let bearer = JwtLayer::new(Verifier::new(keys, "iss", "aud").unwrap());
    let stack = SecurityStack::new(Context::new()).with_jwt(bearer);
    assert!(stack.route(user).is_ok());
}

#[test]
fn printed_a_stack_says_what_is_on_and_why() {
    let told = whole().stack.to_string();
    let lines: Vec<_> = told.lines().collect();
    let starts = [
        "client       on   as told by proxies at 192.0.2.1/32",
        "headers      on   every answer",
        "panic catch  on   a panic is a 500",
        "cors         on   answers preflights; https://app.example.net may read answers, with cookies",
        "hosts        on   example.com alone",
        "redirect     on   plain HTTP goes to https://example.com",
        "cross-site   on   unsafe requests come from https://example.com alone",
        "limits       on   where a guard asks: client 10 in 60s by client, subject 1 in 3600s by identity",
        "body         on   each guard bounds",
        "identity     on   where a guard asks: JWT",
        "csrf token   on   where a guard asks: X-CSRF-Token",
    ];
    assert_eq!(lines.len(), starts.len(), "{told}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    let told = SecurityStack::new(Context::new()).to_string();
    let off = |line: &str| line[13..].starts_with("off  ");
    assert_eq!(told.lines().filter(|line| off(line)).count(), 8, "{told}");
}

// ---- where a stack can stand ---------------------------------------------------------------

/// Serves a service on a free port, over HTTP/1 and HTTP/2.
async fn serve<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let service = client::with_peer(service.clone(), Peer::new(peer));
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().enable_connect_protocol();
                let service = TowerToHyperService::new(service);
                let _ = server
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    addr
}

async fn over_h1(addr: SocketAddr, request: Request<Body>) -> Response<Incoming> {
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    send.send_request(request).await.unwrap()
}

async fn over_h2(addr: SocketAddr, request: Request<Body>) -> Response<Incoming> {
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap();
    send.send_request(request).await.unwrap()
}

fn standing() -> SecurityStack {
    let context = Context::new();
    SecurityStack::new(context)
        .with_headers(SecurityHeaders::new())
        .with_cors(CorsPolicy::new([FRIEND]).unwrap())
        .with_csrf(CsrfPolicy::new([Origin::new(OWN).unwrap()]))
}

/// What every place must give: the handler's answer, a refusal and a preflight, over both
/// protocols and with their headers.
async fn stands(addr: SocketAddr) {
    for http2 in [false, true] {
        let build = |method: &str, headers: &[(&str, &str)]| {
            let uri = match http2 {
                true => format!("http://{addr}/"),
                false => "/".to_owned(),
            };
            let mut request = Request::builder().method(method).uri(uri);
            if !http2 {
                request = request.header("host", addr.to_string());
            }
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(Body::from("abc")).unwrap()
        };
        let friend = ("origin", FRIEND);
        let asks = ("access-control-request-method", "POST");
        for (method, headers, status) in [
            ("POST", &[("origin", OWN)][..], 200),
            ("POST", &[("sec-fetch-site", "cross-site"), friend], 403),
            ("OPTIONS", &[friend, asks], 200),
        ] {
            let answer = match http2 {
                true => over_h2(addr, build(method, headers)).await,
                false => over_h1(addr, build(method, headers)).await,
            };
            assert_eq!(answer.status(), status, "{method} {headers:?} h2: {http2}");
            assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            let named = answer.headers().get("access-control-allow-origin");
            assert_eq!(named.is_some(), headers.contains(&friend));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&body[..] == b"abc", method == "POST" && status == 200);
        }
    }
}

#[tokio::test]
async fn it_stands_as_a_layer_of_an_axum_router() {
    let guard = standing().route(Guard::new().body(16)).unwrap();
    let echo = axum::routing::post(async |body: Bytes| body);
    let router = axum::Router::new()
        .route("/", echo.layer(guard))
        .layer(standing().layer());
    stands(serve(router).await).await;
}

#[tokio::test]
async fn it_stands_around_an_axum_router() {
    let echo = axum::routing::post(async |body: Bytes| body);
    let router = axum::Router::new().route("/", echo);
    stands(serve(standing().around(router)).await).await;
}

#[tokio::test]
async fn it_stands_in_a_service_builder() {
    let echo = service_fn(async |request: Request<GuardedBody<Incoming>>| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok::<_, Infallible>(Response::new(Body::new(body)))
    });
    let service = tower::ServiceBuilder::new()
        .layer(standing().layer())
        .layer(standing().route(Guard::new().body(16)).unwrap())
        .service(echo);
    stands(serve(service).await).await;
}

#[tokio::test]
async fn it_stands_around_a_plain_hyper_service_of_any_body() {
    let echo = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    stands(serve(standing().around_any_body(echo)).await).await;
}

// ---- upgrades ------------------------------------------------------------------------------

/// A service that takes every upgrade.
async fn upgrading() -> SocketAddr {
    let handler = service_fn(async |request: Request<Incoming>| {
        let connect = request.method() == http::Method::CONNECT;
        let answer = match connect {
            true => Response::builder().status(200),
            false => Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "websocket"),
        };
        Ok::<_, Infallible>(
            answer
                .header("x-handler", "ran")
                .body(Body::default())
                .unwrap(),
        )
    });
    serve(standing().around(handler)).await
}

#[tokio::test]
async fn another_site_opens_no_web_socket_over_http1() {
    let addr = upgrading().await;
    for (origin, status) in [(OWN, 101), (FRIEND, 403), ("https://evil.example", 403)] {
        let request = Request::get("/")
            .header("host", "example.com")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("origin", origin);
        let answer = over_h1(addr, request.body(Body::default()).unwrap()).await;
        assert_eq!(answer.status(), status, "{origin}");
        assert_eq!(answer.headers().contains_key("x-handler"), status == 101);
    }
}

#[tokio::test]
async fn another_site_opens_no_web_socket_over_http2() {
    let addr = upgrading().await;
    for (origin, status) in [(OWN, 200), ("https://evil.example", 403)] {
        let mut request = Request::builder()
            .method("CONNECT")
            .uri(format!("http://{addr}/"))
            .header("origin", origin)
            .body(Body::default())
            .unwrap();
        let protocol = hyper::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let answer = over_h2(addr, request).await;
        assert_eq!(answer.status(), status, "{origin}");
        assert_eq!(answer.headers().contains_key("x-handler"), status == 200);
    }
}
