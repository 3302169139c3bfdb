//! Settings become parts, parts become the service.

use std::{error::Error, sync::Arc};

use axum::{
    Router,
    routing::{get, post},
};
use portcullis::{
    ClientLayer, ConfigError, Context, DenyList, Head, Origin,
    csrf::CsrfPolicy,
    headers::SecurityHeaders,
    jwt::{Algorithm, Issuer, JwtLayer, KeySet, SigningKey, Verifier},
    login_throttle::LoginThrottle,
    password::PasswordHasher,
    problem,
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
    refresh_token::{MemoryStore, RefreshTokens, sqlite::SqliteStore},
    secret::{Secret, Secrets},
    session::{Grants, SessionEndpoints, Sessions, SubjectStatus},
    stack::{Edge, Guard, SecurityStack, Settings},
    upload::UploadPolicy,
};
use std::time::Duration;
use tower::Layer as _;

use crate::{accounts::Accounts, api, auth, health::Health, page};

/// What the handlers share.
pub(crate) struct App {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) hasher: PasswordHasher,
    pub(crate) throttle: LoginThrottle,
    pub(crate) sessions: Sessions,
    pub(crate) endpoints: SessionEndpoints,
    pub(crate) context: Context,
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

/// The policy for uploads that the settings ask for.
pub(crate) fn uploads(settings: &Settings) -> Result<UploadPolicy, ConfigError> {
    let max = settings.upload_max_file_bytes;
    Ok(UploadPolicy::new(&settings.upload_allowed_types)
        .map_err(|fault| fault.named("UPLOAD_ALLOWED_TYPES"))?
        .max_file(max)
        .max_body(max.saturating_mul(2).saturating_add(1024 * 1024))
        .idle(Duration::from_secs(20)))
}

/// The whole service.
pub(crate) async fn service(settings: &Settings) -> Result<(Edge<Router>, Health), StartError> {
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
    let throttle = LoginThrottle::new(
        settings.auth_account_failures_max,
        settings.rate_limit_window,
        &refresh,
    )?
    .with_context(context.clone());
    let (accounts, tokens, deny_list) = stores(settings, &context, refresh, keep).await?;
    let tokens = tokens
        .with_context(context.clone())
        .with_lifetimes(settings.jwt_refresh_ttl, SESSION_END)?
        .with_grace(settings.refresh_grace)?
        .with_max_sessions(settings.max_sessions_per_user as usize)?;
    let accounts = Arc::new(accounts);
    let users = Arc::clone(&accounts);
    let sessions =
        Sessions::new(issuer, tokens, deny_list.clone()).with_subjects(move |id: String| {
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
        });
    sessions
        .recover()
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
        .with_headers(SecurityHeaders::new().no_store_when(is_private))
        .with_limits(limits(settings)?.with_context(context.clone()))
        .with_jwt(
            JwtLayer::new(verifier)
                .claims::<api::Profile>()
                .with_deny_list(deny_list)
                .with_context(context.clone()),
        );
    let app = Arc::new(App {
        accounts,
        hasher: PasswordHasher::new()
            .with_cost(settings.bcrypt_cost)?
            .with_context(context.clone()),
        throttle,
        sessions: sessions.clone(),
        endpoints: SessionEndpoints::new(sessions.clone()).with_cookie(cross_site(settings)?),
        context,
    });
    let health = Health::new(sessions);
    let router = router(&stack, uploads(settings)?, health.clone(), &app.endpoints)?;
    let router = router.with_state(app);
    Ok((stack.around(router), health))
}

fn router(
    stack: &SecurityStack,
    uploads: UploadPolicy,
    health: Health,
    sessions: &SessionEndpoints,
) -> Result<Router<Arc<App>>, ConfigError> {
    let general = || Guard::new().limit("general");
    let auth = stack.route(Guard::new().limit("auth"))?;
    let password = stack.route(Guard::new().limit("auth").authenticate())?;
    let open = stack.route(general())?;
    let user = stack.route(general().authenticate())?;
    let model = stack.route(Guard::new().limit("model").authenticate().body(256 * 1024))?;
    let upload = stack.route(Guard::new().limit("upload").authenticate().upload(uploads))?;
    Ok(Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(async move || health.answer()))
        .route("/auth/register", post(auth::register).layer(auth.clone()))
        .route("/auth/login", post(auth::login).layer(auth))
        .route(
            "/auth/password",
            post(auth::change_password).layer(password),
        )
        .route_service("/auth/refresh", open.layer(sessions.refresh()))
        .route_service("/auth/logout", open.layer(sessions.logout()))
        .route_service("/auth/sessions", user.layer(sessions.sessions()))
        .route_service("/auth/sessions/{id}", user.layer(sessions.session()))
        .route("/api/me", get(api::me).layer(user))
        .route("/api/model", post(api::model).layer(model))
        .route(
            "/api/upload",
            // The gate counts; axum's own 2 MB would stand in front of it.
            post(api::upload)
                .layer::<_, std::convert::Infallible>(axum::extract::DefaultBodyLimit::disable())
                .layer(upload),
        )
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::not_found))
}

/// Which pages may use the refresh cookie.
fn cross_site(settings: &Settings) -> Result<CsrfPolicy, ConfigError> {
    let own = settings.public_origin.as_deref().map(Origin::new);
    Ok(CsrfPolicy::new(own.transpose()?))
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

async fn stores(
    settings: &Settings,
    context: &Context,
    secrets: Secrets,
    keep: Duration,
) -> Result<(Accounts, RefreshTokens, DenyList), StartError> {
    let unusable = |error: Box<dyn Error + Send + Sync>| StartError::Store(error);
    let path = settings.database_url.strip_prefix("sqlite://");
    let (accounts, tokens) = if settings.database_url == "memory:" {
        let tokens = RefreshTokens::new(MemoryStore::new(), secrets);
        (Accounts::memory(), tokens)
    } else {
        let store = match path {
            Some(path) => SqliteStore::open(path).await,
            None => SqliteStore::in_memory().await,
        };
        let store = store.map_err(|error| unusable(error.into()))?;
        let accounts = Accounts::sqlite(store.pool().clone()).await;
        let accounts = accounts.map_err(|error| unusable(error.into()))?;
        (accounts, RefreshTokens::new(store, secrets))
    };
    if path.is_some() {
        return Ok((accounts, tokens, DenyList::pending(context, keep)));
    }
    // What a process before this one ended is not known: all of its tokens are over.
    let deny_list = DenyList::since_start(context, keep);
    let second = Duration::from_secs(1);
    let begun = context.wall().as_millis().rem_euclid(1_000).unsigned_abs();
    // Tokens carry whole seconds: those of this process must be later than its start.
    tokio::time::sleep(second.saturating_sub(Duration::from_millis(begun))).await;
    Ok((accounts, tokens, deny_list))
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

const MAX_ACCESS_TTL: Duration = Duration::from_secs(3_600);
const SESSION_END: Duration = Duration::from_secs(30 * 86_400);
