//! Shards of tables, each behind its own lock.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    thread,
};

use ahash::RandomState;

use super::{
    super::window::{Charged, Left, Ticket, Window},
    table::{MAX_SLOT_WORDS, Place, Probe, Table},
};
use crate::secret::random;

/// The slots of all keys of one kind.
pub(in super::super) struct Store {
    shards: Box<[Shard]>,
    /// Keyed, so that nobody outside can choose addresses that meet. Whole keys are compared, so
    /// keys that meet cost time and no count.
    hasher: RandomState,
    kind: AddressKind,
}

/// A key of one store, with the prefix that it shares with its neighbours.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Address {
    kind: AddressKind,
    bits: [u64; 2],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum AddressKind {
    V4,
    /// An IPv6 /64.
    V6,
    /// An IPv6 /48.
    Site,
    Digest,
}

/// One key's slot, locked.
pub(in super::super) struct Held<'a> {
    shard: MutexGuard<'a, State>,
    probe: Probe,
    place: Place,
    now: u64,
}

/// Two cache lines, which no other shard shares.
#[repr(align(128))]
struct Shard(Mutex<State>);

/// In the order that puts what each charge writes, the lock's own word and the reading, on the
/// first line, and what is only read behind it: threads that charge one key hand over two lines,
/// this one and the entry's.
#[repr(C)]
struct State {
    /// The latest reading seen: time does not go back in a shard.
    now: u64,
    table: Table,
    /// When times in slots have to be settled again.
    settle_at: u64,
    limit: u32,
    window: Window,
    /// `None` before the first.
    resets: Option<Box<Resets>>,
}

const _: () = assert!(size_of::<Shard>() == 128);

/// What operators made forgotten, as long as charges from before may still be given back: a refund
/// of one must not be taken from what the key was charged since.
#[derive(Default)]
struct Resets {
    count: u64,
    /// Charges from before this one are not given back, whatever their key.
    dropped: u64,
    recent: VecDeque<Reset>,
}

struct Reset {
    key: [u32; 4],
    number: u64,
    at: u64,
}

impl Address {
    pub(in super::super) fn v4(bits: u32) -> Self {
        Self::new(AddressKind::V4, [bits.into(), 0])
    }

    /// An IPv6 /64.
    pub(in super::super) fn v6(bits: u64) -> Self {
        Self::new(AddressKind::V6, [bits, 0])
    }

    /// The /48 of an IPv6 /64.
    pub(in super::super) fn site(bits: u64) -> Self {
        Self::new(AddressKind::Site, [bits >> 16, 0])
    }

    pub(in super::super) fn digest(bits: [u64; 2]) -> Self {
        Self::new(AddressKind::Digest, bits)
    }

    pub(in super::super) fn kind(&self) -> AddressKind {
        self.kind
    }

    const fn new(kind: AddressKind, bits: [u64; 2]) -> Self {
        Self { kind, bits }
    }

    fn words(&self) -> [u32; 4] {
        let [first, second] = self.bits;
        [
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
        ]
    }

    /// The network whose keys share a row: an IPv4 /16, an IPv6 /32. A digest stands alone.
    fn prefix(&self) -> u64 {
        match self.kind {
            AddressKind::V4 => self.bits[0] >> 16,
            AddressKind::V6 => self.bits[0] >> 32,
            AddressKind::Site => self.bits[0] >> 16,
            AddressKind::Digest => self.bits[0],
        }
    }
}

impl AddressKind {
    fn key_words(self) -> usize {
        match self {
            Self::V4 => 1,
            Self::V6 | Self::Site => 2,
            Self::Digest => 4,
        }
    }
}

