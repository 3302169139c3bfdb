//! The production checklist: it finds exactly what is wrong.
#![cfg(all(
    feature = "audit",
    feature = "axum",
    feature = "cors",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "rate-limit",
    feature = "upload"
))]

#[cfg(feature = "postgres")]
mod support;

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    middleware::{Next, from_fn},
    response::{Html, IntoResponse as _, Redirect},
    routing::{get, post},
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, ORIGIN, X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::Full;
use portcullis::{
    ClientLayer, Context, Origin, Peer, Rejection, RejectionKind, TrustedProxies,
    audit::{self, Carrier, Checklist, Counting, Limit, Line, Route, Site, Verdict},
    csrf::CsrfPolicy,
    headers::SecurityHeaders,
    https::HttpsPolicy,
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, KeySet, SigningKey, Verifier},
    problem,
    rate_limit::{Policy, RateLimitLayer},
    secret::{Secret, Secrets},
    stack::{Guard, SecurityStack, Settings},
    upload::{
        MIB, Spool, UploadPolicy,
        scan::{FileStream, ScanError, ScanVerdict, Scanner},
    },
};
use tower::service_fn;

/// A scanner that says what it is told to say of a file's bytes.
struct Finds(fn(&[u8]) -> Result<ScanVerdict, ScanError>);

impl Scanner for Finds {
    async fn scan(&self, mut file: FileStream) -> Result<ScanVerdict, ScanError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = file.chunk().await {
            bytes.extend_from_slice(&chunk);
        }
        (self.0)(&bytes)
    }
}

fn infected() -> ScanVerdict {
    ScanVerdict::Infected {
        name: "eicar".into(),
    }
}

/// A deployment, with what may be wrong with it.
#[derive(Clone, Default)]
struct Deployment {
    no_headers: bool,
    no_cross_site_rule: bool,
    no_https_rule: bool,
    over_http: bool,
    any_proxy: bool,
    no_authentication: bool,
    no_limit: bool,
    loose_limit: bool,
    short_window: bool,
    large_bodies: bool,
    large_notes: bool,
    no_scanner: bool,
    deaf_scanner: bool,
    scanner_away: bool,
    open_metrics: bool,
    outside: bool,
    bare_errors: bool,
    tells_server: bool,
    any_token: bool,
    stored_errors: bool,
    no_metadata_rule: bool,
    no_origin_rule: bool,
    any_preflight: bool,
    any_reader: bool,
    plain_redirect: bool,
    doubled: bool,
    strict_limit: bool,
}

