//! Every gate with a request that it admits, for whoever counts what a gate costs: allocations,
//! instructions, time. A new gate is one line in [`gates`].

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::LazyLock,
    task::{Context as Task, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::Full;
use pin_project_lite::pin_project;
use portcullis::{
    Client, Context, Identity, IdentityKind, Origin, Peer, Secret, TrustedProxies,
    api_key::{ApiKeyLayer, ApiKeys, MemoryKeys, NewApiKey},
    authorize::RequireScopeLayer,
    body_limit::BodyLimitLayer,
    client::ClientLayer,
    cors::CorsPolicy,
    csrf::{CsrfLayer, CsrfPolicy, CsrfTokenLayer, CsrfTokens},
    event::SecurityEvent,
    headers::{CspNonce, Profile, SecurityHeaders, SecurityHeadersLayer},
    https::{HttpsLayer, HttpsPolicy},
    jwt::{AccessToken, Algorithm, CacheLimits, Issuer, JwtLayer, SigningKey, Verifier},
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
    stack::{Guard, SecurityStack},
    time::ManualClock,
    upload::{UploadLayer, UploadPolicy},
};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer as _, Service};

pub(crate) type Answer = Response<Full<Bytes>>;
pub(crate) type Ask = Request<Full<Bytes>>;

/// A service behind a gate, or alone.
pub(crate) struct Gate {
    pub(crate) name: &'static str,
    /// The service that the gate's cost is counted from.
    pub(crate) over: &'static str,
    pub(crate) request: Box<dyn Fn() -> Ask>,
    pub(crate) call: Box<dyn FnMut(Ask) -> Answer>,
}

/// The service alone, which reads its body and answers with a type and a length.
pub(crate) const ALONE: &str = "alone";
/// The same with a page of HTML.
const PAGE: &str = "a page alone";
/// The same with an upload of 64 KiB.
const UPLOAD: &str = "an upload alone";

/// Every gate, after the services alone.
pub(crate) fn gates() -> Vec<Gate> {
    let secret = Secret::generate();
    let jwt = |cached| {
        let verifier = Verifier::new(issuer(&secret).key_set(), ISSUER, AUDIENCE).unwrap();
        JwtLayer::new(if cached {
            verifier.with_cache(CacheLimits::new())
        } else {
            verifier
        })
        .with_context(quiet())
    };
    let bearer = HeaderValue::try_from(format!("Bearer {}", token(&secret))).unwrap();
    let authorized = move || with(header::AUTHORIZATION, bearer.clone());
    let (keys, key) = api_keys();
    let keyed = move || with(header::AUTHORIZATION, key.clone());
    let [ring, smooth] = policies();
    let clock = ManualClock::new();
    let log = limits([Policy::strict("log", 5, WINDOW).unwrap()])
        .with_context(Context::new().with_clock(clock.clone()));
    // An entry leaves the window for each that comes.
    let later = move || {
        clock.advance(WINDOW / 4);
        plain()
    };
    let spent = Policy::strict("spent", 1, WINDOW).unwrap();
    let clock = ManualClock::new();
    let lines = Policy::strict("spent", 1, WINDOW * 2_000).unwrap();
    let lines = RateLimitLayer::new([lines]).with_context(Context::new().with_clock(clock.clone()));
    // Each refusal is a line of its own.
    let unfolded = move || {
        clock.advance(Duration::from_secs(10));
        plain()
    };
    let stack = || {
        whole(
            jwt(true),
            limits([ring.clone()]).with_fields(FieldsVersion::Draft10),
        )
    };
    let guard = || Guard::new().limit("ring").scope("model");
    let tokens = || CsrfTokens::new(&Secret::generate().into());

    vec![
        Gate::new(ALONE, ALONE, plain, Handler::Text),
        Gate::new(PAGE, PAGE, plain, Handler::Page),
        Gate::new(UPLOAD, UPLOAD, upload, Handler::Text),
        Gate::new(
            "client",
            ALONE,
            forwarded,
            ClientLayer::new(proxies()).layer(Handler::Text),
        ),
        Gate::new(
            "headers",
            ALONE,
            plain,
            SecurityHeadersLayer::default().layer(Handler::Text),
        ),
        Gate::new(
            "headers, page with a nonce",
            PAGE,
            plain,
            SecurityHeadersLayer::default().layer(Handler::Page),
        ),
        Gate::new(
            "headers, helmet's",
            ALONE,
            plain,
            helmet().layer(Handler::Text),
        ),
        Gate::new(
            "https",
            ALONE,
            plain,
            HttpsLayer::new(https()).layer(Handler::Text),
        ),
        Gate::new(
            "cors",
            ALONE,
            of_app,
            cors().layer(&quiet()).layer(Handler::Text),
        ),
        Gate::new(
            "csrf",
            ALONE,
            own_origin,
            CsrfLayer::new(csrf()).layer(Handler::Text),
        ),
        Gate::new(
            "csrf token, not needed",
            ALONE,
            plain,
            CsrfTokenLayer::new(tokens()).layer(Handler::Text),
        ),
        Gate::new("rate limit, log", ALONE, later, log.layer(Handler::Text)),
        Gate::new(
            "rate limit, ring",
            ALONE,
            plain,
            limits([ring.clone()]).layer(Handler::Text),
        ),
        Gate::new(
            "rate limit, smooth",
            ALONE,
            plain,
            limits([smooth.clone()]).layer(Handler::Text),
        ),
        Gate::new(
            "rate limit, two policies",
            ALONE,
            plain,
            limits([ring.clone(), smooth]).layer(Handler::Text),
        ),
        Gate::new(
            "rate limit, fields",
            ALONE,
            plain,
            limits([ring.clone()])
                .with_fields(FieldsVersion::Draft10)
                .layer(Handler::Text),
        ),
        Gate::new(
            "rate limit, refused",
            ALONE,
            plain,
            limits([spent]).layer(Handler::Text),
        ),
        Gate::new(
            "rate limit, refused, by default a line",
            ALONE,
            unfolded,
            lines.layer(Handler::Text),
        ),
        Gate::new(
            "jwt",
            ALONE,
            authorized.clone(),
            jwt(false).layer(Handler::Text),
        ),
        Gate::new(
            "jwt, cached",
            ALONE,
            authorized.clone(),
            jwt(true).layer(Handler::Text),
        ),
        Gate::new("api key", ALONE, keyed, keys.layer(Handler::Text)),
        Gate::new(
            "authorize",
            ALONE,
            identified,
            RequireScopeLayer::new("read").unwrap().layer(Handler::Text),
        ),
        Gate::new(
            "body limit",
            ALONE,
            plain,
            BodyLimitLayer::new(1 << 20).layer(Handler::Text),
        ),
        Gate::new(
            "upload",
            UPLOAD,
            upload,
            UploadLayer::new(UploadPolicy::images()).layer(Handler::Text),
        ),
        Gate::new(
            "stack, edge",
            ALONE,
            authorized.clone(),
            stack().layer().layer(Handler::Text),
        ),
        Gate::new("stack, whole", ALONE, authorized, {
            let stack = stack();
            stack.around(stack.route(guard()).unwrap().layer(Handler::Text))
        }),
    ]
}

