//! Who a request comes from, once a gate has proved it.

use std::{fmt, sync::Arc};

use crate::time::UnixMillis;

/// An authenticated caller. Every gate that authenticates puts one into the request's extensions;
/// gates further in, and handlers, read it without knowing which gate it was.
///
/// A clone is a reference count. With feature `axum` it is an extractor, which answers 401 where no
/// gate left one.
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
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Parts>,
}

/// What an [`Identity`] is made of, for a gate that holds all of its texts in one already.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) kind: IdentityKind,
    /// Every text of the identity stands in here: one allocation.
    pub(crate) text: String,
    pub(crate) subject: Span,
    pub(crate) issuer: Option<Span>,
    pub(crate) session: Option<Span>,
    pub(crate) token: Option<Span>,
    /// Lists of scopes, separated by spaces.
    pub(crate) scopes: Spans,
    pub(crate) roles: Spans,
    pub(crate) auth_time: Option<UnixMillis>,
    pub(crate) expires_at: Option<UnixMillis>,
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
    pub fn new(kind: IdentityKind, subject: impl Into<String>) -> Self {
        let text = subject.into();
        let subject = Span {
            start: 0,
            end: text.len(),
        };
        Self::of_parts(Parts {
            kind,
            text,
            subject,
            issuer: None,
            session: None,
            token: None,
            scopes: Spans::default(),
            roles: Spans::default(),
            auth_time: None,
            expires_at: None,
        })
    }

    /// Adds who vouches for the caller (`iss`). Subjects of two issuers may be alike.
    #[must_use]
    pub fn with_issuer(self, issuer: impl AsRef<str>) -> Self {
        self.with(|inner| inner.issuer = Some(inner.push(issuer.as_ref())))
    }

    /// Adds the session that the proof belongs to (`sid`).
    #[must_use]
    pub fn with_session(self, session: impl AsRef<str>) -> Self {
        self.with(|inner| inner.session = Some(inner.push(session.as_ref())))
    }

    /// Adds the id of the proof itself (`jti`, or an API key's id).
    #[must_use]
    pub fn with_token(self, token: impl AsRef<str>) -> Self {
        self.with(|inner| inner.token = Some(inner.push(token.as_ref())))
    }

    /// Adds what the proof allows. A scope holds no space (RFC 6749 section 3.3): a text with
    /// spaces in it is a list of scopes.
    #[must_use]
    pub fn with_scopes<S: AsRef<str>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.with(|inner| {
            for scope in scopes {
                let span = inner.push(scope.as_ref());
                inner.scopes.push(span);
            }
        })
    }

    /// Adds the roles that the caller holds.
    #[must_use]
    pub fn with_roles<S: AsRef<str>>(self, roles: impl IntoIterator<Item = S>) -> Self {
        self.with(|inner| {
            for role in roles {
                let span = inner.push(role.as_ref());
                inner.roles.push(span);
            }
        })
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
        self.inner.text(self.inner.subject)
    }

    /// Who vouches for the caller, where the proof says so.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.inner.issuer.map(|span| self.inner.text(span))
    }

    /// The session's id, where the proof belongs to one.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.inner.session.map(|span| self.inner.text(span))
    }

    /// The id of the proof itself, where it has one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.inner.token.map(|span| self.inner.text(span))
    }

    /// What the proof allows.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.inner
            .scopes
            .as_slice()
            .iter()
            .flat_map(|span| self.inner.text(*span).split(' '))
            .filter(|scope| !scope.is_empty())
    }

    /// Whether the proof allows `scope`, compared exactly.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|held| held == scope)
    }

    /// The roles that the caller holds.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.inner
            .roles
            .as_slice()
            .iter()
            .map(|span| self.inner.text(*span))
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

    /// The identity that `parts` make up.
    pub(crate) fn of_parts(parts: Parts) -> Self {
        Self {
            inner: Arc::new(parts),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

#[cfg(feature = "jwt")]
impl Identity {
    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let parts = &*self.inner;
        size_of::<Parts>() + parts.text.capacity() + parts.scopes.bytes() + parts.roles.bytes()
    }

    /// The text that the parts point into.
    pub(crate) fn text(&self) -> &str {
        &self.inner.text
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("kind", &self.kind())
            .field("subject", &self.subject())
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

impl Parts {
    /// Adds a text to the end.
    pub(crate) fn push(&mut self, part: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(part);
        Span {
            start,
            end: self.text.len(),
        }
    }

    fn text(&self, span: Span) -> &str {
        &self.text[span.start..span.end]
    }
}

/// A part of an identity's text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: usize,
    end: usize,
}

#[cfg(feature = "jwt")]
impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Where `part` stands in `whole`, if it is borrowed from it.
    pub(crate) fn within(whole: &str, part: &str) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
        let end = start.checked_add(part.len())?;
        (end <= whole.len()).then_some(Self { start, end })
    }
}

/// Parts of an identity's text; one needs no allocation.
#[derive(Clone, Debug, Default)]
pub(crate) enum Spans {
    #[default]
    None,
    One(Span),
    Many(Vec<Span>),
}

impl Spans {
    pub(crate) fn push(&mut self, span: Span) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(span),
            Self::One(first) => Self::Many(vec![first, span]),
            Self::Many(mut spans) => {
                spans.push(span);
                Self::Many(spans)
            }
        };
    }

    #[cfg(feature = "jwt")]
    fn bytes(&self) -> usize {
        match self {
            Self::Many(spans) => spans.capacity() * size_of::<Span>(),
            Self::None | Self::One(_) => 0,
        }
    }

    fn as_slice(&self) -> &[Span] {
        match self {
            Self::None => &[],
            Self::One(span) => std::slice::from_ref(span),
            Self::Many(spans) => spans,
        }
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::FromRequestParts<S> for Identity {
    type Rejection = crate::rejection::Rejection;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        parts.extensions.get().cloned().ok_or_else(nobody)
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::OptionalFromRequestParts<S> for Identity {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}

/// The refusal of a request that nobody vouches for, where no setting reaches.
#[cfg(any(feature = "axum", all(feature = "jwt", feature = "refresh-token")))]
pub(crate) fn nobody() -> crate::rejection::Rejection {
    nobody_challenged(crate::challenge::BEARER)
}

/// The refusal of a request that nobody vouches for.
pub(crate) fn nobody_challenged(challenge: http::HeaderValue) -> crate::rejection::Rejection {
    use crate::rejection::{Rejection, RejectionKind};

    Rejection::new(RejectionKind::Unauthenticated, "identity", "missing")
        .with_header(http::header::WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_and_a_clone_is_not_changed() {
        let first = Identity::new(IdentityKind::AccessToken, "u")
            .with_issuer("i")
            .with_session("s")
            .with_token("t")
            .with_scopes(["a b", "", "c"])
            .with_roles(["r 1", "r2"]);
        let second = first.clone().with_session("other").with_scopes(["d"]);
        assert_eq!(first.subject(), "u");
        assert_eq!(first.issuer(), Some("i"));
        assert_eq!(first.session(), Some("s"));
        assert_eq!(first.token(), Some("t"));
        assert_eq!(first.scopes().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(first.roles().collect::<Vec<_>>(), ["r 1", "r2"]);
        assert_eq!(second.session(), Some("other"));
        assert!(second.has_scope("d") && !first.has_scope("d"));
    }
}
