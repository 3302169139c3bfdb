//! The whole: requests through every gate of a service like `secure_api`, with memory stores. Nothing
//! panics and nothing is 5xx; every answer carries the security headers and is well-formed; a handler
//! runs only for who may, within its limits, and sees no more of a body than is admitted.
//!
//! An input is requests as text with `\x1e` between them, all at one instant, and its windows are new.
//! `{write}` and `{read}` stand for tokens of those scopes, `{csrf}` for a CSRF token, `{key}` for an
//! API key, `{refresh}` for a refresh token. The body goes by [`Script::read`].
#![no_main]

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Client, ClientLayer, Context, DenyList, Identity, IdentityKind, Origin, Peer, Rejection,
    Secret, TrustedProxies,
    api_key::{ApiKeyLayer, ApiKeys, MemoryKeys, NewApiKey},
    client::Prefix,
    cors::CorsPolicy,
    csrf::{CsrfPolicy, CsrfTokens},
    guarded::GuardedBody,
    headers::{CspReports, SecurityHeaders},
    https::HttpsPolicy,
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, SigningKey, TokenSource, Verifier},
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
    refresh_token::{Device, MemoryStore, RefreshTokens},
    session::{SessionEndpoints, Sessions},
    stack::{Guard, SecurityStack},
    time::{Clock as _, ManualClock},
    upload::UploadPolicy,
};
use portcullis_fuzz::{Answer, Ask, Script, bytes, fill, quiet, request, run, values};
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneSyncService};

const OWN: &str = "https://example.com";
const FRIEND: &str = "https://app.example.net";
const WINDOW: Duration = Duration::from_secs(60);
const BODY: u64 = 64;
/// Of a client, and of a subject.
const LIMITS: [(&str, usize); 2] = [("client", 3), ("subject", 2)];

type Service = BoxCloneSyncService<Request<Script>, Answer, Infallible>;
/// What handlers saw of one input.
type Seen = Arc<Mutex<HashMap<(&'static str, String), usize>>>;

struct Setup {
    clock: ManualClock,
    issuer: Issuer,
    csrf: CsrfTokens,
    key: String,
    sessions: Sessions,
    service: Service,
    seen: Seen,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let clock = ManualClock::new();
    let context = quiet().with_clock(clock.clone());
    let secret = Secret::generate();
    let signing = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
    let issuer = Issuer::new(signing, "iss", "aud").unwrap();
    let csrf = CsrfTokens::new(&secret.into());
    let verifier = Verifier::new(issuer.key_set(), "iss", "aud").unwrap();
    let jwt = JwtLayer::new(verifier)
        .with_sources([
            TokenSource::bearer(),
            TokenSource::cookie("__Host-at").unwrap(),
        ])
        .unwrap();
    let [by_client, by_subject] = LIMITS
        .map(|(name, limit)| Policy::strict(name, u32::try_from(limit).unwrap(), WINDOW).unwrap());
    let limits = RateLimitLayer::new([by_client, by_subject.by_subject()]);
    let own = Origin::new(OWN).unwrap();
    let rule = CsrfPolicy::new([own.clone()]).cookie("__Host-at").unwrap();
    let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate());
    let tokens = tokens
        .with_context(context.clone())
        .with_max_sessions(1)
        .unwrap();
    let deny_list = DenyList::since_start(&context, Duration::from_secs(1));
    let sessions = Sessions::new(issuer.clone(), tokens, deny_list.clone());
    let stack = SecurityStack::new(context.clone())
        .with_client(ClientLayer::new(
            TrustedProxies::new(["192.0.2.1"]).unwrap(),
        ))
        .with_headers(SecurityHeaders::new())
        .with_cors(CorsPolicy::new([FRIEND]).unwrap().credentials(true))
        .with_https(HttpsPolicy::new(own))
        .with_csrf(rule.clone())
        .with_limits(
            limits
                .with_fields(FieldsVersion::Draft10)
                .with_context(context.clone()),
        )
        .with_jwt(jwt.with_deny_list(deny_list).with_context(context.clone()))
        .with_csrf_tokens(csrf.clone());

    // Keys end by real days, so they are counted by a clock that stands still.
    let still = quiet();
    let keys = ApiKeys::new(MemoryKeys::new(), "live")
        .unwrap()
        .with_context(still.clone());
    let ada = Identity::new(IdentityKind::AccessToken, "ada").with_auth_time(still.wall());
    let key = run(keys.create(&ada, NewApiKey::new("key"))).unwrap();
    let key = key.key().expose().to_owned();

    let seen = Seen::default();
    let service = service(&stack, keys, still, &sessions, rule, &seen);
    Setup {
        clock,
        issuer,
        csrf,
        key,
        sessions,
        service,
        seen,
    }
});

