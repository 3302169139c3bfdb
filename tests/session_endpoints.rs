#![cfg(all(
    feature = "aws-lc-rs",
    feature = "axum",
    feature = "csrf",
    feature = "jwt",
    feature = "refresh-token"
))]
//! The services for refresh, logout and sessions: mounted in axum and in hyper, over real sockets.

mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{
    HeaderName, Method, Request, Response,
    header::{
        ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, RETRY_AFTER,
        SET_COOKIE,
    },
};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use portcullis::{
    Context, DenyList, Identity, IdentityKind, Origin,
    csrf::CsrfPolicy,
    event::{EventKind, SecurityEvent},
    jwt::{Algorithm, Issuer, JwtLayer, KeySet, SigningKey, Verifier},
    refresh_token::{Device, EndReason, RefreshTokens, SessionId},
    secret::{Secret, Secrets},
    session::{Grants, SessionEndpoints, Sessions, SubjectStatus, TokenPair},
    time::ManualClock,
};
use serde_json::{Value, json};
use support::store::ProbeStore;
use tokio::net::TcpListener;
use tower::{Layer as _, Service, ServiceExt as _, service_fn, util::BoxCloneSyncService};

const TTL: Duration = Duration::from_secs(900);
const GRACE: Duration = Duration::from_secs(30);

/// Sessions on a clock and a store that a test holds in its hand.
struct House {
    clock: ManualClock,
    context: Context,
    events: Arc<Mutex<Vec<EventKind>>>,
    store: Arc<ProbeStore>,
    /// 0: the user may; 1: he may not; 2: the accounts are away.
    mood: Arc<AtomicU8>,
    secret: Secret,
    sessions: Sessions,
    keeps_cookie: bool,
}

impl House {
    fn new() -> Self {
        let clock = ManualClock::new();
        let events = Arc::<Mutex<Vec<EventKind>>>::default();
        let sink = events.clone();
        let context = Context::new().with_clock(clock.clone()).with_events_inline(
            move |event: &SecurityEvent| sink.lock().unwrap().push(event.kind()),
        );
        let (store, mood) = (Arc::new(ProbeStore::default()), Arc::new(AtomicU8::new(0)));
        let secret = Secret::generate();
        let key = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
        let issuer = Issuer::new(key, "me", "api").unwrap();
        let tokens =
            RefreshTokens::new(store.clone(), Secret::generate()).with_context(context.clone());
        let asked = mood.clone();
        let sessions = Sessions::new(issuer, tokens, DenyList::pending(&context, TTL))
            .with_subjects(move |_: String| {
                let mood = asked.load(Ordering::SeqCst);
                async move {
                    match mood {
                        0 => Ok(SubjectStatus::Active(Grants::new())),
                        1 => Ok(SubjectStatus::Disabled),
                        _ => Err("the accounts are away".into()),
                    }
                }
            });
        sessions.deny_list().set_ready();
        Self {
            clock,
            context,
            events,
            store,
            mood,
            secret,
            sessions,
            keeps_cookie: false,
        }
    }

    fn endpoints(&self) -> SessionEndpoints {
        let own = Origin::new("https://example.com").unwrap();
        let endpoints = SessionEndpoints::new(self.sessions.clone());
        let endpoints = endpoints.with_cookie(CsrfPolicy::new([own]));
        match self.keeps_cookie {
            true => endpoints.with_kept_cookie(),
            false => endpoints,
        }
    }

    fn jwt(&self) -> JwtLayer {
        let secrets = Secrets::new(self.secret.clone());
        let keys = KeySet::from_secrets(Algorithm::HS256, &secrets).unwrap();
        JwtLayer::new(Verifier::new(keys, "me", "api").unwrap())
            .with_deny_list(self.sessions.deny_list().clone())
            .with_context(self.context.clone())
    }

    async fn login(&self) -> TokenPair {
        let device = Device::new().with_label("laptop").with_user_agent("Test/1");
        self.sessions.start("user-1", device).await.unwrap()
    }

    async fn refresh(&self, pair: &TokenPair) -> TokenPair {
        let token = pair.refresh_token.expose();
        self.sessions.refresh(token, None).await.unwrap()
    }