impl Store {
    pub(in super::super) fn new(
        kind: AddressKind,
        window: Window,
        limit: u32,
        capacity: usize,
    ) -> Self {
        // Enough shards that threads seldom meet, and none so large that growing it takes long.
        let shards = (capacity / SMALL_SHARD)
            .clamp(1, MANY_SHARDS)
            .max(capacity / LARGE_SHARD)
            .next_power_of_two();
        let max = (capacity / shards).max(1);
        let seed = || u64::from_ne_bytes(random());
        let shard = |_| {
            Shard(Mutex::new(State {
                table: Table::new(kind.key_words(), window.words(), max),
                window,
                settle_at: window.horizon(),
                limit,
                resets: None,
                now: 0,
            }))
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            hasher: RandomState::with_seeds(seed(), seed(), seed(), seed()),
            kind,
        }
    }

    /// Charges a key when its limit admits that; otherwise says how many nanoseconds it would have
    /// to wait. Then, and always with `want_left`, `left` becomes what is left to the key: apart
    /// from the result, which fits into registers and is not copied through memory for it.
    #[inline]
    pub(in super::super) fn charge(
        &self,
        address: Address,
        now: u64,
        cost: u32,
        want_left: bool,
        left: &mut Left,
    ) -> Result<(), u64> {
        let (shard, home) = self.spot(&address);
        let mut guard = lock(&self.shards[shard]);
        let now = guard.advance(now);
        let State {
            window,
            table,
            limit,
            ..
        } = &mut *guard;
        let probe = Probe {
            key: address.words(),
            home,
            row: 0,
        };
        let Some(slot) = table.find_mut(&probe) else {
            return self
                .held(shard, guard, probe, &address, now)
                .charge(cost, left);
        };
        let charged = window.charge(slot, now, *limit, cost);
        if want_left || charged.is_err() {
            *left = window.left(slot, now, *limit);
        }
        charged
    }

    /// Locks the shard of a key and finds the key's slot.
    #[inline]
    pub(in super::super) fn hold(&self, address: Address, now: u64) -> Held<'_> {
        let (shard, home) = self.spot(&address);
        let mut guard = lock(&self.shards[shard]);
        let now = guard.advance(now);
        let probe = Probe {
            key: address.words(),
            home,
            row: 0,
        };
        match guard.table.find(&probe) {
            Some(index) => Held {
                shard: guard,
                probe,
                place: Place::Entry(index),
                now,
            },
            None => self.held(shard, guard, probe, &address, now),
        }
    }

    /// A key that has no entry, held.
    fn held<'a>(
        &self,
        shard: usize,
        mut guard: MutexGuard<'a, State>,
        mut probe: Probe,
        address: &Address,
        now: u64,
    ) -> Held<'a> {
        // Shards differ in which prefixes share a row, so that no two always do.
        probe.row = (self.hash(!address.prefix()) >> (shard % 56)) as u8;
        let State { table, window, .. } = &mut *guard;
        let place = table.place(&probe, window, now);
        Held {
            shard: guard,
            probe,
            place,
            now,
        }
    }

    /// Forgets what a key has used up.
    pub(in super::super) fn reset(&self, address: Address, now: u64) {
        let mut held = self.hold(address, now);
        if let Place::Entry(_) = held.place {
            let (key, at) = (held.probe.key, held.now);
            let state = &mut *held.shard;
            state.table.forget(&held.probe);
            let memory = state.window.memory();
            state.resets.get_or_insert_default().note(key, at, memory);
        }
    }

    /// Holds keys to another limit from now on, by another window where the one in use cannot, and
    /// keeps what they have used up. Slots never get smaller, so that nothing is forgotten that
    /// counts again when the limit goes up. The shards change one after the other.
    pub(in super::super) fn change(&self, window: Window, limit: u32) {
        for shard in &self.shards {
            let state = &mut *lock(shard);
            state.limit = limit;
            let (old, now) = (state.window, state.now);
            if old.holds(limit) {
                continue;
            }
            state.table.reslot(window.words(), |slot, held| {
                window.adopt(slot, now, &old, held);
            });
            state.window = window;
            state.settle_at = now.saturating_add(window.horizon());
        }
    }

    /// Keys that have an entry.
    pub(in super::super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).table.len())
            .sum()
    }

    /// Charges that went to a slot shared by a prefix, for want of room.
    pub(in super::super) fn overflowed(&self) -> u64 {
        let of = |shard| lock(shard).table.overflowed();
        self.shards.iter().map(of).sum()
    }

    /// All that the store remembers.
    #[cfg(test)]
    pub(in super::super) fn dump(&self) -> Vec<u32> {
        let of = |shard| lock(shard).table.dump().collect::<Vec<_>>();
        self.shards.iter().flat_map(of).collect()
    }

    #[inline]
    fn hash(&self, bits: u64) -> u64 {
        self.hasher.hash_one(bits)
    }

    /// Where a key is: the shard's index, and where the search in it begins.
    #[inline]
    fn spot(&self, address: &Address) -> (usize, u16) {
        debug_assert_eq!(self.kind, address.kind);
        let hash = match address.kind {
            AddressKind::Digest => self.hash(address.bits[1]),
            AddressKind::V4 | AddressKind::V6 | AddressKind::Site => self.hash(address.bits[0]),
        };
        let shard = (hash >> 32) as usize & (self.shards.len() - 1);
        (shard, hash as u16)
    }
}

