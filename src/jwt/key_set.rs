//! Sets of keys that can change while they are used.

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use super::{
    algorithm::{Algorithm, Family},
    crypto::{CryptoProvider, Verifier, default_provider},
    error::VerifyError,
    header::{Header, TokenKind},
    jwks::{Jwks, SkipReason, SkippedKey},
    keys::VerifyingKey,
};
use crate::{error::ConfigError, secret::Secrets, time::UnixMillis};

/// A handle on a set of keys; clones share it, and a change is seen by every verifier at once.
///
/// ```
/// use portcullis::{jwt::{Algorithm, KeySet}, secret::{Secret, Secrets}};
///
/// let secrets = Secrets::new(Secret::generate()).with_previous([Secret::generate()]);
/// let keys = KeySet::from_secrets(Algorithm::HS256, &secrets)?;
/// assert_eq!(keys.len(), 2);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct KeySet {
    shared: Arc<Shared>,
}

struct Shared {
    provider: &'static dyn CryptoProvider,
    current: RwLock<Arc<Keys>>,
    /// Told of an id that no key has, where somebody can look for it.
    missing: OnceLock<Box<Missing>>,
}

/// Hears of an id, and says whether there could be such a key of that algorithm.
type Missing = dyn Fn(&str, Algorithm) -> bool + Send + Sync;

impl KeySet {
    /// These keys.
    ///
    /// # Errors
    /// When there is none, when secrets stand beside public keys (RFC 8725 section 3.1), when two
    /// different keys of one algorithm have one id, or when a key is not usable.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Result<Self, ConfigError> {
        Self::with_provider(default_provider()?, keys)
    }

    /// These keys, used by a backend that the application brings.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_provider(
        provider: &'static dyn CryptoProvider,
        keys: impl IntoIterator<Item = VerifyingKey>,
    ) -> Result<Self, ConfigError> {
        let set = Self::unloaded(provider);
        set.replace(keys)?;
        Ok(set)
    }

    /// The current secret and the previous ones: all of them verify.
    ///
    /// # Errors
    /// As [`VerifyingKey::secret`] and [`new`](Self::new).
    pub fn from_secrets(algorithm: Algorithm, secrets: &Secrets) -> Result<Self, ConfigError> {
        let keys: Result<Vec<_>, _> = secrets
            .iter()
            .map(|secret| VerifyingKey::secret(algorithm, secret))
            .collect();
        Self::new(keys?)
    }

    /// The keys of a JWK set (RFC 7517 section 5), as [`Jwks::parse`] reads it, and those that are
    /// passed over. One bad key never loses the others.
    ///
    /// # Errors
    /// When the text is no JWK set, or holds no usable key.
    pub fn from_jwks(
        json: &[u8],
        allowed: &[Algorithm],
    ) -> Result<(Self, Vec<SkippedKey>), ConfigError> {
        let set = Self::unloaded(default_provider()?);
        let skipped = set.replace_jwks(&Jwks::parse(json, allowed)?)?;
        Ok((set, skipped))
    }

    /// A set that has no keys yet: tokens are refused with
    /// [`KeysUnavailable`](VerifyError::KeysUnavailable), which is 503.
    pub(crate) fn unloaded(provider: &'static dyn CryptoProvider) -> Self {
        Self {
            shared: Arc::new(Shared {
                provider,
                current: RwLock::new(Arc::new(Keys {
                    all: Vec::new(),
                    usable_until: None,
                })),
                missing: OnceLock::new(),
            }),
        }
    }

    /// Replaces every key at once. A token of a key that is gone is refused from now on, cached or
    /// not.
    ///
    /// # Errors
    /// As [`new`](Self::new); the keys that stood then stand on.
    pub fn replace(&self, keys: impl IntoIterator<Item = VerifyingKey>) -> Result<(), ConfigError> {
        let mut next = self.next();
        for key in keys {
            next.add(key).map_err(Fault::into_error)?;
        }
        self.set(next, None)
    }

    /// Replaces every key at once by those of a JWK set.
    ///
    /// # Errors
    /// When it holds no usable key; the keys that stood then stand on.
    pub fn replace_jwks(&self, jwks: &Jwks) -> Result<Vec<SkippedKey>, ConfigError> {
        self.replace_jwks_until(jwks, None)
    }

    pub(crate) fn replace_jwks_until(
        &self,
        jwks: &Jwks,
        usable_until: Option<UnixMillis>,
    ) -> Result<Vec<SkippedKey>, ConfigError> {
        let mut next = self.next();
        let mut skipped = jwks.skipped().to_vec();
        for (index, key) in jwks.indexed() {
            let id = key.id().map(Into::into);
            if let Err(fault) = next.add(key.clone()) {
                let reason = match fault {
                    Fault::SameId => SkipReason::DuplicateId,
                    Fault::Unusable(_) => SkipReason::Malformed,
                };
                skipped.push(SkippedKey::new(index, id, reason));
            }
        }
        skipped.sort_by_key(SkippedKey::index);
        self.set(next, usable_until)?;
        Ok(skipped)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current().all.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys as they are now.
    pub(crate) fn current(&self) -> Arc<Keys> {
        self.shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether `key` is one of the keys, and they may be used at `now`.
    pub(crate) fn still_has(&self, key: &Arc<Prepared>, now: UnixMillis) -> bool {
        let keys = self
            .shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        keys.contains(key) && keys.check(now).is_ok()
    }

    /// Tells of ids that no key has.
    pub(crate) fn on_missing(&self, hook: Box<Missing>) {
        let _ = self.shared.missing.set(hook);
    }

    /// Has a key looked for that is not here, and says what its lack is.
    pub(crate) fn look_for(&self, header: &Header<'_>, lack: VerifyError) -> VerifyError {
        match (self.shared.missing.get(), header.key_id()) {
            // An issuer may turn to an algorithm that it had no key for.
            (Some(hook), Some(id)) if hook(id, header.algorithm) => VerifyError::UnknownKey,
            _ => lack,
        }
    }

    fn next(&self) -> Next {
        Next {
            provider: self.shared.provider,
            before: self.current(),
            all: Vec::new(),
        }
    }

    fn set(&self, next: Next, usable_until: Option<UnixMillis>) -> Result<(), ConfigError> {
        let keys = Arc::new(next.finish(usable_until)?);
        let mut current = self
            .shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = keys;
        Ok(())
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.current().keys()).finish()
    }
}