    fn axum(&self) -> axum::Router {
        let (endpoints, jwt) = (self.endpoints(), self.jwt());
        axum::Router::new()
            .route_service("/auth/refresh", endpoints.refresh())
            .route_service("/auth/logout", endpoints.logout())
            .route_service("/auth/sessions", jwt.layer(endpoints.sessions()))
            .route_service("/auth/sessions/{id}", jwt.layer(endpoints.session()))
    }

    fn hyper(&self) -> Plain {
        let (endpoints, jwt) = (self.endpoints(), self.jwt());
        let (refresh, logout) = (endpoints.refresh(), endpoints.logout());
        let sessions = jwt.layer(endpoints.sessions());
        let session = jwt.layer(endpoints.session());
        BoxCloneSyncService::new(service_fn(
            move |request: Request<hyper::body::Incoming>| {
                let (refresh, logout) = (refresh.clone(), logout.clone());
                let (sessions, session) = (sessions.clone(), session.clone());
                async move {
                    match request.uri().path() {
                        "/auth/refresh" => refresh.oneshot(request).await,
                        "/auth/logout" => logout.oneshot(request).await,
                        "/auth/sessions" => sessions.oneshot(request).await,
                        _ => session.oneshot(request).await,
                    }
                }
            },
        ))
    }
}

type Plain = BoxCloneSyncService<Request<hyper::body::Incoming>, Response<Full<Bytes>>, Infallible>;

/// A client of a server on a socket.
struct Wire {
    name: &'static str,
    addr: SocketAddr,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

impl Wire {
    async fn open<S, B>(name: &'static str, http2: bool, service: S) -> Self
    where
        S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build_http();
        Self { name, addr, client }
    }

