//! A store behind a pointer, so that no user of one writes its type.

use std::pin::Pin;

use super::{
    ApiKeyId, ApiKeyRecord, ApiKeyStore, CreateOutcome, KeyRotation, RotateOutcome, StoreError,
    StoredKey,
};
use crate::{event::metric::timed, time::UnixMillis};

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// [`ApiKeyStore`] with boxed futures. The names differ, so that a method is never ambiguous.
pub(crate) trait Erased: Send + Sync {
    fn create_<'a>(&'a self, key: StoredKey, most: usize) -> Call<'a, CreateOutcome>;
    fn get_<'a>(&'a self, id: ApiKeyId) -> Call<'a, Option<StoredKey>>;
    fn list_<'a>(
        &'a self,
        subject: &'a str,
        now: UnixMillis,
        limit: usize,
    ) -> Call<'a, Vec<ApiKeyRecord>>;
    fn rotate_<'a>(&'a self, rotation: KeyRotation) -> Call<'a, RotateOutcome>;
    fn revoke_<'a>(&'a self, id: ApiKeyId, subject: &'a str, now: UnixMillis) -> Call<'a, bool>;
    fn revoke_subject_<'a>(&'a self, subject: &'a str, now: UnixMillis) -> Call<'a, Vec<ApiKeyId>>;
    #[cfg(all(feature = "jwt", feature = "refresh-token"))]
    fn ended_since_<'a>(&'a self, since: UnixMillis) -> Call<'a, Vec<ApiKeyId>>;
    fn touch_<'a>(&'a self, used: &'a [(ApiKeyId, UnixMillis)]) -> Call<'a, ()>;
    fn delete_expired_<'a>(&'a self, before: UnixMillis, limit: usize) -> Call<'a, u64>;
    fn health_<'a>(&'a self) -> Call<'a, ()>;
}

impl<S: ApiKeyStore> Erased for S {
    fn create_<'a>(&'a self, key: StoredKey, most: usize) -> Call<'a, CreateOutcome> {
        Box::pin(timed("api_keys", "create", self.create(key, most)))
    }

    fn get_<'a>(&'a self, id: ApiKeyId) -> Call<'a, Option<StoredKey>> {
        Box::pin(timed("api_keys", "get", self.get(id)))
    }

    fn list_<'a>(
        &'a self,
        subject: &'a str,
        now: UnixMillis,
        limit: usize,
    ) -> Call<'a, Vec<ApiKeyRecord>> {
        Box::pin(timed("api_keys", "list", self.list(subject, now, limit)))
    }

    fn rotate_<'a>(&'a self, rotation: KeyRotation) -> Call<'a, RotateOutcome> {
        Box::pin(timed("api_keys", "rotate", self.rotate(rotation)))
    }

    fn revoke_<'a>(&'a self, id: ApiKeyId, subject: &'a str, now: UnixMillis) -> Call<'a, bool> {
        Box::pin(timed("api_keys", "revoke", self.revoke(id, subject, now)))
    }

    fn revoke_subject_<'a>(&'a self, subject: &'a str, now: UnixMillis) -> Call<'a, Vec<ApiKeyId>> {
        Box::pin(timed(
            "api_keys",
            "revoke_subject",
            self.revoke_subject(subject, now),
        ))
    }

    #[cfg(all(feature = "jwt", feature = "refresh-token"))]
    fn ended_since_<'a>(&'a self, since: UnixMillis) -> Call<'a, Vec<ApiKeyId>> {
        Box::pin(timed("api_keys", "ended_since", self.ended_since(since)))
    }

    fn touch_<'a>(&'a self, used: &'a [(ApiKeyId, UnixMillis)]) -> Call<'a, ()> {
        Box::pin(timed("api_keys", "touch", self.touch(used)))
    }

    fn delete_expired_<'a>(&'a self, before: UnixMillis, limit: usize) -> Call<'a, u64> {
        Box::pin(timed(
            "api_keys",
            "delete_expired",
            self.delete_expired(before, limit),
        ))
    }

    fn health_<'a>(&'a self) -> Call<'a, ()> {
        Box::pin(timed("api_keys", "health", self.health()))
    }
}
