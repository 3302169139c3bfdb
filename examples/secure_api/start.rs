//! Settings become parts, parts become the service.

use std::{convert::Infallible, error::Error, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    middleware::map_response,
    routing::{delete, get, post},
};
use portcullis::{
    ClientLayer, ConfigError, Context, DenyList, Head, Origin, Peer,
    api_key::{ApiKeyLayer, ApiKeys, MemoryKeys, postgres::PostgresKeys, sqlite::SqliteKeys},
    cors::CorsPolicy,
    csrf::CsrfPolicy,
    deny_feed::{DenyFeed, RedisFeed},
    headers::{Csp, CspReports, Profile, ReportingEndpoints, SecurityHeaders},
    https::HttpsPolicy,
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, KeySet, SigningKey, Verifier},
    login_throttle::LoginThrottle,
    password::PasswordHasher,
    problem,
    rate_limit::{FieldsVersion, Policy, RateLimitLayer, redis::RedisLimits},
    refresh_token::{MemoryStore, RefreshTokens, postgres::PostgresStore, sqlite::SqliteStore},
    secret::{Secret, Secrets},
    session::{Grants, SessionEndpoints, Sessions, SubjectStatus},
    stack::{Edge, Guard, SecurityStack, Settings},
    upload::{MIB, Spool, UploadPolicy, scan::Clamd},
};
use std::time::Duration;
use tower::Layer as _;

use crate::{accounts::Accounts, api, auth, health::Health, keys, metrics, page};

/// What the handlers share.
pub(crate) struct App {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) hasher: PasswordHasher,
    pub(crate) throttle: LoginThrottle,
    pub(crate) sessions: Sessions,
    pub(crate) endpoints: SessionEndpoints,
    pub(crate) keys: ApiKeys,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) context: Context,
}

/// The service, and what its program needs of its parts.
pub(crate) struct Service {
    pub(crate) edge: Edge<Router>,
    pub(crate) health: Health,
    pub(crate) app: Arc<App>,
    issuer: Issuer,
}

impl Service {
    /// An access token of nobody, for the checklist's own requests; it ends within a minute.
    pub(crate) fn audit_token(&self) -> Option<String> {
        let now = self.app.context.wall();
        let token = AccessToken::new("portcullis-audit")
            .with_claim("preferred_username", "portcullis-audit")
            .ok()?
            .ending_by(now.saturating_add(Duration::from_secs(60)));
        let token = self.issuer.issue(&token, now).ok()?;
        Some(token.into_string())
    }
}

/// Why the service cannot start.
pub(crate) enum StartError {
    /// A setting that only the part which uses it can judge.
    Settings(ConfigError),
    Store(Box<dyn Error + Send + Sync>),
}

impl From<ConfigError> for StartError {
    fn from(fault: ConfigError) -> Self {
        Self::Settings(fault)
    }
}

/// The largest body of an upload: two files, and what is around them.
pub(crate) fn max_upload(settings: &Settings) -> u64 {
    let max = settings.upload_max_file_bytes;
    max.saturating_mul(2).saturating_add(1024 * 1024)
}

/// The policy for uploads that the settings ask for.
pub(crate) fn uploads(settings: &Settings) -> Result<UploadPolicy, ConfigError> {
    let max = settings.upload_max_file_bytes;
    let policy = UploadPolicy::new(&settings.upload_allowed_types)
        .map_err(|fault| fault.named("UPLOAD_ALLOWED_TYPES"))?
        .max_file(max)
        .max_body(max_upload(settings))
        .idle(Duration::from_secs(20));
    Ok(match &settings.clamd_addr {
        // What is refused late is never shown to the handler.
        Some(addr) => policy
            .scan_with(Clamd::at(addr).max_bytes(max))
            .spool(Spool::new(SPOOL)),
        None => policy,
    })
}

