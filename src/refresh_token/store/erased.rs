//! A store behind a pointer, so that no user of one writes its type.

use std::pin::Pin;

use super::{
    CreateOutcome, EndReason, Ended, NewSession, RefreshTokenStore, RevokeOutcome, RevokedSubject,
    RotateOutcome, Rotation, SessionId, SessionRecord, StoreError,
};
use crate::time::UnixMillis;

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
        Box::pin(self.epoch(subject))
    }

    fn create_<'a>(&'a self, session: NewSession) -> Call<'a, CreateOutcome> {
        Box::pin(self.create(session))
    }

    fn rotate_<'a>(&'a self, rotation: Rotation) -> Call<'a, RotateOutcome> {
        Box::pin(self.rotate(rotation))
    }

    fn revoke_<'a>(
        &'a self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Call<'a, RevokeOutcome> {
        Box::pin(self.revoke(id, reason, now))
    }

    fn revoke_subject_<'a>(
        &'a self,
        subject: &'a str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Call<'a, RevokedSubject> {
        Box::pin(self.revoke_subject(subject, except, reason, now))
    }

    fn get_<'a>(&'a self, id: SessionId) -> Call<'a, Option<SessionRecord>> {
        Box::pin(self.get(id))
    }

    fn list_subject_<'a>(
        &'a self,
        subject: &'a str,
        now: UnixMillis,
        limit: usize,
    ) -> Call<'a, Vec<SessionRecord>> {
        Box::pin(self.list_subject(subject, now, limit))
    }

    fn revoked_since_<'a>(&'a self, since: UnixMillis) -> Call<'a, Vec<(SessionId, Ended)>> {
        Box::pin(self.revoked_since(since))
    }

    fn delete_expired_<'a>(&'a self, before: UnixMillis, limit: usize) -> Call<'a, u64> {
        Box::pin(self.delete_expired(before, limit))
    }

    fn health_<'a>(&'a self) -> Call<'a, ()> {
        Box::pin(self.health())
    }
}
