//! Why a key was not accepted, or not made.

use std::{error, fmt, time::Duration};

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use super::format::NotAKey;
use crate::{
    event::EventKind,
    rejection::{Rejection, RejectionKind},
    store_error::StoreError,
};

/// Why a key was not accepted, or not made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ApiKeyError {
    /// It is no key of this environment. 401, told without a store.
    NotAKey(NotAKey),
    /// There is no such key. 401.
    Unknown,
    /// Its time is over. 401.
    Expired,
    /// It was revoked. 401.
    Revoked,
    /// It may not come from this network. 401.
    Network,
    /// Whoever asks for a key did not log in a short while ago, or is a key himself. 403.
    LoginTooOld,
    /// The new key would allow what its maker may not do. 403.
    Scope,
    /// The owner has no live key of this id, or it was replaced already. 404.
    NotFound,
    /// The owner has as many live keys as he may. 409.
    TooMany,
    /// The name is not 1 to 64 characters without control characters, or a scope, life or overlap
    /// cannot be used. 422.
    Unusable,
    /// The store did not do its step. 503 with `Retry-After`.
    Store(StoreError),
}

impl ApiKeyError {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::NotAKey(NotAKey::Malformed) => "malformed",
            Self::NotAKey(NotAKey::Checksum) => "checksum",
            Self::NotAKey(NotAKey::Environment) => "wrong_environment",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Network => "network",
            Self::LoginTooOld => "login_too_old",
            Self::Scope => "scope",
            Self::NotFound => "not_found",
            Self::TooMany => "too_many",
            Self::Unusable => "unusable",
            Self::Store(_) => "store",
        }
    }

    const fn kind(&self) -> RejectionKind {
        match self {
            Self::NotAKey(_) | Self::Unknown | Self::Expired | Self::Revoked | Self::Network => {
                RejectionKind::Unauthenticated
            }
            Self::LoginTooOld | Self::Scope => RejectionKind::Forbidden,
            Self::NotFound => RejectionKind::NotFound,
            Self::TooMany => RejectionKind::Conflict,
            Self::Unusable => RejectionKind::Unprocessable,
            Self::Store(_) => RejectionKind::Unavailable,
        }
    }
}

impl From<StoreError> for ApiKeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for ApiKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAKey(_) => "not an API key of this environment",
            Self::Unknown => "the API key is not known",
            Self::Expired => "the API key has expired",
            Self::Revoked => "the API key was revoked",
            Self::Network => "the API key may not come from this network",
            Self::LoginTooOld => "making an API key takes a fresh login",
            Self::Scope => "an API key allows no more than its maker",
            Self::NotFound => "there is no such live API key",
            Self::TooMany => "there are too many live API keys",
            Self::Unusable => "the API key's name, scopes, life or overlap cannot be used",
            Self::Store(_) => "the API key store failed",
        })
    }
}

impl error::Error for ApiKeyError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::NotAKey(why) => Some(why),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// A refused key is told alike whatever the reason; the event tells the reason.
impl From<&ApiKeyError> for Rejection {
    fn from(error: &ApiKeyError) -> Self {
        let kind = error.kind();
        let rejection = Self::new(kind, GATE, error.reason());
        match kind {
            RejectionKind::Unauthenticated => rejection
                .with_event(EventKind::ApiKeyRefused)
                .with_header(WWW_AUTHENTICATE, CHALLENGE),
            RejectionKind::Unavailable => rejection.with_retry_after(RETRY_AFTER),
            RejectionKind::NotFound => rejection,
            _ => rejection.with_detail(error.to_string()),
        }
    }
}

impl From<ApiKeyError> for Rejection {
    fn from(error: ApiKeyError) -> Self {
        (&error).into()
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for ApiKeyError {
    fn into_response(self) -> axum::response::Response {
        Rejection::from(self).into_response()
    }
}

pub(super) const GATE: &str = "api_key";
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_token\"");
const RETRY_AFTER: Duration = Duration::from_secs(1);
