//! Keys in this process's memory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    ApiKeyId, ApiKeyRecord, ApiKeyStore, CreateOutcome, KeyRotation, RotateOutcome, StoreError,
    StoreErrorKind, StoredKey,
};
use crate::time::UnixMillis;

/// Keys in memory: for tests, and for services whose keys need not outlive the process.
///
/// It is bounded: when it is full it refuses new keys ([`StoreErrorKind::Full`]); it never forgets
/// one that is live.
pub struct MemoryKeys {
    tables: Mutex<Tables>,
    capacity: usize,
}

#[derive(Default)]
struct Tables {
    rows: HashMap<ApiKeyId, StoredKey>,
    subjects: HashMap<String, Vec<ApiKeyId>>,
}

impl MemoryKeys {
    /// A store of at most 100,000 keys.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// A store of at most `keys` keys.
    #[must_use]
    pub fn with_capacity(keys: usize) -> Self {
        Self {
            tables: Mutex::default(),
            capacity: keys,
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn of<'a>(&'a self, subject: &str) -> impl Iterator<Item = &'a ApiKeyRecord> + use<'a> {
        let ids = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        ids.iter()
            .filter_map(|id| self.rows.get(id).map(|key| &key.record))
    }

    fn live(&self, subject: &str, now: UnixMillis, replaced: bool) -> usize {
        let keys = self.of(subject);
        keys.filter(|key| key.is_live(now) && key.is_replaced == replaced)
            .count()
    }

    fn add(&mut self, key: StoredKey, capacity: usize) -> Result<(), StoreError> {
        let ApiKeyRecord { id, subject, .. } = &key.record;
        if self.rows.contains_key(id) {
            return Err(StoreErrorKind::Conflict.into());
        }
        if self.rows.len() >= capacity {
            self.clear(key.record.created_at, usize::MAX);
        }
        if self.rows.len() >= capacity {
            return Err(StoreErrorKind::Full.into());
        }
        self.subjects.entry(subject.clone()).or_default().push(*id);
        self.rows.insert(*id, key);
        Ok(())
    }

    fn clear(&mut self, before: UnixMillis, limit: usize) -> u64 {
        let over = self.rows.values().map(|key| &key.record).filter(|key| {
            let end = key
                .revoked_at
                .map_or(key.expires_at, |at| at.min(key.expires_at));
            end < before
        });
        let over: Vec<ApiKeyId> = over.map(|key| key.id).take(limit).collect();
        for id in &over {
            let Some(key) = self.rows.remove(id) else {
                continue;
            };
            let subject = key.record.subject;
            if let Some(ids) = self.subjects.get_mut(&subject) {
                ids.retain(|other| other != id);
                if ids.is_empty() {
                    self.subjects.remove(&subject);
                }
            }
        }
        over.len() as u64
    }
}

impl ApiKeyStore for MemoryKeys {
    async fn create(&self, key: StoredKey, most: usize) -> Result<CreateOutcome, StoreError> {
        let mut tables = self.tables();
        if tables.live(&key.record.subject, key.record.created_at, false) >= most {
            return Ok(CreateOutcome::TooMany);
        }
        tables.add(key, self.capacity)?;
        Ok(CreateOutcome::Created)
    }

    async fn get(&self, id: ApiKeyId) -> Result<Option<StoredKey>, StoreError> {
        Ok(self.tables().rows.get(&id).cloned())
    }

    async fn list(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let tables = self.tables();
        let mut keys: Vec<_> = tables.of(subject).filter(|key| key.is_live(now)).collect();
        // Those of one millisecond in the order of their making.
        keys.reverse();
        keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
        Ok(keys.into_iter().take(limit).cloned().collect())
    }

    async fn rotate(&self, rotation: KeyRotation) -> Result<RotateOutcome, StoreError> {
        let KeyRotation {
            old,
            old_end,
            new,
            most,
        } = rotation;
        let now = new.record.created_at;
        let mut tables = self.tables();
        let found = tables.rows.get(&old).is_some_and(|key| {
            let record = &key.record;
            record.subject == new.record.subject && record.is_live(now) && !record.is_replaced
        });
        if !found {
            return Ok(RotateOutcome::NotFound);
        }
        if tables.live(&new.record.subject, now, true) >= most {
            return Ok(RotateOutcome::TooMany);
        }
        tables.add(new, self.capacity)?;
        if let Some(key) = tables.rows.get_mut(&old) {
            key.record.is_replaced = true;
            key.record.expires_at = key.record.expires_at.min(old_end);
        }
        Ok(RotateOutcome::Rotated)
    }

    async fn revoke(
        &self,
        id: ApiKeyId,
        subject: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut tables = self.tables();
        let key = tables.rows.get_mut(&id).map(|key| &mut key.record);
        let Some(key) = key.filter(|key| key.subject == subject && key.is_live(now)) else {
            return Ok(false);
        };
        key.revoked_at = Some(now);
        Ok(true)
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        now: UnixMillis,
    ) -> Result<Vec<ApiKeyId>, StoreError> {
        let mut tables = self.tables();
        let live = tables.of(subject).filter(|key| key.is_live(now));
        let live: Vec<ApiKeyId> = live.map(|key| key.id).collect();
        for id in &live {
            if let Some(key) = tables.rows.get_mut(id) {
                key.record.revoked_at = Some(now);
            }
        }
        Ok(live)
    }

    async fn ended_since(&self, since: UnixMillis) -> Result<Vec<ApiKeyId>, StoreError> {
        let tables = self.tables();
        let records = || tables.rows.values().map(|key| &key.record);
        let revoked = records().filter(|key| key.revoked_at.is_some_and(|at| at >= since));
        let replacing = records().filter(|key| key.created_at >= since);
        Ok(revoked
            .map(|key| key.id)
            .chain(replacing.filter_map(|key| key.replaces))
            .collect())
    }

    async fn touch(&self, used: &[(ApiKeyId, UnixMillis)]) -> Result<(), StoreError> {
        let mut tables = self.tables();
        for (id, at) in used {
            if let Some(key) = tables.rows.get_mut(id) {
                key.record.last_used_at = key.record.last_used_at.max(Some(*at));
            }
        }
        Ok(())
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        Ok(self.tables().clear(before, limit))
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Default for MemoryKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeys")
            .field("keys", &self.tables().rows.len())
            .finish_non_exhaustive()
    }
}

const CAPACITY: usize = 100_000;