impl Held<'_> {
    /// Whether `cost` more units fit; otherwise the nanoseconds to wait. `quota` is the key's own
    /// limit, where it is lower than all others'.
    #[inline]
    pub(in super::super) fn judge(&self, quota: Option<u32>, cost: u32) -> Result<Ticket, u64> {
        let State { table, window, .. } = &*self.shard;
        let limit = self.limit(quota);
        match table.slot(self.place, &self.probe) {
            Some(slot) => window.judge(slot, self.now, limit, cost),
            None => {
                let mut slot = [0; MAX_SLOT_WORDS];
                let slot = &mut slot[..window.words()];
                window.clear(slot, self.now);
                window.judge(slot, self.now, limit, cost)
            }
        }
    }

    /// Charges what was judged.
    #[inline]
    pub(in super::super) fn commit(&mut self, ticket: Ticket, cost: u32) -> Charged {
        let State { table, window, .. } = &mut *self.shard;
        let slot = table.slot_mut(&mut self.place, &self.probe, window, self.now);
        window.commit(slot, ticket, cost);
        Charged {
            ticket,
            at: self.now,
            cost,
            resets: self.shard.resets.as_ref().map_or(0, |resets| resets.count),
        }
    }

    /// Judges and charges.
    fn charge(mut self, cost: u32, left: &mut Left) -> Result<(), u64> {
        let charged = self.judge(None, cost).map(|ticket| {
            self.commit(ticket, cost);
        });
        *left = self.left(None);
        charged
    }

    /// Gives back what was charged, unless it has been forgotten.
    pub(in super::super) fn refund(&mut self, charged: Charged, quota: Option<u32>) {
        let limit = self.limit(quota);
        let key = self.probe.key;
        let State {
            table,
            window,
            resets,
            ..
        } = &mut *self.shard;
        if resets
            .as_ref()
            .is_some_and(|resets| resets.forbid(key, charged.resets))
        {
            return;
        }
        if let Some(slot) = table.existing_mut(self.place, &self.probe) {
            window.refund(slot, charged, self.now, limit);
        }
    }

    /// What is left to the key.
    pub(in super::super) fn left(&self, quota: Option<u32>) -> Left {
        let State { table, window, .. } = &*self.shard;
        let limit = self.limit(quota);
        match table.slot(self.place, &self.probe) {
            Some(slot) => window.left(slot, self.now, limit),
            None => Left {
                units: limit,
                more_in: 0,
            },
        }
    }

    /// Whether the key has no entry of its own, for want of room.
    #[cfg(feature = "redis")]
    pub(in super::super) fn is_shared(&self) -> bool {
        self.place == Place::Shared
    }

    #[inline]
    fn limit(&self, quota: Option<u32>) -> u32 {
        let limit = self.shard.limit;
        quota.map_or(limit, |quota| quota.min(limit))
    }
}

