//! One shard: an open-addressed table of slots in one allocation, and what takes the keys that it
//! has no room for.
//!
//! Linear probing with removal by shifting back: there are no tombstones, so a table at its cap
//! never has to be rebuilt, and a lookup touches one or two cache lines. An entry is a word of
//! metadata, the key's words and the window's words.

use std::ops::Range;

use super::super::window::Window;

/// Slots by key, at most `max` of them.
#[derive(Debug)]
pub(super) struct Table {
    words: Box<[u32]>,
    /// The number of entries that fit, less one; a power of two less one.
    mask: u32,
    /// The first word of the first entry: where a cache line begins.
    start: u8,
    key_words: u8,
    slot_words: u8,
    stride: u8,
    /// What a lookup does not need, so that it does not lie between what it needs.
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
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
            words: Box::default(),
            mask: 0,
            start: 0,
            key_words: key_words as u8,
            slot_words: slot_words as u8,
            stride: stride(key_words, slot_words),
            rest: Box::new(Rest {
                len: 0,
                max: max.clamp(1, MAX_ENTRIES),
                hand: 0,
                rows: Box::default(),
                overflow: Vec::new(),
                overflowed: 0,
            }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len
    }

    /// How many charges went to shared slots.
    pub(super) fn overflowed(&self) -> u64 {
        self.rest.overflowed
    }

