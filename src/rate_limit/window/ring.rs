//! The segmented ring: counts of the last S + 1 segments of a window.

use super::{Left, REACH, Ticket};

/// Counts by segments of a fifteenth of the window. A charge is remembered until the sixteenth
/// segment after its own begins: at least the window, and at most a fifteenth longer. (A ring of
/// S segments forgets what was charged at the end of a segment too early, and admits 2N.)
///
/// A slot: the newest segment, the sum, then the counts, packed.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Ring {
    /// Nanoseconds of a segment.
    segment: u64,
    /// Bits of a count.
    bits: u32,
}

impl Ring {
    pub(super) fn new(limit: u32, span: u64) -> Self {
        let bits = match limit {
            0..=0xff => 8,
            0x100..=0xffff => 16,
            _ => 32,
        };
        Self {
            segment: span.div_ceil(u64::from(SEGMENTS) - 1).max(1),
            bits,
        }
    }

    pub(super) fn words(&self) -> usize {
        COUNTS + (SEGMENTS * self.bits / u32::BITS) as usize
    }

    pub(super) fn holds(&self, limit: u32) -> bool {
        limit <= u32::MAX >> (u32::BITS - self.bits)
    }

    pub(super) fn clear(&self, slot: &mut [u32], now: u64) {
        slot.fill(0);
        slot[NEWEST] = (now / self.segment) as u32;
    }

    #[inline]
    pub(super) fn judge(
        &self,
        slot: &[u32],
        now: u64,
        limit: u32,
        cost: u32,
    ) -> Result<Ticket, u64> {
        let segment = self.reach(slot, now / self.segment);
        let used = slot[SUM] - self.forgotten(slot, segment);
        if cost <= limit && used <= limit - cost {
            return Ok(Ticket(segment));
        }
        Err(self.wait(
            slot,
            now,
            segment,
            (u64::from(used) + u64::from(cost)).saturating_sub(limit.into()),
        ))
    }

    #[inline]
    pub(super) fn commit(&self, slot: &mut [u32], ticket: Ticket, cost: u32) {
        let Ticket(segment) = ticket;
        let gap = gap(slot, segment);
        if gap > 0 {
            self.turn(slot, segment, gap);
        }
        self.add(slot, segment as u32 % SEGMENTS, cost);
    }

    /// Judges and charges at once.
    #[inline]
    pub(super) fn charge(
        &self,
        slot: &mut [u32],
        now: u64,
        limit: u32,
        cost: u32,
    ) -> Result<(), u64> {
        let segment = now / self.segment;
        if slot[NEWEST] == segment as u32 && cost <= limit && slot[SUM] <= limit - cost {
            self.add(slot, segment as u32 % SEGMENTS, cost);
            return Ok(());
        }
        let ticket = self.judge(slot, now, limit, cost)?;
        self.commit(slot, ticket, cost);
        Ok(())
    }

    /// Forgets what the segments up to a new one push out.
    #[cold]
    fn turn(&self, slot: &mut [u32], segment: u64, gap: u32) {
        if gap >= SEGMENTS {
            slot.fill(0);
        } else {
            for step in 1..=gap {
                let index = slot[NEWEST].wrapping_add(step) % SEGMENTS;
                slot[SUM] -= self.count(slot, index);
                self.set(slot, index, 0);
            }
        }
        slot[NEWEST] = segment as u32;
    }

    /// By the time of the charge, since the limit may have become one that is kept in a ring since.
    pub(super) fn refund(&self, slot: &mut [u32], at: u64, now: u64, cost: u32) {
        let charged = at / self.segment;
        let segment = self.reach(slot, now / self.segment);
        // Out of reach of the judge, or of what the slot still holds.
        let past = segment.saturating_sub(charged) >= u64::from(SEGMENTS);
        let behind = slot[NEWEST].wrapping_sub(charged as u32);
        if past || behind >= SEGMENTS {
            return;
        }
        let index = charged as u32 % SEGMENTS;
        let held = self.count(slot, index);
        let given = cost.min(held);
        self.set(slot, index, held - given);
        slot[SUM] -= given;
    }

    /// Tells of the charges that still count, oldest first, with the latest time they can be of.
    pub(super) fn charges(&self, slot: &[u32], now: u64, mut tell: impl FnMut(u64, u32)) {
        let segment = self.reach(slot, now / self.segment);
        for age in (gap(slot, segment)..SEGMENTS).rev() {
            let Some(of) = segment.checked_sub(age.into()) else {
                continue;
            };
            let count = self.count(slot, of as u32 % SEGMENTS);
            if count > 0 {
                let end = (of + 1).saturating_mul(self.segment) - 1;
                tell(end.min(now.max(of * self.segment)), count);
            }
        }
    }

    /// Adds charges of a time that is not before any other's.
    pub(super) fn record(&self, slot: &mut [u32], at: u64, count: u32) {
        let segment = at / self.segment;
        if (slot[NEWEST].wrapping_sub(segment as u32) as i32) > 0 {
            // The slot was cleared to now; these are the first, and older.
            slot[NEWEST] = segment as u32;
        }
        self.commit(slot, Ticket(segment), count);
    }

