//! Where sessions are kept: the trait, its types, and the stores of this crate.

mod erased;
mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::{net::IpAddr, sync::Arc};

pub(super) use self::erased::Erased;
pub use self::memory::MemoryStore;
use super::record::{EndReason, Ended, KeyId, Seed, SessionId, SessionRecord, TokenDigest};
pub use crate::store_error::{StoreError, StoreErrorKind};
use crate::time::UnixMillis;

/// Keeps sessions. Implementors write plain `async fn`s; [`RefreshTokens`](super::RefreshTokens)
/// erases the type.
///
/// A store decides nothing: it keeps one row for a session and one counter for a subject (its
/// *epoch*, 0 until the first [`revoke_subject`](Self::revoke_subject)), and every method is one
/// atomic step on them. What each step promises is said here and checked by the conformance suite;
/// a store that breaks a promise lets stolen tokens live or logs users out.
///
/// - Time is an argument. A store must not look at a clock of its own, nor let a time-to-live
///   decide whether a session is valid: that is only for clearing away.
/// - A store sees digests, never tokens, and must not log either.
/// - A step that returned is visible to every step that begins later, on every connection.
/// - A future that is dropped in the middle leaves its step done or not begun.
///
/// The feature `test-suite` brings the suite: module `refresh_token::conformance`.
pub trait RefreshTokenStore: Send + Sync + 'static {
    /// The subject's epoch; 0 where nothing is known.
    fn epoch(&self, subject: &str) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Adds a session, if the subject's epoch is still [`NewSession::epoch`].
    ///
    /// Comparing and adding are one step: no [`revoke_subject`](Self::revoke_subject) may come
    /// between them and miss the session. The id's [tag](SessionId::tag) is the subject's.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`] when the id is taken; the row that is there stays as it is.
    fn create(
        &self,
        session: NewSession,
    ) -> impl Future<Output = Result<CreateOutcome, StoreError>> + Send;

    /// Replaces the token of a session, if all of this holds at once: the session exists, was not
    /// ended, `now` is before its end, its generation and token are those presented, and the token
    /// was not made after [`Rotation::not_made_after`].
    ///
    /// Then the generation goes up by one, the presented digest becomes the previous one, the next
    /// digest, seed, key, client and time of use are kept, and the end moves to
    /// [`Rotation::idle_end`] or the absolute end, whichever is earlier.
    ///
    /// Otherwise nothing changes, and the outcome shows the row as it stood when the step was
    /// refused, never an older one: of 64 callers with one token, one rotates and 63 are shown its
    /// seed.
    fn rotate(
        &self,
        rotation: Rotation,
    ) -> impl Future<Output = Result<RotateOutcome, StoreError>> + Send;

    /// Ends a session for good. The first reason and time stay.
    fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> impl Future<Output = Result<RevokeOutcome, StoreError>> + Send;

    /// Raises the subject's epoch and ends all his sessions but `except`, in one step: a session
    /// whose [`create`](Self::create) came before is ended, one whose create comes after with the
    /// old epoch is refused. It goes by the epoch, never by time.
    ///
    /// The new epoch is [`RevokedSubject::raised`], so that one which was cleared away never comes
    /// again.
    fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> impl Future<Output = Result<RevokedSubject, StoreError>> + Send;

    /// One session, live or not.
    fn get(
        &self,
        id: SessionId,
    ) -> impl Future<Output = Result<Option<SessionRecord>, StoreError>> + Send;

    /// The live sessions of a subject, the latest begun first, at most `limit`.
    fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<SessionRecord>, StoreError>> + Send;

    /// The sessions that were ended at `since` or later, in no order. What fills a deny list after
    /// a start.
    fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> impl Future<Output = Result<Vec<(SessionId, Ended)>, StoreError>> + Send;

    /// Clears away at most `limit` sessions that expired or were ended before `before`, and says
    /// how many. A session that is live at `before` is never among them.
    ///
    /// The epoch of a subject who has no session left may go too, if it is below `before`: the
    /// caller keeps `before` further back than a login can take.
    fn delete_expired(
        &self,
        before: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Whether the store answers; a cheap round trip.
    fn health(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A session to add.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// What is known of it; not ended, last used when it was created.
    pub record: SessionRecord,
    /// The subject's epoch that was read before his proof was checked.
    pub epoch: u64,
    /// The digest of its first token, which is of generation 0.
    pub token: TokenDigest,
    /// The key of its first token.
    pub key: KeyId,
}

/// A token to replace.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The session.
    pub id: SessionId,
    /// The generation of the presented token.
    pub generation: u64,
    /// The digest of the presented token.
    pub presented: TokenDigest,
    /// The digest of the token that takes its place.
    pub next: TokenDigest,
    /// What the next token was derived with.
    pub seed: Seed,
    /// The key of the next token.
    pub key: KeyId,
    /// The time.
    pub now: UnixMillis,
    /// Up to when the presented token must have been made to be replaced; the end of time where
    /// its age is nothing to the caller.
    pub not_made_after: UnixMillis,
    /// When the session ends if it is not refreshed again, before the absolute end is looked at.
    pub idle_end: UnixMillis,
    /// Who asks.
    pub client: Option<IpAddr>,
}

