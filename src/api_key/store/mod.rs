//! Where keys are kept: the trait, its types, and the stores of this crate.

mod erased;
mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::sync::Arc;

pub(super) use self::erased::Erased;
pub use self::memory::MemoryKeys;
use super::{
    format::ApiKeyId,
    record::{ApiKeyRecord, StoredKey},
};
pub use crate::store_error::{StoreError, StoreErrorKind};
use crate::time::UnixMillis;

/// Keeps API keys. Implementors write plain `async fn`s; [`ApiKeys`](super::ApiKeys) erases the
/// type.
///
/// Each method is one atomic step. Time is an argument: a store looks at no clock of its own. It
/// sees digests, never keys.
pub trait ApiKeyStore: Send + Sync + 'static {
    /// Adds a key, if its subject has fewer than `most` keys that are live at its making and not
    /// replaced. Counting and adding are one step.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`] when the id is taken; the row that is there stays as it is.
    fn create(
        &self,
        key: StoredKey,
        most: usize,
    ) -> impl Future<Output = Result<CreateOutcome, StoreError>> + Send;

    /// One key, live or not.
    fn get(
        &self,
        id: ApiKeyId,
    ) -> impl Future<Output = Result<Option<StoredKey>, StoreError>> + Send;

    /// The keys of a subject that are live at `now`, the latest made first, at most `limit`.
    fn list(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<ApiKeyRecord>, StoreError>> + Send;

    /// Adds [`KeyRotation::new`] and marks [`KeyRotation::old`] as replaced, which then ends at
    /// [`KeyRotation::old_end`] or its own end, whichever is earlier: if the old key is the
    /// subject's, live and not replaced, and fewer than [`KeyRotation::most`] of the subject's
    /// replaced keys are live. One step: of two rotations of a key, one succeeds.
    fn rotate(
        &self,
        rotation: KeyRotation,
    ) -> impl Future<Output = Result<RotateOutcome, StoreError>> + Send;

    /// Revokes a key of the subject for good; whether there was such a key, and it was live.
    fn revoke(
        &self,
        id: ApiKeyId,
        subject: &str,
        now: UnixMillis,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Revokes all live keys of a subject, and says which.
    fn revoke_subject(
        &self,
        subject: &str,
        now: UnixMillis,
    ) -> impl Future<Output = Result<Vec<ApiKeyId>, StoreError>> + Send;

    /// The keys that were revoked or replaced at `since` or later, in no order. How the instances of
    /// a service that share a store learn what the others ended.
    fn ended_since(
        &self,
        since: UnixMillis,
    ) -> impl Future<Output = Result<Vec<ApiKeyId>, StoreError>> + Send;

    /// Notes when keys were last used. A key that is gone is passed over, a time that is earlier
    /// than what is there changes nothing.
    fn touch(
        &self,
        used: &[(ApiKeyId, UnixMillis)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Clears away at most `limit` keys that expired or were revoked before `before`, and says how
    /// many. A key that is live at `before` is never among them.
    fn delete_expired(
        &self,
        before: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Whether the store answers; a cheap round trip.
    fn health(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A key that takes another's place.
#[derive(Clone, Debug)]
pub struct KeyRotation {
    /// The key to replace.
    pub old: ApiKeyId,
    /// When the old key ends, before its own end is looked at.
    pub old_end: UnixMillis,
    /// The new key, of the same subject. Its `created_at` is the time of the rotation.
    pub new: StoredKey,
    /// How many replaced keys of the subject may be live.
    pub most: usize,
}

/// What became of [`ApiKeyStore::create`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CreateOutcome {
    /// The key is there.
    Created,
    /// Its subject has as many as he may; nothing was added.
    TooMany,
}

/// What became of [`ApiKeyStore::rotate`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RotateOutcome {
    /// The new key is there.
    Rotated,
    /// The subject has no live key of that id that was not replaced; nothing was added.
    NotFound,
    /// Too many replaced keys of the subject are live; nothing was added.
    TooMany,
}

/// One store for several handles.
impl<S: ApiKeyStore> ApiKeyStore for Arc<S> {
    fn create(
        &self,
        key: StoredKey,
        most: usize,
    ) -> impl Future<Output = Result<CreateOutcome, StoreError>> + Send {
        (**self).create(key, most)
    }

    fn get(
        &self,
        id: ApiKeyId,
    ) -> impl Future<Output = Result<Option<StoredKey>, StoreError>> + Send {
        (**self).get(id)
    }

    fn list(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<ApiKeyRecord>, StoreError>> + Send {
        (**self).list(subject, now, limit)
    }

    fn rotate(
        &self,
        rotation: KeyRotation,
    ) -> impl Future<Output = Result<RotateOutcome, StoreError>> + Send {
        (**self).rotate(rotation)
    }

    fn revoke(
        &self,
        id: ApiKeyId,
        subject: &str,
        now: UnixMillis,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        (**self).revoke(id, subject, now)
    }

    fn revoke_subject(
        &self,
        subject: &str,
        now: UnixMillis,
    ) -> impl Future<Output = Result<Vec<ApiKeyId>, StoreError>> + Send {
        (**self).revoke_subject(subject, now)
    }

    fn ended_since(
        &self,
        since: UnixMillis,
    ) -> impl Future<Output = Result<Vec<ApiKeyId>, StoreError>> + Send {
        (**self).ended_since(since)
    }

    fn touch(
        &self,
        used: &[(ApiKeyId, UnixMillis)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        (**self).touch(used)
    }

    fn delete_expired(
        &self,
        before: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send {
        (**self).delete_expired(before, limit)
    }

    fn health(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        (**self).health()
    }
}
