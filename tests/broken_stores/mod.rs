//! A right store with one mistake each, as they are made in the wild.

use std::time::{Duration, SystemTime};

use portcullis::{
    refresh_token::{
        CreateOutcome, EndReason, Ended, Lineage, NewSession, RefreshTokenStore, RevokeOutcome,
        RevokedSubject, RotateOutcome, Rotation, SessionId, SessionRecord, StoreError, TokenDigest,
    },
    time::UnixMillis,
};

use crate::custom_store::MapStore;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mistake {
    /// Reads the row, decides, and writes it back later.
    ReadThenWrite,
    /// Shows those who come second the row as it was when their call began.
    StaleSnapshot,
    /// Finds sessions by their current token, so that a replaced one finds nothing.
    DeleteOnConsume,
    /// Lets a time-to-live on the host's clock say whether a session lives.
    TtlAsValidity,
    /// Digests the digest once more before it is kept.
    DoubleHash,
    /// Ends the sessions that were created up to now, by what they say of themselves.
    RevokeByTime,
    /// Replaces a token whatever its age.
    NoAge,
}

pub(crate) struct BrokenStore {
    pub(crate) map: MapStore,
    pub(crate) mistake: Mistake,
}

impl BrokenStore {
    pub(crate) fn new(mistake: Mistake) -> Self {
        Self {
            map: MapStore::default(),
            mistake,
        }
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    /// What Redis does with a key whose time has come.
    fn let_keys_expire(&self) {
        if self.makes(Mistake::TtlAsValidity) {
            let now = system_time();
            let sessions = &mut self.map.state().sessions;
            sessions.retain(|_, (record, _)| now < record.expires_at);
        }
    }

    fn row(&self, id: SessionId) -> Option<(SessionRecord, Lineage)> {
        self.map.state().sessions.get(&id).cloned()
    }

    fn put(&self, row: (SessionRecord, Lineage)) {
        self.map.state().sessions.insert(row.0.id, row);
    }
}

fn system_time() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixMillis::new(since.unwrap().as_millis() as i64)
}

fn hashed(digest: TokenDigest) -> TokenDigest {
    TokenDigest::from_bytes(digest.as_bytes().map(|byte| byte.wrapping_mul(7) ^ 0x5a))
}

impl RefreshTokenStore for BrokenStore {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        self.map.epoch(subject).await
    }

    async fn create(&self, mut session: NewSession) -> Result<CreateOutcome, StoreError> {
        if self.makes(Mistake::DoubleHash) {
            session.token = hashed(session.token);
        }
        self.map.create(session).await
    }

    async fn rotate(&self, mut rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        self.let_keys_expire();
        let before = self.row(rotation.id);
        match self.mistake {
            Mistake::ReadThenWrite => {
                let copy = MapStore::default();
                if let Some(row) = before {
                    copy.state().sessions.insert(rotation.id, row);
                }
                let outcome = copy.rotate(rotation.clone()).await?;
                tokio::task::yield_now().await;
                if let RotateOutcome::Rotated(_) = outcome {
                    let row = copy.state().sessions.remove(&rotation.id);
                    row.into_iter().for_each(|row| self.put(row));
                }
                return Ok(outcome);
            }
            Mistake::StaleSnapshot => {
                tokio::task::yield_now().await;
                let outcome = self.map.rotate(rotation).await?;
                return Ok(match (outcome, before) {
                    (RotateOutcome::Stale(..), Some((record, lineage))) => {
                        RotateOutcome::Stale(record, lineage)
                    }
                    (outcome, _) => outcome,
                });
            }
            Mistake::DoubleHash => {
                rotation.presented = hashed(rotation.presented);
                rotation.next = hashed(rotation.next);
            }
            Mistake::TtlAsValidity => {
                // The key is there, so the session lives.
                if let Some((record, _)) = before {
                    let end = record.expires_at.saturating_sub(Duration::from_millis(1));
                    rotation.now = rotation.now.min(end);
                }
            }
            Mistake::NoAge => rotation.not_made_after = UnixMillis::MAX,
            _ => {}
        }
        let outcome = self.map.rotate(rotation).await?;
        Ok(match outcome {
            RotateOutcome::Stale(..) if self.makes(Mistake::DeleteOnConsume) => {
                RotateOutcome::NotFound
            }
            outcome => outcome,
        })
    }

    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        self.let_keys_expire();
        self.map.revoke(id, reason, now).await
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        if !self.makes(Mistake::RevokeByTime) {
            return self.map.revoke_subject(subject, except, reason, now).await;
        }
        let all = self.map.state().sessions.clone();
        let revoked = self.map.revoke_subject(subject, except, reason, now).await;
        let mut revoked = revoked?;
        for row in all.into_values() {
            if row.0.subject == subject && row.0.created_at > now {
                revoked.ended.retain(|id| *id != row.0.id);
                self.put(row);
            }
        }
        Ok(revoked)
    }

    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.let_keys_expire();
        self.map.get(id).await
    }

    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.let_keys_expire();
        self.map.list_subject(subject, now, limit).await
    }

    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        self.let_keys_expire();
        self.map.revoked_since(since).await
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        self.map.delete_expired(before, limit).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.map.health().await
    }
}
