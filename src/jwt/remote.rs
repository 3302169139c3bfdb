//! Keys from elsewhere: whoever fetches them, this decides when and what is believed.

use std::{
    error, fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    algorithm::{Algorithm, Family},
    crypto::default_provider,
    jwks::{Jwks, SkippedKey},
    key_set::KeySet,
    refresh::{Refresh, RefreshPolicy},
};
use crate::{
    context::Context,
    error::ConfigError,
    keyed::{Domain, digest},
};

/// Keys that are fetched from an issuer's JWK set, and stay fresh. See [`RefreshPolicy`] for when.
///
/// Until the first set came, and when the last is too old, a verifier of these keys answers
/// [`KeysUnavailable`](super::VerifyError::KeysUnavailable), which a layer answers with 503. A token
/// of a known key never waits for a fetch, and there is never more than one at a time.
///
/// The application brings the fetch, by the HTTP client that it has:
///
/// ```
/// use portcullis::{Context, jwt::{Fetched, FetchError, RefreshPolicy, RemoteKeys, Verifier}};
///
/// # async fn get(url: &str) -> Result<bytes::Bytes, std::io::Error> { Ok(bytes::Bytes::new()) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let remote = RemoteKeys::new(RefreshPolicy::new(), Context::new())?;
/// let verifier = Verifier::new(remote.key_set(), "https://id.example", "api")?;
/// tokio::spawn(remote.run(|| async {
///     let body = get("https://id.example/jwks.json").await.map_err(|_| FetchError::new())?;
///     Ok(Fetched::new(body))
/// }));
/// # drop(verifier);
/// # Ok(()) }
/// ```
#[must_use]
pub struct RemoteKeys {
    shared: Arc<Shared>,
    policy: RefreshPolicy,
    set: KeySet,
}

struct Shared {
    context: Context,
    allowed: RwLock<Vec<Algorithm>>,
    refresh: Mutex<Refresh>,
    wake: Notify,
}

/// What a fetch brought.
#[derive(Clone, Debug)]
#[must_use]
pub struct Fetched {
    body: Bytes,
    max_age: Option<Duration>,
}

impl Fetched {
    /// The body of a 200 answer.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            max_age: None,
        }
    }

    /// Adds the answer's `Cache-Control`, of which `max-age` is looked at (RFC 9111 section 5.2.2).
    pub fn with_cache_control(mut self, cache_control: &str) -> Self {
        self.max_age = cache_control
            .split(',')
            .filter_map(|directive| directive.trim().split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("max-age"))
            .and_then(|(_, seconds)| seconds.trim_matches('"').parse().ok())
            .map(Duration::from_secs);
        self
    }
}

/// A fetch brought nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct FetchError;

impl FetchError {
    /// The error. What went wrong is for the fetch to log.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keys could not be fetched")
    }
}

impl error::Error for FetchError {}

impl RemoteKeys {
    /// Keys for the algorithms of [`Algorithm::PUBLIC`].
    ///
    /// # Errors
    /// When no backend is there.
    pub fn new(policy: RefreshPolicy, context: Context) -> Result<Self, ConfigError> {
        let set = KeySet::unloaded(default_provider()?);
        let shared = Arc::new(Shared {
            refresh: Mutex::new(Refresh::new(policy, context.monotonic())),
            context,
            allowed: RwLock::new(Algorithm::PUBLIC.to_vec()),
            wake: Notify::new(),
        });
        let asked = Arc::downgrade(&shared);
        set.on_missing(Box::new(move |id, algorithm| {
            asked
                .upgrade()
                .is_some_and(|shared| shared.missing(id, algorithm))
        }));
        Ok(Self {
            shared,
            policy,
            set,
        })
    }

    /// Takes keys of these algorithms alone. Secrets are never taken from elsewhere.
    pub fn with_algorithms(self, allowed: impl IntoIterator<Item = Algorithm>) -> Self {
        let public = allowed
            .into_iter()
            .filter(|algorithm| algorithm.family() != Family::Hmac)
            .collect();
        *self
            .shared
            .allowed
            .write()
            .unwrap_or_else(PoisonError::into_inner) = public;
        self
    }

    /// The keys, for verifiers.
    #[must_use]
    pub fn key_set(&self) -> KeySet {
        self.set.clone()
    }

    /// Fetches the keys whenever it is time to. It never ends; dropping it ends it, and the keys
    /// then stand until they are too old.
    pub async fn run<F, R>(self, fetch: F)
    where
        F: Fn() -> R,
        R: Future<Output = Result<Fetched, FetchError>>,
    {
        loop {
            let wait = self.shared.wait();
            if !wait.is_zero() {
                // A wake only says that the wait may have become shorter.
                let _ = tokio::time::timeout(wait, self.shared.wake.notified()).await;
                continue;
            }
            let fetched = tokio::time::timeout(self.policy.timeout, fetch()).await;
            match fetched
                .unwrap_or(Err(FetchError))
                .and_then(|fetched| self.take(&fetched))
            {
                Ok(skipped) if skipped.is_empty() => {}
                Ok(skipped) => {
                    tracing::info!(target: "portcullis::jwt", ?skipped, "keys are passed over");
                }
                Err(FetchError) => {
                    self.shared.failed();
                    tracing::warn!(target: "portcullis::jwt", "keys could not be fetched");
                }
            }
        }
    }

    fn take(&self, fetched: &Fetched) -> Result<Vec<SkippedKey>, FetchError> {
        if fetched.body.len() > MAX_SET_BYTES {
            return Err(FetchError);
        }
        let jwks = Jwks::parse(&fetched.body, &self.shared.allowed()).map_err(|_| FetchError)?;
        let until = self
            .shared
            .context
            .wall()
            .saturating_add(self.policy.max_age);
        let skipped = self
            .set
            .replace_jwks_until(&jwks, Some(until))
            .map_err(|_| FetchError)?;
        let ids: Vec<_> = jwks
            .keys()
            .filter_map(|key| key.id())
            .map(id_digest)
            .collect();
        let now = self.shared.context.monotonic();
        self.shared
            .refresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .succeeded(now, fetched.max_age, |id| ids.contains(&id));
        Ok(skipped)
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("policy", &self.policy)
            .field("keys", &self.set)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn wait(&self) -> Duration {
        let now = self.context.monotonic();
        let refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        refresh.wait(now)
    }

    fn allowed(&self) -> RwLockReadGuard<'_, Vec<Algorithm>> {
        self.allowed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self, id: &str, algorithm: Algorithm) -> bool {
        if !self.allowed().contains(&algorithm) {
            return false;
        }
        let now = self.context.monotonic();
        let mut refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        if refresh.missing(id_digest(id), now) {
            self.wake.notify_one();
        }
        true
    }

    fn failed(&self) {
        let now = self.context.monotonic();
        let mut refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        refresh.failed(now);
    }
}

fn id_digest(id: &str) -> u128 {
    digest(Domain::Custom, id.as_bytes())
}

const MAX_SET_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_is_read_as_it_is_written() {
        let read = |field: &str| Fetched::new("").with_cache_control(field).max_age;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(read("public, max-age=300"), seconds(300));
        assert_eq!(read("Max-Age=\"7\""), seconds(7));
        for field in [
            "",
            "no-store",
            "max-age",
            "max-age=",
            "max-age=-1",
            "s-maxage=9",
        ] {
            assert_eq!(read(field), None, "{field}");
        }
    }
}
