//! Tokens that were verified, so that the same token costs its signature once.

use std::{
    any::{Any, TypeId},
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use zeroize::Zeroizing;

use super::{
    key_set::Prepared,
    verified::{Inner, Verified},
};
use crate::keyed::{Domain, digest};

/// How much a verifier remembers. 1,024 tokens and 4 MiB by default.
///
/// ```
/// use portcullis::jwt::CacheLimits;
///
/// let limits = CacheLimits::new().with_entries(10_000).with_bytes(32 << 20);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct CacheLimits {
    entries: usize,
    bytes: usize,
}

impl CacheLimits {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            entries: 1_024,
            bytes: 4 << 20,
        }
    }

    /// The most tokens that are remembered.
    pub const fn with_entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// The most bytes that the remembered tokens take, with all that is kept of them but what the
    /// application's type holds on the heap.
    pub const fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// Only verified tokens are in it, so nobody without a good token can fill it. It is found by a
/// keyed digest of the token's end, which is its signature and not to be chosen, and then compared
/// whole: no two tokens are ever taken for each other.
pub(crate) struct Cache {
    limits: CacheLimits,
    shards: Box<[RwLock<Shard>]>,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Place, Entry, BuildHasherDefault<Digested>>,
    /// Oldest first.
    order: VecDeque<Place>,
    bytes: usize,
}

/// Where a token stands, as claims of one type.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
struct Place {
    digest: u128,
    claims: TypeId,
}

struct Entry {
    token: Zeroizing<String>,
    verified: Arc<dyn Any + Send + Sync>,
    key: Arc<Prepared>,
    bytes: usize,
}

impl Cache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        // Few entries in many shards would make the limit uneven.
        let shards = (limits.entries / 64).clamp(1, MAX_SHARDS);
        Self {
            limits,
            shards: (0..shards).map(|_| RwLock::default()).collect(),
        }
    }

    /// A cache of the same limits that knows nothing.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(self.limits)
    }

    /// The token, if it was verified before with claims of this type by a key that `still_has`
    /// says still stands. One whose key is gone is forgotten.
    pub(crate) fn recall<C>(
        &self,
        token: &[u8],
        still_has: impl Fn(&Arc<Prepared>) -> bool,
    ) -> Option<Verified<C>>
    where
        C: Send + Sync + 'static,
    {
        let place = Place::of::<C>(token);
        let shard = self.shard(place);
        let known = shard.read().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entries.get(&place)?;
        if *entry.token.as_bytes() != *token {
            return None;
        }
        if !still_has(&entry.key) {
            drop(known);
            self.forget::<C>(token);
            return None;
        }
        let inner = Arc::clone(&entry.verified).downcast::<Inner<C>>().ok()?;
        Some(Verified::of(inner))
    }

    pub(crate) fn remember<C>(&self, token: &str, verified: &Verified<C>, key: &Arc<Prepared>)
    where
        C: Send + Sync + 'static,
    {
        let shards = self.shards.len();
        let max_entries = self.limits.entries / shards;
        let max_bytes = self.limits.bytes / shards;
        let bytes = token.len() + verified.bytes() + size_of::<Entry>() + 3 * size_of::<Place>();
        if max_entries == 0 || bytes > max_bytes {
            return;
        }
        let place = Place::of::<C>(token.as_bytes());
        let entry = Entry {
            token: Zeroizing::new(token.to_owned()),
            verified: verified.clone().into_inner(),
            key: Arc::clone(key),
            bytes,
        };
        let mut shard = self.write(place);
        shard.remove(place);
        shard.bytes += bytes;
        shard.entries.insert(place, entry);
        shard.order.push_back(place);
        while shard.entries.len() > max_entries || shard.bytes > max_bytes {
            let Some(oldest) = shard.order.front().copied() else {
                break;
            };
            shard.remove(oldest);
        }
    }

    pub(crate) fn forget<C: 'static>(&self, token: &[u8]) {
        let place = Place::of::<C>(token);
        self.write(place).remove(place);
    }

    pub(crate) fn len(&self) -> usize {
        let entries = |shard: RwLockReadGuard<'_, Shard>| shard.entries.len();
        self.shards
            .iter()
            .map(|shard| entries(shard.read().unwrap_or_else(PoisonError::into_inner)))
            .sum()
    }

    fn shard(&self, place: Place) -> &RwLock<Shard> {
        &self.shards[(place.digest >> 64) as usize % self.shards.len()]
    }

    fn write(&self, place: Place) -> RwLockWriteGuard<'_, Shard> {
        self.shard(place)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn remove(&mut self, place: Place) {
        if let Some(entry) = self.entries.remove(&place) {
            self.bytes -= entry.bytes;
            // The oldest goes first; anything else is rare, and the order is short.
            match self.order.front() {
                Some(first) if *first == place => drop(self.order.pop_front()),
                _ => self.order.retain(|other| *other != place),
            }
        }
    }
}

impl Place {
    fn of<C: 'static>(token: &[u8]) -> Self {
        let end = &token[token.len().saturating_sub(SIGNATURE_END)..];
        Self {
            digest: digest(Domain::Token, end),
            claims: TypeId::of::<C>(),
        }
    }
}

/// Passes a digest on: it is keyed and even already, and so is that of a type.
#[derive(Default)]
struct Digested(u64);

impl Hasher for Digested {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 ^= digest;
    }

    fn write_u128(&mut self, digest: u128) {
        self.0 ^= digest as u64;
    }
}

/// More than 128 bits of a signature in base64url: enough to tell tokens apart.
const SIGNATURE_END: usize = 23;
const MAX_SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        jwt::{AccessToken, Algorithm, Issuer, KeySet, SigningKey, Verifier},
        secret::{Secret, Secrets},
        time::UnixMillis,
    };

    /// Two threads may verify one token at once, and each remembers it.
    #[test]
    fn h08_a_token_that_is_remembered_twice_counts_once() {
        let secret = Secret::generate();
        let signing = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
        let now = UnixMillis::from_secs(1_700_000_000);
        let issuer = Issuer::new(signing, "issuer", "audience").unwrap();
        let keys = KeySet::from_secrets(Algorithm::HS256, &Secrets::new(secret)).unwrap();
        let prepared = Arc::clone(keys.current().keys().next().unwrap());
        let verifier = Verifier::new(keys, "issuer", "audience").unwrap();
        let issued = issuer.issue(&AccessToken::new("subject"), now).unwrap();
        let token = issued.as_str();
        let verified = verifier.verify(token, now).unwrap();

        let cache = Cache::new(CacheLimits::new());
        let size = || {
            let shards = cache.shards.iter().map(|shard| shard.read().unwrap());
            let of = |shard: RwLockReadGuard<'_, Shard>| {
                (shard.entries.len(), shard.order.len(), shard.bytes)
            };
            shards.map(of).fold((0, 0, 0), |sum, of| {
                (sum.0 + of.0, sum.1 + of.1, sum.2 + of.2)
            })
        };
        cache.remember(token, &verified, &prepared);
        let once = size();
        assert_eq!((once.0, once.1), (1, 1));
        cache.remember(token, &verified, &prepared);
        assert_eq!(size(), once);
        cache.forget::<()>(token.as_bytes());
        assert_eq!(size(), (0, 0, 0));
    }
}