impl Gate {
    fn new<S>(
        name: &'static str,
        over: &'static str,
        request: impl Fn() -> Ask + 'static,
        mut service: S,
    ) -> Self
    where
        S: Service<Ask, Response = Answer, Error = Infallible> + 'static,
    {
        let call = move |request| {
            let _entered = RUNTIME.enter();
            let answer = service.call(request).now_or_never();
            answer
                .expect("nothing waits")
                .unwrap_or_else(|never| match never {})
        };
        Self {
            name,
            over,
            request: Box::new(request),
            call: Box::new(call),
        }
    }
}

/// Reads the body to its end, and answers.
#[derive(Clone, Copy, Debug)]
enum Handler {
    Text,
    Page,
}

impl<B: Body> Service<Request<B>> for Handler {
    type Response = Answer;
    type Error = Infallible;
    type Future = Reading<B>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Reading<B> {
        let nonce = request.extensions().get::<CspNonce>().map(CspNonce::as_str);
        std::hint::black_box(nonce);
        Reading {
            body: request.into_body(),
            handler: *self,
        }
    }
}

pin_project! {
    struct Reading<B> {
        #[pin]
        body: B,
        handler: Handler,
    }
}

impl<B: Body> Future for Reading<B> {
    type Output = Result<Answer, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        while let Some(Ok(frame)) = ready!(this.body.as_mut().poll_frame(cx)) {
            drop(frame);
        }
        let mut answer = Response::new(Full::from("hello"));
        let kind = match this.handler {
            Handler::Text => "text/plain",
            Handler::Page => "text/html",
        };
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Poll::Ready(Ok(answer))
    }
}

/// A request as a server hands it on, with the client that an outer layer found.
fn plain() -> Ask {
    let mut request = Request::get("https://example.com/")
        .body(Full::default())
        .unwrap();
    request
        .headers_mut()
        .insert(header::HOST, HeaderValue::from_static("example.com"));
    let client = Client::new(Some("203.0.113.7".parse().unwrap()), true);
    request.extensions_mut().insert(client);
    request
}

fn with(name: header::HeaderName, value: HeaderValue) -> Ask {
    let mut request = plain();
    request.headers_mut().insert(name, value);
    request
}

