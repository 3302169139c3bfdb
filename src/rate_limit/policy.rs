//! What a limit says: how many, in how long, counted how, by what key.

use std::{fmt, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    key::{Key, KeySource},
    window::Window,
};
use crate::{error::ConfigError, head::Head};

/// A named limit: so many units in so long a window, for each key.
///
/// | constructor | most in any window | steady rate | first retry after a full burst | remembers a key for | bytes of state |
/// |---|---|---|---|---|---|
/// | [`strict`](Self::strict), up to 16 | N, exactly | N | one window | one window | 4 N |
/// | [`strict`](Self::strict), above 16 | N | 0.94 N at least | 1 to 1 1/15 windows | 1 1/15 windows | 24 (N ≤ 255), 40, or 72 |
/// | [`smooth`](Self::smooth) | 2 N - 1 | N | 1/N of a window | until it is replenished | 8 |
///
/// By default the key is the client's network: the IPv4 address, or the IPv6 /64, which is also
/// counted under its /48 at 16 times the limit, since whoever holds a /48 holds 65,536 of the
/// former.
///
/// ```
/// use portcullis::rate_limit::Policy;
/// use std::time::Duration;
///
/// let window = Duration::from_secs(15 * 60);
/// let strict = Policy::strict("auth", 5, window)?;
/// assert_eq!(strict.worst_case_in_window(), 5);
/// let smooth = Policy::smooth("auth", 5, window)?;
/// assert_eq!(smooth.worst_case_in_window(), 9);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Policy {
    name: Arc<str>,
    limit: u32,
    window: Duration,
    algorithm: Algorithm,
    cost: u32,
    key: KeySource,
    missing: MissingKey,
    capacity: usize,
    quota: Option<Quota>,
    refund: Option<fn(StatusCode) -> bool>,
    shadow: bool,
    #[cfg(feature = "redis")]
    outage: super::redis::Outage,
}

type Quota = Arc<dyn Fn(Head<'_>) -> Option<u32> + Send + Sync>;

/// How a policy counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Algorithm {
    Strict,
    Smooth,
}

/// What a policy does with a request that has no key. It is reported once, as an event of kind
/// [`Misconfigured`](crate::event::EventKind::Misconfigured).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum MissingKey {
    /// All such requests share one bucket of the policy's limit.
    #[default]
    Shared,
    /// They are refused: 400.
    Reject,
    /// They are not counted by this policy.
    Skip,
}

impl Policy {
    /// Never more than `limit` in any `window`, whatever its beginning.
    ///
    /// Up to 16 the times of the charges are kept and the promise is exact; above, counts of 16
    /// segments, and a charge may be remembered a fifteenth of the window longer than it must.
    ///
    /// # Errors
    /// When the name is not 1 to 64 printable ASCII characters, the limit is not 1 to 100,000,000,
    /// or the window is not 1 ms to 366 days.
    pub fn strict(
        name: impl Into<Arc<str>>,
        limit: u32,
        window: Duration,
    ) -> Result<Self, ConfigError> {
        Self::new(name.into(), limit, window, Algorithm::Strict)
    }

    /// A burst of `limit`, then one each `window / limit` (GCRA, judged by `governor`).
    ///
    /// It keeps 8 bytes and forgets soonest, and it admits up to `2 * limit - 1` in the window
    /// that begins with a burst. For pacing, not for promises such as "5 attempts".
    ///
    /// # Errors
    /// As for [`strict`](Self::strict), and when the limit is above one for each nanosecond.
    pub fn smooth(
        name: impl Into<Arc<str>>,
        limit: u32,
        window: Duration,
    ) -> Result<Self, ConfigError> {
        Self::new(name.into(), limit, window, Algorithm::Smooth)
    }

    /// Charges `cost` units for each request instead of 1.
    ///
    /// # Errors
    /// When the cost is 0 or above the limit.
    pub fn with_cost(self, cost: u32) -> Result<Self, ConfigError> {
        if cost == 0 || cost > self.limit {
            return Err(ConfigError::new(
                "rate limit cost",
                "must be at least 1 and at most the limit",
            ));
        }
        Ok(Self { cost, ..self })
    }