fn service(
    stack: &SecurityStack,
    keys: ApiKeys,
    context: Context,
    sessions: &Sessions,
    rule: CsrfPolicy,
    seen: &Seen,
) -> Service {
    let guarded = |name: &'static str, guard: Guard| {
        let seen = Arc::clone(seen);
        let handler = service_fn(move |request: Request<GuardedBody<Script>>| {
            handle(name, Arc::clone(&seen), request)
        });
        BoxCloneSyncService::new(stack.route(guard).unwrap().layer(handler))
    };
    let upload = UploadPolicy::new(["text/plain", "image/png"])
        .unwrap()
        .raw_bodies();
    let open = guarded("open", Guard::new().body(BODY));
    let limited = guarded("limited", Guard::new().limit("client").body(BODY));
    let api = Guard::new()
        .limit("client")
        .limit("subject")
        .scope("write")
        .csrf_token()
        .body(BODY);
    let api = guarded("api", api);
    let upload = guarded(
        "upload",
        Guard::new()
            .authenticate()
            .upload(upload.compat().max_file(BODY)),
    );
    let keyed = ApiKeyLayer::new(keys)
        .with_context(context)
        .layer(open.clone());
    let keyed = BoxCloneSyncService::new(keyed);
    let endpoints = SessionEndpoints::new(sessions.clone()).with_cookie(rule);
    let [refresh, logout] = [endpoints.refresh(), endpoints.logout()];
    let reports = CspReports::new().with_context(quiet());
    let routes = service_fn(move |request: Request<Script>| {
        let route: Service = match request.uri().path() {
            "/limited" => limited.clone(),
            "/api" => api.clone(),
            "/upload" => upload.clone(),
            "/keyed" => keyed.clone(),
            "/refresh" => BoxCloneSyncService::new(refresh.clone()),
            "/logout" => BoxCloneSyncService::new(logout.clone()),
            "/csp" => BoxCloneSyncService::new(reports.clone()),
            _ => open.clone(),
        };
        route.oneshot(request)
    });
    BoxCloneSyncService::new(stack.around(routes))
}

/// Notes who came, reads the body, and answers.
async fn handle(
    name: &'static str,
    seen: Seen,
    request: Request<GuardedBody<Script>>,
) -> Result<Answer, Infallible> {
    let client = request.extensions().get::<Client>().expect("a client");
    let acme = request
        .uri()
        .path()
        .starts_with("/.well-known/acme-challenge/");
    assert!(client.is_secure() || acme, "over plain HTTP");
    let ip = client.ip().expect("an address");
    // An IPv4 address inside one of IPv6 is counted as itself.
    let embeds = matches!(ip, IpAddr::V6(ip) if matches!(ip.segments()[0], 0x64 | 0x2002));
    let network = match embeds {
        true => ip.to_string(),
        false => Prefix::of_client(ip).to_string(),
    };
    let identity = request.extensions().get::<Identity>().cloned();
    {
        let mut seen = seen.lock().unwrap();
        *seen.entry((name, String::new())).or_default() += 1;
        if matches!(name, "limited" | "api") {
            *seen.entry(("client", network)).or_default() += 1;
        }
        if let Some(identity) = identity.as_ref().filter(|_| name == "api") {
            assert!(identity.has_scope("write"));
            *seen
                .entry(("subject", identity.subject().to_owned()))
                .or_default() += 1;
        }
    }
    assert!(
        identity.is_some() || matches!(name, "open" | "limited"),
        "nobody at {name}"
    );
    let read = request.into_body().collect().await;
    let mut answer = Response::new(Full::default());
    answer
        .headers_mut()
        .insert("x-handler", http::HeaderValue::from_static("ran"));
    match read {
        Ok(read) => {
            let read = read.to_bytes();
            assert!(
                name == "upload" || read.len() as u64 <= BODY,
                "more than is admitted"
            );
            *answer.body_mut() = Full::new(read);
        }
        // The connection broke.
        Err(_) => *answer.status_mut() = http::StatusCode::BAD_REQUEST,
    }
    Ok(answer)
}

