//! The change of a password: the hash, the other sessions, the event.

use std::{error, fmt, net::IpAddr};

use super::{error::SessionError, sessions::Sessions};
use crate::{
    event::{EventKind, SecurityEvent},
    password::{PasswordError, PasswordHasher},
    refresh_token::SessionId,
    rejection::{Rejection, RejectionKind},
};

/// A user's wish to change his password.
///
/// `Debug` does not show the passwords.
#[derive(Clone, Copy)]
#[must_use]
pub struct PasswordChange<'a> {
    subject: &'a str,
    current: &'a str,
    new: &'a str,
    stored: Option<&'a str>,
    keep: Option<SessionId>,
    client: Option<IpAddr>,
}

impl<'a> PasswordChange<'a> {
    /// `subject` wants to have `new` instead of `current`; `stored` is his hash, `None` if he has
    /// no password.
    pub const fn new(
        subject: &'a str,
        current: &'a str,
        new: &'a str,
        stored: Option<&'a str>,
    ) -> Self {
        Self {
            subject,
            current,
            new,
            stored,
            keep: None,
            client: None,
        }
    }

    /// Lets the session that he asks from go on.
    pub fn keep(self, session: Option<SessionId>) -> Self {
        Self {
            keep: session,
            ..self
        }
    }

    /// Adds where he asks from, for events.
    pub fn with_client(self, client: Option<IpAddr>) -> Self {
        Self { client, ..self }
    }
}

impl fmt::Debug for PasswordChange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordChange")
            .field("subject", &self.subject)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

impl Sessions {
    /// Changes a password: proves the current one, hashes the new one, has `store` keep it, ends all
    /// other sessions of the user and sends the event. Answers with the sessions that ended.
    ///
    /// `store` gets the new hash, and replaces the stored one **if it is still the one that was
    /// given** (compare and set); `false` says that it was not. A login with the old password that
    /// is under way is never a session, whichever step of it comes when, if it calls
    /// [`begin`](Self::begin) before it reads the hash.
    ///
    /// A repeated call heals one that broke off after the hash was stored: when the stored hash is
    /// of the new password already, the sessions are ended and nothing is stored. So a call tries
    /// two passwords at most.
    ///
    /// Deployment caveat: whoever has a stolen access token can guess here. Count
    /// [`PasswordChangeError::Wrong`] like a failed login
    /// (`login_throttle::LoginThrottle::attempt` before the call).
    ///
    /// # Errors
    /// [`PasswordChangeError`].
    pub async fn change_password<E, F>(
        &self,
        hasher: &PasswordHasher,
        change: PasswordChange<'_>,
        store: impl FnOnce(String) -> F,
    ) -> Result<Vec<SessionId>, PasswordChangeError<E>>
    where
        F: Future<Output = Result<bool, E>>,
    {
        let changed = self.store_new_hash(hasher, change, store).await;
        if matches!(changed, Err(PasswordChangeError::Wrong)) {
            let event = SecurityEvent::new(EventKind::AuthnPasswordChangeFail)
                .with_rule("session", "wrong_password")
                .with_client(change.client);
            self.context().emit(event.with_subject(change.subject));
        }
        changed?;
        self.password_changed(change.subject, change.keep)
            .await
            .map_err(PasswordChangeError::Sessions)
    }

    async fn store_new_hash<E, F>(
        &self,
        hasher: &PasswordHasher,
        change: PasswordChange<'_>,
        store: impl FnOnce(String) -> F,
    ) -> Result<(), PasswordChangeError<E>>
    where
        F: Future<Output = Result<bool, E>>,
    {
        let PasswordChange {
            current,
            new,
            stored,
            ..
        } = change;
        // In one place of the queue: a wrong guess must not end as "busy", which counts for nothing.
        let [by_current, by_new] = hasher.verify_each([current, new], stored).await?;
        match (by_current.is_correct(), by_new.is_correct()) {
            (true, _) => {}
            (false, true) => return Ok(()),
            (false, false) => return Err(PasswordChangeError::Wrong),
        }
        let hash = hasher.hash(new).await?;
        match store(hash).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(PasswordChangeError::Raced),
            Err(error) => Err(PasswordChangeError::Store(error)),
        }
    }
}

/// Why a password was not changed, or not all sessions ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PasswordChangeError<E> {
    /// The hasher refused one of the passwords, or has no place. 422, 503.
    Password(PasswordError),
    /// The current password is not the user's. 403: the caller is known, and his tokens hold.
    Wrong,
    /// Somebody else changed it meanwhile. 409.
    Raced,
    /// The new hash was not stored. 503.
    Store(E),
    /// The password **is** changed, and the other sessions were not ended: the session store does
    /// not answer. 503; the same request again ends them.
    Sessions(SessionError),
}

impl<E> From<PasswordError> for PasswordChangeError<E> {
    fn from(error: PasswordError) -> Self {
        Self::Password(error)
    }
}

impl<E> fmt::Display for PasswordChangeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "the password was not hashed",
            Self::Wrong => "the current password is not the user's",
            Self::Raced => "the password was changed meanwhile",
            Self::Store(_) => "the new password was not stored",
            Self::Sessions(_) => "the password is changed, and the other sessions are not ended",
        })
    }
}

impl<E: error::Error + 'static> error::Error for PasswordChangeError<E> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Password(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Sessions(error) => Some(error),
            Self::Wrong | Self::Raced => None,
        }
    }
}

impl<E> From<PasswordChangeError<E>> for Rejection {
    fn from(error: PasswordChangeError<E>) -> Self {
        match error {
            PasswordChangeError::Password(error) => error.into(),
            PasswordChangeError::Wrong => {
                Self::new(RejectionKind::Forbidden, "session", "wrong_password")
                    .with_event(EventKind::AuthnPasswordChangeFail)
                    .with_detail("The current password is not right.")
            }
            PasswordChangeError::Raced => {
                Self::new(RejectionKind::Conflict, "session", "password_changed")
                    .with_detail("The password was changed meanwhile.")
            }
            PasswordChangeError::Store(_) => {
                Self::new(RejectionKind::Unavailable, "session", "password_store")
                    .with_retry_after(std::time::Duration::from_secs(5))
            }
            PasswordChangeError::Sessions(error) => error.into(),
        }
    }
}

#[cfg(feature = "axum")]
impl<E> axum::response::IntoResponse for PasswordChangeError<E> {
    fn into_response(self) -> axum::response::Response {
        Rejection::from(self).into_response()
    }
}
