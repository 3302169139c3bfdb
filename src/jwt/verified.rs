//! What a verified token is.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use http::Extensions;

use super::algorithm::Algorithm;
use crate::{deny_list::DenyKeys, identity::Identity, time::UnixMillis};

/// A token that was verified, with its claims as the application's type `C`. A clone is a
/// reference count.
pub struct Verified<C = ()> {
    inner: Arc<Inner<C>>,
}

pub(crate) struct Inner<C> {
    pub(crate) token: Token,
    pub(crate) claims: C,
}

/// What does not depend on the application's type.
pub(crate) struct Token {
    pub(crate) identity: Identity,
    /// How much of the identity's text is the token's JSON.
    pub(crate) json_bytes: usize,
    pub(crate) issued_at: Option<UnixMillis>,
    pub(crate) not_before: Option<UnixMillis>,
    pub(crate) expires_at: UnixMillis,
    pub(crate) algorithm: Algorithm,
    pub(crate) deny_keys: OnceLock<DenyKeys>,
}

impl<C> Verified<C> {
    pub(crate) fn new(token: Token, claims: C) -> Self {
        Self {
            inner: Arc::new(Inner { token, claims }),
        }
    }

    pub(crate) fn of(inner: Arc<Inner<C>>) -> Self {
        Self { inner }
    }

    pub(crate) fn into_inner(self) -> Arc<Inner<C>> {
        self.inner
    }

    /// The memory that it takes, but for what the claims hold on the heap.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Inner<C>>() + self.identity().bytes()
    }

    pub(crate) fn token(&self) -> &Token {
        &self.inner.token
    }

    /// The claims as the application's type.
    #[must_use]
    pub fn claims(&self) -> &C {
        &self.inner.claims
    }

    /// Who the token speaks for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.token.identity
    }

    /// The claims as they stand in the token.
    #[must_use]
    pub fn json(&self) -> &str {
        let token = &self.inner.token;
        &token.identity.text()[..token.json_bytes]
    }

    /// When the token was made (`iat`).
    #[must_use]
    pub fn issued_at(&self) -> Option<UnixMillis> {
        self.inner.token.issued_at
    }

    /// From when on the token is valid (`nbf`).
    #[must_use]
    pub fn not_before(&self) -> Option<UnixMillis> {
        self.inner.token.not_before
    }

    /// When the token ends (`exp`), leeway not included.
    #[must_use]
    pub fn expires_at(&self) -> UnixMillis {
        self.inner.token.expires_at
    }

    /// The algorithm of the signature.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.inner.token.algorithm
    }
}

impl<C> Clone for Verified<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<C> fmt::Debug for Verified<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("identity", self.identity())
            .field("expires_at", &self.expires_at())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

impl Token {
    pub(crate) fn deny_keys(&self) -> &DenyKeys {
        self.deny_keys.get_or_init(|| {
            let mut keys = DenyKeys::new(self.identity.subject());
            if let Some(session) = self.identity.session() {
                keys = keys.with_session(session);
            }
            if let Some(token) = self.identity.token() {
                keys = keys.with_token(token);
            }
            keys
        })
    }
}

/// The claims of the request's token: what a handler behind a
/// [`JwtLayer`](super::JwtLayer) finds in the extensions. A clone is a reference count.
///
/// With feature `axum` it is an extractor, which answers 401 where no token came.
///
/// ```
/// use portcullis::jwt::Claims;
///
/// struct Mine {
///     preferred_username: String,
/// }
///
/// fn greeting(request: &http::Request<()>) -> Option<String> {
///     let claims = request.extensions().get::<Claims<Mine>>()?;
///     Some(format!("Hello, {}", claims.preferred_username))
/// }
/// # assert!(greeting(&http::Request::new(())).is_none());
/// ```
pub struct Claims<C> {
    verified: Verified<C>,
}

impl<C> Claims<C> {
    /// The token that the claims are of.
    #[must_use]
    pub fn verified(this: &Self) -> &Verified<C> {
        &this.verified
    }
}

impl<C> Deref for Claims<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.verified.claims()
    }
}

impl<C> Clone for Claims<C> {
    fn clone(&self) -> Self {
        Self {
            verified: self.verified.clone(),
        }
    }
}

impl<C> fmt::Debug for Claims<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claims").field(&self.verified).finish()
    }
}

impl<C> From<Verified<C>> for Claims<C> {
    fn from(verified: Verified<C>) -> Self {
        Self { verified }
    }
}

/// A verified token whose type of claims is not named: it puts itself where handlers look.
pub(crate) trait Insert: Send + Sync {
    fn insert(self: Arc<Self>, extensions: &mut Extensions);
}

impl<C: Send + Sync + 'static> Insert for Inner<C> {
    fn insert(self: Arc<Self>, extensions: &mut Extensions) {
        extensions.insert(self.token.identity.clone());
        extensions.insert(Claims::from(Verified::of(self)));
    }
}

#[cfg(feature = "axum")]
impl<C, S> axum::extract::FromRequestParts<S> for Claims<C>
where
    C: Send + Sync + 'static,
    S: Sync,
{
    type Rejection = crate::rejection::Rejection;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        parts
            .extensions
            .get()
            .cloned()
            .ok_or_else(crate::identity::nobody)
    }
}

#[cfg(feature = "axum")]
impl<C, S> axum::extract::OptionalFromRequestParts<S> for Claims<C>
where
    C: Send + Sync + 'static,
    S: Sync,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}