/// What a session's tokens are at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lineage {
    /// The generation of the current token.
    pub generation: u64,
    /// The digest of the current token.
    pub current: TokenDigest,
    /// The digest of the token before; none in generation 0.
    pub previous: Option<TokenDigest>,
    /// What the current token was derived with; none in generation 0.
    pub seed: Option<Seed>,
    /// The key of the current token.
    pub key: KeyId,
    /// When the current token was made.
    pub rotated_at: UnixMillis,
}

impl Lineage {
    /// Whether `rotation` presents the current token and may not replace it yet.
    #[must_use]
    pub fn is_too_young(&self, rotation: &Rotation) -> bool {
        (self.generation, self.current) == (rotation.generation, rotation.presented)
            && self.rotated_at > rotation.not_made_after
    }
}

/// What became of [`RefreshTokenStore::create`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CreateOutcome {
    /// The session is there.
    Created,
    /// The subject's sessions were all ended since the epoch was read; nothing was added.
    EpochMoved,
}

/// What became of [`RefreshTokenStore::rotate`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RotateOutcome {
    /// The token was replaced; the session as it is now.
    Rotated(SessionRecord),
    /// The session is live, and the presented token is not its current one.
    Stale(SessionRecord, Lineage),
    /// The presented token is the current one, and was made after [`Rotation::not_made_after`].
    TooYoung(SessionRecord),
    /// The session was ended.
    Ended(SessionRecord),
    /// The session's time is over.
    Expired(SessionRecord),
    /// There is no such session.
    NotFound,
}

#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
impl RotateOutcome {
    /// Why `rotation` did not touch the row that is read with it or after it. What refused it stays
    /// true: generations only rise, and ends are for good.
    fn refused(rotation: &Rotation, row: Option<(SessionRecord, Lineage)>) -> Self {
        match row {
            None => Self::NotFound,
            Some((record, _)) if record.ended.is_some() => Self::Ended(record),
            Some((record, _)) if !record.is_live(rotation.now) => Self::Expired(record),
            Some((record, lineage)) if lineage.is_too_young(rotation) => Self::TooYoung(record),
            Some((record, lineage)) => Self::Stale(record, lineage),
        }
    }
}

/// What became of [`RefreshTokenStore::revoke`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RevokeOutcome {
    /// The session was ended by this call.
    Ended(SessionRecord),
    /// It had been ended before.
    AlreadyEnded(SessionRecord),
    /// There is no such session.
    NotFound,
}

/// What became of [`RefreshTokenStore::revoke_subject`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevokedSubject {
    /// The subject's epoch from now on.
    pub epoch: u64,
    /// The sessions that this call ended.
    pub ended: Vec<SessionId>,
}

impl RevokedSubject {
    /// The epoch that follows `epoch` when it is raised at `now`.
    #[must_use]
    pub fn raised(epoch: u64, now: UnixMillis) -> u64 {
        let now = u64::try_from(now.as_millis()).unwrap_or(0);
        epoch.saturating_add(1).max(now)
    }
}

/// One store for several handles.
impl<S: RefreshTokenStore> RefreshTokenStore for Arc<S> {
    fn epoch(&self, subject: &str) -> impl Future<Output = Result<u64, StoreError>> + Send {
        (**self).epoch(subject)
    }

    fn create(
        &self,
        session: NewSession,
    ) -> impl Future<Output = Result<CreateOutcome, StoreError>> + Send {
        (**self).create(session)
    }

    fn rotate(
        &self,
        rotation: Rotation,
    ) -> impl Future<Output = Result<RotateOutcome, StoreError>> + Send {
        (**self).rotate(rotation)
    }

    fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> impl Future<Output = Result<RevokeOutcome, StoreError>> + Send {
        (**self).revoke(id, reason, now)
    }

    fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> impl Future<Output = Result<RevokedSubject, StoreError>> + Send {
        (**self).revoke_subject(subject, except, reason, now)
    }

    fn get(
        &self,
        id: SessionId,
    ) -> impl Future<Output = Result<Option<SessionRecord>, StoreError>> + Send {
        (**self).get(id)
    }

    fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<SessionRecord>, StoreError>> + Send {
        (**self).list_subject(subject, now, limit)
    }

    fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> impl Future<Output = Result<Vec<(SessionId, Ended)>, StoreError>> + Send {
        (**self).revoked_since(since)
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
