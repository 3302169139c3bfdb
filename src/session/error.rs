//! Why there is no pair of tokens.

use std::{error, fmt, sync::Arc, time::Duration};

use crate::{
    jwt::IssueError,
    refresh_token::{RefreshError, StoreError},
    rejection::{Rejection, RejectionKind},
};

/// Why a session was not begun, refreshed or ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// The refresh token, or its store.
    Refresh(RefreshError),
    /// The user may not have sessions any more; the one that asked is over. 403.
    Disabled,
    /// The service could not say what the user may. 503; nobody is logged out.
    Subjects(Arc<dyn error::Error + Send + Sync>),
    /// The access token could not be made. 500.
    Issue(IssueError),
}

impl SessionError {
    /// Whether the session is over, so that the client should forget its token (and its cookie be
    /// cleared).
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Refresh(error) => error.is_over(),
            Self::Disabled => true,
            _ => false,
        }
    }

    /// Whether a store or service did not answer, so that nothing was decided: 503.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Refresh(RefreshError::Store(_)) | Self::Subjects(_)
        )
    }
}

impl From<RefreshError> for SessionError {
    fn from(error: RefreshError) -> Self {
        Self::Refresh(error)
    }
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::Refresh(error.into())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refresh(_) => "the session was not granted",
            Self::Disabled => "the user may not have sessions",
            Self::Subjects(_) => "what the user may is not known",
            Self::Issue(_) => "the access token could not be made",
        })
    }
}

impl error::Error for SessionError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Refresh(error) => Some(error),
            Self::Issue(error) => Some(error),
            Self::Subjects(error) => Some(&**error),
            Self::Disabled => None,
        }
    }
}

impl From<&SessionError> for Rejection {
    fn from(error: &SessionError) -> Self {
        match error {
            SessionError::Refresh(error) => error.into(),
            SessionError::Disabled => {
                Self::new(RejectionKind::Forbidden, "session", "subject_disabled")
            }
            SessionError::Subjects(_) => {
                Self::new(RejectionKind::Unavailable, "session", "subjects")
                    .with_retry_after(RETRY_AFTER)
            }
            SessionError::Issue(_) => Self::new(RejectionKind::Internal, "session", "issue"),
        }
    }
}

impl From<SessionError> for Rejection {
    fn from(error: SessionError) -> Self {
        Self::from(&error)
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for SessionError {
    fn into_response(self) -> axum::response::Response {
        Rejection::from(self).into_response()
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(5);