/// A set of keys that does not change.
pub(crate) struct Keys {
    all: Vec<Slot>,
    /// When keys that came from elsewhere are too old to be trusted.
    usable_until: Option<UnixMillis>,
}

/// A key in its set.
pub(crate) struct Slot {
    pub(crate) key: Arc<Prepared>,
    /// The header of a token that this key verified. An issuer writes the same header time after
    /// time, and one that is known byte for byte need not be read again. Which key a header chooses
    /// depends on the set, so it is forgotten with it.
    known_header: OnceLock<KnownHeader>,
}

/// A key, ready to be used.
pub(crate) struct Prepared {
    id: Option<Box<str>>,
    pub(crate) algorithm: Algorithm,
    thumbprint: [u8; 32],
    verifier: Box<dyn Verifier>,
}

struct KnownHeader {
    segment: Box<str>,
    kind: TokenKind,
}

/// A set in the making.
struct Next {
    provider: &'static dyn CryptoProvider,
    before: Arc<Keys>,
    all: Vec<Arc<Prepared>>,
}

enum Fault {
    SameId,
    Unusable(ConfigError),
}

impl Fault {
    fn into_error(self) -> ConfigError {
        match self {
            Self::SameId => ConfigError::new("key set", "two different keys have one id"),
            Self::Unusable(error) => error,
        }
    }
}

impl Next {
    fn add(&mut self, key: VerifyingKey) -> Result<(), Fault> {
        let thumbprint = key.material().thumbprint();
        let has_its_name = |other: &&Arc<Prepared>| {
            other.algorithm == key.algorithm() && other.id.as_deref() == key.id()
        };
        let twin = self.all.iter().filter(has_its_name).find(|other| {
            // Keys without an id have no name to be mistaken by.
            key.id().is_some() || other.thumbprint == thumbprint
        });
        match twin {
            Some(twin) if twin.thumbprint == thumbprint => return Ok(()),
            Some(_) => return Err(Fault::SameId),
            None => {}
        }
        // A key that stays is the same key: what was verified with it stays verified.
        let stays = self
            .before
            .keys()
            .filter(has_its_name)
            .find(|other| other.thumbprint == thumbprint);
        if let Some(same) = stays {
            self.all.push(Arc::clone(same));
            return Ok(());
        }
        let verifier = self
            .provider
            .verifier(key.algorithm(), key.material().as_public_key())
            .map_err(Fault::Unusable)?;
        self.all.push(Arc::new(Prepared {
            id: key.id().map(Into::into),
            algorithm: key.algorithm(),
            thumbprint,
            verifier,
        }));
        Ok(())
    }

