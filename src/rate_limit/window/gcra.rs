//! GCRA: `governor` judges one borrowed slot at a given time.

use std::{cell::Cell, num::NonZeroU32, time::Duration};

use governor::{
    NotUntil, Quota, RateLimiter, clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};

use super::{Left, Ticket};

/// A burst of N, then one every `period`. A slot is the theoretical arrival time in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Gcra {
    limit: u32,
    span: u64,
}

impl Gcra {
    pub(super) const WORDS: usize = 2;

    pub(super) fn new(limit: u32, span: u64) -> Self {
        Self { limit, span }
    }

    pub(super) fn clear(slot: &mut [u32]) {
        slot.fill(0);
    }

    #[inline]
    pub(super) fn judge(
        &self,
        slot: &[u32],
        now: u64,
        limit: u32,
        cost: u32,
    ) -> Result<Ticket, u64> {
        let (Some(burst), Some(cost)) = (NonZeroU32::new(limit), NonZeroU32::new(cost)) else {
            return Err(self.span);
        };
        let Some(quota) = Quota::with_period(Duration::from_nanos(self.period(limit))) else {
            return Err(self.span);
        };
        let judge: Judge = RateLimiter::new(
            quota.allow_burst(burst),
            Borrowed(Cell::new(arrival(slot))),
            At(Cell::new(0)),
        );
        judge.clock().0.set(now);
        let wait = |until: NotUntil<Nanos>| {
            u64::try_from(until.wait_time_from(now.into()).as_nanos()).unwrap_or(u64::MAX)
        };
        match judge.check_n(cost) {
            Ok(Ok(())) => Ok(Ticket(judge.into_state_store().0.get())),
            Ok(Err(until)) => Err(wait(until)),
            Err(_) => Err(self.span),
        }
    }

    #[inline]
    pub(super) fn commit(slot: &mut [u32], ticket: Ticket) {
        set_arrival(slot, ticket.0);
    }

    /// The bucket leaks one weight in a period: since `at` it leaked at most the time that passed
    /// more than it would have without the charge, and only the rest of the weight is owed for it.
    pub(super) fn refund(&self, slot: &mut [u32], at: u64, now: u64, limit: u32, cost: u32) {
        let weight = self.period(limit).saturating_mul(cost.into());
        let owed = weight.saturating_sub(now.saturating_sub(at));
        let arrival = arrival(slot);
        set_arrival(slot, arrival - owed.min(arrival.saturating_sub(now)));
    }

    /// Takes over a debt in units, not in time.
    pub(super) fn adopt(&self, slot: &mut [u32], now: u64, other: &Self, held: &[u32]) {
        let owed = u128::from(arrival(held).saturating_sub(now));
        if owed > 0 {
            let owed = owed * u128::from(self.period(self.limit));
            let owed = owed.div_ceil(other.period(other.limit).into());
            set_arrival(
                slot,
                now.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX)),
            );
        }
    }

    pub(super) fn left(&self, slot: &[u32], now: u64, limit: u32) -> Left {
        let arrival = arrival(slot).max(now);
        let period = self.period(limit);
        let full = period.saturating_mul(limit.into());
        let units = full.saturating_sub(arrival - now) / period;
        let more_in = if arrival == now {
            0
        } else {
            (arrival - now).saturating_sub(full.saturating_sub((units + 1) * period))
        };
        Left {
            units: units as u32,
            more_in,
        }
    }

    #[inline]
    pub(super) fn is_idle(slot: &[u32], now: u64) -> bool {
        arrival(slot) <= now
    }

    pub(super) fn memory(&self) -> u64 {
        self.period(self.limit).saturating_mul(self.limit.into())
    }

    pub(super) fn worst_case(&self, limit: u32) -> u32 {
        let later = self.span.saturating_sub(1) / self.period(limit);
        limit.saturating_add(u32::try_from(later).unwrap_or(u32::MAX))
    }

    /// Rounded up, so that the steady rate never passes N per window.
    #[inline]
    fn period(&self, limit: u32) -> u64 {
        self.span.div_ceil(u64::from(limit.max(1))).max(1)
    }
}

type Judge = RateLimiter<NotKeyed, Borrowed, At, NoOpMiddleware<Nanos>>;

/// One slot, lent to `governor`; 0 is a key that was never seen.
struct Borrowed(Cell<u64>);

impl StateStore for Borrowed {
    type Key = NotKeyed;

    #[inline]
    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let held = self.0.get();
        let (outcome, arrival) = judge((held != 0).then(|| held.into()))?;
        self.0.set(arrival.as_u64());
        Ok(outcome)
    }
}

/// The clock of one judgement: its origin when the limiter is made, the reading afterwards.
struct At(Cell<u64>);

impl clock::Clock for At {
    type Instant = Nanos;

    #[inline]
    fn now(&self) -> Nanos {
        self.0.get().into()
    }
}

#[inline]
fn arrival(slot: &[u32]) -> u64 {
    u64::from(slot[0]) | u64::from(slot[1]) << 32
}

#[inline]
fn set_arrival(slot: &mut [u32], arrival: u64) {
    slot[0] = arrival as u32;
    slot[1] = (arrival >> 32) as u32;
}