impl Deployment {
    async fn audited(&self) -> Checklist {
        let origin = Origin::new("https://example.com").unwrap();
        let proxies = match self.any_proxy {
            true => TrustedProxies::new(["2001:db8::/32"]).unwrap(),
            false => TrustedProxies::none(),
        };
        let most = if self.loose_limit { 6 } else { 5 };
        let counted = if self.strict_limit { most - 1 } else { most };
        let window = match self.short_window {
            true => Duration::from_secs(60),
            false => Duration::from_secs(900),
        };
        let limit = Policy::strict("auth", counted, window).unwrap();
        let secrets = Secrets::new(Secret::generate());
        let keys = KeySet::from_secrets(Algorithm::HS256, &secrets).unwrap();
        let verifier = Verifier::new(keys, "issuer", "audience").unwrap();
        let key = SigningKey::secret(Algorithm::HS256, secrets.current()).unwrap();
        let issuer = Issuer::new(key, "issuer", "audience").unwrap();
        let mut stack = SecurityStack::new(Context::new().with_events_inline(|_: &_| {}))
            .with_client(ClientLayer::new(proxies))
            .with_limits(RateLimitLayer::new([limit]))
            .with_jwt(JwtLayer::new(verifier));
        if !self.no_headers {
            stack = stack.with_headers(SecurityHeaders::new());
        }
        if !self.no_cross_site_rule {
            stack = stack.with_csrf(CsrfPolicy::new([origin.clone()]));
        }
        if !self.no_https_rule {
            stack = stack.with_https(HttpsPolicy::new(origin));
        }
        let size = if self.large_bodies { 4_096 } else { 1_024 };
        let mut login = Guard::new().body(size);
        if !self.no_limit {
            login = login.limit("auth");
        }
        let mut me = Guard::new();
        if !self.no_authentication && !self.any_token {
            me = me.authenticate();
        }
        let notes = Guard::new()
            .authenticate()
            .body(if self.large_notes { 4_096 } else { 1_024 });
        let pdf = UploadPolicy::new(["application/pdf"]).unwrap();
        let pdf = pdf.spool(Spool::new(MIB));
        let pdf = match (self.no_scanner, self.deaf_scanner, self.scanner_away) {
            (true, ..) => pdf,
            (_, true, _) => pdf.scan_with(Finds(|_| Ok(ScanVerdict::Clean))),
            (.., true) => pdf.scan_with(Finds(|_| Err(ScanError::new("away")))),
            _ => pdf.scan_with(Finds(|bytes| {
                let mut windows = bytes.windows(19);
                Ok(match windows.any(|bytes| bytes == b"ANTIVIRUS-TEST-FILE") {
                    true => infected(),
                    false => ScanVerdict::Clean,
                })
            })),
        };
        let files = Guard::new().authenticate().upload(pdf);
        let read = async |body: axum::body::Bytes| body.len().to_string();
        let show = {
            let open = self.open_metrics;
            async move || match open {
                true => Ok("counters"),
                false => Err(problem::not_found().await),
            }
        };
        let any_token = self.any_token;
        let mut router = Router::new()
            .route("/", get(async || Html("<p>hello")))
            .route("/login", post(read).layer(stack.route(login).unwrap()))
            .route(
                "/me",
                get(move |request: Request<Body>| async move {
                    // Somebody's own gate, which looks whether there is a token, and no further.
                    match any_token && !request.headers().contains_key(AUTHORIZATION) {
                        true => Err(Rejection::new(
                            RejectionKind::Unauthenticated,
                            "own",
                            "none",
                        )),
                        false => Ok("me"),
                    }
                })
                .layer(stack.route(me).unwrap()),
            )
            .route("/notes", post(read).layer(stack.route(notes).unwrap()))
            .route("/files", post(read).layer(stack.route(files).unwrap()))
            .route("/metrics", get(show));
        if !self.bare_errors {
            router = router.fallback(problem::not_found);
        }
        let (preflights, readers) = (self.any_preflight, self.any_reader);
        if preflights || readers {
            router = router.layer(from_fn(
                move |request: Request<Body>, next: Next| async move {
                    let is_spoiled = match request.method() == Method::OPTIONS {
                        true => preflights,
                        false => readers,
                    };
                    let mut answer = next.run(request).await;
                    if is_spoiled {
                        let any = HeaderValue::from_static("*");
                        answer
                            .headers_mut()
                            .insert(ACCESS_CONTROL_ALLOW_ORIGIN, any);
                    }
                    answer
                },
            ));
        }
        // What somebody merges around the stack, instead of into it.
        let mut whole = Router::new().fallback_service(stack.around(router));
        if self.outside {
            whole = whole.route("/admin", post(async || StatusCode::OK));
        }
        // What a proxy in front, or a layer outside, does to all of it.
        let spoiled = self.clone();
        whole = whole.layer(from_fn(move |mut request: Request<Body>, next: Next| {
            let spoiled = spoiled.clone();
            async move {
                let peer = request.extensions().get::<Peer>().copied();
                if spoiled.plain_redirect && peer.is_some_and(|peer| !peer.tls()) {
                    return Redirect::permanent("http://example.com/").into_response();
                }
                if spoiled.no_metadata_rule {
                    request.headers_mut().remove("sec-fetch-site");
                }
                if spoiled.no_origin_rule {
                    request.headers_mut().remove(ORIGIN);
                }
                let mut answer = next.run(request).await;
                if spoiled.stored_errors && answer.status().is_client_error() {
                    answer.headers_mut().remove(CACHE_CONTROL);
                }
                if spoiled.doubled {
                    let again = HeaderValue::from_static("nosniff");
                    answer.headers_mut().append(X_CONTENT_TYPE_OPTIONS, again);
                }
                answer
            }
        }));
        if self.tells_server {
            whole = whole.layer(axum::middleware::map_response(
                async |answer: axum::response::Response| {
                    ([("server", "axum"), ("x-powered-by", "Rust")], answer)
                },
            ));
        }
        let mut routes = vec![
            Route::new(Method::GET, "/"),
            Route::new(Method::POST, "/login")
                .limited(Limit::auth(most, window))
                .body(1_024),
            Route::new(Method::GET, "/me").authenticated(),
            Route::new(Method::POST, "/notes")
                .authenticated()
                .body(1_024),
            Route::new(Method::POST, "/files")
                .authenticated()
                .scanned("file", Carrier::Pdf),
            Route::new(Method::GET, "/metrics").hidden(),
        ];
        if self.outside {
            routes.push(Route::new(Method::POST, "/admin"));
        }
        let site = match self.over_http {
            true => Site::http("example.com"),
            false => Site::https("example.com"),
        };
        let token = AccessToken::new("nobody");
        let token = issuer.issue(&token, Context::new().wall()).unwrap();
        let site = site.with_token(token.as_str()).unwrap();
        assert!(!format!("{site:?}").contains(token.as_str()));
        audit::probe(whole, &site, &routes).await
    }
}