/// The whole service, at the address that it is served on.
pub(crate) async fn service(settings: &Settings, addr: SocketAddr) -> Result<Service, StartError> {
    let context = Context::new();
    let access = secrets(settings.jwt_secrets.as_ref(), "JWT_SECRET");
    let refresh = secrets(settings.jwt_refresh_secrets.as_ref(), "JWT_REFRESH_SECRET");

    let issuer = Issuer::new(
        SigningKey::secret(Algorithm::HS256, access.current())?,
        settings.jwt_issuer.as_str(),
        settings.jwt_audience.as_str(),
    )?
    .with_ttl(settings.jwt_access_ttl)?;
    let keep = MAX_ACCESS_TTL + settings.jwt_leeway;
    let redis = redis(settings, &refresh).await?;
    let mut throttle = LoginThrottle::new(
        settings.auth_account_failures_max,
        settings.rate_limit_window,
        &refresh,
    )?
    .with_context(context.clone());
    if let Some(redis) = &redis {
        throttle = throttle.shared(redis.limits.clone());
    }
    let Stores {
        accounts,
        tokens,
        keys,
        deny_list,
    } = stores(settings, &context, refresh, keep).await?;
    let keys = keys
        .with_deny_list(deny_list.clone())
        .with_context(context.clone());
    let tokens = tokens
        .with_context(context.clone())
        .with_lifetimes(settings.jwt_refresh_ttl, SESSION_END)?
        .with_grace(settings.refresh_grace)?
        .with_max_sessions(settings.max_sessions_per_user as usize)?;
    let accounts = Arc::new(accounts);
    let users = Arc::clone(&accounts);
    let sessions = Sessions::new(issuer.clone(), tokens, deny_list.clone()).with_subjects(
        move |id: String| {
            let users = Arc::clone(&users);
            async move {
                Ok::<_, Box<dyn Error + Send + Sync>>(match users.by_id(&id).await? {
                    Some(account) => SubjectStatus::Active(
                        Grants::new()
                            .with_scopes(["api"])
                            .with_claim("preferred_username", account.username)?,
                    ),
                    None => SubjectStatus::Disabled,
                })
            }
        },
    );
    let mut feed = DenyFeed::new(sessions.clone()).with_api_keys(keys.clone());
    if let Some(redis) = &redis {
        feed = feed.with_redis(redis.feed.clone());
    }
    feed.sync()
        .await
        .map_err(|error| StartError::Store(Box::new(error)))?;

    let verifier = Verifier::new(
        KeySet::from_secrets(Algorithm::HS256, &access)?,
        settings.jwt_issuer.as_str(),
        settings.jwt_audience.as_str(),
    )?
    .with_leeway(settings.jwt_leeway)?;
    let stack = SecurityStack::new(context.clone())
        .with_client(ClientLayer::new(settings.trusted_proxies.clone()))
        .with_headers(headers()?)
        .with_csrf(cross_site(settings, addr)?)
        .with_jwt(
            JwtLayer::new(verifier)
                .claims::<api::Profile>()
                .with_deny_list(deny_list)
                .with_context(context.clone()),
        );
    let limits = limits(settings)?.with_context(context.clone());
    let stack = match &redis {
        Some(redis) => stack.with_shared_limits(limits.shared(redis.limits.clone())),
        None => stack.with_limits(limits),
    };
    let stack = other_origins(stack, settings)?;
    tracing::info!("the stack, outermost first:\n{stack}");
    let app = Arc::new(App {
        accounts,
        hasher: PasswordHasher::new()
            .with_cost(settings.bcrypt_cost)?
            .with_context(context.clone()),
        throttle,
        sessions: sessions.clone(),
        endpoints: SessionEndpoints::new(sessions.clone()).with_cookie(cross_site(settings, addr)?),
        keys,
        metrics: metrics::Metrics::install(settings)?,
        context: context.clone(),
    });
    let health = Health::new(feed, redis.map(|redis| redis.limits), context);
    let router = router(&stack, uploads(settings)?, health.clone(), &app)?;
    Ok(Service {
        edge: stack.around(router.with_state(Arc::clone(&app))),
        health,
        app,
        issuer,
    })
}