impl State {
    /// The time to judge by.
    #[inline]
    fn advance(&mut self, now: u64) -> u64 {
        let before = self.now;
        self.now = before.max(now);
        if self.now >= self.settle_at {
            self.settle(before);
        }
        self.now
    }

    #[cold]
    fn settle(&mut self, before: u64) {
        if self.now - before >= self.window.memory() {
            self.table.clear();
        }
        let (window, now) = (self.window, self.now);
        self.table.each_slot(|slot| window.settle(slot, now));
        self.settle_at = now.saturating_add(window.horizon());
    }
}

impl Resets {
    fn note(&mut self, key: [u32; 4], at: u64, memory: u64) {
        self.count += 1;
        while self.recent.front().is_some_and(|old| at - old.at > memory) {
            self.recent.pop_front();
        }
        if self.recent.len() >= MANY_RESETS {
            self.dropped = self.recent.pop_front().map_or(0, |old| old.number);
        }
        self.recent.push_back(Reset {
            key,
            number: self.count,
            at,
        });
    }

    /// Whether a key's charge was forgotten that was made after `before` resets.
    fn forbid(&self, key: [u32; 4], before: u64) -> bool {
        let newer = self.recent.iter().rev();
        before < self.dropped
            || newer
                .take_while(|reset| reset.number > before)
                .any(|reset| reset.key == key)
    }
}

#[inline]
fn lock(shard: &Shard) -> MutexGuard<'_, State> {
    match try_lock(shard) {
        Some(guard) => guard,
        None => wait(shard),
    }
}