    pub(super) fn left(&self, slot: &[u32], now: u64, limit: u32) -> Left {
        let segment = self.reach(slot, now / self.segment);
        let used = slot[SUM] - self.forgotten(slot, segment);
        // What is used above the limit has to go before there is more.
        let over = u64::from(used.saturating_sub(limit)) + 1;
        Left {
            units: limit.saturating_sub(used),
            more_in: match over {
                _ if used == 0 => 0,
                1 => self.first_wait(slot, now, segment),
                over => self.wait(slot, now, segment, over),
            },
        }
    }

    #[inline]
    pub(super) fn is_idle(&self, slot: &[u32], now: u64) -> bool {
        let segment = self.reach(slot, now / self.segment);
        slot[SUM] == self.forgotten(slot, segment)
    }

    pub(super) fn memory(&self) -> u64 {
        self.segment.saturating_mul(SEGMENTS.into())
    }

    pub(super) fn horizon(&self) -> u64 {
        REACH.saturating_mul(self.segment)
    }

    pub(super) fn settle(&self, slot: &mut [u32], now: u64) {
        if self.is_idle(slot, now) {
            self.clear(slot, now);
        }
    }

    /// The segment to judge in: a reading that is behind the newest one counts as that.
    #[inline]
    fn reach(&self, slot: &[u32], segment: u64) -> u64 {
        let behind = slot[NEWEST].wrapping_sub(segment as u32) as i32;
        segment + u64::try_from(behind).unwrap_or(0)
    }

    /// What the segments between the newest one and `segment` pushed out.
    #[inline]
    fn forgotten(&self, slot: &[u32], segment: u64) -> u32 {
        match gap(slot, segment) {
            0 => 0,
            gap if gap >= SEGMENTS => slot[SUM],
            gap => (1..=gap)
                .map(|step| self.count(slot, slot[NEWEST].wrapping_add(step) % SEGMENTS))
                .sum(),
        }
    }

    /// Nanoseconds until `units` more are forgotten.
    fn wait(&self, slot: &[u32], now: u64, segment: u64, units: u64) -> u64 {
        let gap = gap(slot, segment);
        let mut freed = 0;
        // Oldest first: the segment that the next one will push out.
        for step in 1..=SEGMENTS {
            let age = SEGMENTS - step;
            if age >= gap {
                let index = (segment as u32).wrapping_sub(age) % SEGMENTS;
                freed += u64::from(self.count(slot, index));
            }
            if freed >= units {
                let free = segment + u64::from(step);
                return free.saturating_mul(self.segment).saturating_sub(now);
            }
        }
        // More than the whole limit: never.
        self.memory()
    }

    /// Nanoseconds until anything is forgotten.
    #[inline]
    fn first_wait(&self, slot: &[u32], now: u64, segment: u64) -> u64 {
        let oldest = (segment as u32).wrapping_add(1) % SEGMENTS;
        let step = match slot.get(COUNTS..) {
            Some(&[a, b, c, d]) => {
                let counts = [a, b, c, d].into_iter().rev();
                let counts = counts.fold(0, |all, word| all << u32::BITS | u128::from(word));
                counts.rotate_right(oldest * 8).trailing_zeros() / 8
            }
            _ => {
                // One bit for each segment, without a branch for each.
                let used = |index| u16::from(self.count(slot, index) > 0) << index;
                let used = (0..SEGMENTS).fold(0, |all, index| all | used(index));
                used.rotate_right(oldest).trailing_zeros()
            }
        };
        let free = segment + 1 + u64::from(step);
        free.saturating_mul(self.segment).saturating_sub(now)
    }

    #[inline]
    fn count(&self, slot: &[u32], index: u32) -> u32 {
        let bit = index * self.bits;
        let word = slot[COUNTS + (bit / u32::BITS) as usize];
        (word >> (bit % u32::BITS)) & (u32::MAX >> (u32::BITS - self.bits))
    }

    /// Adds to a count, which has room for the whole limit.
    #[inline]
    fn add(&self, slot: &mut [u32], index: u32, cost: u32) {
        let bit = index * self.bits;
        slot[COUNTS + (bit / u32::BITS) as usize] += cost << (bit % u32::BITS);
        slot[SUM] += cost;
    }

    #[inline]
    fn set(&self, slot: &mut [u32], index: u32, count: u32) {
        let bit = index * self.bits;
        let word = &mut slot[COUNTS + (bit / u32::BITS) as usize];
        let mask = (u32::MAX >> (u32::BITS - self.bits)) << (bit % u32::BITS);
        *word = *word & !mask | count << (bit % u32::BITS);
    }
}

/// How many segments after the slot's newest one `segment` is.
#[inline]
fn gap(slot: &[u32], segment: u64) -> u32 {
    (segment as u32).wrapping_sub(slot[NEWEST])
}

const SEGMENTS: u32 = 16;
const NEWEST: usize = 0;
const SUM: usize = 1;
const COUNTS: usize = 2;