fn router(
    stack: &SecurityStack,
    uploads: UploadPolicy,
    health: Health,
    app: &App,
) -> Result<Router<Arc<App>>, ConfigError> {
    let general = || Guard::new().limit("general");
    let auth = stack.route(Guard::new().limit("auth"))?;
    let password = stack.route(Guard::new().limit("auth").authenticate())?;
    let open = stack.route(general())?;
    let reports = CspReports::new().with_context(app.context.clone());
    let user = stack.route(general().authenticate())?;
    let program = ApiKeyLayer::new(app.keys.clone()).with_context(app.context.clone());
    let model = stack.route(Guard::new().limit("model").authenticate().body(256 * 1024))?;
    let upload = stack.route(Guard::new().limit("upload").authenticate().upload(uploads))?;
    Ok(Router::new()
        .route("/", get(page::page))
        .route_service(REPORTS, open.layer(reports))
        .route("/healthz", get(async move || health.answer()))
        .route("/auth/register", post(auth::register).layer(auth.clone()))
        .route(
            "/auth/login",
            post(auth::login)
                .layer(auth)
                .layer(map_response(metrics::count_login)),
        )
        .route("/metrics", get(metrics::show))
        .route(
            "/auth/password",
            post(auth::change_password).layer(password),
        )
        .route_service("/auth/refresh", open.layer(app.endpoints.refresh()))
        .route_service("/auth/logout", open.layer(app.endpoints.logout()))
        .route_service("/auth/sessions", user.layer(app.endpoints.sessions()))
        .route_service("/auth/sessions/{id}", user.layer(app.endpoints.session()))
        .route("/api/me", get(api::me).layer(user.clone()))
        .route(
            "/api/keys",
            get(keys::list).post(keys::create).layer(user.clone()),
        )
        .route("/api/keys/{id}", delete(keys::revoke).layer(user.clone()))
        .route("/api/keys/{id}/rotate", post(keys::rotate).layer(user))
        .route(
            "/api/ping",
            get(keys::ping).layer::<_, Infallible>(program).layer(open),
        )
        .route("/api/model", post(api::model).layer(model))
        .route(
            "/api/upload",
            // The gate counts; axum's own 2 MB would stand in front of it.
            post(api::upload)
                .layer::<_, Infallible>(axum::extract::DefaultBodyLimit::disable())
                .layer(upload),
        )
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::not_found))
}

/// The crate's profiles, with violations of the page's policy reported here.
fn headers() -> Result<SecurityHeaders, ConfigError> {
    let endpoints = ReportingEndpoints::new().endpoint("csp", REPORTS)?;
    let csp = Csp::html()
        .edit()
        .report_to("csp")
        .report_uri([REPORTS])
        .build()?;
    let html = Profile::html().csp(csp).reporting_endpoints(&endpoints);
    Ok(SecurityHeaders::by_content_type(html, Profile::api()).no_store_when(is_private))
}

/// Unsafe requests come from the service's own pages or from an allowed origin.
fn cross_site(settings: &Settings, addr: SocketAddr) -> Result<CsrfPolicy, ConfigError> {
    let public = settings.public_origin.clone();
    CsrfPolicy::new([public.unwrap_or_else(|| Origin::plain(addr))])
        .trust(settings.cors_allowed_origins.iter().cloned())
        .cookie(REFRESH_COOKIE)
}

/// CORS where origins are allowed, and the public host over HTTPS alone in production.
fn other_origins(
    mut stack: SecurityStack,
    settings: &Settings,
) -> Result<SecurityStack, ConfigError> {
    if !settings.cors_allowed_origins.is_empty() {
        let origins = settings.cors_allowed_origins.iter().map(Origin::as_str);
        stack = stack.with_cors(CorsPolicy::new(origins)?.credentials(true));
    }
    if let (true, Some(origin)) = (settings.is_production(), &settings.public_origin) {
        stack = stack.with_https(HttpsPolicy::new(origin.clone()).exempt(is_local));
    }
    Ok(stack)
}

/// What is asked over plain HTTP by whoever watches over the service.
fn is_local(head: Head<'_>) -> bool {
    let from_here = || {
        let peer = Peer::of(head).and_then(Peer::ip);
        peer.is_some_and(|ip| ip.to_canonical().is_loopback())
    };
    match head.uri.path() {
        "/healthz" => true,
        "/metrics" => from_here(),
        _ => false,
    }
}

fn limits(settings: &Settings) -> Result<RateLimitLayer, ConfigError> {
    let window = settings.rate_limit_window;
    let minute = Duration::from_secs(60);
    let hour = Duration::from_secs(3_600);
    Ok(RateLimitLayer::new([
        Policy::strict("general", settings.rate_limit_max_requests, window)?,
        Policy::strict("auth", settings.auth_rate_limit_max, window)?,
        Policy::strict("model", settings.model_rate_limit_max, minute)?,
        Policy::strict("upload", settings.upload_rate_limit_max, hour)?,
    ])
    .with_fields(FieldsVersion::Draft10))
}

