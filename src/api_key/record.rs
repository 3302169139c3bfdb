//! What is known of a key.

use super::format::{ApiKeyDigest, ApiKeyId};
use crate::{client::Prefix, time::UnixMillis};

/// An API key, without anything of its secret.
///
/// Exhaustive on purpose: a store that forgets a field does not compile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiKeyRecord {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub subject: String,
    /// What its owner calls it.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<String>,
    /// The networks that it may come from; any where there is none.
    pub networks: Vec<Prefix>,
    /// Requests in a window that this key may make, where it has a limit of its own. A rate limit's
    /// [`with_quota`](crate::rate_limit::Policy::with_quota) reads it from [`UsedKey`](super::UsedKey).
    pub limit: Option<u32>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<UnixMillis>,
    /// The key that it took the place of.
    pub replaces: Option<ApiKeyId>,
    /// Whether another took its place; it works until [`expires_at`](Self::expires_at) all the same.
    pub is_replaced: bool,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
}

impl ApiKeyRecord {
    /// Whether it works at `now`: it was not revoked, and `now` is before its end.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

/// A key as a store keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredKey {
    /// What is known of it.
    pub record: ApiKeyRecord,
    /// The digest of its secret.
    pub digest: ApiKeyDigest,
}
