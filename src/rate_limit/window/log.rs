//! The exact log: the times of the last N charges.

use super::{Left, REACH, Ticket};

/// The last N charges as sorted stamps, oldest first, in ticks of at most a 50-millionth of the
/// window. A charge is stamped with the tick after it and judged by the tick before, so a tick
/// never lets anything through early; with times in whole ticks the log is exact.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Log {
    limit: u32,
    /// The window in ticks.
    span: u32,
    /// Nanoseconds of a tick.
    tick: u64,
}

impl Log {
    pub(super) fn new(limit: u32, span: u64) -> Self {
        let mut tick = 1;
        while span / tick > MAX_TICKS {
            tick *= 10;
        }
        Self {
            limit,
            // At most `MAX_TICKS` + 1.
            span: u32::try_from(span.div_ceil(tick)).unwrap_or(u32::MAX),
            tick,
        }
    }

    pub(super) fn words(&self) -> usize {
        self.limit as usize
    }

    pub(super) fn holds(&self, limit: u32) -> bool {
        limit <= self.limit
    }

    pub(super) fn clear(&self, slot: &mut [u32], now: u64) {
        slot.fill(self.expired(now));
    }

    #[inline]
    pub(super) fn judge(
        &self,
        slot: &[u32],
        now: u64,
        limit: u32,
        cost: u32,
    ) -> Result<Ticket, u64> {
        let tick = now / self.tick;
        // The charge that must have left the window before these may enter it.
        let index = self.index(limit, cost).ok_or_else(|| self.memory())?;
        let Some(stamp) = slot.get(index) else {
            return Err(self.memory());
        };
        let age = age(tick, *stamp);
        if age < i64::from(self.span) {
            let free = tick.saturating_add_signed(i64::from(self.span) - age);
            return Err(free.saturating_mul(self.tick) - now);
        }
        Ok(Ticket(now.div_ceil(self.tick)))
    }

    #[inline]
    pub(super) fn commit(slot: &mut [u32], ticket: Ticket, cost: u32) {
        let Some(newest) = slot.last().copied() else {
            return;
        };
        // A reading that is behind the newest stamp counts as that one: the order is kept.
        let stamp = if age(ticket.0, newest) < 0 {
            newest
        } else {
            ticket.0 as u32
        };
        let cost = (cost as usize).min(slot.len());
        let kept = slot.len() - cost;
        slot.copy_within(cost.., 0);
        slot[kept..].fill(stamp);
    }

    pub(super) fn refund(&self, slot: &mut [u32], ticket: Ticket, now: u64, cost: u32) {
        let tick = now / self.tick;
        let stamp = ticket.0 as u32;
        if tick.saturating_sub(ticket.0) >= u64::from(self.span) {
            return;
        }
        for _ in 0..cost {
            let Some(index) = slot.iter().rposition(|held| *held == stamp) else {
                return;
            };
            slot.copy_within(..index, 1);
            slot[0] = self.expired(now);
        }
    }

    /// Tells of each charge that still counts, oldest first, with the latest time it can be of.
    pub(super) fn charges(&self, slot: &[u32], now: u64, mut tell: impl FnMut(u64, u32)) {
        let tick = now / self.tick;
        for stamp in slot {
            let age = age(tick, *stamp);
            if age < i64::from(self.span) {
                tell(tick.saturating_add_signed(-age) * self.tick, 1);
            }
        }
    }

    /// Adds charges of a time that is not before any other's.
    pub(super) fn record(&self, slot: &mut [u32], at: u64, count: u32) {
        let ticket = Ticket(at.div_ceil(self.tick));
        Self::commit(slot, ticket, count.min(self.limit));
    }

    pub(super) fn left(&self, slot: &[u32], now: u64, limit: u32) -> Left {
        let tick = now / self.tick;
        let skipped = slot.len().saturating_sub(limit as usize);
        let counted = slot.get(skipped..).unwrap_or_default();
        // All of them, without a branch for each: they are few, and sorted.
        let is_expired = |stamp: &&u32| age(tick, **stamp) >= i64::from(self.span);
        let expired = counted.iter().filter(is_expired).count();
        let more_in = counted.get(expired).map_or(0, |stamp| {
            let free = tick.saturating_add_signed(i64::from(self.span) - age(tick, *stamp));
            free.saturating_mul(self.tick) - now
        });
        Left {
            units: expired as u32,
            more_in,
        }
    }

    #[inline]
    pub(super) fn is_idle(&self, slot: &[u32], now: u64) -> bool {
        let tick = now / self.tick;
        slot.last()
            .is_none_or(|newest| age(tick, *newest) >= i64::from(self.span))
    }

    pub(super) fn memory(&self) -> u64 {
        (u64::from(self.span) + 1) * self.tick
    }

    pub(super) fn horizon(&self) -> u64 {
        REACH.saturating_mul(self.tick)
    }

    pub(super) fn settle(&self, slot: &mut [u32], now: u64) {
        let tick = now / self.tick;
        for stamp in slot {
            if age(tick, *stamp) > i64::from(self.span) {
                *stamp = self.expired(now);
            }
        }
    }

    /// The newest stamp that does not count any more.
    fn expired(&self, now: u64) -> u32 {
        ((now / self.tick) as u32).wrapping_sub(self.span)
    }

    /// Where the charge stands that has to leave before `cost` more may enter.
    #[inline]
    fn index(&self, limit: u32, cost: u32) -> Option<usize> {
        let limit = limit.min(self.limit);
        let last = cost.checked_sub(1)?;
        (cost <= limit).then(|| (self.limit - limit + last) as usize)
    }
}

/// The age of a stamp in ticks; negative when it is ahead of a reading.
#[inline]
fn age(tick: u64, stamp: u32) -> i64 {
    i64::from((tick as u32).wrapping_sub(stamp) as i32)
}

const MAX_TICKS: u64 = 1 << 29;
