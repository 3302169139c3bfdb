//! A whole stack over loopback: the same four duties by this crate, by the best of Rust's peers, put
//! together in both usual ways, and by Express. The duties are fourteen security headers, a limit by
//! client with its fields, JWT access tokens (HS256) and a bound on bodies.
//!
//! `stack` starts each server as a process of its own and asks them in turn; what it compares is the
//! processor's time that a server takes for a request. `stack MODE` is one of the servers. Express
//! is asked where `PORTCULLIS_PEERS_EXPRESS` names the folder that holds its packages. For `wrk.sh`,
//! `stack secret` prints a secret and a token that it signs.

#[path = "../../../../tests/jwt_support/mod.rs"]
mod jwt_support;

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    mem,
    net::SocketAddr,
    num::NonZeroU32,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use axum_jwt_auth::{Decoder, LocalDecoder};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use governor::{Quota, RateLimiter, middleware::StateInformationMiddleware};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Limited;
use portcullis::{
    Client, Context,
    headers::{EmbedderPolicy, Profile, SecurityHeaders},
    jwt::{AccessToken, Algorithm, CacheLimits, Issuer, JwtLayer, SigningKey, Verifier},
    rate_limit::{FieldsVersion, Policy, RateLimitLayer, redis::RedisLimits},
    secret::Secret,
    stack::{Guard, SecurityStack},
};
use portcullis_peers::{Budget, median, row};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};
use tower_http::{limit::RequestBodyLimitLayer, set_header::SetResponseHeaderLayer};
use tower_oauth2_resource_server::{
    server::OAuth2ResourceServer, tenant::TenantConfiguration, validation::ClaimsValidationSpec,
};

use self::jwt_support::{AUDIENCE, ISSUER};

const MODES: [&str; 9] = [
    BARE,
    // The least: the same duties by hand.
    "floor",
    // The stack around the Router, a token verified each time.
    "ours",
    // The same with the cache of verified tokens.
    "ours-cached",
    // The stack around the Router and its guard on the route.
    "ours-route",
    // One `Router::layer` each, as is usual: fourteen of tower-http's for the headers,
    // tower_governor, tower-oauth2-resource-server, and tower-http's for the body.
    "peers-17",
    // The same with tower-helmet for the headers.
    "peers",
    // That in one `ServiceBuilder` around the Router.
    "peers-around",
    // That with axum-jwt-auth's extractor for the tokens.
    "peers-extractor",
];
const BARE: &str = "bare";
/// The bare service with the header bytes of ours.
const BARE_BYTES: &str = "bare-bytes";
/// Ours with cached tokens, and its limits in the Redis of this variable.
const OURS_REDIS: &str = "ours-redis";
const REDIS: &str = "STACK_REDIS";
const EXPRESS: &str = "PORTCULLIS_PEERS_EXPRESS";
/// In base64url; all servers share it.
const SECRET: &str = "STACK_SECRET";
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 9;
const BODY_BYTES: usize = 16 * 1024;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match std::env::args().nth(1) {
        Some(mode) if mode == "secret" => {
            let secret = Secret::generate();
            println!("{} {}", URL_SAFE_NO_PAD.encode(secret.expose()), token(&secret));
        }
        Some(mode) => runtime.block_on(serve(&mode)),
        None => runtime.block_on(compare()),
    }
}

