//! What the service knows of its users, asked at every login and refresh.

use std::{error::Error, pin::Pin};

use serde::Serialize;

use crate::jwt::{AccessToken, IssueError};

/// Says whether a user may go on, and what his access token holds. Implemented for closures
/// `Fn(String) -> Future`.
///
/// ```
/// use portcullis::session::{Grants, SubjectStatus};
///
/// let subjects = async |subject: String| match subject.as_str() {
///     "user-1" => Ok::<_, Box<dyn std::error::Error + Send + Sync>>(SubjectStatus::Active(
///         Grants::new().with_scopes(["model", "upload"]).with_claim("preferred_username", "ada")?,
///     )),
///     _ => Ok(SubjectStatus::Disabled),
/// };
/// # drop(subjects("user-1".to_owned()));
/// ```
pub trait Subjects: Send + Sync + 'static {
    /// The status of a user. An error is an outage: 503, and nobody is logged out.
    fn status(
        &self,
        subject: String,
    ) -> impl Future<Output = Result<SubjectStatus, Box<dyn Error + Send + Sync>>> + Send;
}

impl<F, Fut> Subjects for F
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<SubjectStatus, Box<dyn Error + Send + Sync>>> + Send,
{
    fn status(
        &self,
        subject: String,
    ) -> impl Future<Output = Result<SubjectStatus, Box<dyn Error + Send + Sync>>> + Send {
        self(subject)
    }
}

/// Whether a user may have sessions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SubjectStatus {
    /// He may, and his access tokens say this.
    Active(Grants),
    /// He may not: the session that asks is ended.
    Disabled,
}

/// What an access token says beyond who and which session.
#[derive(Clone, Debug)]
#[must_use]
pub struct Grants {
    token: AccessToken,
}

impl Grants {
    /// Nothing.
    pub fn new() -> Self {
        Self {
            token: AccessToken::new(""),
        }
    }

    /// Adds scopes.
    pub fn with_scopes<S: AsRef<str>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        Self {
            token: self.token.with_scopes(scopes),
        }
    }

    /// Adds roles.
    pub fn with_roles<S: Into<Box<str>>>(self, roles: impl IntoIterator<Item = S>) -> Self {
        Self {
            token: self.token.with_roles(roles),
        }
    }

    /// Adds a claim of the application, such as `preferred_username`.
    ///
    /// # Errors
    /// As [`AccessToken::with_claim`].
    pub fn with_claim(
        self,
        name: impl Into<String>,
        value: impl Serialize,
    ) -> Result<Self, IssueError> {
        Ok(Self {
            token: self.token.with_claim(name, value)?,
        })
    }

    /// An access token of `subject` that says so.
    pub(super) fn into_token(self, subject: &str) -> AccessToken {
        self.token.with_subject(subject)
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) type StatusFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SubjectStatus, Box<dyn Error + Send + Sync>>> + Send + 'a>>;

/// [`Subjects`] behind a pointer.
pub(super) trait ErasedSubjects: Send + Sync {
    fn status_(&self, subject: String) -> StatusFuture<'_>;
}

impl<S: Subjects> ErasedSubjects for S {
    fn status_(&self, subject: String) -> StatusFuture<'_> {
        Box::pin(self.status(subject))
    }
}
