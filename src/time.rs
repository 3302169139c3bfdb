//! Time as a parameter: a monotonic reading for limits, a wall reading for tokens.
//!
//! Every gate reads time through a [`Clock`], so a test moves time by hand and never sleeps.
//!
//! Deployment caveat: tokens of several servers are judged by the wall clock of each. Keep them within
//! 5 s of each other (NTP).
//!
//! ```
//! use portcullis::time::{Clock, ManualClock};
//! use std::time::Duration;
//!
//! let clock = ManualClock::new();
//! let before = clock.wall();
//! clock.advance(Duration::from_secs(60));
//! assert_eq!(clock.wall().saturating_since(before), Duration::from_secs(60));
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where the gates read time.
///
/// Monotonic readings never go back and have no fixed origin; wall readings are milliseconds of
/// Unix time and may step when the host's clock is set.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time that only moves forward. Used for windows, deadlines and folding.
    fn monotonic(&self) -> Monotonic;

    /// Unix time. Used for what leaves the process: token claims, session rows.
    fn wall(&self) -> UnixMillis;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn monotonic(&self) -> Monotonic {
        (**self).monotonic()
    }

    fn wall(&self) -> UnixMillis {
        (**self).wall()
    }
}

/// Nanoseconds since an arbitrary origin of one clock.
///
/// Readings of two clocks cannot be compared.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Monotonic(u64);

impl Monotonic {
    /// A reading of `nanos` nanoseconds after the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This reading moved forward; stops at the end of time instead of wrapping.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(span)))
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixMillis(i64);

impl UnixMillis {
    /// Later than every other.
    pub const MAX: Self = Self(i64::MAX);

    /// The instant `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// The instant `seconds` seconds after the Unix epoch.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down (a JWT NumericDate).
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This instant moved forward; stops at the end of time instead of wrapping.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(span)))
    }

    /// This instant moved back; stops at the beginning of time instead of wrapping.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(span)))
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(if millis > 0 { millis as u64 } else { 0 })
    }
}

/// The host's clocks.
///
/// Monotonic time comes from the processor's time-stamp counter where it is reliable (about 10 ns
/// a reading) and from the operating system elsewhere. Building one is slow (it may calibrate);
/// cloning is cheap, so a program builds one.
#[derive(Clone)]
pub struct SystemClock {
    counter: quanta::Clock,
    origin: u64,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    #[must_use]
    pub fn new() -> Self {
        let counter = quanta::Clock::new();
        let origin = counter.raw();
        Self { counter, origin }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemClock").finish_non_exhaustive()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.counter.delta_as_nanos(self.origin, self.counter.raw()))
    }

    fn wall(&self) -> UnixMillis {
        // A host set to before 1970 reads as the epoch: every token is then from the future.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(millis_of(since))
    }
}

/// A clock that moves only when it is told to. Clones share one time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    shared: Arc<ManualTime>,
}

#[derive(Debug)]
struct ManualTime {
    monotonic: AtomicU64,
    wall: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Self {
        Self::at(MANUAL_START)
    }

    /// A clock that stands at `wall`.
    #[must_use]
    pub fn at(wall: UnixMillis) -> Self {
        Self {
            shared: Arc::new(ManualTime {
                monotonic: AtomicU64::new(0),
                wall: AtomicI64::new(wall.0),
            }),
        }
    }

    /// Moves both readings forward.
    pub fn advance(&self, span: Duration) {
        let _ = self
            .shared
            .monotonic
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                Some(now.saturating_add(nanos_of(span)))
            });
        let _ = self
            .shared
            .wall
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                Some(now.saturating_add(millis_of(span)))
            });
    }

    /// Sets the wall reading alone, forward or back, as an operator or NTP would.
    pub fn set_wall(&self, wall: UnixMillis) {
        self.shared.wall.store(wall.0, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.shared.monotonic.load(Ordering::SeqCst))
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis(self.shared.wall.load(Ordering::SeqCst))
    }
}

fn nanos_of(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn millis_of(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

const MANUAL_START: UnixMillis = UnixMillis::from_secs(1_767_225_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends() {
        let end = Monotonic::from_nanos(u64::MAX);
        assert_eq!(end.saturating_add(Duration::from_secs(1)), end);
        assert_eq!(Monotonic::default().saturating_since(end), Duration::ZERO);
        let late = UnixMillis::new(i64::MAX);
        assert_eq!(late.saturating_add(Duration::MAX), late);
        assert_eq!(UnixMillis::new(-1).as_secs(), -1);
        assert_eq!(
            UnixMillis::new(5).saturating_since(UnixMillis::new(9)),
            Duration::ZERO
        );
    }

    #[test]
    fn the_system_clock_moves_forward() {
        let clock = SystemClock::new();
        let mut last = clock.monotonic();
        for _ in 0..1_000 {
            let next = clock.monotonic();
            assert!(next >= last);
            last = next;
        }
        assert!(clock.wall() > MANUAL_START);
    }

    #[test]
    fn a_manual_wall_can_step_back_alone() {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(5));
        let monotonic = clock.monotonic();
        clock.set_wall(UnixMillis::from_secs(1));
        assert_eq!(clock.monotonic(), monotonic);
        assert_eq!(clock.wall().as_secs(), 1);
    }
}