#[tokio::test]
async fn a_good_deployment_is_observed_line_by_line() {
    let checklist = Deployment::default().audited().await;
    for line in checklist.lines() {
        assert_eq!(line.verdict(), Verdict::Observed, "{line}");
    }
    assert!(checklist.holds());
}

#[tokio::test]
async fn a_bad_deployment_fails_exactly_the_bad_lines() {
    type Spoil = fn(&mut Deployment);
    let table: &[(Spoil, &[&str])] = &[
        (|bad| bad.no_headers = true, &["hsts", "security_headers"]),
        (|bad| bad.tells_server = true, &["security_headers"]),
        (|bad| bad.no_cross_site_rule = true, &["cross_site"]),
        (|bad| bad.no_https_rule = true, &["https"]),
        (|bad| bad.any_proxy = true, &["limit_auth"]),
        (|bad| bad.no_authentication = true, &["authentication"]),
        (|bad| bad.no_limit = true, &["limit_auth"]),
        (|bad| bad.loose_limit = true, &["limit_auth"]),
        (|bad| bad.short_window = true, &["limit_auth"]),
        (|bad| bad.large_bodies = true, &["body_size"]),
        (|bad| bad.large_notes = true, &["body_size"]),
        (|bad| bad.no_scanner = true, &["scanner"]),
        (|bad| bad.deaf_scanner = true, &["scanner"]),
        (|bad| bad.scanner_away = true, &["scanner"]),
        (|bad| bad.open_metrics = true, &["hidden"]),
        (
            |bad| bad.outside = true,
            &["cross_site", "hsts", "https", "security_headers"],
        ),
        (|bad| bad.any_preflight = true, &["cors"]),
        (|bad| bad.any_reader = true, &["cors"]),
        (|bad| bad.any_token = true, &["authentication"]),
        (|bad| bad.stored_errors = true, &["errors"]),
        (|bad| bad.no_metadata_rule = true, &["cross_site"]),
        (|bad| bad.no_origin_rule = true, &["cross_site"]),
        (|bad| bad.plain_redirect = true, &["https"]),
        (|bad| bad.doubled = true, &["security_headers"]),
        (|bad| bad.strict_limit = true, &["limit_auth"]),
        (|bad| bad.bare_errors = true, &["errors"]),
        (
            |bad| {
                bad.no_authentication = true;
                bad.large_bodies = true;
                bad.open_metrics = true;
            },
            &["authentication", "body_size", "hidden"],
        ),
    ];
    for (index, (spoil, expected)) in table.iter().enumerate() {
        let mut deployment = Deployment::default();
        spoil(&mut deployment);
        let checklist = deployment.audited().await;
        let failing: BTreeSet<_> = checklist.failing().map(Line::id).collect();
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(failing, expected, "row {index}\n{checklist}");
        assert!(!checklist.holds());
    }
    // Served over plain HTTP there is no rule to observe.
    let plain = Deployment {
        over_http: true,
        no_https_rule: true,
        ..Deployment::default()
    };
    let checklist = plain.audited().await;
    let failing: Vec<_> = checklist.failing().map(Line::id).collect();
    assert_eq!(failing, ["https"], "{checklist}");
}

