//! A store behind a pointer, so that no user of one writes its type.

use std::pin::Pin;

use super::{
    CreateOutcome, EndReason, Ended, NewSession, RefreshTokenStore, RevokeOutcome, RevokedSubject,
    RotateOutcome, Rotation, SessionId, SessionRecord, StoreError,
};
use crate::{event::metric::timed, time::UnixMillis};

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// [`RefreshTokenStore`] with boxed futures. The names differ, so that a method is never ambiguous.
pub(crate) trait Erased: Send + Sync {
    fn epoch_<'a>(&'a self, subject: &'a str) -> Call<'a, u64>;
    fn create_<'a>(&'a self, session: NewSession) -> Call<'a, CreateOutcome>;
    fn rotate_<'a>(&'a self, rotation: Rotation) -> Call<'a, RotateOutcome>;
    fn revoke_<'a>(
        &'a self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Call<'a, RevokeOutcome>;
    fn revoke_subject_<'a>(
        &'a self,
        subject: &'a str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Call<'a, RevokedSubject>;
    fn get_<'a>(&'a self, id: SessionId) -> Call<'a, Option<SessionRecord>>;
    fn list_subject_<'a>(
        &'a self,
        subject: &'a str,
        now: UnixMillis,
        limit: usize,
    ) -> Call<'a, Vec<SessionRecord>>;
    fn revoked_since_<'a>(&'a self, since: UnixMillis) -> Call<'a, Vec<(SessionId, Ended)>>;
    fn delete_expired_<'a>(&'a self, before: UnixMillis, limit: usize) -> Call<'a, u64>;
    fn health_<'a>(&'a self) -> Call<'a, ()>;
}

impl<S: RefreshTokenStore> Erased for S {
    fn epoch_<'a>(&'a self, subject: &'a str) -> Call<'a, u64> {
        Box::pin(timed("sessions", "epoch", self.epoch(subject)))
    }

    fn create_<'a>(&'a self, session: NewSession) -> Call<'a, CreateOutcome> {
        Box::pin(timed("sessions", "create", self.create(session)))
    }

    fn rotate_<'a>(&'a self, rotation: Rotation) -> Call<'a, RotateOutcome> {
        Box::pin(timed("sessions", "rotate", self.rotate(rotation)))
    }

    fn revoke_<'a>(
        &'a self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Call<'a, RevokeOutcome> {
        Box::pin(timed("sessions", "revoke", self.revoke(id, reason, now)))
    }

    fn revoke_subject_<'a>(
        &'a self,
        subject: &'a str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Call<'a, RevokedSubject> {
        Box::pin(timed(
            "sessions",
            "revoke_subject",
            self.revoke_subject(subject, except, reason, now),
        ))
    }

    fn get_<'a>(&'a self, id: SessionId) -> Call<'a, Option<SessionRecord>> {
        Box::pin(timed("sessions", "get", self.get(id)))
    }

    fn list_subject_<'a>(
        &'a self,
        subject: &'a str,
        now: UnixMillis,
        limit: usize,
    ) -> Call<'a, Vec<SessionRecord>> {
        Box::pin(timed(
            "sessions",
            "list_subject",
            self.list_subject(subject, now, limit),
        ))
    }

    fn revoked_since_<'a>(&'a self, since: UnixMillis) -> Call<'a, Vec<(SessionId, Ended)>> {
        Box::pin(timed(
            "sessions",
            "revoked_since",
            self.revoked_since(since),
        ))
    }

    fn delete_expired_<'a>(&'a self, before: UnixMillis, limit: usize) -> Call<'a, u64> {
        Box::pin(timed(
            "sessions",
            "delete_expired",
            self.delete_expired(before, limit),
        ))
    }

    fn health_<'a>(&'a self) -> Call<'a, ()> {
        Box::pin(timed("sessions", "health", self.health()))
    }
}