    /// The same services in axum over HTTP/1, and in plain hyper over HTTP/1 and HTTP/2.
    async fn all(house: &House) -> [Self; 3] {
        [
            Self::open("axum, h1", false, house.axum()).await,
            Self::open("hyper, h1", false, house.hyper()).await,
            Self::open("hyper, h2", true, house.hyper()).await,
        ]
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        Answer {
            wire: self.name,
            parts,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn post_json(&self, path: &str, body: &Value) -> Answer {
        let headers = [(CONTENT_TYPE, "application/json")];
        self.send(Method::POST, path, &headers, body.to_string())
            .await
    }

    async fn post_cookie(&self, path: &str, token: &str) -> Answer {
        let cookie = format!("a=b; __Host-refresh={token}");
        let headers = [(COOKIE, cookie.as_str()), SAME_ORIGIN];
        self.send(Method::POST, path, &headers, "").await
    }
}

struct Answer {
    wire: &'static str,
    parts: http::response::Parts,
    body: Bytes,
}

impl Answer {
    /// The JSON of an answer with this status, which is not to be kept.
    #[track_caller]
    fn is(&self, status: u16) -> Value {
        assert_eq!(self.parts.status, status, "{}: {:?}", self.wire, self.body);
        assert_eq!(self.parts.headers[CACHE_CONTROL], "no-store");
        match status {
            204 => Value::Null,
            200 => {
                assert_eq!(self.parts.headers[CONTENT_TYPE], "application/json");
                serde_json::from_slice(&self.body).unwrap()
            }
            _ => {
                let kind = &self.parts.headers[CONTENT_TYPE];
                assert_eq!(kind, "application/problem+json");
                serde_json::from_slice(&self.body).unwrap()
            }
        }
    }

    fn cookies(&self) -> Vec<&str> {
        let cookies = self.parts.headers.get_all(SET_COOKIE).iter();
        cookies.map(|value| value.to_str().unwrap()).collect()
    }

    /// The token in the one cookie that was set.
    #[track_caller]
    fn token(&self) -> &str {
        let [cookie] = self.cookies()[..] else {
            panic!("{:?}", self.cookies());
        };
        let (token, attributes) = cookie.split_once("; ").unwrap();
        let expected = "Max-Age=604800; Path=/; Secure; HttpOnly; SameSite=Strict";
        assert_eq!(attributes, expected);
        token.strip_prefix("__Host-refresh=").unwrap()
    }
}

const SAME_ORIGIN: (HeaderName, &str) = (HeaderName::from_static("sec-fetch-site"), "same-origin");
const CLEARED: &str = "__Host-refresh=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Strict";

fn members(json: &Value) -> Vec<&str> {
    let mut names: Vec<_> = json.as_object().unwrap().keys().collect();
    names.sort();
    names.into_iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_token_in_the_body_is_answered_in_the_body() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let first = house.login().await;
        let body = json!({"refresh_token": first.refresh_token.expose()});
        let answer = wire.post_json("/auth/refresh", &body).await;
        let pair = answer.is(200);
        assert_eq!(
            members(&pair),
            [
                "access_token",
                "expires_in",
                "refresh_expires_in",
                "refresh_token",
                "token_type"
            ]
        );
        assert_eq!(pair["token_type"], "Bearer");
        assert_eq!(pair["expires_in"], 900);
        assert_eq!(pair["refresh_expires_in"], 604_800);
        assert!(answer.cookies().is_empty());
        let replay = wire.post_json("/auth/refresh", &body).await.is(200);
        assert_eq!(replay["refresh_token"], pair["refresh_token"]);

        let body = json!({"refresh_token": pair["refresh_token"]});
        let answer = wire.post_json("/auth/logout", &body).await;
        answer.is(204);
        assert!(answer.body.is_empty() && answer.cookies().is_empty());
        let forget = &answer.parts.headers["clear-site-data"];
        assert_eq!(forget, "\"cache\", \"storage\"");
        wire.post_json("/auth/refresh", &body).await.is(401);
        for unknown in ["", "rubbish", first.refresh_token.expose()] {
            let body = json!({ "refresh_token": unknown });
            wire.post_json("/auth/logout", &body).await.is(204);
        }
    }
}

#[tokio::test]
async fn a_token_in_the_cookie_is_answered_in_the_cookie() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let login = house.login().await;
        let answer: Response<Full<Bytes>> = house.endpoints().answer(&login, true);
        let (parts, body) = answer.into_parts();
        let login = Answer {
            wire: wire.name,
            parts,
            body: body.collect().await.unwrap().to_bytes(),
        };
        let mut token = login.token().to_owned();
        assert!(!format!("{:?}", login.parts.headers).contains(&token));
        for body in ["", "{}", "{\"refresh_token\":null}"] {
            let cookie = format!("__Host-refresh={token}");
            let headers = [
                (COOKIE, cookie.as_str()),
                (CONTENT_TYPE, "application/json"),
                SAME_ORIGIN,
            ];
            let answer = wire
                .send(Method::POST, "/auth/refresh", &headers, body)
                .await;
            let pair = answer.is(200);
            assert_eq!(
                members(&pair),
                [
                    "access_token",
                    "expires_in",
                    "refresh_expires_in",
                    "token_type"
                ]
            );
            assert_ne!(answer.token(), token);
            answer.token().clone_into(&mut token);
        }
        let answer = wire.post_cookie("/auth/logout", &token).await;
        answer.is(204);
        assert_eq!(answer.cookies(), [CLEARED]);
        assert!(answer.parts.headers.contains_key("clear-site-data"));
        let over = wire.post_cookie("/auth/refresh", &token).await;
        over.is(401);
        assert_eq!(over.cookies(), [CLEARED]);
        // An unknown cookie is of no use after a logout.
        let answer = wire.post_cookie("/auth/logout", "rubbish").await;
        answer.is(204);
        assert_eq!(answer.cookies(), [CLEARED]);
    }
}

#[tokio::test]
async fn a_young_cookie_stays_where_that_was_asked_for() {
    let house = House {
        keeps_cookie: true,
        ..House::new()
    };
    for wire in Wire::all(&house).await {
        let login = house.login().await;
        let mut token = login.refresh_token.expose().to_owned();
        for _ in 0..3 {
            let replaced = wire.post_cookie("/auth/refresh", &token).await;
            replaced.is(200);
            assert_ne!(replaced.token(), token);
            replaced.token().clone_into(&mut token);
            for pause in [0, 29] {
                house.clock.advance(Duration::from_secs(pause));
                let kept = wire.post_cookie("/auth/refresh", &token).await;
                assert_eq!(members(&kept.is(200)), members(&replaced.is(200)));
                assert_eq!(kept.cookies(), [""; 0]);
            }
            house.clock.advance(GRACE - Duration::from_secs(29));
        }
        // In a body, each use returns a new one.
        let first = wire.post_cookie("/auth/refresh", &token).await;
        let body = json!({"refresh_token": first.token()}).to_string();
        let headers = [(CONTENT_TYPE, "application/json"), SAME_ORIGIN];
        let answer = wire
            .send(Method::POST, "/auth/refresh", &headers, body)
            .await;
        let second = answer.is(200)["refresh_token"].clone();
        let body = json!({"refresh_token": second});
        let third = wire.post_json("/auth/refresh", &body).await.is(200);
        assert_ne!(third["refresh_token"], second);
    }
}

