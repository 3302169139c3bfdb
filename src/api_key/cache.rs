//! What is remembered of keys between calls of the store.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    format::{ApiKeyId, Presented},
    keys::UsedKey,
};
use crate::time::{Monotonic, UnixMillis};

/// Keys that were found in the store a moment ago. Only keys that verified enter, so that guesses
/// push nothing out.
#[derive(Default)]
pub(super) struct Cache {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    keys: HashMap<ApiKeyId, Entry>,
    /// Counts what was taken out: an answer of the store that is older must not be put in.
    removals: u64,
    swept_at: Monotonic,
}

struct Entry {
    presented: Presented,
    key: UsedKey,
    until: Monotonic,
}

/// When the store was asked.
#[derive(Clone, Copy)]
pub(super) struct Asked(u64);

impl Cache {
    pub(super) fn get(&self, presented: &Presented, now: Monotonic) -> Option<UsedKey> {
        let table = self.table();
        let entry = table.keys.get(&presented.id)?;
        (now < entry.until && entry.presented.digest == presented.digest).then(|| entry.key.clone())
    }

    pub(super) fn asked(&self) -> Asked {
        Asked(self.table().removals)
    }

    pub(super) fn put(
        &self,
        presented: Presented,
        key: UsedKey,
        asked: Asked,
        now: Monotonic,
        keep: Duration,
    ) {
        let mut table = self.table();
        if table.removals != asked.0 || keep.is_zero() {
            return;
        }
        if table.keys.len() >= MAX_KEYS && table.swept_at.saturating_add(keep) <= now {
            table.swept_at = now;
            table.keys.retain(|_, entry| now < entry.until);
        }
        if table.keys.len() < MAX_KEYS || table.keys.contains_key(&presented.id) {
            let entry = Entry {
                presented,
                key,
                until: now.saturating_add(keep),
            };
            table.keys.insert(presented.id, entry);
        }
    }

    pub(super) fn remove(&self, id: ApiKeyId) {
        let mut table = self.table();
        table.removals += 1;
        table.keys.remove(&id);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When keys were used and the store has not been told.
#[derive(Default)]
pub(super) struct Uses {
    inner: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    used: HashMap<ApiKeyId, UnixMillis>,
    told_at: Monotonic,
    /// Keys whose use after their replacement was told.
    replaced: HashSet<ApiKeyId>,
}

impl Uses {
    /// Notes a use; what to tell the store, when it is time.
    pub(super) fn note(
        &self,
        id: ApiKeyId,
        at: UnixMillis,
        now: Monotonic,
    ) -> Option<Vec<(ApiKeyId, UnixMillis)>> {
        let mut pending = self.inner();
        pending.used.insert(id, at);
        let due = pending.told_at.saturating_add(TELL_EVERY) <= now;
        if !due && pending.used.len() < MAX_KEYS {
            return None;
        }
        pending.told_at = now;
        Some(mem::take(&mut pending.used).into_iter().collect())
    }

    /// When a key was used, if the store does not know.
    pub(super) fn of(&self, id: ApiKeyId) -> Option<UnixMillis> {
        self.inner().used.get(&id).copied()
    }

    /// What the store has not been told.
    pub(super) fn take(&self) -> Vec<(ApiKeyId, UnixMillis)> {
        mem::take(&mut self.inner().used).into_iter().collect()
    }

    /// Notes again what the store did not take.
    pub(super) fn put_back(&self, used: Vec<(ApiKeyId, UnixMillis)>) {
        let mut pending = self.inner();
        for (id, at) in used {
            if pending.used.len() >= MAX_KEYS {
                break;
            }
            pending.used.entry(id).or_insert(at);
        }
    }

    /// Whether this is the first use of a key that was replaced.
    pub(super) fn is_first_after_replacement(&self, id: ApiKeyId) -> bool {
        let mut pending = self.inner();
        pending.replaced.len() < MAX_KEYS && pending.replaced.insert(id)
    }

    fn inner(&self) -> MutexGuard<'_, Pending> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_KEYS: usize = 10_000;
const TELL_EVERY: Duration = Duration::from_secs(60);