    /// Counts by the client's network, which is the default: the IPv4 address, or the IPv6 /64
    /// together with its /48 at 16 times the limit.
    pub fn by_client(self) -> Self {
        Self {
            key: KeySource::Client,
            ..self
        }
    }

    /// Counts by the subject of the [`Identity`](crate::Identity), so behind authentication.
    pub fn by_subject(self) -> Self {
        Self {
            key: KeySource::Subject,
            ..self
        }
    }

    /// Counts by whatever the closure makes of the request.
    ///
    /// ```
    /// use portcullis::rate_limit::{Key, Policy};
    /// use std::time::Duration;
    ///
    /// let tenants = Policy::strict("tenant", 1_000, Duration::from_secs(60))?
    ///     .by(|head| Some(Key::of(head.headers.get("x-tenant")?)));
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn by<F>(self, key: F) -> Self
    where
        F: Fn(Head<'_>) -> Option<Key> + Send + Sync + 'static,
    {
        Self {
            key: KeySource::Custom(Arc::new(key)),
            ..self
        }
    }

    /// Says what happens to a request without a key.
    pub fn with_missing_key(self, missing: MissingKey) -> Self {
        Self { missing, ..self }
    }

    /// Holds at most `keys` keys of each kind (IPv4, IPv6, others) instead of 196,608.
    ///
    /// # Errors
    /// When `keys` is not 64 to 100,000,000.
    pub fn with_capacity(self, keys: usize) -> Result<Self, ConfigError> {
        if !(MIN_CAPACITY..=MAX_CAPACITY).contains(&keys) {
            return Err(ConfigError::new(
                "rate limit capacity",
                "must be 64 to 100000000 keys",
            ));
        }
        Ok(Self {
            capacity: keys,
            ..self
        })
    }

    /// Gives some keys a lower limit than the policy's, which stays the highest; `None` is the
    /// policy's own. The fields show what is left of it, and `q` of the policy.
    ///
    /// ```
    /// use portcullis::rate_limit::Policy;
    /// use std::time::Duration;
    ///
    /// let policy = Policy::strict("general", 1_000, Duration::from_secs(900))?
    ///     .with_quota(|head| (!head.headers.contains_key("x-paid")).then_some(100));
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn with_quota<F>(self, quota: F) -> Self
    where
        F: Fn(Head<'_>) -> Option<u32> + Send + Sync + 'static,
    {
        Self {
            quota: Some(Arc::new(quota)),
            ..self
        }
    }

    /// Counts failures alone: responses under 400 are given back.
    ///
    /// Every request is charged first, so guesses that run side by side cannot pass together, and
    /// a request whose response never came (the client hung up) stays charged.
    pub fn failures_only(self) -> Self {
        self.refund_when(|status| status.as_u16() < 400)
    }

    /// Gives back the charge of a request whose response has a status for which `refund` is true.
    pub fn refund_when(self, refund: fn(StatusCode) -> bool) -> Self {
        Self {
            refund: Some(refund),
            ..self
        }
    }

    /// Counts, and never refuses: what would have been refused is sent as an event with the reason
    /// `shadow`, and counted by [`Handle::shadow_refusals`](super::Handle::shadow_refusals). The
    /// policy does not stand in the fields.
    pub fn shadow(self) -> Self {
        Self {
            shadow: true,
            ..self
        }
    }

    /// Says what the policy does while Redis, which [holds it](super::redis), is away.
    ///
    /// # Errors
    /// When a policy that counts failures alone is to open: it guards credentials.
    #[cfg(feature = "redis")]
    pub fn on_outage(self, outage: super::redis::Outage) -> Result<Self, ConfigError> {
        if outage == super::redis::Outage::Open && self.refund.is_some() {
            return Err(ConfigError::new(
                "rate limit outage",
                "must not open a policy that gives charges back, since it guards credentials",
            ));
        }
        Ok(Self { outage, ..self })
    }

    /// The name, as it stands in the fields and in [`only`](super::RateLimitLayer::only).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Units in a window.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The window.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Units that a request costs.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// The most units that any window admits to one key: the limit of a strict policy, about twice
    /// as much for a smooth one.
    #[must_use]
    pub fn worst_case_in_window(&self) -> u32 {
        self.counter(self.limit).worst_case(self.limit)
    }

    /// Bytes of state for each key, beside the key itself (8 bytes for IPv4, 12 for IPv6, 20 for
    /// any other) and the room that a table keeps free (a quarter at least).
    #[must_use]
    pub fn state_bytes_per_key(&self) -> usize {
        self.counter(self.limit).words() * size_of::<u32>()
    }

    /// Whether the key is taken from an [`Identity`](crate::Identity), which only a gate further
    /// out can leave with the request.
    #[must_use]
    pub fn needs_identity(&self) -> bool {
        matches!(self.key, KeySource::Subject)
    }

    pub(super) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn source(&self) -> &KeySource {
        &self.key
    }

    #[inline]
    pub(super) fn quota(&self, head: Head<'_>) -> Option<u32> {
        self.quota.as_ref().and_then(|quota| quota(head))
    }

    #[inline]
    pub(super) fn refunds(&self) -> bool {
        self.refund.is_some()
    }

    pub(super) fn gives_back(&self, status: StatusCode) -> bool {
        self.refund.is_some_and(|refund| refund(status))
    }

    #[inline]
    pub(super) fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// Whether the policy only counts clients: the same for all, nothing given back, not in shadow.
    pub(super) fn is_plain(&self) -> bool {
        self.key.is_client() && self.quota.is_none() && self.refund.is_none() && !self.shadow
    }

    /// Whether the policy could have this limit.
    pub(super) fn check_limit(&self, limit: u32) -> Result<(), ConfigError> {
        Self::check(limit, self.window, self.algorithm)?;
        if self.cost > limit {
            return Err(ConfigError::new(
                "rate limit",
                "must not be below the cost of a request",
            ));
        }
        Ok(())
    }

    #[cfg(feature = "redis")]
    pub(super) fn outage(&self) -> super::redis::Outage {
        self.outage
    }

    #[cfg(feature = "redis")]
    pub(super) fn is_strict(&self) -> bool {
        self.algorithm == Algorithm::Strict
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn missing(&self) -> MissingKey {
        self.missing
    }

    /// The window that counts up to `limit` in this policy's way.
    pub(super) fn counter(&self, limit: u32) -> Window {
        let span = self.window.as_nanos() as u64;
        match self.algorithm {
            Algorithm::Strict => Window::strict(limit, span),
            Algorithm::Smooth => Window::smooth(limit, span),
        }
    }

    fn new(
        name: Arc<str>,
        limit: u32,
        window: Duration,
        algorithm: Algorithm,
    ) -> Result<Self, ConfigError> {
        let printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !printable || !(1..=MAX_NAME).contains(&name.len()) {
            return Err(ConfigError::new(
                "rate limit name",
                "must be 1 to 64 printable ASCII characters",
            ));
        }
        Self::check(limit, window, algorithm)?;
        Ok(Self {
            name,
            limit,
            window,
            algorithm,
            cost: 1,
            key: KeySource::Client,
            missing: MissingKey::default(),
            capacity: DEFAULT_CAPACITY,
            quota: None,
            refund: None,
            shadow: false,
            #[cfg(feature = "redis")]
            outage: super::redis::Outage::default(),
        })
    }

    fn check(limit: u32, window: Duration, algorithm: Algorithm) -> Result<(), ConfigError> {
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(ConfigError::new(
                "rate limit",
                "must be 1 to 100000000 in a window",
            ));
        }
        if !(MIN_WINDOW..=MAX_WINDOW).contains(&window) {
            return Err(ConfigError::new(
                "rate limit window",
                "must be 1 ms to 366 days",
            ));
        }
        if algorithm == Algorithm::Smooth && u128::from(limit) > window.as_nanos() {
            return Err(ConfigError::new(
                "rate limit",
                "must be at most one for each nanosecond of the window",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("window", &self.window)
            .field("algorithm", &self.algorithm)
            .field("cost", &self.cost)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

const MAX_NAME: usize = 64;
const MAX_LIMIT: u32 = 100_000_000;
const MIN_WINDOW: Duration = Duration::from_millis(1);
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const DEFAULT_CAPACITY: usize = 196_608;
const MIN_CAPACITY: usize = 64;
const MAX_CAPACITY: usize = 100_000_000;
