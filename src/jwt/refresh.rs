//! When keys are fetched: a state machine that knows no clock, no client and no runtime.

use std::{collections::VecDeque, time::Duration};

use crate::{secret::random, time::Monotonic};

/// When keys are fetched from elsewhere.
///
/// They are fetched at start, then every [interval](Self::with_interval) (or as `Cache-Control:
/// max-age` says, within a minute and an hour), up to a tenth earlier so that instances do not come
/// together. A token with an unknown `kid` has them fetched at once, but not within the
/// [cooldown](Self::with_cooldown) of the fetch before, and not again for an id that a fetch did not
/// bring. After a failure the keys that are known stand on until they are too
/// [old](Self::with_max_age), and the fetch is tried again after 1 s, 2 s, 4 s … up to a minute.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct RefreshPolicy {
    interval: Duration,
    cooldown: Duration,
    pub(crate) max_age: Duration,
    pub(crate) timeout: Duration,
}

impl RefreshPolicy {
    /// Every 15 minutes, with a cooldown of 30 s; keys count for a day; a fetch takes at most 10 s.
    pub const fn new() -> Self {
        Self {
            interval: Duration::from_secs(900),
            cooldown: Duration::from_secs(30),
            max_age: Duration::from_secs(86_400),
            timeout: Duration::from_secs(10),
        }
    }

    /// How often keys are fetched; within a minute and an hour.
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long no token with an unknown `kid` has the keys fetched again; at least a second.
    pub const fn with_cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// How old keys may become while fetches fail. Then no token is accepted, which is 503.
    pub const fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// How long a fetch may take.
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
pub(crate) struct Refresh {
    policy: RefreshPolicy,
    due: Monotonic,
    last: Option<Monotonic>,
    failures: u32,
    /// Ids that somebody asked for and the next fetch may bring.
    wanted: VecDeque<u128>,
    /// Ids that a fetch did not bring, and when.
    absent: VecDeque<(u128, Monotonic)>,
}

impl Refresh {
    pub(crate) fn new(policy: RefreshPolicy, now: Monotonic) -> Self {
        Self {
            policy,
            due: now,
            last: None,
            failures: 0,
            wanted: VecDeque::new(),
            absent: VecDeque::new(),
        }
    }

    /// How long until the next fetch.
    pub(crate) fn wait(&self, now: Monotonic) -> Duration {
        self.due.saturating_since(now)
    }

    /// Somebody asks for an id that no key has. Whether whoever waits must look again: for it the
    /// next fetch comes sooner, or it is overdue, as when a host slept.
    pub(crate) fn missing(&mut self, id: u128, now: Monotonic) -> bool {
        self.want(id, now) || self.due <= now
    }

    fn want(&mut self, id: u128, now: Monotonic) -> bool {
        let forgotten = |at: Monotonic| now.saturating_since(at) >= bounded(self.policy.interval);
        self.absent.retain(|(_, at)| !forgotten(*at));
        let known_absent = self.absent.iter().any(|(absent, _)| *absent == id);
        if known_absent || self.wanted.contains(&id) || self.wanted.len() >= MAX_IDS {
            return false;
        }
        self.wanted.push_back(id);
        let cooldown = self.policy.cooldown.max(Duration::from_secs(1));
        let soonest = self.last.map_or(now, |last| last.saturating_add(cooldown));
        let sooner = soonest.max(now);
        if sooner >= self.due {
            return false;
        }
        self.due = sooner;
        true
    }

    /// A fetch brought a set; `max_age` is what its sender says of it, `has` whether an id is in it.
    pub(crate) fn succeeded(
        &mut self,
        now: Monotonic,
        max_age: Option<Duration>,
        has: impl Fn(u128) -> bool,
    ) {
        for id in self.wanted.drain(..) {
            if !has(id) {
                self.absent.push_back((id, now));
            }
        }
        while self.absent.len() > MAX_IDS {
            self.absent.pop_front();
        }
        self.last = Some(now);
        self.failures = 0;
        let interval = bounded(max_age.unwrap_or(self.policy.interval));
        let earlier = interval.mul_f64(f64::from(random::<1>()[0]) / 2_560.0);
        self.due = now.saturating_add(interval - earlier);
    }

