//! A session store that tests look into and break.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use portcullis::{
    refresh_token::{
        CreateOutcome, EndReason, Ended, MemoryStore, NewSession, RefreshTokenStore, RevokeOutcome,
        RevokedSubject, RotateOutcome, Rotation, SessionId, SessionRecord, StoreError,
        StoreErrorKind,
    },
    time::UnixMillis,
};

/// A store that counts its calls and can be out.
#[derive(Default)]
pub struct ProbeStore {
    pub store: MemoryStore,
    pub calls: AtomicUsize,
    pub out: AtomicBool,
    /// The step is done and the answer lost.
    pub mute: AtomicBool,
    /// It never answers.
    pub hung: AtomicBool,
    pub created: Mutex<Option<NewSession>>,
}

impl ProbeStore {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.hung.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.out.load(Ordering::SeqCst) {
            return Err(StoreErrorKind::Unavailable.into());
        }
        let result = call.await;
        if self.mute.load(Ordering::SeqCst) {
            return Err(StoreErrorKind::Timeout.into());
        }
        result
    }
}

impl RefreshTokenStore for ProbeStore {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        self.call(self.store.epoch(subject)).await
    }
    async fn create(&self, session: NewSession) -> Result<CreateOutcome, StoreError> {
        *self.created.lock().unwrap() = Some(session.clone());
        self.call(self.store.create(session)).await
    }
    async fn rotate(&self, rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        self.call(self.store.rotate(rotation)).await
    }
    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        self.call(self.store.revoke(id, reason, now)).await
    }
    async fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        self.call(self.store.revoke_subject(subject, except, reason, now))
            .await
    }
    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.call(self.store.get(id)).await
    }
    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.call(self.store.list_subject(subject, now, limit))
            .await
    }
    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        self.call(self.store.revoked_since(since)).await
    }
    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        self.call(self.store.delete_expired(before, limit)).await
    }
    async fn health(&self) -> Result<(), StoreError> {
        self.call(self.store.health()).await
    }
}