    /// The slot at a place; `None` for a key that has none yet.
    #[inline]
    pub(super) fn slot(&self, place: Place, probe: &Probe) -> Option<&[u32]> {
        match place {
            Place::Entry(index) => self.words.get(self.slot_range(index)),
            Place::Vacant => None,
            Place::Shared => self.rest.overflow.get(self.shared_range(probe)),
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
                let range = self.slot_range(index);
                &mut self.words[range]
            }
            Place::Vacant | Place::Shared => {
                self.rest.overflowed += 1;
                let range = self.shared_range(probe);
                &mut self.rest.overflow[range]
            }
        }
    }

    /// The slot at a place where there is one.
    #[inline]
    pub(super) fn existing_mut(&mut self, place: Place, probe: &Probe) -> Option<&mut [u32]> {
        match place {
            Place::Entry(index) => {
                let range = self.slot_range(index);
                self.words.get_mut(range)
            }
            Place::Vacant => None,
            Place::Shared => {
                let range = self.shared_range(probe);
                self.rest.overflow.get_mut(range)
            }
        }
    }

    /// The same keys with slots of another length, each filled by `adopt` from the old one.
    pub(super) fn reslot(&mut self, slot_words: usize, mut adopt: impl FnMut(&mut [u32], &[u32])) {
        let head = 1 + usize::from(self.key_words);
        let (old_slot, old_stride) = (usize::from(self.slot_words), usize::from(self.stride));
        self.stride = stride(self.key_words.into(), slot_words);
        self.slot_words = slot_words as u8;
        let (words, start) = entries_of(self.stride, self.entries());
        let old = std::mem::replace(&mut self.words, words);
        let old = &old[std::mem::replace(&mut self.start, start).into()..];
        for held in old.chunks_exact(old_stride).filter(|held| held[0] != EMPTY) {
            // Not where it was: the search may begin elsewhere now.
            let at = self.at(self.vacancy(held[0] as u16));
            let entry = &mut self.words[at..][..head + slot_words];
            entry[..head].copy_from_slice(&held[..head]);
            adopt(&mut entry[head..], &held[head..][..old_slot]);
        }
        let mut overflow = vec![0; self.rest.overflow.len() / old_slot * slot_words];
        let slots = overflow.chunks_exact_mut(slot_words);
        for (slot, held) in slots.zip(self.rest.overflow.chunks_exact(old_slot)) {
            adopt(slot, held);
        }
        self.rest.overflow = overflow;
    }

    /// Forgets a key and what it has used up.
    pub(super) fn forget(&mut self, probe: &Probe) {
        if let Some(index) = self.find(probe) {
            self.remove(index);
        }
    }

    /// Forgets every key.
    pub(super) fn clear(&mut self) {
        self.words.fill(EMPTY);
        self.rest.rows.fill(0);
        self.rest.overflow = Vec::new();
        self.rest.len = 0;
    }

    /// Visits the slot of every key, the shared ones too.
    pub(super) fn each_slot(&mut self, mut visit: impl FnMut(&mut [u32])) {
        let slot_words = usize::from(self.slot_words);
        let offset = 1 + usize::from(self.key_words);
        for entry in self.words[self.start.into()..].chunks_exact_mut(self.stride.into()) {
            if entry[0] != EMPTY {
                visit(&mut entry[offset..][..slot_words]);
            }
        }
        let overflow = self.rest.overflow.chunks_exact_mut(slot_words);
        overflow.for_each(visit);
    }

    #[cfg(test)]
    pub(super) fn dump(&self) -> impl Iterator<Item = u32> {
        self.words.iter().chain(&self.rest.overflow).copied()
    }

    #[inline]
    pub(super) fn find(&self, probe: &Probe) -> Option<usize> {
        match self.key_words {
            1 => self.search::<1>(probe),
            2 => self.search::<2>(probe),
            _ => self.search::<4>(probe),
        }
    }

    /// The slot of a key that has an entry.
    #[inline]
    pub(super) fn find_mut(&mut self, probe: &Probe) -> Option<&mut [u32]> {
        let index = self.find(probe)?;
        self.existing_mut(Place::Entry(index), probe)
    }

    #[inline]
    fn search<const KEY_WORDS: usize>(&self, probe: &Probe) -> Option<usize> {
        match self.stride {
            4 => self.search_lines::<KEY_WORDS, 4>(probe),
            8 => self.search_lines::<KEY_WORDS, 8>(probe),
            _ => self.search_entries::<KEY_WORDS>(probe),
        }
    }

    /// Compares all keys of a cache line before it branches: which of them is the right one, nobody
    /// can predict.
    #[inline]
    fn search_lines<const KEY_WORDS: usize, const STRIDE: usize>(
        &self,
        probe: &Probe,
    ) -> Option<usize> {
        let key = probe.key.first_chunk::<KEY_WORDS>()?;
        let (mask, mut index) = (self.mask as usize, self.home(probe.home));
        loop {
            let line = self.words.get(self.at(index)..)?;
            let line = line.first_chunk::<LINE_WORDS>()?;
            let (mut found, mut has_room) = (None, false);
            for (step, entry) in line.chunks_exact(STRIDE).enumerate() {
                let is_key = entry[1..].first_chunk::<KEY_WORDS>()? == key;
                has_room |= entry[0] == EMPTY;
                if is_key & (entry[0] != EMPTY) {
                    found = Some(index + step);
                }
            }
            // In this order: nobody can predict either whether there is room beside a key.
            if found.is_some() {
                return found;
            }
            if has_room {
                return None;
            }
            index = (index + LINE_WORDS / STRIDE) & mask;
        }
    }

    #[inline]
    fn search_entries<const KEY_WORDS: usize>(&self, probe: &Probe) -> Option<usize> {
        let key = probe.key.first_chunk::<KEY_WORDS>()?;
        let (mask, mut index) = (self.mask as usize, self.home(probe.home));
        loop {
            let (meta, entry) = self.words.get(self.at(index)..)?.split_first()?;
            if *meta == EMPTY {
                return None;
            }
            if entry.first_chunk::<KEY_WORDS>()? == key {
                return Some(index);
            }
            index = (index + 1) & mask;
        }
    }

    /// The place of a key that has no entry. Makes room when there is none, in bounded time.
    pub(super) fn place(&mut self, probe: &Probe, window: &Window, now: u64) -> Place {
        // While the row's shared slot remembers anything, it may be of this key.
        let shared = self.slot(Place::Shared, probe);
        if shared.is_some_and(|slot| !window.is_idle(slot, now)) {
            return Place::Shared;
        }
        let share = (self.rest.max / SHARE).max(1);
        let has_room = |rest: &Rest| {
            let held = rest.rows.get(usize::from(probe.row)).copied();
            rest.len < rest.max && usize::from(held.unwrap_or(0)) < share
        };
        if !has_room(&self.rest) {
            self.sweep(SWEEP_WHEN_FULL, window, now);
        }
        if has_room(&self.rest) {
            return Place::Vacant;
        }
        if self.rest.overflow.is_empty() {
            let mut slot = vec![0; self.slot_words.into()];
            window.clear(&mut slot, now);
            self.rest.overflow = slot.repeat(ROWS);
        }
        Place::Shared
    }

    fn insert(&mut self, probe: &Probe, window: &Window, now: u64) -> usize {
        let entries = self.entries();
        // From half full to three quarters the hand goes round once: the table grows only when
        // that did not find enough to clear. A small one grows at once.
        if entries > SMALL && self.rest.len * 2 >= entries {
            self.sweep(SWEEP_ON_INSERT, window, now);
        }
        if (self.rest.len + 1) * 4 > entries * 3 {
            self.grow(entries);
        }
        self.rest.rows[usize::from(probe.row)] += 1;
        self.rest.len += 1;
        let index = self.vacancy(probe.home);
        let (at, key_words) = (self.at(index), usize::from(self.key_words));
        let entry = &mut self.words[at..][..usize::from(self.stride)];
        entry[0] = OCCUPIED | u32::from(probe.row) << 16 | u32::from(probe.home);
        entry[1..=key_words].copy_from_slice(&probe.key[..key_words]);
        let slot = &mut entry[1 + key_words..][..usize::from(self.slot_words)];
        window.clear(slot, now);
        index
    }

    /// The first free entry from `home` on.
    fn vacancy(&self, home: u16) -> usize {
        let mask = self.mask as usize;
        let mut index = self.home(home);
        while self.words[self.at(index)] != EMPTY {
            index = (index + 1) & mask;
        }
        index
    }

    fn grow(&mut self, entries: usize) {
        let stride = usize::from(self.stride);
        let entries = (entries * 2).max(MIN_ENTRIES);
        let (words, start) = entries_of(self.stride, entries);
        let old = std::mem::replace(&mut self.words, words);
        let old = &old[std::mem::replace(&mut self.start, start).into()..];
        self.mask = (entries - 1) as u32;
        self.rest.hand = 0;
        if self.rest.rows.is_empty() {
            self.rest.rows = vec![0; ROWS].into();
        }
        for entry in old.chunks_exact(stride).filter(|entry| entry[0] != EMPTY) {
            let at = self.at(self.vacancy(entry[0] as u16));
            self.words[at..][..stride].copy_from_slice(entry);
        }
    }

    /// Looks at the next `entries` entries, up to the first whose removal nobody can notice, and
    /// removes that one. One for each insert is enough, and more at once would make that insert
    /// slow.
    fn sweep(&mut self, entries: usize, window: &Window, now: u64) {
        if self.words.is_empty() {
            return;
        }
        for _ in 0..entries {
            let hand = self.rest.hand;
            let slot = &self.words[self.slot_range(hand)];
            if self.words[self.at(hand)] != EMPTY && window.is_idle(slot, now) {
                // Another entry may have moved here: the hand stays.
                return self.remove(hand);
            }
            self.rest.hand = (hand + 1) & self.mask as usize;
        }
    }

    fn remove(&mut self, index: usize) {
        let (stride, mask) = (usize::from(self.stride), self.mask as usize);
        let row = (self.words[self.at(index)] >> 16) as u8;
        self.rest.rows[usize::from(row)] -= 1;
        self.rest.len -= 1;
        let mut hole = index;
        let mut next = index;
        loop {
            next = (next + 1) & mask;
            let meta = self.words[self.at(next)];
            if meta == EMPTY {
                break;
            }
            let home = self.home(meta as u16);
            // An entry may stand anywhere from its home on.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                let (from, to) = (self.at(next), self.at(hole));
                self.words.copy_within(from..from + stride, to);
                hole = next;
            }
        }
        let at = self.at(hole);
        self.words[at] = EMPTY;
    }

    /// The number of entries that fit.
    fn entries(&self) -> usize {
        if self.words.is_empty() {
            0
        } else {
            self.mask as usize + 1
        }
    }

    /// Where the search for a key begins: with the first entry of a cache line, so that most keys
    /// are found in the line that is looked at first.
    #[inline]
    fn home(&self, home: u16) -> usize {
        let first = match self.stride {
            4 => !3,
            8 => !1,
            _ => !0,
        };
        usize::from(home) & self.mask as usize & first
    }

    /// The first word of an entry.
    #[inline]
    fn at(&self, index: usize) -> usize {
        usize::from(self.start) + index * usize::from(self.stride)
    }

    #[inline]
    fn slot_range(&self, index: usize) -> Range<usize> {
        let first = self.at(index) + 1 + usize::from(self.key_words);
        first..first + usize::from(self.slot_words)
    }

    #[inline]
    fn shared_range(&self, probe: &Probe) -> Range<usize> {
        let slot_words = usize::from(self.slot_words);
        let first = usize::from(probe.row) * slot_words;
        first..first + slot_words
    }
}

/// Words of an entry, one more than it needs where whole entries then fill a cache line.
fn stride(key_words: usize, slot_words: usize) -> u8 {
    let words = 1 + key_words + slot_words;
    let pad = (words + 1).is_power_of_two() && words < LINE_WORDS;
    words as u8 + u8::from(pad)
}

/// Room for so many entries, empty, and where the first cache line begins in it.
fn entries_of(stride: u8, entries: usize) -> (Box<[u32]>, u8) {
    if entries == 0 {
        return Default::default();
    }
    let words = vec![EMPTY; entries * usize::from(stride) + LINE_WORDS - 1].into_boxed_slice();
    let start = words.as_ptr().align_offset(LINE_WORDS * size_of::<u32>());
    (words, start.min(LINE_WORDS - 1) as u8)
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
/// A table of so many entries is not worth the clearing of others' while it can grow.
const SMALL: usize = 64;
const SWEEP_ON_INSERT: usize = 4;
const SWEEP_WHEN_FULL: usize = 8;
const LINE_WORDS: usize = 16;
const EMPTY: u32 = 0;
const OCCUPIED: u32 = 1 << 31;
