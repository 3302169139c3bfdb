//! One shard: an open-addressed table of slots in one allocation, and what takes the keys that it
//! has no room for.
//!
//! Linear probing with removal by shifting back: there are no tombstones, so a table at its cap
//! never has to be rebuilt, and a lookup touches one or two cache lines. An entry is a word of
//! metadata, the key's words and the window's words.

use super::super::window::Window;

/// Slots by key, at most `max` of them.
#[derive(Debug)]
pub(super) struct Table {
    words: Vec<u32>,
    /// The number of entries that fit, less one; a power of two less one.
    mask: usize,
    key_words: usize,
    slot_words: usize,
    len: usize,
    max: usize,
    /// Where the next sweep goes on.
    hand: usize,
    /// Keys held by each row of prefixes.
    rows: Box<[u16]>,
    /// The slots shared by keys without an entry, one for each row; empty until one is needed.
    overflow: Vec<u32>,
    overflowed: u64,
}

/// A key with everything that is derived from it once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) key: [u32; 4],
    /// Where the search for the key begins.
    pub(super) home: u16,
    /// The row of the key's prefix.
    pub(super) row: u8,
}

/// Where a key's slot is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// In an entry of its own.
    Entry(usize),
    /// Nowhere yet; there is room for an entry.
    Vacant,
    /// In the slot that the row's keys share while there is no room for them.
    Shared,
}

