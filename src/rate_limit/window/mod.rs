//! Windows: what one key has used up, in a few words of memory, judged at a given time.
//!
//! A window looks at a slot ([`Window::judge`]) and, when every policy has agreed, writes into it
//! ([`Window::commit`]); looking never writes. A slot is a slice of words whose length the window
//! chooses, so that all slots of a table lie in one allocation.

mod gcra;
mod log;
mod ring;

use self::{gcra::Gcra, log::Log, ring::Ring};

/// How a policy counts, with the figures that it needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Window {
    Log(Log),
    Ring(Ring),
    Gcra(Gcra),
}

/// What a judge found out and the commit needs: a stamp, a segment or an arrival time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u64);

/// A charge that was committed, and what is needed to give it back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charged {
    pub(super) ticket: Ticket,
    pub(super) at: u64,
    pub(super) cost: u32,
    /// How often keys of its shard had been reset before.
    pub(super) resets: u64,
}

/// What is left to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Left {
    /// How many units would be admitted now.
    pub(super) units: u32,
    /// Nanoseconds until there are more, without further charges; 0 when nothing is used up.
    pub(super) more_in: u64,
}

impl Left {
    pub(super) const NONE: Self = Self {
        units: 0,
        more_in: 0,
    };
}

impl Window {
    /// Never more than `limit` in any `span` nanoseconds.
    pub(super) fn strict(limit: u32, span: u64) -> Self {
        if limit <= LOG_MAX {
            Self::Log(Log::new(limit, span))
        } else {
            Self::Ring(Ring::new(limit, span))
        }
    }

    /// A burst of `limit`, then one every `span / limit`.
    pub(super) fn smooth(limit: u32, span: u64) -> Self {
        Self::Gcra(Gcra::new(limit, span))
    }

    /// Words of a slot.
    pub(super) fn words(&self) -> usize {
        match self {
            Self::Log(log) => log.words(),
            Self::Ring(ring) => ring.words(),
            Self::Gcra(_) => Gcra::WORDS,
        }
    }

    /// Makes a slot one of a key that was never seen.
    pub(super) fn clear(&self, slot: &mut [u32], now: u64) {
        match self {
            Self::Log(log) => log.clear(slot, now),
            Self::Ring(ring) => ring.clear(slot, now),
            Self::Gcra(_) => Gcra::clear(slot),
        }
    }

    /// Whether `cost` more units stay within `limit`; otherwise the nanoseconds to wait.
    #[inline]
    pub(super) fn judge(
        &self,
        slot: &[u32],
        now: u64,
        limit: u32,
        cost: u32,
    ) -> Result<Ticket, u64> {
        match self {
            Self::Log(log) => log.judge(slot, now, limit, cost),
            Self::Ring(ring) => ring.judge(slot, now, limit, cost),
            Self::Gcra(gcra) => gcra.judge(slot, now, limit, cost),
        }
    }

    /// Charges what [`judge`](Self::judge) admitted to the slot in the same state.
    #[inline]
    pub(super) fn commit(&self, slot: &mut [u32], ticket: Ticket, cost: u32) {
        match self {
            Self::Log(_) => Log::commit(slot, ticket, cost),
            Self::Ring(ring) => ring.commit(slot, ticket, cost),
            Self::Gcra(_) => Gcra::commit(slot, ticket),
        }
    }

    /// Judges and, when it fits, charges at once.
    #[inline]
    pub(super) fn charge(
        &self,
        slot: &mut [u32],
        now: u64,
        limit: u32,
        cost: u32,
    ) -> Result<(), u64> {
        match self {
            Self::Log(log) => {
                let ticket = log.judge(slot, now, limit, cost)?;
                Log::commit(slot, ticket, cost);
            }
            Self::Ring(ring) => return ring.charge(slot, now, limit, cost),
            Self::Gcra(gcra) => {
                let ticket = gcra.judge(slot, now, limit, cost)?;
                Gcra::commit(slot, ticket);
            }
        }
        Ok(())
    }

