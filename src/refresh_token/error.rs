//! Why a token was not refreshed, or a session not begun.

use std::{error, fmt, time::Duration};

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use super::{
    record::{EndReason, SessionId},
    store::{StoreError, StoreErrorKind},
    token::NotAToken,
};
use crate::rejection::{Rejection, RejectionKind};

/// Why there is no new token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RefreshError {
    /// It is no token of this server. 401; no session is touched.
    NotAToken(NotAToken),
    /// A late tab: an older token while the last rotation is younger than the grace window. 401
    /// alone; the session goes on, so the client must not throw away what it holds.
    Late(SessionId),
    /// A token that was rotated away came again: somebody has a copy. 401; the session is over.
    Reused(SessionId),
    /// A token that the store has never seen: it lost writes. 401; the session is over.
    RolledBack(SessionId),
    /// The session was ended before. 401.
    Ended(SessionId, EndReason),
    /// The session's time is over. 401.
    Expired(SessionId),
    /// The session is not known any more. 401.
    Unknown(SessionId),
    /// The user's sessions were all ended while this login was checked, as by a change of the
    /// password, or the login took more than an hour. 401; he logs in again.
    LoginOutdated,
    /// The subject is empty, longer than 255 bytes, or holds control characters. 500: the service
    /// chooses its users' ids.
    UnusableSubject,
    /// The store did not do its step. 503 with `Retry-After`; nothing was decided, and the client
    /// keeps its token.
    Store(StoreError),
}

impl RefreshError {
    /// The session that the token belongs to, where it is authentic.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Late(id)
            | Self::Reused(id)
            | Self::RolledBack(id)
            | Self::Ended(id, _)
            | Self::Expired(id)
            | Self::Unknown(id) => Some(*id),
            _ => None,
        }
    }

    /// Whether the session is over, so that the client should forget its token (and its cookie be
    /// cleared). Not for anything else: a late tab must not clear the winner's cookie.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        !matches!(self, Self::Late(_)) && self.session().is_some()
    }

    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::NotAToken(why) => why.as_str(),
            Self::Late(_) => "late",
            Self::Reused(_) => "reused",
            Self::RolledBack(_) => "rolled_back",
            Self::Ended(..) => "ended",
            Self::Expired(_) => "expired",
            Self::Unknown(_) => "unknown_session",
            Self::LoginOutdated => "login_outdated",
            Self::UnusableSubject => "unusable_subject",
            Self::Store(_) => "store",
        }
    }
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<StoreErrorKind> for RefreshError {
    fn from(kind: StoreErrorKind) -> Self {
        Self::Store(kind.into())
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAToken(_) => "not a refresh token of this server",
            Self::Late(_) => "the refresh token was replaced a moment ago",
            Self::Reused(_) => "the refresh token was used again; its session is over",
            Self::RolledBack(_) => "the refresh token is newer than the store; its session is over",
            Self::Ended(..) => "the session was ended",
            Self::Expired(_) => "the session has expired",
            Self::Unknown(_) => "the session is not known",
            Self::LoginOutdated => "the login is outdated",
            Self::UnusableSubject => "the subject cannot be used",
            Self::Store(_) => "the session store failed",
        })
    }
}

impl error::Error for RefreshError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::NotAToken(why) => Some(why),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<&RefreshError> for Rejection {
    fn from(error: &RefreshError) -> Self {
        let kind = match error {
            RefreshError::Store(_) => RejectionKind::Unavailable,
            RefreshError::UnusableSubject => RejectionKind::Internal,
            _ => RejectionKind::Unauthenticated,
        };
        let rejection = Self::new(kind, "refresh_token", error.reason());
        match kind {
            RejectionKind::Unauthenticated => rejection.with_header(WWW_AUTHENTICATE, CHALLENGE),
            RejectionKind::Unavailable => rejection.with_retry_after(RETRY_AFTER),
            _ => rejection,
        }
    }
}

impl From<RefreshError> for Rejection {
    fn from(error: RefreshError) -> Self {
        Self::from(&error)
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for RefreshError {
    fn into_response(self) -> axum::response::Response {
        Rejection::from(self).into_response()
    }
}

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_token\"");
const RETRY_AFTER: Duration = Duration::from_secs(5);