#[inline]
fn try_lock(shard: &Shard) -> Option<MutexGuard<'_, State>> {
    match shard.0.try_lock() {
        Ok(guard) => Some(guard),
        // Nothing panics while a shard is locked; were it so, its counts would still stand.
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A shard is locked for tens of nanoseconds: sooner than a sleeping thread wakes, and each one that
/// sleeps makes the other one call the system to wake it. So it goes away for some microseconds, in
/// which the other one has the line to itself: handing it over costs as much as many charges.
#[cold]
fn wait(shard: &Shard) -> MutexGuard<'_, State> {
    for round in 0..ROUNDS {
        (0..YIELDS << round.min(2)).for_each(|_| thread::yield_now());
        if let Some(guard) = try_lock(shard) {
            return guard;
        }
    }
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

const YIELDS: u32 = 4;
const ROUNDS: u32 = 20;
/// Resets of a shard that are told apart; past that, charges from before are not given back.
const MANY_RESETS: usize = 64;
const SMALL_SHARD: usize = 1_024;
const LARGE_SHARD: usize = 8_192;
const MANY_SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// One store, and the list of what its keys were admitted.
    struct Traced {
        store: Store,
        admitted: Vec<(u32, u64, u32)>,
    }

    impl Traced {
        fn new(window: Window, limit: u32) -> Self {
            Self {
                store: Store::new(AddressKind::V4, window, limit, 64),
                admitted: Vec::new(),
            }
        }

        fn try_charge(&mut self, now: u64, cost: u32) -> Result<(), u64> {
            self.try_charge_of(KEY, now, cost)
        }

        fn try_charge_of(&mut self, key: u32, now: u64, cost: u32) -> Result<(), u64> {
            let mut held = self.store.hold(Address::v4(key), now);
            let ticket = held.judge(None, cost)?;
            held.commit(ticket, cost);
            self.admitted.push((key, now, cost));
            Ok(())
        }

        /// The naive list: what was charged in the `span` that ends now.
        fn used(&self, now: u64, span: u64) -> u32 {
            self.used_by(KEY, now, span)
        }

        fn used_by(&self, key: u32, now: u64, span: u64) -> u32 {
            let of = self.admitted.iter().filter(|(of, ..)| *of == key);
            let recent = of.filter(|(_, at, _)| now - at < span);
            recent.map(|(.., cost)| cost).sum()
        }
    }

    const KEY: u32 = 7;
    const ADDRESS: Address = Address::new(AddressKind::V4, [KEY as u64, 0]);

    /// Spans, and steps between charges that matter to them: none, short, about one, very long.
    fn traces() -> impl Strategy<Value = (u32, u64, Vec<(u64, u32)>)> {
        let spans = prop_oneof![
            1_000_000_u64..3_000_000,
            1_000_000_u64..366 * 24 * 3_600 * 1_000_000_000
        ];
        (1_u32..40, spans).prop_flat_map(|(limit, span)| {
            let step = prop_oneof![
                3 => Just(0),
                6 => 0..span / u64::from(limit) * 2,
                3 => span - 3..span + 3,
                3 => 0..span * 2,
                1 => 0..u64::MAX / 256,
            ];
            let charge = (step, 1..=limit.min(4));
            (
                Just(limit),
                Just(span),
                prop::collection::vec(charge, 1..120),
            )
        })
    }

    proptest! {
        /// Keys of one shard, some of them idle while times wrap, and readings of any phase, some of
        /// them behind others.
        #[test]
        fn a_strict_window_agrees_with_the_naive_list(
            (limit, span, steps) in traces(),
            phase in 0..u64::MAX / 4,
            keys in prop::collection::vec((0_u32..3, prop::option::weighted(0.2, 0..u64::MAX)), 120),
        ) {
            let window = Window::strict(limit, span);
            let mut traced = Traced::new(window, limit);
            let (mut now, mut reading) = (0, phase);
            for ((step, cost), (key, back)) in steps.into_iter().zip(keys) {
                reading += step;
                let behind = back.map_or(0, |back| back % (reading / 2).max(1));
                // Time does not go back in a shard: such a reading is the latest one.
                now = now.max(reading - behind);
                let fits = |span| traced.used_by(key, now, span) + cost <= limit;
                let (must_refuse, may_admit) = (!fits(span), fits(window.memory()));
                let length = traced.admitted.len();
                match traced.try_charge_of(key, reading - behind, cost) {
                    Ok(()) => {
                        prop_assert!(!must_refuse, "admitted too much");
                        traced.admitted[length].1 = now;
                    }
                    Err(_) => prop_assert!(!may_admit, "refused for nothing"),
                }
            }
        }

        #[test]
        fn a_short_log_is_exact_to_the_nanosecond(
            limit in 1_u32..=16,
            span in 1_000_000_u64..500_000_000,
            phase in 0..u64::MAX / 2,
            steps in prop::collection::vec((0_u64..100_000_000, 1_u32..4), 1..120),
        ) {
            let mut traced = Traced::new(Window::strict(limit, span), limit);
            let mut now = phase;
            for (step, cost) in steps {
                now += step;
                let fits = traced.used(now, span) + cost <= limit;
                prop_assert_eq!(traced.try_charge(now, cost).is_ok(), fits);
            }
        }

        #[test]
        fn the_wait_is_tight_and_what_is_left_is_true(
            smooth in any::<bool>(),
            (limit, span, steps) in traces(),
        ) {
            let window = if smooth { Window::smooth } else { Window::strict }(limit, span);
            let mut traced = Traced::new(window, limit);
            let mut now = 0;
            for (step, cost) in steps {
                now += step;
                if let Err(wait) = traced.try_charge(now, cost) {
                    // Copies, since a reading that was ahead counts for its shard.
                    let slot = slot_of(&traced.store);
                    let judge = |at| window.judge(&slot, at, limit, cost).is_ok();
                    prop_assert!(wait > 0 && !judge(now + wait - 1), "the wait is too long");
                    prop_assert!(judge(now + wait), "the wait is too short");
                }
                let slot = slot_of(&traced.store);
                let Left { units, more_in } = window.left(&slot, now, limit);
                let admits = |at, units| window.judge(&slot, at, limit, units).is_ok();
                prop_assert!(units <= limit);
                prop_assert!(units == 0 || admits(now, units));
                prop_assert!(units == limit || !admits(now, units + 1));
                prop_assert_eq!(more_in == 0, window.is_idle(&slot, now));
                if units < limit {
                    prop_assert!(admits(now + more_in, units + 1));
                    prop_assert!(!admits(now + more_in - 1, units + 1));
                }
            }
        }

        #[test]
        fn a_smooth_window_agrees_with_its_definition((limit, span, steps) in traces()) {
            let period = u128::from(span.div_ceil(limit.into()));
            let mut traced = Traced::new(Window::smooth(limit, span), limit);
            let (mut now, mut arrival) = (0, 0_u128);
            for (step, cost) in steps {
                now += step;
                let next = arrival.max(now.into()) + period * u128::from(cost);
                let fits = next <= u128::from(now) + period * u128::from(limit);
                prop_assert_eq!(traced.try_charge(now, cost).is_ok(), fits);
                if fits {
                    arrival = next;
                }
                let worst = Window::smooth(limit, span).worst_case(limit);
                prop_assert!(traced.used(now, span) < worst + cost);
            }
        }

        #[test]
        fn a_clock_that_steps_back_opens_nothing(
            limit in 1_u32..30,
            readings in prop::collection::vec(0_u64..5_000_000, 1..200),
        ) {
            const SPAN: u64 = 1_000_000;
            let mut traced = Traced::new(Window::strict(limit, SPAN), limit);
            let mut latest = 0;
            for reading in readings {
                latest = latest.max(reading);
                if traced.try_charge(reading, 1).is_ok() {
                    traced.admitted.pop();
                    traced.admitted.push((KEY, latest, 1));
                }
                prop_assert!(traced.used(latest, SPAN) <= limit);
            }
        }

        #[test]
        fn what_is_given_back_was_never_charged(
            limit in 1_u32..=40,
            span in 1_000_000_u64..500_000_000,
            steps in prop::collection::vec((0_u64..100_000_000, 1_u32..4, any::<u8>()), 1..150),
        ) {
            let window = Window::strict(limit, span);
            let mut traced = Traced::new(window, limit);
            let mut tickets: Vec<Charged> = Vec::new();
            let mut now = 0;
            for (step, cost, choice) in steps {
                now += step;
                if choice % 5 == 0 && let Some(charged) = tickets.first() {
                    // To where a charge leaves the window, one before it, or one behind it.
                    let edge = [span, window.memory()][usize::from(choice) % 2] - 1;
                    now = now.max(charged.at + edge + u64::from(choice % 3));
                }
                if choice % 3 == 0 && !tickets.is_empty() {
                    let index = usize::from(choice) % tickets.len();
                    traced.admitted.swap_remove(index);
                    let mut held = traced.store.hold(ADDRESS, now);
                    held.refund(tickets.swap_remove(index), None);
                    continue;
                }
                let fits = traced.used(now, span) + cost <= limit;
                let judged = {
                    let mut held = traced.store.hold(ADDRESS, now);
                    held.judge(None, cost).map(|ticket| {
                        tickets.push(held.commit(ticket, cost));
                        traced.admitted.push((KEY, now, cost));
                    })
                };
                if limit <= 16 {
                    prop_assert_eq!(judged.is_ok(), fits, "the log is exact");
                } else {
                    prop_assert!(fits || judged.is_err(), "admitted too much");
                }
            }
        }

        #[test]
        fn giving_back_to_a_smooth_window_gives_no_more_than_was_taken(
            limit in 1_u32..=10,
            steps in prop::collection::vec((0_u64..300_000, any::<u8>()), 1..150),
        ) {
            const SPAN: u64 = 1_000_000;
            let window = Window::smooth(limit, SPAN);
            let period = SPAN.div_ceil(limit.into());
            let store = Store::new(AddressKind::V4, window, limit, 64);
            let mut outstanding: Vec<Charged> = Vec::new();
            let mut now = 1;
            for (step, choice) in steps {
                now += step;
                let mut held = store.hold(ADDRESS, now);
                if choice % 3 == 0 && !outstanding.is_empty() {
                    let index = usize::from(choice) % outstanding.len();
                    held.refund(outstanding.remove(index), None);
                } else if let Ok(ticket) = held.judge(None, 1) {
                    outstanding.push(held.commit(ticket, 1));
                }
                drop(held);
                // What remains, charged alone from the beginning.
                let alone = outstanding.iter().fold(0, |arrival, charged| charged.at.max(arrival) + period);
                let slot = slot_of(&store);
                let arrival = u64::from(slot[0]) | u64::from(slot[1]) << 32;
                prop_assert!(arrival.max(now) >= alone.max(now));
            }
        }

        #[test]
        fn a_changed_limit_keeps_what_was_used_up(
            limits in prop::collection::vec(1_u32..400, 1..12),
            steps in prop::collection::vec((0_u64..400_000, any::<u8>()), 1..60),
        ) {
            const SPAN: u64 = 1_000_000;
            let mut limit = limits[0];
            let mut traced = Traced::new(Window::strict(limit, SPAN), limit);
            let mut limits = limits.iter().cycle();
            let mut now = 0;
            for (step, choice) in steps {
                if choice < 40 {
                    limit = *limits.next().unwrap();
                    traced.store.change(Window::strict(limit, SPAN), limit);
                }
                now += step / 8;
                for _ in 0..choice % 32 {
                    let used = traced.used(now, SPAN);
                    let admitted = traced.try_charge(now, 1).is_ok();
                    prop_assert!(!admitted || used < limit, "{used} of {limit}");
                }
            }
            now += SPAN * 2;
            prop_assert_eq!((0..500).filter(|_| traced.try_charge(now, 1).is_ok()).count(), limit as usize);
        }

        #[test]
        fn no_key_passes_its_limit_when_there_is_no_room(
            charges in prop::collection::vec((0_u32..2, 0_u32..8, 0_u64..50_000), 1..400),
        ) {
            const SPAN: u64 = 1_000_000;
            let store = Store::new(AddressKind::V4, Window::strict(2, SPAN), 2, 64);
            let mut admitted: Vec<(u32, u64)> = Vec::new();
            let mut now = 0;
            for (network, host, step) in charges {
                now += step;
                let bits = network << 16 | host;
                let mut held = store.hold(Address::v4(bits), now);
                let used = admitted
                    .iter()
                    .filter(|(key, at)| *key == bits && now - at < SPAN);
                if let Ok(ticket) = held.judge(None, 1) {
                    prop_assert!(used.count() < 2, "admitted too much");
                    held.commit(ticket, 1);
                    admitted.push((bits, now));
                }
                drop(held);
                prop_assert!(store.len() <= 64);
            }
        }

        #[test]
        fn forgetting_is_not_noticed(smooth in any::<bool>(), limit in 1_u32..20, seed in any::<u64>()) {
            // One table clears what is idle while it is used, the other one has a store for each
            // key. Each key has a network of its own, so that none shares a slot.
            const SPAN: u64 = 1_000_000;
            const KEYS: usize = 200;
            let window = if smooth { Window::smooth } else { Window::strict }(limit, SPAN);
            let swept = Store::new(AddressKind::V4, window, limit, 1_000);
            let store = |_| Store::new(AddressKind::V4, window, limit, 64);
            let alone: Vec<_> = (0..KEYS).map(store).collect();
            let mut random = seed;
            let mut next = |below: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 33) % below
            };
            let (mut now, mut seen, mut cleared) = (0, HashSet::new(), 0);
            for _ in 0..1_000 {
                now += next(SPAN / 25);
                let key = next(KEYS as u64) as usize;
                let admit = |store: &Store| {
                    let mut held = store.hold(Address::v4((key as u32) << 16), now);
                    let admitted = held.judge(None, 1).map(|ticket| held.commit(ticket, 1).at);
                    (admitted, held.left(None))
                };
                prop_assert_eq!(admit(&swept), admit(&alone[key]));
                seen.insert(key);
                cleared = cleared.max(seen.len() - swept.len());
            }
            prop_assert_eq!(swept.overflowed(), 0);
            prop_assert!(cleared > KEYS / 8, "{cleared} were cleared");
        }
    }

    /// A charge whose stamp comes round again is still long gone.
    #[test]
    fn a_refund_of_long_ago_takes_nothing() {
        for limit in [1, 20] {
            // Whole turns of the 32 bits of a stamp, in the ticks of a log and the segments of a ring.
            let span = if limit == 1 { 1_000_000 } else { 15_000_000 };
            let unit = span / if limit == 1 { 1_000_000 } else { 15 };
            let mut traced = Traced::new(Window::strict(limit, span), limit);
            let ticket = traced.store.hold(ADDRESS, 0).judge(None, limit).unwrap();
            let old = traced.store.hold(ADDRESS, 0).commit(ticket, limit);
            let now = unit << 32;
            traced.try_charge(now, limit).unwrap();
            traced.store.hold(ADDRESS, now).refund(old, None);
            assert!(traced.try_charge(now, 1).is_err(), "{limit}");
        }
    }

    #[test]
    fn idle_for_ever_then_a_burst_is_the_limit_and_no_more() {
        for limit in [1, 5, 16, 17, 100, 300, 70_000] {
            let span = 900_000_000_000;
            for window in [Window::strict(limit, span), Window::smooth(limit, span)] {
                let mut traced = Traced::new(window, limit);
                let mut now = 5;
                for idle in [0, span * 2, u64::MAX / 4] {
                    now += idle;
                    let burst = (0..limit * 2).filter(|_| traced.try_charge(now, 1).is_ok());
                    assert_eq!(burst.count(), limit as usize, "{window:?} after {idle}");
                }
            }
        }
    }

    #[test]
    fn a_spray_never_passes_the_cap_and_never_sheds_a_debt() {
        let window = Window::strict(2, 1_000_000_000);
        let store = Store::new(AddressKind::V4, window, 2, 1_000);
        let charge = |bits, now| {
            let mut held = store.hold(Address::v4(bits), now);
            held.judge(None, 1)
                .map(|ticket| held.commit(ticket, 1))
                .is_ok()
        };
        let victim = 0x0a00_0001;
        assert!(charge(victim, 0) && charge(victim, 0) && !charge(victim, 0));
        // A whole network of the attacker's, each address twice and once more.
        let mut admitted = 0;
        for bits in 0..60_000_u32 {
            let address = 0xc0a8_0000 | bits;
            admitted += u32::from(charge(address, 1)) + u32::from(charge(address, 1));
            assert!(store.len() <= 1_000);
        }
        assert!(!charge(victim, 2), "the debt stands");
        // Its share of the table, and of shared slots.
        let entries = store.len() as u32;
        assert!(entries <= 1_000 / 16 + 1, "{entries}");
        assert!(admitted <= 2 * (entries + 64), "{admitted}");
        // Others are let in as if nothing happened.
        let others = (0..200).map(|other| 0x0b00_0000 + (other << 16));
        let welcome = others.filter(|other| charge(*other, 2) && charge(*other, 2));
        assert!(welcome.count() >= 195);
    }

    fn slot_of(store: &Store) -> Vec<u32> {
        let held = store.hold(ADDRESS, 0);
        let State {
            table, window, now, ..
        } = &*held.shard;
        match table.slot(held.place, &held.probe) {
            Some(slot) => slot.to_vec(),
            None => {
                let mut slot = vec![0; window.words()];
                window.clear(&mut slot, *now);
                slot
            }
        }
    }
}
