//! Register, log in, change the password. Refresh, logout and sessions are the crate's own services.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{SET_COOKIE, USER_AGENT},
};
use portcullis::{
    Client, Identity, Rejection, RejectionKind,
    event::{EventKind, SecurityEvent},
    problem::ProblemJson,
    refresh_token::Device,
    session::{PasswordChange, PasswordChangeError, TokenPair},
};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    accounts::{Account, CreateError, canonical_username},
    start::App,
};

#[derive(Deserialize)]
pub(crate) struct Credentials {
    username: String,
    password: Zeroizing<String>,
}

#[derive(Deserialize)]
pub(crate) struct LoginForm {
    username: String,
    password: Zeroizing<String>,
    /// Whether the refresh token is to come in a cookie.
    #[serde(default)]
    cookie: bool,
}

#[derive(Deserialize)]
pub(crate) struct NewPassword {
    current: Zeroizing<String>,
    new: Zeroizing<String>,
}

/// `POST /auth/register`
pub(crate) async fn register(
    State(app): State<Arc<App>>,
    client: Option<Extension<Client>>,
    ProblemJson(body): ProblemJson<Credentials>,
) -> Result<(StatusCode, Json<Value>), Rejection> {
    let ip = client.and_then(|client| client.ip());
    let hasher = app.hasher.for_client(ip);
    hasher.check(&body.password)?;
    let username = canonical_username(&body.username).ok_or_else(|| {
        Rejection::new(
            RejectionKind::Unprocessable,
            "accounts",
            "unusable_username",
        )
        .with_detail("A user name is 3 to 64 of a-z, 0-9, dot, underscore and hyphen.")
    })?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| unavailable())?;
    let account = Account {
        id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        username: username.clone(),
        password_hash: hasher.hash(&body.password).await?,
    };
    let id = account.id.clone();
    match app.accounts.create(account, app.context.wall()).await {
        Ok(()) => {}
        Err(CreateError::Taken) => {
            return Err(
                Rejection::new(RejectionKind::Conflict, "accounts", "username_taken")
                    .with_detail("The user name is taken."),
            );
        }
        Err(CreateError::Store(error)) => {
            tracing::error!(%error, "a user was not stored");
            return Err(unavailable());
        }
    }
    let event = SecurityEvent::new(EventKind::UserCreated).with_client(ip);
    app.context.emit(event.with_subject(id.as_str()));
    Ok((
        StatusCode::CREATED,
        Json(json!({"id": id, "username": username})),
    ))
}

/// `POST /auth/login`
pub(crate) async fn login(
    State(app): State<Arc<App>>,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    ProblemJson(body): ProblemJson<LoginForm>,
) -> Result<Response, Rejection> {
    let ip = client.and_then(|client| client.ip());
    let previous = app.endpoints.cookie(&headers)?;
    app.hasher.check(&body.password)?;
    let name = body.username.to_ascii_lowercase();
    let attempt = app.throttle.attempt(&name, &headers).await?;
    let pair = match start_session(&app, ip, &headers, &name, &body.password, previous).await {
        Ok(Some(pair)) => pair,
        Ok(None) => {
            let event = SecurityEvent::new(EventKind::AuthnLoginFail)
                .with_rule("accounts", "wrong_credentials");
            app.context.emit(event.with_client(ip));
            return Err(Rejection::new(
                RejectionKind::Unauthenticated,
                "accounts",
                "wrong_credentials",
            )
            .with_detail("User name and password do not match."));
        }
        Err(rejection) => {
            attempt.withdraw().await;
            return Err(rejection);
        }
    };
    let mut response = app.endpoints.answer(&pair, body.cookie);
    let known = attempt.succeed().await;
    response.headers_mut().append(SET_COOKIE, known);
    Ok(response)
}

/// A session in the place of the browser's previous one, where the credentials are right; `None`
/// where they are not.
async fn start_session(
    app: &App,
    ip: Option<IpAddr>,
    headers: &HeaderMap,
    name: &str,
    password: &str,
    previous: Option<&str>,
) -> Result<Option<TokenPair>, Rejection> {
    let hasher = app.hasher.for_client(ip);
    let account = match canonical_username(name) {
        Some(name) => app
            .accounts
            .by_username(&name)
            .await
            .map_err(|_| unavailable())?,
        None => None,
    };
    // The epoch is read before the hash that the password is held against.
    let login = match &account {
        Some(account) => Some(app.sessions.begin(&account.id).await?),
        None => None,
    };
    let account = match account {
        Some(account) => app
            .accounts
            .by_id(&account.id)
            .await
            .map_err(|_| unavailable())?,
        None => None,
    };
    let stored = account
        .as_ref()
        .map(|account| account.password_hash.as_str());
    let verified = hasher.verify(password, stored).await?;
    let (Some(account), Some(login), true) = (account, login, verified.is_correct()) else {
        return Ok(None);
    };
    if verified.rehash_due()
        && let Ok(hash) = hasher.hash(password).await
    {
        let stored = app
            .accounts
            .replace_hash(&account.id, &account.password_hash, &hash);
        if stored.await.is_err() {
            tracing::warn!("a password's new hash was not stored");
        }
    }
    let mut device = Device::new();
    if let Some(agent) = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
    {
        device = device.with_user_agent(agent);
    }
    device.ip = ip;
    if let Some(previous) = previous {
        app.sessions.replace(previous, ip).await?;
    }
    let pair = app.sessions.start_login(login, device).await?;
    let event = SecurityEvent::new(EventKind::AuthnLoginSuccess).with_client(ip);
    app.context.emit(event.with_subject(account.id));
    Ok(Some(pair))
}

/// `POST /auth/password`: every other session of the user ends. A wrong password counts as a failed
/// login, for whoever has a stolen access token guesses here.
pub(crate) async fn change_password(
    State(app): State<Arc<App>>,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    identity: Identity,
    ProblemJson(body): ProblemJson<NewPassword>,
) -> Result<(StatusCode, [(HeaderName, HeaderValue); 1]), Rejection> {
    let ip = client.and_then(|client| client.ip());
    let account = app.accounts.by_id(identity.subject()).await;
    let Some(account) = account.map_err(|_| unavailable())? else {
        return Err(Rejection::new(
            RejectionKind::NotFound,
            "accounts",
            "no_such_user",
        ));
    };
    let attempt = app.throttle.attempt(&account.username, &headers).await?;
    let stored = account.password_hash.as_str();
    let keep = identity.session().and_then(|id| id.parse().ok());
    let change = PasswordChange::new(&account.id, &body.current, &body.new, Some(stored));
    let hasher = app.hasher.for_client(ip);
    let changed =
        app.sessions
            .change_password(&hasher, change.keep(keep).with_client(ip), async |hash| {
                app.accounts.replace_hash(&account.id, stored, &hash).await
            });
    match changed.await {
        Ok(_) => Ok((
            StatusCode::NO_CONTENT,
            [(SET_COOKIE, attempt.succeed().await)],
        )),
        Err(error) => {
            if !matches!(error, PasswordChangeError::Wrong) {
                attempt.withdraw().await;
            }
            Err(error.into())
        }
    }
}

fn unavailable() -> Rejection {
    Rejection::new(RejectionKind::Unavailable, "accounts", "store_unavailable")
        .with_retry_after(Duration::from_secs(1))
}