/// What the instances of the service share through Redis.
struct Shared {
    limits: RedisLimits,
    feed: RedisFeed,
}

async fn redis(settings: &Settings, secrets: &Secrets) -> Result<Option<Shared>, ConfigError> {
    let Some(url) = settings.redis_url.as_deref() else {
        return Ok(None);
    };
    // While secrets change, instances with the old ones and with the new have this one in common.
    let secret = secrets.iter().last().unwrap_or(secrets.current());
    Ok(Some(Shared {
        limits: RedisLimits::connect(url, secret).await?,
        feed: RedisFeed::connect(url).await?,
    }))
}

/// What outlives a request.
struct Stores {
    accounts: Accounts,
    tokens: RefreshTokens,
    keys: ApiKeys,
    deny_list: DenyList,
}

async fn stores(
    settings: &Settings,
    context: &Context,
    secrets: Secrets,
    keep: Duration,
) -> Result<Stores, StartError> {
    let unusable = |error: Box<dyn Error + Send + Sync>| StartError::Store(error);
    let env = &settings.api_keys_env;
    let url = settings.database_url.as_str();
    let (accounts, tokens, keys) = if url == "memory:" {
        let tokens = RefreshTokens::new(MemoryStore::new(), secrets);
        let keys = ApiKeys::new(MemoryKeys::new(), env)?;
        (Accounts::memory(), tokens, keys)
    } else if url.starts_with("postgres") {
        let store = PostgresStore::connect(url).await;
        let store = store.map_err(|error| unusable(error.into()))?;
        let accounts = Accounts::postgres(store.pool().clone()).await;
        let accounts = accounts.map_err(|error| unusable(error.into()))?;
        let keys = PostgresKeys::new(store.pool().clone()).await;
        let keys = keys.map_err(|error| unusable(error.into()))?;
        let tokens = RefreshTokens::new(store, secrets);
        (accounts, tokens, ApiKeys::new(keys, env)?)
    } else {
        let store = match url.strip_prefix("sqlite://") {
            Some(path) => SqliteStore::open(path).await,
            None => SqliteStore::in_memory().await,
        };
        let store = store.map_err(|error| unusable(error.into()))?;
        let accounts = Accounts::sqlite(store.pool().clone()).await;
        let accounts = accounts.map_err(|error| unusable(error.into()))?;
        let keys = SqliteKeys::new(store.pool().clone()).await;
        let keys = keys.map_err(|error| unusable(error.into()))?;
        let tokens = RefreshTokens::new(store, secrets);
        (accounts, tokens, ApiKeys::new(keys, env)?)
    };
    let deny_list = match url.contains("://") {
        true => DenyList::pending(context, keep),
        false => {
            // What a process before this one ended is not known: all of its tokens are over.
            let deny_list = DenyList::since_start(context, keep);
            let second = Duration::from_secs(1);
            let begun = context.wall().as_millis().rem_euclid(1_000).unsigned_abs();
            // Tokens carry whole seconds: those of this process must be later than its start.
            tokio::time::sleep(second.saturating_sub(Duration::from_millis(begun))).await;
            deny_list
        }
    };
    Ok(Stores {
        accounts,
        tokens,
        keys,
        deny_list,
    })
}

fn secrets(set: Option<&Secrets>, name: &str) -> Secrets {
    set.cloned().unwrap_or_else(|| {
        tracing::warn!("{name} is not set: a random one is used until this process ends");
        Secrets::new(Secret::generate())
    })
}

fn is_private(head: Head<'_>) -> bool {
    let path = head.uri.path();
    path.starts_with("/auth") || path.starts_with("/api")
}

const REFRESH_COOKIE: &str = "__Host-refresh";
const REPORTS: &str = "/csp-reports";
const MAX_ACCESS_TTL: Duration = Duration::from_secs(3_600);
/// For all uploads that wait for the scanner.
const SPOOL: u64 = 1_024 * MIB;
const SESSION_END: Duration = Duration::from_secs(30 * 86_400);