    fn finish(self, usable_until: Option<UnixMillis>) -> Result<Keys, ConfigError> {
        let refuse = |problem| Err(ConfigError::new("key set", problem));
        if self.all.is_empty() {
            return refuse("needs at least one usable key");
        }
        let is_secret = |key: &&Arc<Prepared>| key.algorithm.family() == Family::Hmac;
        let secrets = self.all.iter().filter(is_secret).count();
        if secrets != 0 && secrets != self.all.len() {
            return refuse("secrets and public keys do not stand in one set");
        }
        Ok(Keys {
            all: self.all.into_iter().map(Slot::new).collect(),
            usable_until,
        })
    }
}

impl Keys {
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<Prepared>> {
        self.all.iter().map(|slot| &slot.key)
    }

    /// Whether there are keys that may be used at `now`.
    pub(crate) fn check(&self, now: UnixMillis) -> Result<(), VerifyError> {
        if self.all.is_empty() || self.usable_until.is_some_and(|until| now >= until) {
            return Err(VerifyError::KeysUnavailable);
        }
        Ok(())
    }

    /// Whether a key that verified something is one of these.
    fn contains(&self, key: &Arc<Prepared>) -> bool {
        self.keys().any(|other| Arc::ptr_eq(other, key))
    }

    /// The key that a header segment is known from, and the token's kind.
    pub(crate) fn recall(&self, segment: &str) -> Option<(&Slot, TokenKind)> {
        self.all.iter().find_map(|slot| {
            let known = slot.known_header.get()?;
            (*known.segment == *segment).then_some((slot, known.kind))
        })
    }

    /// The keys that a token with this header may be signed with.
    pub(crate) fn candidates(&self, header: &Header<'_>) -> Result<Candidates<'_>, VerifyError> {
        let matching = || {
            self.all
                .iter()
                .filter(|slot| slot.key.algorithm == header.algorithm)
        };
        if matching().next().is_none() {
            return Err(VerifyError::AlgorithmNotAllowed);
        }
        let is_named = |slot: &Slot| slot.key.id.as_deref() == header.key_id();
        let any_named = header.key_id().is_some() && matching().any(is_named);
        let fits = |slot: &&Slot| match header.key_id() {
            Some(_) if any_named => is_named(slot),
            // A key without an id stands for every id that is no other key's.
            Some(_) => slot.key.id.is_none(),
            None => true,
        };
        let mut found = [None; MAX_CANDIDATES];
        for (place, slot) in found.iter_mut().zip(matching().filter(fits)) {
            *place = Some(slot);
        }
        if found[0].is_none() {
            return Err(VerifyError::UnknownKey);
        }
        Ok(Candidates { found })
    }
}

/// A bounded number of keys: a token cannot buy many signature checks.
pub(crate) struct Candidates<'a> {
    found: [Option<&'a Slot>; MAX_CANDIDATES],
}

impl<'a> Candidates<'a> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a Slot> {
        self.found.iter().map_while(|slot| *slot)
    }
}

impl Slot {
    fn new(key: Arc<Prepared>) -> Self {
        Self {
            key,
            known_header: OnceLock::new(),
        }
    }

    pub(crate) fn verify(&self, message: &str, signature: &[u8]) -> bool {
        self.key.verifier.verify(message.as_bytes(), signature)
    }

    /// Remembers the header of a token that this key verified.
    pub(crate) fn remember(&self, segment: &str, kind: TokenKind) {
        if self.known_header.get().is_none() {
            let _ = self.known_header.set(KnownHeader {
                segment: segment.into(),
                kind,
            });
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

const MAX_CANDIDATES: usize = 8;