#[tokio::test]
async fn a_route_outside_the_stack_is_named() {
    let outside = Deployment {
        outside: true,
        ..Deployment::default()
    };
    let checklist = outside.audited().await;
    for line in checklist.failing() {
        assert!(line.how().contains("POST /admin"), "{line}");
        assert!(!line.how().contains("/login"), "{line}");
    }
}

/// What stands behind a gate that lets nobody in is not said to hold.
#[tokio::test]
async fn what_no_probe_reaches_is_the_operators() {
    let closed = service_fn(async |request: Request<Full<Bytes>>| {
        let known = request.headers().get(AUTHORIZATION);
        Ok::<_, Infallible>(
            Response::builder()
                .status(match known.is_some_and(|token| token == "Bearer known") {
                    true => StatusCode::OK,
                    false => StatusCode::UNAUTHORIZED,
                })
                .body(Full::<Bytes>::default())
                .unwrap(),
        )
    });
    let routes = [Route::new(Method::POST, "/files")
        .authenticated()
        .body(8)
        .scanned("file", Carrier::Text)];
    let lines = async |site: Site| {
        let checklist = audit::probe(closed, &site, &routes).await;
        ["body_size", "scanner"].map(|id| {
            let line = checklist.lines().iter().find(|line| line.id() == id);
            line.unwrap().clone()
        })
    };
    for line in lines(Site::https("example.com")).await {
        assert_eq!(line.verdict(), Verdict::Operators, "{line}");
        assert!(line.how().contains("POST /files"), "{line}");
    }
    let site = Site::https("example.com").with_token("unknown").unwrap();
    for line in lines(site).await {
        assert_eq!(line.verdict(), Verdict::Operators, "{line}");
    }
    let site = Site::https("example.com").with_token("known").unwrap();
    for line in lines(site).await {
        assert_eq!(line.verdict(), Verdict::Fails, "{line}");
    }
    assert!(Site::https("example.com").with_token("a\nb").is_err());
}