async fn compare() {
    let secret = Secret::generate();
    let mut servers: Vec<_> = MODES.iter().map(|mode| Server::rust(mode, &secret)).collect();
    match std::env::var(EXPRESS) {
        Ok(folder) => servers.push(Server::express(&folder, &secret)),
        Err(_) => eprintln!("{EXPRESS} is not set: Express is not asked"),
    }
    let request = request(&secret);
    // The first round warms.
    for round in 0..=ROUNDS {
        for server in &mut servers {
            let micros = server.micros_of_a_request(&request).await;
            if round > 0 {
                server.rounds.push(micros);
            }
        }
    }
    eprintln!("processor time of a request over loopback, and beyond the bare service");
    for server in &servers {
        let (time, added) = (median(server.rounds.clone()), median(differences(server, &servers[0])));
        eprintln!("  {:<20} {time:>7.2} us {added:>7.2} us", server.mode);
    }
    let find = |mode: &str| servers.iter().find(|server| server.mode == mode);
    let best = ["peers-around", "peers-extractor"].into_iter().filter_map(find);
    let best = best.min_by(|one, other| median(one.rounds.clone()).total_cmp(&median(other.rounds.clone())));
    for ours in ["ours", "ours-cached"] {
        let ours = find(ours).unwrap();
        for (peer, name, budget) in [
            (best, "the best-composed peers", Budget::AtMost(0.8)),
            (find("peers-17"), "one Router::layer each", Budget::AtLeast(1.9)),
            (find("express"), "Express", Budget::AtLeast(15.0)),
        ] {
            let Some(peer) = peer else { continue };
            let ratio = |(own, peer): (&f64, &f64)| match budget {
                Budget::AtMost(_) => own / peer,
                Budget::AtLeast(_) => peer / own,
            };
            let ratios = ours.rounds.iter().zip(&peer.rounds).map(ratio).collect();
            let (own, their) = (median(ours.rounds.clone()), median(peer.rounds.clone()));
            let name = format!("stack, {}, µs, to {name}", ours.mode);
            row(&name, own, Some(their), median(ratios), budget);
            if ours.mode == "ours" {
                let floor = find("floor").unwrap();
                let ratios = floor.rounds.iter().zip(&peer.rounds).map(ratio).collect();
                let (least, ratio) = (median(floor.rounds.clone()), median(ratios));
                let (Budget::AtMost(bound) | Budget::AtLeast(bound)) = budget;
                println!("the floor of that, the same duties by hand\t{least:.1}\t{their:.1}\t{ratio:.2}\t{bound}\tfloor");
            }
        }
    }
}

fn differences(one: &Server, other: &Server) -> Vec<f64> {
    one.rounds.iter().zip(&other.rounds).map(|(one, other)| one - other).collect()
}

/// A server in a process of its own, which ends with this.
struct Server {
    mode: String,
    child: Child,
    addr: SocketAddr,
    rounds: Vec<f64>,
}

impl Server {
    fn rust(mode: &str, secret: &Secret) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(mode);
        Self::start(mode, command, secret)
    }

    fn express(folder: &str, secret: &Secret) -> Self {
        let mut command = Command::new("node");
        command.arg("express.mjs").current_dir(folder).env("NODE_ENV", "production");
        Self::start("express", command, secret)
    }

    fn start(mode: &str, mut command: Command, secret: &Secret) -> Self {
        let secret = URL_SAFE_NO_PAD.encode(secret.expose());
        let command = command.env(SECRET, secret).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("http://").expect("an address").parse().unwrap();
        Self { mode: mode.to_owned(), child, addr, rounds: Vec::new() }
    }

    async fn micros_of_a_request(&self, request: &Arc<[u8]>) -> f64 {
        let requests = if self.mode == "express" { 25 } else { 150 };
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(self.addr).await.unwrap();
            stream.set_nodelay(true).unwrap();
            exchange(&mut stream, request).await;
            clients.spawn({
                let request = Arc::clone(request);
                async move { (stream, request) }
            });
        }
        let clients = clients.join_all().await;
        let before = self.processor_nanos();
        let mut running = JoinSet::new();
        for (mut stream, request) in clients {
            running.spawn(async move {
                for _ in 0..requests {
                    exchange(&mut stream, &request).await;
                }
                stream
            });
        }
        let streams = running.join_all().await;
        let nanos = self.processor_nanos() - before;
        drop(streams);
        nanos as f64 / (requests * CONNECTIONS) as f64 / 1000.0
    }

    /// What all threads of the process have had of the processor.
    fn processor_nanos(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        nanos.sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(secret: &Secret) -> Arc<[u8]> {
    let token = token(secret);
    format!("GET / HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n").into_bytes().into()
}

fn token(secret: &Secret) -> String {
    let claims = AccessToken::new("5f1c9c52-6a1e-4b0e-8b1a-5b8f0c1c2d3e").with_scopes(["model", "upload"]);
    issuer(secret).issue(&claims, Context::new().wall()).unwrap().into_string()
}

fn issuer(secret: &Secret) -> Issuer {
    let key = SigningKey::secret(Algorithm::HS256, secret).unwrap().with_id("k1");
    Issuer::new(key, ISSUER, AUDIENCE).unwrap()
}

/// One request and its whole answer.
async fn exchange(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).await.unwrap();
    let (mut buffer, mut read) = ([0; 4096], 0);
    while !buffer[..read].ends_with(b"\r\n\r\nhello") {
        let more = stream.read(&mut buffer[read..]).await.unwrap();
        assert!(more > 0, "the server hung up: {}", String::from_utf8_lossy(&buffer[..read]));
        read += more;
        assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..read]));
    }
}