    pub(crate) fn failed(&mut self, now: Monotonic) {
        self.last = Some(now);
        let wait = 1u64 << self.failures.min(6);
        self.failures = self.failures.saturating_add(1);
        self.due = now.saturating_add(Duration::from_secs(wait.min(60)));
        // What was asked for may be asked for again.
        self.wanted.clear();
    }
}

fn bounded(interval: Duration) -> Duration {
    interval.clamp(Duration::from_secs(60), Duration::from_secs(3_600))
}

const MAX_IDS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    fn loaded() -> Refresh {
        let mut refresh = Refresh::new(RefreshPolicy::new(), at(0));
        assert_eq!(refresh.wait(at(0)), Duration::ZERO);
        refresh.succeeded(at(0), None, |_| false);
        refresh
    }

    #[test]
    fn the_interval_is_kept_within_a_tenth() {
        let mut waits = std::collections::HashSet::new();
        for (max_age, longest) in [
            (None, 900),
            (Some(300), 300),
            (Some(1), 60),
            (Some(1_000_000), 3_600),
        ] {
            for _ in 0..100 {
                let mut refresh = loaded();
                refresh.succeeded(at(0), max_age.map(Duration::from_secs), |_| false);
                let wait = refresh.wait(at(0));
                let longest = Duration::from_secs(longest);
                assert!(wait <= longest && wait >= longest.mul_f64(0.9), "{wait:?}");
                waits.insert(wait);
            }
        }
        assert!(waits.len() > 20, "instances come apart: {}", waits.len());
    }

    #[test]
    fn an_unknown_id_is_looked_for_once_and_not_within_the_cooldown() {
        let mut refresh = loaded();
        assert!(refresh.missing(1, at(10)));
        assert_eq!(refresh.wait(at(10)), Duration::from_secs(20));
        assert!(!refresh.missing(1, at(11)));
        assert!(!refresh.missing(2, at(12)));
        refresh.succeeded(at(30), None, |id| id == 2);
        let wait = refresh.wait(at(31));
        assert!(!refresh.missing(1, at(31)));
        assert_eq!(refresh.wait(at(31)), wait);
        assert!(refresh.missing(3, at(100)));
        assert_eq!(refresh.wait(at(100)), Duration::ZERO);
        // After an interval the id may be new.
        refresh.succeeded(at(100), None, |_| true);
        assert!(refresh.missing(1, at(930)) || refresh.wait(at(930)) == Duration::ZERO);
    }

    #[test]
    fn a_flood_of_ids_takes_bounded_memory_and_one_fetch_per_cooldown() {
        let mut refresh = loaded();
        let mut fetches = 0;
        let mut id = 0;
        for second in 0..300 {
            for _ in 0..1_000 {
                id += 1;
                refresh.missing(id, at(second));
            }
            if refresh.wait(at(second)).is_zero() {
                fetches += 1;
                refresh.succeeded(at(second), None, |_| false);
            }
        }
        assert!(fetches <= 10, "{fetches}");
        assert!(refresh.wanted.len() + refresh.absent.len() <= 2 * MAX_IDS);
    }

    #[test]
    fn an_id_that_is_asked_for_again_takes_no_more_room() {
        let mut refresh = loaded();
        for _ in 0..1_000 {
            refresh.missing(1, at(10));
        }
        assert!(!refresh.missing(2, at(10)));
        refresh.succeeded(at(30), None, |_| false);
        assert_eq!(refresh.absent.len(), 2);
    }

    #[test]
    fn no_policy_fetches_more_than_once_a_second() {
        let policy = RefreshPolicy::new().with_cooldown(Duration::ZERO);
        let mut refresh = Refresh::new(policy, at(0));
        refresh.succeeded(at(0), None, |_| false);
        assert!(refresh.missing(1, at(0)));
        assert_eq!(refresh.wait(at(0)), Duration::from_secs(1));
    }

    #[test]
    fn what_a_failure_did_not_bring_is_looked_for_again() {
        let mut refresh = loaded();
        assert!(refresh.missing(1, at(10)));
        (0..7).for_each(|_| refresh.failed(at(30)));
        assert_eq!(refresh.wait(at(31)), Duration::from_secs(59));
        assert!(refresh.missing(1, at(31)));
        assert_eq!(refresh.wait(at(31)), Duration::from_secs(29));
    }

    #[test]
    fn failures_back_off_to_a_minute() {
        let mut refresh = Refresh::new(RefreshPolicy::new(), at(0));
        let waits: Vec<_> = (0..9)
            .map(|_| {
                refresh.failed(at(0));
                refresh.wait(at(0)).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