#[tokio::test]
async fn a_cookie_that_another_site_may_have_sent_is_not_looked_at() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let pair = house.login().await;
        let cookie = format!("__Host-refresh={}", pair.refresh_token.expose());
        let site = HeaderName::from_static("sec-fetch-site");
        let origin = HeaderName::from_static("origin");
        let calls = house.store.calls.load(Ordering::SeqCst);
        for path in ["/auth/refresh", "/auth/logout"] {
            for headers in [
                &[][..],
                &[(site.clone(), "cross-site")],
                &[(site.clone(), "same-site")],
                &[(origin.clone(), "https://evil.example")],
                &[(origin.clone(), "null")],
            ] {
                let mut headers = headers.to_vec();
                headers.push((COOKIE, &cookie));
                let answer = wire.send(Method::POST, path, &headers, "").await;
                answer.is(403);
                assert!(answer.cookies().is_empty());
            }
        }
        assert_eq!(house.store.calls.load(Ordering::SeqCst), calls);
        let events = house.events.lock().unwrap().clone();
        assert!(events.contains(&EventKind::MaliciousCsrf));
        for own in [
            (site.clone(), "same-origin"),
            (origin.clone(), "https://example.com"),
        ] {
            let headers = [(COOKIE, cookie.as_str()), own];
            let answer = wire.send(Method::POST, "/auth/refresh", &headers, "").await;
            answer.is(200);
        }
    }
}

#[tokio::test]
async fn one_request_has_one_token() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let pair = house.login().await;
        let token = pair.refresh_token.expose();
        let one = format!("__Host-refresh={token}");
        let two = format!("{one}; {one}");
        let other = format!("{one}; __Host-refresh=");
        let body = json!({ "refresh_token": token }).to_string();
        let typed = (CONTENT_TYPE, "application/json");
        for path in ["/auth/refresh", "/auth/logout"] {
            for (cookies, body) in [
                (&[&one][..], body.as_str()),
                (&[&one], "{\"refresh_token\":\"\"}"),
                (&[&one], "{\"refresh_token\":7}"),
                (&[&two], ""),
                (&[&other], ""),
                (&[&one, &one], ""),
            ] {
                let mut headers = vec![typed.clone(), SAME_ORIGIN];
                headers.extend(cookies.iter().map(|cookie| (COOKIE, cookie.as_str())));
                let answer = wire
                    .send(Method::POST, path, &headers, body.to_owned())
                    .await;
                answer.is(400);
                assert!(answer.cookies().is_empty());
            }
        }
        // Nothing of it was an attempt: the token is still the current one.
        let next = house.refresh(&pair).await;
        assert!(!next.replayed);
        // Cookies of other names are nobody's business.
        let alike = format!("x__Host-refresh=1; __Host-refresh-2=1; __host-refresh=1; {one}");
        let headers = [(COOKIE, alike.as_str()), SAME_ORIGIN];
        wire.send(Method::POST, "/auth/refresh", &headers, "")
            .await
            .is(200);
    }
}