async fn serve(mode: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let secret = URL_SAFE_NO_PAD.decode(std::env::var(SECRET).unwrap()).unwrap();
    let secret = Secret::new(secret).unwrap();
    let bare = || Router::new().route("/", get(async || "hello"));
    let router = match mode {
        BARE => bare(),
        "floor" => floor(bare(), &secret).await,
        BARE_BYTES => {
            let headers = headers_of_ours(&secret).await;
            bare().layer(tower::util::MapResponseLayer::new(move |mut response: Response<Body>| {
                response.headers_mut().extend(headers.clone());
                response
            }))
        }
        OURS_REDIS => {
            let redis = RedisLimits::connect(&std::env::var(REDIS).unwrap(), &secret).await.unwrap();
            let context = Context::new();
            let stack = base(&secret, true, &context).with_shared_limits(limits(&context).shared(redis));
            Router::new().fallback_service(stack.around(stack.route(guard()).unwrap().layer(bare())))
        }
        "ours" | "ours-cached" => {
            let (stack, guard) = stack(&secret, mode == "ours-cached");
            Router::new().fallback_service(stack.around(stack.route(guard).unwrap().layer(bare())))
        }
        "ours-route" => {
            let (stack, guard) = stack(&secret, false);
            let guard = stack.route(guard).unwrap();
            let router = Router::new().route("/", get(async || "hello").layer(guard));
            Router::new().fallback_service(stack.around(router))
        }
        _ => peers(mode, bare(), &secret).await,
    };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await.unwrap();
}

fn stack(secret: &Secret, cached: bool) -> (SecurityStack, Guard) {
    let context = Context::new();
    (base(secret, cached, &context).with_limits(limits(&context)), guard())
}

/// All but the limits.
fn base(secret: &Secret, cached: bool, context: &Context) -> SecurityStack {
    let mut verifier = Verifier::new(issuer(secret).key_set(), ISSUER, AUDIENCE).unwrap();
    if cached {
        verifier = verifier.with_cache(CacheLimits::new());
    }
    SecurityStack::new(context.clone())
        .with_headers(SecurityHeaders::pinned(fourteen()))
        .with_jwt(JwtLayer::new(verifier).with_context(context.clone()))
}

fn limits(context: &Context) -> RateLimitLayer {
    let general = Policy::strict("general", 100_000_000, Duration::from_secs(900)).unwrap();
    RateLimitLayer::new([general]).with_fields(FieldsVersion::Draft10).with_context(context.clone())
}

fn guard() -> Guard {
    Guard::new().limit("general").authenticate().body(BODY_BYTES as u64)
}

/// What ours adds to an answer.
async fn headers_of_ours(secret: &Secret) -> HeaderMap {
    let (stack, guard) = stack(secret, false);
    let inner = Router::new().route("/", get(async || "hello"));
    let service = stack.around(stack.route(guard).unwrap().layer(inner));
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    let bearer = HeaderValue::try_from(format!("Bearer {}", token(secret))).unwrap();
    request.headers_mut().insert(http::header::AUTHORIZATION, bearer);
    request.extensions_mut().insert(Client::new(Some("127.0.0.1".parse().unwrap()), false));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut headers = response.into_parts().0.headers;
    headers.remove(http::header::CONTENT_TYPE);
    headers.remove(http::header::CONTENT_LENGTH);
    headers
}