impl Table {
    pub(super) fn new(key_words: usize, slot_words: usize, max: usize) -> Self {
        Self {
            words: Vec::new(),
            mask: 0,
            key_words,
            slot_words,
            len: 0,
            max: max.clamp(1, MAX_ENTRIES),
            hand: 0,
            rows: Box::default(),
            overflow: Vec::new(),
            overflowed: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many charges went to shared slots.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// The slot at a place; `None` for a key that has none yet.
    #[inline]
    pub(super) fn slot(&self, place: Place, probe: &Probe) -> Option<&[u32]> {
        match place {
            Place::Entry(index) => {
                let start = index * self.stride() + 1 + self.key_words;
                self.words.get(start..start + self.slot_words)
            }
            Place::Vacant => None,
            Place::Shared => {
                let start = usize::from(probe.row) * self.slot_words;
                self.overflow.get(start..start + self.slot_words)
            }
        }
    }

    /// The slot at a place, which is now not vacant any more.
    #[inline]
    pub(super) fn slot_mut(
        &mut self,
        place: &mut Place,
        probe: &Probe,
        window: &Window,
        now: u64,
    ) -> &mut [u32] {
        if *place == Place::Vacant {
            *place = Place::Entry(self.insert(probe, window, now));
        }
        match *place {
            Place::Entry(index) => {
                let start = index * self.stride() + 1 + self.key_words;
                &mut self.words[start..start + self.slot_words]
            }
            Place::Vacant | Place::Shared => {
                self.overflowed += 1;
                let start = usize::from(probe.row) * self.slot_words;
                &mut self.overflow[start..start + self.slot_words]
            }
        }
    }

    /// The slot at a place where there is one.
    pub(super) fn existing_mut(&mut self, place: Place, probe: &Probe) -> Option<&mut [u32]> {
        match place {
            Place::Entry(index) => {
                let start = index * self.stride() + 1 + self.key_words;
                self.words.get_mut(start..start + self.slot_words)
            }
            Place::Vacant => None,
            Place::Shared => {
                let start = usize::from(probe.row) * self.slot_words;
                self.overflow.get_mut(start..start + self.slot_words)
            }
        }
    }

    /// The same keys with slots of another length, each filled by `adopt` from the old one.
    pub(super) fn reslot(&mut self, slot_words: usize, mut adopt: impl FnMut(&mut [u32], &[u32])) {
        let (old, head) = (self.stride(), 1 + self.key_words);
        let new = head + slot_words;
        let mut words = vec![EMPTY; self.words.len() / old * new];
        let entries = words
            .chunks_exact_mut(new)
            .zip(self.words.chunks_exact(old));
        for (entry, held) in entries.filter(|(_, held)| held[0] != EMPTY) {
            entry[..head].copy_from_slice(&held[..head]);
            adopt(&mut entry[head..], &held[head..]);
        }
        let mut overflow = vec![0; self.overflow.len() / self.slot_words * slot_words];
        let slots = overflow.chunks_exact_mut(slot_words);
        for (slot, held) in slots.zip(self.overflow.chunks_exact(self.slot_words)) {
            adopt(slot, held);
        }
        self.words = words;
        self.overflow = overflow;
        self.slot_words = slot_words;
    }

    /// Forgets a key and what it has used up.
    pub(super) fn forget(&mut self, probe: &Probe) {
        if let Some(index) = self.find(probe) {
            self.remove(index);
        }
    }

    /// Forgets every key.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        self.rows.fill(0);
        self.overflow = Vec::new();
        self.len = 0;
    }

    /// Visits the slot of every key, the shared ones too.
    pub(super) fn each_slot(&mut self, mut visit: impl FnMut(&mut [u32])) {
        let (stride, offset) = (self.stride(), 1 + self.key_words);
        for entry in self.words.chunks_exact_mut(stride) {
            if entry[0] != EMPTY {
                visit(&mut entry[offset..]);
            }
        }
        self.overflow
            .chunks_exact_mut(self.slot_words)
            .for_each(visit);
    }

    #[inline]
    pub(super) fn find(&self, probe: &Probe) -> Option<usize> {
        match self.key_words {
            1 => self.search::<1>(probe),
            2 => self.search::<2>(probe),
            _ => self.search::<4>(probe),
        }
    }

    #[inline]
    fn search<const KEY_WORDS: usize>(&self, probe: &Probe) -> Option<usize> {
        if self.words.is_empty() {
            return None;
        }
        let stride = 1 + KEY_WORDS + self.slot_words;
        let key = probe.key.first_chunk::<KEY_WORDS>()?;
        let mut index = usize::from(probe.home) & self.mask;
        loop {
            let entry = self.words.get(index * stride..)?;
            let (meta, entry) = entry.split_first()?;
            if *meta == EMPTY {
                return None;
            }
            if entry.first_chunk::<KEY_WORDS>()? == key {
                return Some(index);
            }
            index = (index + 1) & self.mask;
        }
    }

    /// The place of a key that has no entry. Makes room when there is none, in bounded time.
    pub(super) fn place(&mut self, probe: &Probe, window: &Window, now: u64) -> Place {
        // While the row's shared slot remembers anything, it may be of this key.
        let shared = self.slot(Place::Shared, probe);
        if shared.is_some_and(|slot| !window.is_idle(slot, now)) {
            return Place::Shared;
        }
        let share = (self.max / SHARE).max(1);
        let has_room = |table: &Self| {
            let held = table.rows.get(usize::from(probe.row)).copied();
            table.len < table.max && usize::from(held.unwrap_or(0)) < share
        };
        if !has_room(self) {
            self.sweep(SWEEP_WHEN_FULL, window, now);
        }
        if has_room(self) {
            return Place::Vacant;
        }
        if self.overflow.is_empty() {
            let mut slot = vec![0; self.slot_words];
            window.clear(&mut slot, now);
            self.overflow = slot.repeat(ROWS);
        }
        Place::Shared
    }

    fn insert(&mut self, probe: &Probe, window: &Window, now: u64) -> usize {
        let entries = if self.words.is_empty() {
            0
        } else {
            self.mask + 1
        };
        // From half full to three quarters the hand goes round once: the table grows only when
        // that did not find enough to clear.
        if self.len * 2 >= entries {
            self.sweep(SWEEP_ON_INSERT, window, now);
        }
        if (self.len + 1) * 4 > entries * 3 {
            self.grow(entries);
        }
        let mut slot = [0; MAX_SLOT_WORDS];
        let slot = &mut slot[..self.slot_words];
        window.clear(slot, now);
        self.rows[usize::from(probe.row)] += 1;
        self.len += 1;
        let (stride, key_words) = (self.stride(), self.key_words);
        let index = self.vacancy(probe.home);
        let entry = &mut self.words[index * stride..][..stride];
        entry[0] = OCCUPIED | u32::from(probe.row) << 16 | u32::from(probe.home);
        entry[1..=key_words].copy_from_slice(&probe.key[..key_words]);
        entry[1 + key_words..].copy_from_slice(slot);
        index
    }

    /// The first free entry from `home` on.
    fn vacancy(&self, home: u16) -> usize {
        let stride = self.stride();
        let mut index = usize::from(home) & self.mask;
        while self.words[index * stride] != EMPTY {
            index = (index + 1) & self.mask;
        }
        index
    }

    fn grow(&mut self, entries: usize) {
        let stride = self.stride();
        let entries = (entries * 2).max(MIN_ENTRIES);
        let old = std::mem::replace(&mut self.words, vec![EMPTY; entries * stride]);
        self.mask = entries - 1;
        self.hand = 0;
        if self.rows.is_empty() {
            self.rows = vec![0; ROWS].into();
        }
        for entry in old.chunks_exact(stride).filter(|entry| entry[0] != EMPTY) {
            let index = self.vacancy(entry[0] as u16);
            self.words[index * stride..][..stride].copy_from_slice(entry);
        }
    }

    /// Looks at the next `entries` entries and removes those whose removal nobody can notice.
    fn sweep(&mut self, entries: usize, window: &Window, now: u64) {
        if self.words.is_empty() {
            return;
        }
        let stride = self.stride();
        for _ in 0..entries {
            let entry = &self.words[self.hand * stride..][..stride];
            if entry[0] != EMPTY && window.is_idle(&entry[1 + self.key_words..], now) {
                // Another entry may have moved here: the hand stays.
                self.remove(self.hand);
            } else {
                self.hand = (self.hand + 1) & self.mask;
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let stride = self.stride();
        let row = (self.words[index * stride] >> 16) as u8;
        self.rows[usize::from(row)] -= 1;
        self.len -= 1;
        let mut hole = index;
        let mut next = index;
        loop {
            next = (next + 1) & self.mask;
            let meta = self.words[next * stride];
            if meta == EMPTY {
                break;
            }
            let home = meta as usize & 0xffff & self.mask;
            // An entry may stand anywhere from its home on.
            if next.wrapping_sub(home) & self.mask >= next.wrapping_sub(hole) & self.mask {
                let from = next * stride;
                self.words.copy_within(from..from + stride, hole * stride);
                hole = next;
            }
        }
        self.words[hole * stride] = EMPTY;
    }

    #[inline]
    fn stride(&self) -> usize {
        1 + self.key_words + self.slot_words
    }
}

/// The most keys of one table: the search begins at one of 2^16 places.
pub(super) const MAX_ENTRIES: usize = 3 << 14;

/// The longest slot: a ring of 32-bit counts.
pub(super) const MAX_SLOT_WORDS: usize = 18;

/// Rows of prefixes: each has a count of its keys and a shared slot.
const ROWS: usize = 256;
/// No row holds more than this part of the table.
const SHARE: usize = 16;
const MIN_ENTRIES: usize = 16;
const SWEEP_ON_INSERT: usize = 4;
const SWEEP_WHEN_FULL: usize = 64;
const EMPTY: u32 = 0;
const OCCUPIED: u32 = 1 << 31;