#[tokio::test]
async fn an_outage_is_503_and_cookies_stay() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let pair = house.login().await;
        let token = pair.refresh_token.expose();
        assert!(house.sessions.health().await.is_ok());
        house.store.out.store(true, Ordering::SeqCst);
        assert!(house.sessions.health().await.is_err());
        let error = house.sessions.refresh(token, None).await.unwrap_err();
        assert!(std::error::Error::source(&error).is_some());
        for path in ["/auth/refresh", "/auth/logout"] {
            for answer in [
                wire.post_cookie(path, token).await,
                wire.post_json(path, &json!({ "refresh_token": token }))
                    .await,
            ] {
                answer.is(503);
                assert!(answer.parts.headers.contains_key(RETRY_AFTER));
                assert!(answer.cookies().is_empty());
                assert!(!answer.parts.headers.contains_key("clear-site-data"));
            }
        }
        house.store.out.store(false, Ordering::SeqCst);
        house.mood.store(2, Ordering::SeqCst);
        let answer = wire.post_cookie("/auth/refresh", token).await;
        answer.is(503);
        assert!(answer.cookies().is_empty());
        house.mood.store(0, Ordering::SeqCst);
        wire.post_cookie("/auth/refresh", token).await.is(200);
    }
}

/// What is wrong with a token is told where that is found out, and all else by the endpoint.
#[test]
fn a_login_finds_the_token_whose_session_it_replaces() {
    let endpoints = House::new().endpoints();
    let read = |lines: &[&str]| {
        let mut request = Request::builder();
        for line in lines {
            request = request.header(COOKIE, *line);
        }
        let request = request.body(()).unwrap();
        let found = endpoints.cookie(request.headers());
        found
            .map(|token| token.map(str::to_owned))
            .map_err(|rejection| rejection.status())
    };
    assert_eq!(read(&["a=b"]), Ok(None));
    assert_eq!(read(&["a=b; __Host-refresh=x"]), Ok(Some("x".into())));
    let several = read(&["__Host-refresh=x", "__Host-refresh=x"]);
    assert_eq!(several.unwrap_err(), 400);
}

#[tokio::test]
async fn a_cookie_goes_only_when_its_session_is_over() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let ask = async |pair: &TokenPair| {
            wire.post_cookie("/auth/refresh", pair.refresh_token.expose())
                .await
        };
        let stays = |answer: Answer, status| {
            answer.is(status);
            assert_eq!(answer.cookies(), [""; 0]);
        };
        let goes = |answer: Answer, status| {
            answer.is(status);
            assert_eq!(answer.cookies(), [CLEARED]);
        };
        stays(wire.post_cookie("/auth/refresh", "rubbish").await, 401);
        stays(wire.post_cookie("/auth/refresh", "").await, 401);

        // A late tab must not take the winner's cookie away.
        let first = house.login().await;
        let second = house.refresh(&first).await;
        let third = house.refresh(&second).await;
        stays(ask(&first).await, 401);
        house.clock.advance(GRACE);
        goes(ask(&second).await, 401);
        goes(ask(&third).await, 401);

        // Nor one that was on its way when a login took the session's place.
        let old = house.login().await;
        let token = old.refresh_token.expose();
        house.sessions.replace(token, None).await.unwrap();
        stays(ask(&old).await, 401);

        let expired = house.login().await;
        house.clock.advance(Duration::from_secs(8 * 86_400));
        goes(ask(&expired).await, 401);
        let disabled = house.login().await;
        house.mood.store(1, Ordering::SeqCst);
        goes(ask(&disabled).await, 403);
        house.mood.store(0, Ordering::SeqCst);
        // In the body, there is no cookie to take away.
        let body = json!({"refresh_token": disabled.refresh_token.expose()});
        stays(wire.post_json("/auth/refresh", &body).await, 401);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let typed = [(CONTENT_TYPE, "application/json")];
        let post = async |headers: &[(HeaderName, &str)], body: String| {
            wire.send(Method::POST, "/auth/refresh", headers, body)
                .await
        };
        let body = json!({"refresh_token": "x"}).to_string();
        post(&[], body.clone()).await.is(415);
        post(&[(CONTENT_TYPE, "text/plain")], body).await.is(415);
        post(&typed, String::new()).await.is(400);
        post(&typed, "{".to_owned()).await.is(400);
        post(&typed, "{}".to_owned()).await.is(422);
        post(&typed, "{\"refresh_token\":7}".to_owned())
            .await
            .is(422);
        let long = json!({"refresh_token": "x".repeat(16 * 1024)}).to_string();
        post(&typed, long).await.is(413);
        let full = format!("{:<1$}", "{\"refresh_token\":\"x\"}", 16 * 1024);
        post(&typed, full).await.is(401);
        let cookie = (COOKIE, "__Host-refresh=x");
        post(&[cookie, SAME_ORIGIN], "x=y".to_owned()).await.is(415);
        for (path, allow) in [("/auth/refresh", "POST"), ("/auth/logout", "POST")] {
            let answer = wire.send(Method::GET, path, &[], "").await;
            answer.is(405);
            assert_eq!(answer.parts.headers[ALLOW], allow);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408_and_one_that_is_too_long_413() {
    let house = House::new();
    fn request<B>(body: B) -> Request<B> {
        let request = Request::post("/auth/refresh").header(CONTENT_TYPE, "application/json");
        request.body(body).unwrap()
    }
    let stalled = StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, Infallible>,
    >());
    let refresh = house.endpoints().refresh();
    let answer = refresh.clone().oneshot(request(stalled)).await.unwrap();
    assert_eq!(answer.status(), 408);
    // Without a stated length, it is counted as it comes.
    let endless = StreamBody::new(futures_util::stream::repeat_with(|| {
        Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(&[b' '; 1000])))
    }));
    let answer = refresh.oneshot(request(endless)).await.unwrap();
    assert_eq!(answer.status(), 413);
}