    /// Gives back a charge, as far as it still counts.
    pub(super) fn refund(&self, slot: &mut [u32], charged: Charged, now: u64, limit: u32) {
        let Charged {
            ticket, at, cost, ..
        } = charged;
        match self {
            Self::Log(log) => log.refund(slot, ticket, now, cost),
            Self::Ring(ring) => ring.refund(slot, at, now, cost),
            Self::Gcra(gcra) => gcra.refund(slot, at, now, limit, cost),
        }
    }

    /// Whether slots of this window can also be held to `limit`.
    pub(super) fn holds(&self, limit: u32) -> bool {
        match self {
            Self::Log(log) => log.holds(limit),
            Self::Ring(ring) => ring.holds(limit),
            Self::Gcra(_) => false,
        }
    }

    /// Fills a slot of this window with what a slot of another window remembers. Nothing
    /// is lost: this window holds more.
    pub(super) fn adopt(&self, slot: &mut [u32], now: u64, other: &Self, held: &[u32]) {
        self.clear(slot, now);
        match (self, other) {
            (Self::Log(log), Self::Log(old)) => {
                old.charges(held, now, |at, count| log.record(slot, at, count));
            }
            (Self::Log(log), Self::Ring(old)) => {
                old.charges(held, now, |at, count| log.record(slot, at, count));
            }
            (Self::Ring(ring), Self::Log(old)) => {
                old.charges(held, now, |at, count| ring.record(slot, at, count));
            }
            (Self::Ring(ring), Self::Ring(old)) => {
                old.charges(held, now, |at, count| ring.record(slot, at, count));
            }
            (Self::Gcra(gcra), Self::Gcra(old)) => gcra.adopt(slot, now, old, held),
            // A policy never changes from one way of counting to the other.
            (Self::Gcra(_), _) | (_, Self::Gcra(_)) => {}
        }
    }

    /// What is left of `limit`.
    pub(super) fn left(&self, slot: &[u32], now: u64, limit: u32) -> Left {
        match self {
            Self::Log(log) => log.left(slot, now, limit),
            Self::Ring(ring) => ring.left(slot, now, limit),
            Self::Gcra(gcra) => gcra.left(slot, now, limit),
        }
    }

    /// Whether nothing is used up, so that forgetting the slot changes no later answer.
    #[inline]
    pub(super) fn is_idle(&self, slot: &[u32], now: u64) -> bool {
        match self {
            Self::Log(log) => log.is_idle(slot, now),
            Self::Ring(ring) => ring.is_idle(slot, now),
            Self::Gcra(_) => Gcra::is_idle(slot, now),
        }
    }

    /// The longest that a charge is remembered, in nanoseconds.
    pub(super) fn memory(&self) -> u64 {
        match self {
            Self::Log(log) => log.memory(),
            Self::Ring(ring) => ring.memory(),
            Self::Gcra(gcra) => gcra.memory(),
        }
    }

    /// Slots hold the low 32 bits of times; one that is not looked at for this many nanoseconds
    /// must be [settled](Self::settle) before it is read.
    pub(super) fn horizon(&self) -> u64 {
        match self {
            Self::Log(log) => log.horizon(),
            Self::Ring(ring) => ring.horizon(),
            Self::Gcra(_) => u64::MAX,
        }
    }

    /// Brings what a slot holds into the reach of its 32 bits again.
    pub(super) fn settle(&self, slot: &mut [u32], now: u64) {
        match self {
            Self::Log(log) => log.settle(slot, now),
            Self::Ring(ring) => ring.settle(slot, now),
            Self::Gcra(_) => {}
        }
    }

    /// The most that any span of the window's length can admit.
    pub(super) fn worst_case(&self, limit: u32) -> u32 {
        match self {
            Self::Log(_) | Self::Ring(_) => limit,
            Self::Gcra(gcra) => gcra.worst_case(limit),
        }
    }
}

/// The largest limit that is kept as an exact log.
const LOG_MAX: u32 = 16;

/// Units that a 32-bit time may be old before it must be settled.
const REACH: u64 = 1 << 30;