fuzz_target!(|input: &[u8]| {
    let setup = &*SETUP;
    setup.clock.advance(2 * WINDOW);
    setup.seen.lock().unwrap().clear();
    let now = setup.clock.wall();
    let token = |scope: &str| {
        let token = AccessToken::new("ada")
            .with_session("session")
            .with_scopes([scope]);
        setup.issuer.issue(&token, now).unwrap().into_string()
    };
    run(setup.sessions.delete_expired(10)).unwrap();
    let pair = run(setup.sessions.start("ada", Device::new())).unwrap();
    let (write, read, csrf) = (token("write"), token("read"), setup.csrf.issue("session"));
    let filled = fill(
        input,
        &[
            ("{write}", &write),
            ("{read}", &read),
            ("{csrf}", &csrf),
            ("{key}", &setup.key),
            ("{refresh}", pair.refresh_token.expose()),
        ],
    );
    for text in filled.split(|byte| *byte == 0x1e).take(16) {
        let Some(request) = request(text) else {
            continue;
        };
        judge(setup, request, [&write, &read, &setup.key]);
    }
    let seen = setup.seen.lock().unwrap();
    for ((name, who), times) in &*seen {
        let limit = LIMITS.iter().find(|(limit, _)| limit == name);
        assert!(
            limit.is_none_or(|(_, limit)| times <= limit),
            "{name} of {who}: {times}"
        );
    }
});

fn judge(setup: &Setup, mut request: Ask, secrets: [&String; 3]) {
    let peer: IpAddr = [192, 0, 2, 1].into();
    request
        .extensions_mut()
        .insert(Peer::new((peer, 4711).into()));
    let headers = request.headers();
    let origin = headers.get("origin").cloned();
    let own_host = |host: &[u8]| {
        host.eq_ignore_ascii_case(b"example.com") || host.eq_ignore_ascii_case(b"example.com:443")
    };
    let hosts = values(headers, "host");
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let ours = hosts.iter().copied().chain(target).all(own_host) && hosts.len() < 2;
    let unsafe_ = !matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS");
    let foreign = values(headers, "sec-fetch-site")
        .iter()
        .any(|site| *site == b"cross-site")
        && origin.as_ref().is_none_or(|origin| origin != OWN);
    let carries = |secret: &String| {
        headers.values().any(|value| {
            value
                .as_bytes()
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        })
    };
    let [write, read, key] = secrets.map(carries);
    let length = headers.get("content-length");
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let before: usize = setup.seen.lock().unwrap().values().sum();
    let path = request.uri().path().to_owned();

    let request = request.map(|body| Script::read(&bytes(body)).stating(length));
    let answer = run(setup.service.clone().oneshot(request)).unwrap();

    let status = answer.status().as_u16();
    assert!((200..500).contains(&status), "{status}");
    let headers = answer.headers();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        let found = values(headers, name);
        assert_eq!(found.len(), 1, "{name}: {headers:?}");
        assert!(name != "x-content-type-options" || found[0] == value.as_bytes());
    }
    assert!(headers.contains_key("content-security-policy"));
    for value in headers.values() {
        assert!(
            value
                .as_bytes()
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~')),
            "{value:?}"
        );
    }
    if let Some(named) = headers.get("access-control-allow-origin") {
        assert_eq!(named, FRIEND);
        assert_eq!(Some(named), origin.as_ref());
    }
    if let Some(location) = headers.get("location") {
        assert!(
            location.as_bytes().starts_with(b"https://example.com/"),
            "{location:?}"
        );
    }
    let ran = headers.contains_key("x-handler");
    let rejection = answer.extensions().get::<Rejection>();
    if let Some(rejection) = rejection {
        assert!(!ran);
        assert_eq!(headers["cache-control"], "no-store");
        let grpc = status == 200 && headers.contains_key("grpc-status");
        assert!(grpc || rejection.status() == status);
        let challenged = headers.contains_key("www-authenticate");
        let session = matches!(path.as_str(), "/refresh" | "/logout");
        assert!(status != 401 || challenged || session, "{rejection:?}");
        assert!(status != 429 || headers.contains_key("retry-after"));
    }
    let began = setup.seen.lock().unwrap().values().sum::<usize>() > before;
    if ran || began {
        assert!(began && ours, "a host of others");
        let acme = path.starts_with("/.well-known/acme-challenge/");
        assert!(headers.contains_key("strict-transport-security") || acme);
        assert!(!unsafe_ || !foreign, "from another site");
        match path.as_str() {
            "/api" => assert!(write),
            "/upload" => assert!(write || read),
            "/keyed" => assert!(key),
            _ => {}
        }
    }
    let stated = headers.get("content-length").cloned();
    let body = bytes(answer.into_body());
    if let Some(stated) = stated {
        assert_eq!(stated.to_str().unwrap(), body.len().to_string());
    }
}