/// A client that is still sending reads the answer only if its body is taken.
#[tokio::test]
async fn the_body_of_a_refused_request_is_taken() {
    let house = House::new();
    let taken = Arc::new(AtomicU8::new(0));
    let seen = taken.clone();
    let frames = futures_util::stream::iter(0..3).map(move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"{}")))
    });
    let request = Request::post("/auth/refresh")
        .header("sec-fetch-site", "cross-site")
        .body(StreamBody::new(frames))
        .unwrap();
    let refresh = house.endpoints().refresh();
    let answer = refresh.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(taken.load(Ordering::SeqCst), 3);
}

/// Of which nothing comes.
struct Stated(u64);

impl http_body::Body for Stated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

/// Without a byte of it.
#[tokio::test(start_paused = true)]
async fn a_body_that_says_it_is_too_long_is_413() {
    let house = House::new();
    let status = async |length| {
        let request = Request::post("/auth/refresh")
            .header(CONTENT_TYPE, "application/json")
            .body(Stated(length))
            .unwrap();
        let answer = house.endpoints().refresh().oneshot(request).await;
        answer.unwrap().status()
    };
    assert_eq!(status(16 * 1024 + 1).await, 413);
    // One that may be has its 10 s.
    assert_eq!(status(16 * 1024).await, 408);
}

#[tokio::test]
async fn a_refusal_is_told_once() {
    let house = House::new();
    let refresh_with = async |token: &str| {
        let body = json!({"refresh_token": token});
        let request = Request::post("/auth/refresh")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        house.events.lock().unwrap().clear();
        let answer = house.endpoints().refresh().oneshot(request).await.unwrap();
        (
            answer.status().as_u16(),
            house.events.lock().unwrap().clone(),
        )
    };
    let refresh = async |pair: &TokenPair| refresh_with(pair.refresh_token.expose()).await;
    let told = refresh_with("pcrt_rubbish").await;
    assert_eq!(told, (401, vec![EventKind::InputValidationFail]));
    let first = house.login().await;
    let _ = house.refresh(&first).await;
    house.clock.advance(GRACE);
    let told = refresh(&first).await;
    assert_eq!(told, (401, vec![EventKind::AuthnTokenReuse]));
    let told = refresh(&first).await;
    assert_eq!(told, (401, vec![EventKind::SessionUseAfterExpire]));

    let pair = house.login().await;
    house.store.out.store(true, Ordering::SeqCst);
    let told = refresh(&pair).await;
    assert_eq!(told, (503, vec![EventKind::StoreUnavailable]));
    house.store.out.store(false, Ordering::SeqCst);
    // Of what the session store has no part in, the endpoint tells.
    house.mood.store(2, Ordering::SeqCst);
    let told = refresh(&pair).await;
    let renewed = EventKind::SessionRenewed;
    assert_eq!(told, (503, vec![renewed, EventKind::StoreUnavailable]));
    house.mood.store(0, Ordering::SeqCst);
    let pair = house.login().await;
    house.mood.store(1, Ordering::SeqCst);
    let told = refresh(&pair).await;
    assert_eq!(told.0, 403);
    assert_eq!(told.1, [renewed, EventKind::AuthnTokenRevoked]);
}