#[test]
fn settings_are_only_configured_and_a_looser_one_fails() {
    let good = [
        ("APP_ENV", "production"),
        ("PUBLIC_ORIGIN", "https://example.com"),
        ("API_KEYS_ENV", "live"),
        ("TRUSTED_PROXIES", "none"),
        (
            "JWT_SECRET",
            "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        (
            "JWT_REFRESH_SECRET",
            "hex:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        ),
    ];
    let judged = |extra: &[(&str, &str)], counting| {
        let settings = Settings::from_vars(|name| {
            let mut vars = extra.iter().chain(&good);
            let found = vars.find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        Checklist::new(audit::of_settings(&settings.unwrap(), counting))
    };
    let checklist = judged(&[], Counting::OneInstance);
    assert!(checklist.holds(), "{checklist}");
    for line in checklist.lines() {
        assert_ne!(line.verdict(), Verdict::Observed, "{line}");
    }
    for (name, value, id) in [
        ("JWT_ACCESS_TTL_SECS", "901", "access_tokens"),
        ("JWT_REFRESH_TTL_SECS", "604801", "refresh_tokens"),
        ("AUTH_ACCOUNT_FAILURES_MAX", "11", "account_guessing"),
        ("APP_ENV", "development", "environment"),
    ] {
        let checklist = judged(&[(name, value)], Counting::OneInstance);
        let failing: Vec<_> = checklist.failing().collect();
        assert_eq!(failing.len(), 1, "{name}: {checklist}");
        assert_eq!(failing[0].id(), id);
        assert_eq!(failing[0].variable(), Some(name));
        assert!(!failing[0].what_to_do().is_empty());
    }
    // What a service sets in code, where the environment would have been refused.
    type Spoil = fn(&mut Settings);
    let table: &[(Spoil, &str, &str)] = &[
        (|bad| bad.jwt_secrets = None, "secrets", "JWT_SECRET"),
        (
            |bad| bad.jwt_refresh_secrets = None,
            "secrets",
            "JWT_REFRESH_SECRET",
        ),
        (|bad| bad.bcrypt_cost = 9, "passwords", "BCRYPT_COST"),
        (
            |bad| bad.api_keys_env = "dev".into(),
            "api_keys",
            "API_KEYS_ENV",
        ),
    ];
    for (spoil, id, name) in table {
        let mut settings = Settings::from_map(good).unwrap();
        spoil(&mut settings);
        let checklist = Checklist::new(audit::of_settings(&settings, Counting::OneInstance));
        let failing: Vec<_> = checklist.failing().collect();
        assert_eq!(failing.len(), 1, "{name}: {checklist}");
        assert_eq!((failing[0].id(), failing[0].variable()), (*id, Some(*name)));
    }
    let verdict = |counting| {
        let checklist = judged(&[], counting);
        let line = checklist
            .lines()
            .iter()
            .find(|line| line.id() == "limits_fleet");
        line.unwrap().verdict()
    };
    assert_eq!(verdict(Counting::Unstated), Verdict::Operators);
    assert_eq!(verdict(Counting::OneInstance), Verdict::Configured);
    assert_eq!(verdict(Counting::Shared), Verdict::Configured);
    assert_eq!(verdict(Counting::ByEach), Verdict::Fails);
    // A developer's machine.
    let bare = audit::of_settings(&Settings::default(), Counting::Unstated);
    let failing: Vec<_> = Checklist::new(bare).failing().map(Line::id).collect();
    assert_eq!(failing, ["secrets", "environment", "api_keys"]);
}

#[tokio::test]
async fn a_scanner_is_seen_to_find_something() {
    for (finds, verdict) in [
        (
            Finds(|bytes| {
                assert!(bytes.len() == 68 || bytes.starts_with(b"nothing"));
                match bytes.starts_with(b"X5O!P%@AP") {
                    true => Ok(infected()),
                    false => Ok(ScanVerdict::Clean),
                }
            }),
            Verdict::Configured,
        ),
        (Finds(|_| Ok(ScanVerdict::Clean)), Verdict::Fails),
        (Finds(|_| Ok(infected())), Verdict::Fails),
        (Finds(|_| Ok(ScanVerdict::TooLarge)), Verdict::Fails),
        (Finds(|_| Err(ScanError::new("away"))), Verdict::Fails),
    ] {
        let line = audit::scanner(Some(&finds)).await;
        assert_eq!(line.verdict(), verdict, "{line}");
    }
    let line = audit::scanner(None::<&Finds>).await;
    assert_eq!(line.verdict(), Verdict::Operators);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_database_is_asked_over_its_connection() {
    use portcullis::refresh_token::sqlite::SqliteStore;
    use sqlx::{Connection as _, sqlite::SqlitePoolOptions};

    let memory = SqliteStore::in_memory().await.unwrap();
    let line = audit::sqlite(memory.pool()).await;
    assert_eq!(line.verdict(), Verdict::Operators, "{line}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let line = audit::sqlite(store.pool()).await;
    assert_eq!(line.verdict(), Verdict::Observed, "{line}");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let line = audit::sqlite(store.pool()).await;
        assert_eq!(line.verdict(), Verdict::Fails, "{line}");
    }
    store.pool().close().await;
    let line = audit::sqlite(store.pool()).await;
    assert_eq!(line.verdict(), Verdict::Fails, "{line}");

    let careless = folder.path().join("careless.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&careless)
        .create_if_missing(true)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Off);
    let pool = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    pool.acquire().await.unwrap().ping().await.unwrap();
    let line = audit::sqlite(&pool).await;
    assert_eq!(line.verdict(), Verdict::Fails, "{line}");
    assert!(line.how().contains("wait for the disk"), "{line}");
}

/// The schema and the role stand in for what a server elsewhere would say.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgresql_is_asked_over_its_connection() {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    let Some(server) = support::postgres::Postgres::start() else {
        return;
    };
    let pool = |user: &str, settings: &[(&str, &str)]| {
        let options: PgConnectOptions = server.url().parse().unwrap();
        let options = options.username(user).options(settings.iter().copied());
        PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(options)
    };
    let owner = pool("postgres", &[]);
    sqlx::raw_sql(
        "CREATE ROLE service LOGIN;
         CREATE SCHEMA remote;
         CREATE FUNCTION remote.inet_client_addr() RETURNS inet LANGUAGE sql
            AS $$ SELECT '192.0.2.1'::inet $$;
         CREATE FUNCTION remote.inet_server_addr() RETURNS inet LANGUAGE sql
            AS $$ SELECT '192.0.2.2'::inet $$;
         CREATE SCHEMA encrypted;
         CREATE VIEW encrypted.pg_stat_ssl AS SELECT pg_backend_pid() AS pid, true AS ssl;
         GRANT USAGE ON SCHEMA remote, encrypted TO service;
         GRANT SELECT ON encrypted.pg_stat_ssl TO service",
    )
    .execute(&owner)
    .await
    .unwrap();
    let remote = ("search_path", "remote,pg_catalog");
    let over_tls = ("search_path", "remote,encrypted,pg_catalog");
    let careless = ("synchronous_commit", "off");
    for (user, settings, verdict, how) in [
        ("service", &[][..], Verdict::Observed, "not a superuser"),
        ("service", &[over_tls], Verdict::Observed, "encrypted"),
        ("service", &[remote], Verdict::Fails, "not encrypted"),
        ("service", &[careless], Verdict::Fails, "wait for the disk"),
        ("postgres", &[], Verdict::Fails, "is a superuser"),
    ] {
        let line = audit::postgres(&pool(user, settings)).await;
        assert_eq!(line.verdict(), verdict, "{user} {settings:?}: {line}");
        assert!(line.how().contains(how), "{line}");
        assert_eq!(line.variable(), Some("DATABASE_URL"));
    }
    owner.close().await;
    let line = audit::postgres(&owner).await;
    assert_eq!(line.verdict(), Verdict::Fails, "{line}");
    assert!(line.how().contains("does not answer"), "{line}");
}

#[test]
fn programs_and_people_read_the_same() {
    let checklist = Checklist::new([
        Line::new("one", "it is so", Verdict::Observed, "seen").to_do("never shown"),
        Line::new("two", "it is \"so\"", Verdict::Fails, "not\u{7}seen")
            .set_by("TWO")
            .to_do("set it"),
    ]);
    let json: serde_json::Value = serde_json::from_str(&checklist.to_json()).unwrap();
    assert_eq!(json["holds"], false);
    assert_eq!(json["lines"][0]["verdict"], "observed");
    assert_eq!(json["lines"][0]["to_do"], "");
    assert_eq!(json["lines"][1]["variable"], "TWO");
    assert_eq!(json["lines"][1]["to_do"], "set it");
    let table = checklist.to_string();
    assert!(table.contains("-> TWO: set it"), "{table}");
    assert!(
        table.ends_with("2 lines: 1 observed to hold, 0 only configured, 0 the operator's, 1 fail")
    );
    let told = checklist.failing().next().unwrap().to_string();
    assert!(
        told.starts_with("TWO: checklist line two fails: "),
        "{told}"
    );
}