/// From a proxy that is trusted, for a client behind another.
fn forwarded() -> Ask {
    let mut request = with(
        header::HeaderName::from_static("x-forwarded-for"),
        HeaderValue::from_static("198.51.100.4, 203.0.113.7, 10.0.0.2"),
    );
    request.extensions_mut().clear();
    let proxy: SocketAddr = "10.0.0.1:443".parse().unwrap();
    request.extensions_mut().insert(Peer::new(proxy));
    request
}

fn own_origin() -> Ask {
    let mut request = with(
        header::ORIGIN,
        HeaderValue::from_static("https://example.com"),
    );
    *request.method_mut() = http::Method::POST;
    let site = header::HeaderName::from_static("sec-fetch-site");
    request
        .headers_mut()
        .insert(site, HeaderValue::from_static("same-origin"));
    request
}

fn of_app() -> Ask {
    with(
        header::ORIGIN,
        HeaderValue::from_static("https://app.example.net"),
    )
}

fn identified() -> Ask {
    let mut request = plain();
    let identity = Identity::new(IdentityKind::Other, "ada").with_scopes(["read"]);
    request.extensions_mut().insert(identity);
    request
}

/// A picture of 64 KiB, whose data is as good as noise.
fn upload() -> Ask {
    thread_local! {
        static BODY: Bytes = {
            let head = "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.gif\"\r\n\
                Content-Type: image/gif\r\n\r\n";
            let mut body = head.as_bytes().to_vec();
            body.extend(b"GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02");
            let mut state = 1_u32;
            while body.len() < 64 * 1_024 {
                body.push(255);
                body.extend((0..255).map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                }));
            }
            body.extend(b"\0;\r\n--B--\r\n");
            body.into()
        };
    }
    let kind = HeaderValue::from_static("multipart/form-data; boundary=B");
    let mut request = with(header::CONTENT_TYPE, kind).map(|_| Full::new(BODY.with(Bytes::clone)));
    *request.method_mut() = http::Method::POST;
    request
}

/// For the timers of what bounds a body's time.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

const WINDOW: Duration = Duration::from_secs(900);
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "api";

fn quiet() -> Context {
    Context::new().with_events_inline(|_: &SecurityEvent| {})
}

fn limits<const N: usize>(policies: [Policy; N]) -> RateLimitLayer {
    RateLimitLayer::new(policies).with_context(quiet())
}

/// With more room than anyone needs.
fn policies() -> [Policy; 2] {
    let ring = Policy::strict("ring", 100_000_000, WINDOW).unwrap();
    [ring, Policy::smooth("smooth", 100_000_000, WINDOW).unwrap()]
}

fn issuer(secret: &Secret) -> Issuer {
    let key = SigningKey::secret(Algorithm::HS256, secret)
        .unwrap()
        .with_id("k1");
    Issuer::new(key, ISSUER, AUDIENCE).unwrap()
}

fn token(secret: &Secret) -> String {
    let claims = AccessToken::new("5f1c9c52-6a1e-4b0e-8b1a-5b8f0c1c2d3e")
        .with_session("s")
        .with_scopes(["model", "upload"]);
    issuer(secret)
        .issue(&claims, Context::new().wall())
        .unwrap()
        .into_string()
}

/// A gate, and what a request carries for it.
fn api_keys() -> (ApiKeyLayer, HeaderValue) {
    let keys = ApiKeys::new(MemoryKeys::new(), "dev").unwrap();
    let ada = Identity::new(IdentityKind::AccessToken, "ada")
        .with_scopes(["read"])
        .with_auth_time(Context::new().wall());
    let key = keys.create(&ada, NewApiKey::new("build server").with_scopes(["read"]));
    let key = key.now_or_never().expect("memory answers at once").unwrap();
    let bearer = HeaderValue::try_from(format!("Bearer {}", key.key().expose())).unwrap();
    (ApiKeyLayer::new(keys), bearer)
}

fn proxies() -> TrustedProxies {
    TrustedProxies::new(["10.0.0.0/8"]).unwrap()
}

fn origin() -> Origin {
    Origin::new("https://example.com").unwrap()
}

fn https() -> HttpsPolicy {
    HttpsPolicy::new(origin())
}

fn cors() -> CorsPolicy {
    CorsPolicy::new(["https://app.example.net"]).unwrap()
}

fn csrf() -> CsrfPolicy {
    CsrfPolicy::new([origin()])
}

fn helmet() -> SecurityHeadersLayer {
    SecurityHeadersLayer::new(SecurityHeaders::pinned(Profile::helmet()))
}

/// A stack with every gate of the edge.
fn whole(jwt: JwtLayer, limits: RateLimitLayer) -> SecurityStack {
    SecurityStack::new(Context::new())
        .with_client(ClientLayer::new(proxies()))
        .with_headers(SecurityHeaders::new())
        .with_cors(cors())
        .with_https(https())
        .with_csrf(csrf())
        .with_limits(limits)
        .with_jwt(jwt)
}