/// A token ends on a whole second, so the part of one that has begun counts, and a cookie does not
/// outlive its token.
#[tokio::test]
async fn lives_are_told_in_whole_seconds() {
    let house = House::new();
    let pair = house.login().await;
    let told = |pair: &TokenPair, by_cookie| {
        let answer: Response<Full<Bytes>> = house.endpoints().answer(pair, by_cookie);
        let cookie = answer.headers().get(SET_COOKIE).cloned();
        let body = answer.into_body().collect().now_or_never().unwrap();
        let body: Value = serde_json::from_slice(&body.unwrap().to_bytes()).unwrap();
        (
            body["expires_in"].clone(),
            body["refresh_expires_in"].clone(),
            cookie,
        )
    };
    for (millis, seconds) in [(1, 1), (999, 1), (1_000, 1), (1_001, 2), (899_750, 900)] {
        let span = Duration::from_millis(millis);
        let mut pair = pair.clone();
        (pair.expires_in, pair.refresh_expires_in) = (span, span);
        let (access, refresh, cookie) = told(&pair, true);
        assert_eq!(
            (access, refresh),
            (seconds.into(), seconds.into()),
            "{millis}"
        );
        let age = format!("; Max-Age={}; ", millis / 1_000);
        assert!(cookie.unwrap().to_str().unwrap().contains(&age), "{millis}");
    }
}

