//! Who a request comes from, once a gate has proved it.

use std::sync::Arc;

use crate::time::UnixMillis;

/// An authenticated caller. Every gate that authenticates puts one into the request's extensions;
/// gates further in, and handlers, read it without knowing which gate it was.
///
/// A clone is a reference count.
///
/// ```
/// use portcullis::{Identity, IdentityKind};
///
/// let identity = Identity::new(IdentityKind::AccessToken, "user-1")
///     .with_session("s1")
///     .with_scopes(["model", "upload"]);
/// assert!(identity.has_scope("model"));
/// assert!(!identity.has_scope("admin"));
/// ```
#[derive(Clone, Debug)]
pub struct Identity {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: IdentityKind,
    subject: Box<str>,
    session: Option<Box<str>>,
    token: Option<Box<str>>,
    scopes: Vec<Box<str>>,
    roles: Vec<Box<str>>,
    auth_time: Option<UnixMillis>,
    expires_at: Option<UnixMillis>,
}

/// How a caller proved who he is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IdentityKind {
    /// A signed access token.
    AccessToken,
    /// An API key.
    ApiKey,
    /// Something that the application checked itself.
    Other,
}

impl Identity {
    /// The caller `subject`, with nothing else known.
    #[must_use]
    pub fn new(kind: IdentityKind, subject: impl Into<Box<str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                subject: subject.into(),
                session: None,
                token: None,
                scopes: Vec::new(),
                roles: Vec::new(),
                auth_time: None,
                expires_at: None,
            }),
        }
    }

    /// Adds the session that the proof belongs to (`sid`).
    #[must_use]
    pub fn with_session(self, session: impl Into<Box<str>>) -> Self {
        self.with(|inner| inner.session = Some(session.into()))
    }

    /// Adds the id of the proof itself (`jti`, or an API key's id).
    #[must_use]
    pub fn with_token(self, token: impl Into<Box<str>>) -> Self {
        self.with(|inner| inner.token = Some(token.into()))
    }

    /// Adds what the proof allows.
    #[must_use]
    pub fn with_scopes<S: Into<Box<str>>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.with(|inner| inner.scopes.extend(scopes.into_iter().map(Into::into)))
    }

    /// Adds the roles that the caller holds.
    #[must_use]
    pub fn with_roles<S: Into<Box<str>>>(self, roles: impl IntoIterator<Item = S>) -> Self {
        self.with(|inner| inner.roles.extend(roles.into_iter().map(Into::into)))
    }

    /// Adds when the caller last proved himself afresh (`auth_time`).
    #[must_use]
    pub fn with_auth_time(self, at: UnixMillis) -> Self {
        self.with(|inner| inner.auth_time = Some(at))
    }

    /// Adds when the proof ends.
    #[must_use]
    pub fn with_expiry(self, at: UnixMillis) -> Self {
        self.with(|inner| inner.expires_at = Some(at))
    }

    /// How the caller proved who he is.
    #[must_use]
    pub fn kind(&self) -> IdentityKind {
        self.inner.kind
    }

    /// The caller's stable id.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.inner.subject
    }

    /// The session's id, where the proof belongs to one.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.inner.session.as_deref()
    }

    /// The id of the proof itself, where it has one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.inner.token.as_deref()
    }

    /// What the proof allows.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.inner.scopes.iter().map(AsRef::as_ref)
    }

    /// Whether the proof allows `scope`, compared exactly.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|held| held == scope)
    }

    /// The roles that the caller holds.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.inner.roles.iter().map(AsRef::as_ref)
    }

    /// Whether the caller holds `role`, compared exactly.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|held| held == role)
    }

    /// When the caller last proved himself afresh.
    #[must_use]
    pub fn auth_time(&self) -> Option<UnixMillis> {
        self.inner.auth_time
    }

    /// When the proof ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.inner.expires_at
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}