/// As many as tower-helmet's, which sends `Strict-Transport-Security` over plain HTTP too.
fn fourteen() -> Profile {
    let [expect_ct, instead_of_hsts] = ["expect-ct", "x-robots-tag"].map(HeaderName::from_static);
    Profile::helmet()
        .embedder_policy(EmbedderPolicy::RequireCorp)
        .header(expect_ct, HeaderValue::from_static("max-age=0"))
        .and_then(|profile| profile.header(instead_of_hsts, HeaderValue::from_static("max-age=15552000; includeSubDomains")))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The four duties by hand, with the bare parts of which ours is made: no second policy, key or
/// algorithm, no typed error, no event, nothing that another user would need.
async fn floor(bare: Router, secret: &Secret) -> Router {
    #[derive(Deserialize)]
    struct Standard<'a> {
        iss: &'a str,
        aud: &'a str,
        exp: u64,
        #[serde(rename = "sub")]
        _sub: String,
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let quota = Quota::with_period(Duration::from_nanos(1)).expect("it is one");
    let quota = quota.allow_burst(NonZeroU32::new(100_000_000).expect("it is one"));
    let limiter = RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>();
    let mut prepared = headers_of(tower_helmet::HelmetLayer::with_defaults()).await;
    let policy = HeaderValue::from_static("\"general\";q=100000000;w=900");
    prepared.insert(HeaderName::from_static("ratelimit-policy"), policy);
    let shared = Arc::new((key, limiter, prepared));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (key, limiter, _) = &*shared;
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>().expect("a peer");
        let left = limiter.check_key(&peer.ip()).expect("it admits").remaining_burst_capacity();
        let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let parts = token.and_then(|token| token.strip_prefix("Bearer ")?.rsplit_once('.'));
        let (signed, tag) = parts.expect("a token");
        let mut bytes = [0; 64];
        let length = URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes).expect("base64url");
        hmac::verify(key, signed.as_bytes(), &bytes[..length]).expect("a signature");
        let (_, payload) = signed.split_once('.').expect("a payload");
        let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
        let claims: Standard<'_> = serde_json::from_slice(&payload).expect("claims");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(claims.iss == ISSUER && claims.aud == AUDIENCE && claims.exp > now);
        let request = request.map(|body| Body::new(Limited::new(body, BODY_BYTES)));
        let (answer, shared) = (bare.clone().oneshot(request), Arc::clone(&shared));
        async move {
            let mut answer = answer.await?;
            let given = mem::replace(answer.headers_mut(), HeaderMap::clone(&shared.2));
            let left = HeaderValue::try_from(format!("\"general\";r={left};t=900")).expect("it is one");
            answer.headers_mut().insert(HeaderName::from_static("ratelimit"), left);
            for (name, value) in given {
                if let Some(name) = name {
                    answer.headers_mut().insert(name, value);
                }
            }
            Ok::<_, Infallible>(answer)
        }
    });
    Router::new().fallback_service(service)
}

/// What every server reads of a token.
#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "reading them is the work")]
struct Claims {
    sub: String,
}

async fn peers(mode: &str, bare: Router, secret: &Secret) -> Router {
    let limit = GovernorConfigBuilder::default()
        .period(Duration::from_nanos(1))
        .burst_size(100_000_000)
        .use_headers()
        .finish()
        .unwrap();
    let limit = GovernorLayer::new(Arc::new(limit));
    let helmet = tower_helmet::HelmetLayer::with_defaults();
    let body = RequestBodyLimitLayer::new(BODY_BYTES);
    let around = ServiceBuilder::new().layer(helmet.clone()).layer(limit.clone());
    match mode {
        "peers-17" => {
            let inside = bare.layer(body).layer(oauth2(secret).await.into_layer::<Body>()).layer(limit);
            headers_of(helmet).await.iter().fold(inside, |router, (name, value)| {
                router.layer(SetResponseHeaderLayer::overriding(name.clone(), value.clone()))
            })
        }
        "peers" => bare.layer(body).layer(oauth2(secret).await.into_layer::<Body>()).layer(limit).layer(helmet),
        "peers-around" => {
            let around = around.layer(oauth2(secret).await.into_layer::<Body>());
            Router::new().fallback_service(around.service(bare.layer(body)))
        }
        "peers-extractor" => {
            jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default().expect("nobody else chose");
            let handler = get(async |_: axum_jwt_auth::Claims<Claims>| "hello");
            let router = Router::new().route("/", handler).layer(body).with_state(decoder(secret));
            Router::new().fallback_service(around.service(router))
        }
        _ => panic!("one of {MODES:?}"),
    }
}

/// What tower-helmet sends.
async fn headers_of(helmet: tower_helmet::HelmetLayer) -> HeaderMap {
    let empty = tower::service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let headers = helmet.layer(empty).oneshot(Request::new(())).await.unwrap().into_parts().0.headers;
    assert_eq!(headers.len(), 14);
    headers
}

async fn oauth2(secret: &Secret) -> OAuth2ResourceServer<Claims> {
    let k = URL_SAFE_NO_PAD.encode(secret.expose());
    let jwks = json!({"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": k}]});
    let tenant = TenantConfiguration::static_builder(jwks.to_string())
        .claims_validation(ClaimsValidationSpec::recommended(ISSUER, &vec![AUDIENCE.to_owned()]))
        .allowed_algorithms(&["HS256".parse().expect("a name")])
        .build()
        .expect("a good key");
    OAuth2ResourceServer::builder().add_tenant(tenant).build().await.expect("a good setup")
}

fn decoder(secret: &Secret) -> Decoder<Claims> {
    let key = jsonwebtoken::DecodingKey::from_secret(secret.expose());
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.validate_nbf = true;
    Arc::new(LocalDecoder::new(vec![key], validation).expect("a good setup"))
}