#[tokio::test]
async fn a_user_sees_his_sessions_and_ends_them() {
    let house = House::new();
    for wire in Wire::all(&house).await {
        let (mine, other) = (house.login().await, house.login().await);
        let device = Device::new().with_ip("203.0.113.7".parse::<std::net::IpAddr>().ok());
        let foreign = house.sessions.start("user-2", device).await.unwrap();
        let call = async |pair: &TokenPair, method: Method, path: &str| {
            let bearer = format!("Bearer {}", pair.access_token.as_str());
            let headers = [(AUTHORIZATION, bearer.as_str())];
            wire.send(method, path, &headers, "").await
        };
        let item = |pair: &TokenPair| format!("/auth/sessions/{}", pair.session.id);

        let answer = call(&mine, Method::GET, "/auth/sessions").await;
        let length = answer.body.len();
        let list = answer.is(200);
        assert_eq!(members(&list), ["sessions"]);
        let list = list["sessions"].as_array().unwrap();
        let current = |id: SessionId| {
            let id = id.to_string();
            let entry = list.iter().find(|entry| entry["id"] == id).unwrap();
            entry["current"].as_bool().unwrap()
        };
        assert_eq!(list.len(), 2);
        assert!(current(mine.session.id) && !current(other.session.id));
        let now = house.context.wall().as_secs();
        for entry in list {
            for (name, value) in [
                ("created_at", json!(now)),
                ("last_used_at", json!(now)),
                ("expires_at", json!(now + 604_800)),
                ("label", json!("laptop")),
                ("user_agent", json!("Test/1")),
                ("ip", json!(null)),
            ] {
                assert_eq!(entry[name], value, "{name}");
            }
            assert_eq!(entry.as_object().unwrap().len(), 8);
        }
        let head = call(&mine, Method::HEAD, "/auth/sessions").await;
        assert_eq!(head.parts.status, 200);
        assert!(head.body.is_empty());
        assert_eq!(head.parts.headers[CONTENT_LENGTH], length.to_string());

        for path in [
            item(&foreign),
            format!("/auth/sessions/{}", SessionId::generate("user-1")),
            "/auth/sessions/x".to_owned(),
        ] {
            call(&mine, Method::DELETE, &path).await.is(404);
        }
        call(&mine, Method::DELETE, &item(&other)).await.is(204);
        call(&mine, Method::DELETE, &item(&other)).await.is(404);
        call(&other, Method::GET, "/auth/sessions").await.is(401);
        call(&mine, Method::DELETE, "/auth/sessions").await.is(204);
        call(&mine, Method::GET, "/auth/sessions").await.is(401);
        assert!(house.sessions.list("user-1").await.unwrap().is_empty());
        let entry = call(&foreign, Method::GET, "/auth/sessions").await.is(200);
        assert_eq!(entry["sessions"][0]["ip"], "203.0.113.7");

        let anonymous = wire.send(Method::GET, "/auth/sessions", &[], "").await;
        anonymous.is(401);
        let wrong = call(&foreign, Method::POST, "/auth/sessions").await;
        wrong.is(405);
        assert_eq!(wrong.parts.headers[ALLOW], "GET,HEAD,DELETE");
        let wrong = call(&foreign, Method::GET, &item(&foreign)).await;
        wrong.is(405);
        assert_eq!(wrong.parts.headers[ALLOW], "DELETE");
        house.store.out.store(true, Ordering::SeqCst);
        for (method, path) in [
            (Method::GET, "/auth/sessions".to_owned()),
            (Method::DELETE, "/auth/sessions".to_owned()),
            (Method::DELETE, item(&foreign)),
        ] {
            call(&foreign, method, &path).await.is(503);
        }
        house.store.out.store(false, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn sessions_are_for_users_and_nobody_is_let_in_unasked() {
    let house = House::new();
    let _ = house.login().await;
    let sessions = house.endpoints().sessions();
    let request = || Request::delete("/").body(Full::<Bytes>::default()).unwrap();
    let answer = sessions.clone().oneshot(request()).await.unwrap();
    assert_eq!(answer.status(), 401);
    let mut machine = request();
    let key = Identity::new(IdentityKind::ApiKey, "user-1");
    machine.extensions_mut().insert(key);
    assert_eq!(sessions.oneshot(machine).await.unwrap().status(), 403);
    assert_eq!(house.sessions.list("user-1").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_jwt_route_is_503_until_the_ended_sessions_are_known() {
    let before = House::new();
    let (kept, ended) = (before.login().await, before.login().await);
    before
        .sessions
        .end_one("user-1", ended.session.id, EndReason::Administrator)
        .await
        .unwrap();
    // A server that starts over the same store.
    let key = SigningKey::secret(Algorithm::HS256, &before.secret).unwrap();
    let sessions = Sessions::new(
        Issuer::new(key, "me", "api").unwrap(),
        RefreshTokens::new(before.store.clone(), Secret::generate())
            .with_context(before.context.clone()),
        DenyList::pending(&before.context, TTL),
    );
    let route = before
        .jwt()
        .with_deny_list(sessions.deny_list().clone())
        .layer(SessionEndpoints::new(sessions.clone()).sessions());
    let call = async |pair: &TokenPair| {
        let bearer = format!("Bearer {}", pair.access_token.as_str());
        let request = Request::get("/").header(AUTHORIZATION, bearer);
        let request = request.body(Full::<Bytes>::default()).unwrap();
        route.clone().oneshot(request).await.unwrap().status()
    };
    before.store.out.store(true, Ordering::SeqCst);
    assert!(sessions.recover().await.is_err());
    for pair in [&kept, &ended] {
        assert_eq!(call(pair).await, 503);
    }
    before.store.out.store(false, Ordering::SeqCst);
    sessions.recover().await.unwrap();
    assert_eq!(call(&kept).await, 200);
    assert_eq!(call(&ended).await, 401);
}

#[tokio::test]
async fn without_a_cookie_mode_cookies_are_not_looked_at() {
    let house = House::new();
    let endpoints = SessionEndpoints::new(house.sessions.clone()).with_clear_site_data(None);
    let pair = house.login().await;
    let answer: Response<Full<Bytes>> = endpoints.answer(&pair, true);
    assert!(!answer.headers().contains_key(SET_COOKIE));
    let cookie = format!("__Host-refresh={}", pair.refresh_token.expose());
    let request = Request::post("/").header(COOKIE, cookie);
    let request = request.body(Full::<Bytes>::default()).unwrap();
    assert_eq!(endpoints.cookie(request.headers()).unwrap(), None);
    let answer = endpoints.refresh().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 415);
    let request = Request::post("/").header(CONTENT_TYPE, "application/json");
    let body = json!({"refresh_token": pair.refresh_token.expose()}).to_string();
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let answer = endpoints.logout().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 204);
    assert!(!answer.headers().contains_key("clear-site-data"));
}
