//! Refusals that still hold: they need no round trip.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::super::{key::Key, window::Left};
use crate::time::Monotonic;

/// A bounded memory of refusals. What it forgets costs a round trip and nothing else.
#[derive(Debug)]
pub(super) struct Denied {
    places: Box<[Mutex<Option<Entry>>]>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    policy: u64,
    key: Key,
    until: u64,
    ask_again: u64,
    units: u32,
}

impl Denied {
    pub(super) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn note(&self, policy: u64, key: Key, left: Left, now: Monotonic) {
        let now = now.as_nanos();
        let until = now.saturating_add(left.more_in);
        *self.place(policy, key) = Some(Entry {
            policy,
            key,
            until,
            ask_again: until.min(now + ASK_AGAIN.as_nanos() as u64),
            units: left.units,
        });
    }

    /// What is left to a key that is refused now, and how long it is.
    pub(super) fn get(&self, policy: u64, key: Key, now: Monotonic) -> Option<Left> {
        let entry = (*self.place(policy, key))?;
        let holds = entry.policy == policy && entry.key == key && now.as_nanos() < entry.ask_again;
        holds.then(|| Left {
            units: entry.units,
            more_in: entry.until - now.as_nanos(),
        })
    }

    pub(super) fn forget(&self, policy: u64, key: Key) {
        *self.place(policy, key) = None;
    }

    fn place(&self, policy: u64, key: Key) -> std::sync::MutexGuard<'_, Option<Entry>> {
        let place = self.hasher.hash_one((policy, key)) as usize % PLACES;
        self.places[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

const PLACES: usize = 8192;
/// How soon an operator's reset on another instance is felt.
const ASK_AGAIN: Duration = Duration::from_secs(5);
