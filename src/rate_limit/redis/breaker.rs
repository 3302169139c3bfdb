//! Leaves a server alone that does not answer, and tries it again with one request.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use crate::{secret::random, time::Monotonic};

/// Closed until three calls in a row have failed; then open for a moment, after which one call at a
/// time may try.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    open_until: AtomicU64,
    probing: AtomicBool,
}

/// Leave for one call. Dropped without a result, as when the client hangs up, it says nothing of
/// the server.
#[must_use]
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    /// Leave to call, unless the breaker is open.
    pub(super) fn leave(&self, now: Monotonic) -> Option<Leave<'_>> {
        let is_probe = self.is_open();
        if is_probe {
            let too_early = now.as_nanos() < self.open_until.load(Ordering::Relaxed);
            if too_early || self.probing.swap(true, Ordering::Acquire) {
                return None;
            }
        }
        Some(Leave {
            breaker: self,
            is_probe,
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }
}

impl Leave<'_> {
    pub(super) fn succeeded(self) {
        self.breaker.failures.store(0, Ordering::Relaxed);
    }

    /// Whether this was one failure too many: the one that opens the breaker, or a probe.
    pub(super) fn failed(self, now: Monotonic) -> bool {
        let failures = &self.breaker.failures;
        let before = failures.fetch_add(1, Ordering::Relaxed).min(FAILURES * 8);
        let pause = PAUSE * (1 << before.saturating_sub(FAILURES).min(3));
        // Half to one and a half of it, so that a fleet does not come back as one.
        let jitter = u32::from(u16::from_le_bytes(random()));
        let pause = pause / 2 + pause * jitter / u32::from(u16::MAX);
        let until = now.saturating_add(pause).as_nanos();
        self.breaker.open_until.store(until, Ordering::Relaxed);
        self.is_probe || before + 1 == FAILURES
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.probing.store(false, Ordering::Release);
        }
    }
}

const FAILURES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_tries_a_server_that_failed_thrice() {
        let breaker = Breaker::default();
        let start = Monotonic::from_nanos(0);
        let failures = [(); 3].map(|()| breaker.leave(start).unwrap().failed(start));
        assert_eq!(failures, [false, false, true]);
        assert!(breaker.is_open());
        assert!(breaker.leave(start).is_none());
        let later = start.saturating_add(Duration::from_secs(1));
        let probe = breaker.leave(later).unwrap();
        assert!(breaker.leave(later).is_none(), "a second probe");
        drop(probe);
        assert!(breaker.leave(later).unwrap().failed(later));
        assert!(breaker.leave(later).is_none());
        let later = later.saturating_add(Duration::from_secs(4));
        breaker.leave(later).unwrap().succeeded();
        assert!(!breaker.is_open());
        assert!(breaker.leave(later).is_some());
    }
}
