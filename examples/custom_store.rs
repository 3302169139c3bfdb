//! A session store of one's own, and the conformance suite on it.
//!
//! `cargo run --example custom_store --features test-suite`
//!
//! The store is a map behind a lock. What makes it right is that each method is one step under that
//! lock: in a database the same is one statement or one transaction.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use portcullis::{
    refresh_token::{
        CreateOutcome, EndReason, Ended, Lineage, NewSession, RefreshTokenStore, RevokeOutcome,
        RevokedSubject, RotateOutcome, Rotation, SessionId, SessionRecord, StoreError,
        StoreErrorKind, conformance::Suite,
    },
    time::UnixMillis,
};

fn main() {
    Suite::new(|| async { MapStore::default() }).check();
    println!("the store keeps every rule");
}

#[derive(Debug, Default)]
pub(crate) struct MapStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) sessions: HashMap<SessionId, (SessionRecord, Lineage)>,
    pub(crate) epochs: HashMap<String, u64>,
}

impl MapStore {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefreshTokenStore for MapStore {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        Ok(self.state().epochs.get(subject).copied().unwrap_or(0))
    }

    async fn create(&self, session: NewSession) -> Result<CreateOutcome, StoreError> {
        let mut state = self.state();
        let NewSession { record, .. } = session;
        let epoch = state.epochs.get(&record.subject).copied();
        if epoch.unwrap_or(0) != session.epoch {
            return Ok(CreateOutcome::EpochMoved);
        }
        if state.sessions.contains_key(&record.id) {
            return Err(StoreErrorKind::Conflict.into());
        }
        let lineage = Lineage {
            generation: 0,
            current: session.token,
            previous: None,
            seed: None,
            key: session.key,
            rotated_at: record.created_at,
        };
        state.sessions.insert(record.id, (record, lineage));
        Ok(CreateOutcome::Created)
    }

    async fn rotate(&self, rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        let mut state = self.state();
        let Some((record, lineage)) = state.sessions.get_mut(&rotation.id) else {
            return Ok(RotateOutcome::NotFound);
        };
        if record.ended.is_some() {
            return Ok(RotateOutcome::Ended(record.clone()));
        }
        if !record.is_live(rotation.now) {
            return Ok(RotateOutcome::Expired(record.clone()));
        }
        if (lineage.generation, lineage.current) != (rotation.generation, rotation.presented) {
            return Ok(RotateOutcome::Stale(record.clone(), *lineage));
        }
        if lineage.is_too_young(&rotation) {
            return Ok(RotateOutcome::TooYoung(record.clone()));
        }
        *lineage = Lineage {
            generation: rotation.generation + 1,
            current: rotation.next,
            previous: Some(rotation.presented),
            seed: Some(rotation.seed),
            key: rotation.key,
            rotated_at: rotation.now,
        };
        record.last_used_at = rotation.now;
        record.expires_at = rotation.idle_end.min(record.absolute_end);
        record.device.ip = rotation.client.or(record.device.ip);
        Ok(RotateOutcome::Rotated(record.clone()))
    }

    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        let mut state = self.state();
        let Some((record, _)) = state.sessions.get_mut(&id) else {
            return Ok(RevokeOutcome::NotFound);
        };
        if record.ended.is_some() {
            return Ok(RevokeOutcome::AlreadyEnded(record.clone()));
        }
        record.ended = Some(Ended { at: now, reason });
        Ok(RevokeOutcome::Ended(record.clone()))
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        let mut state = self.state();
        let State { sessions, epochs } = &mut *state;
        let epoch = epochs.entry(subject.to_owned()).or_default();
        *epoch = RevokedSubject::raised(*epoch, now);
        let mut ended = Vec::new();
        for (record, _) in sessions.values_mut() {
            let live = record.subject == subject && record.ended.is_none();
            if live && Some(record.id) != except {
                record.ended = Some(Ended { at: now, reason });
                ended.push(record.id);
            }
        }
        Ok(RevokedSubject {
            epoch: *epoch,
            ended,
        })
    }

    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let state = self.state();
        Ok(state.sessions.get(&id).map(|(record, _)| record.clone()))
    }

    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let mut list: Vec<_> = self
            .state()
            .sessions
            .values()
            .filter(|(record, _)| record.subject == subject && record.is_live(now))
            .map(|(record, _)| record.clone())
            .collect();
        list.sort_by_key(|record| std::cmp::Reverse(record.created_at));
        list.truncate(limit);
        Ok(list)
    }

    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        let state = self.state();
        let ended = state.sessions.values().filter_map(|(record, _)| {
            let ended = record.ended.filter(|ended| ended.at >= since)?;
            Some((record.id, ended))
        });
        Ok(ended.collect())
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let sessions = &mut self.state().sessions;
        let over: Vec<SessionId> = sessions
            .values()
            .filter(|(record, _)| {
                let ended = record.ended.is_some_and(|ended| ended.at < before);
                ended || record.expires_at < before
            })
            .map(|(record, _)| record.id)
            .take(limit)
            .collect();
        over.iter().for_each(|id| drop(sessions.remove(id)));
        Ok(over.len() as u64)
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
