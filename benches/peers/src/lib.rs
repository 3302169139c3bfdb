//! What the comparisons share: an allocator that counts, and a harness that runs candidates in
//! turn, so that the noise of a shared host meets all of them.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Counts allocations, and the bytes that are held.
pub struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator, and counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(layout.size() + HEADER, Relaxed) + layout.size() + HEADER;
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() + HEADER, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What the system's allocator keeps beside each block.
const HEADER: usize = 8;

/// Allocations since the start.
pub fn allocations() -> usize {
    ALLOCATIONS.load(Relaxed)
}

/// Bytes held now.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

/// The most bytes that were held since the last call.
pub fn take_peak() -> usize {
    PEAK.swap(LIVE.load(Relaxed), Relaxed)
}

/// A candidate of a comparison: a name, and what does the same work as the others.
pub struct Candidate<'a> {
    name: &'a str,
    work: Box<dyn FnMut() + 'a>,
}

impl<'a> Candidate<'a> {
    pub fn new(name: &'a str, work: impl FnMut() + 'a) -> Self {
        Self {
            name,
            work: Box::new(work),
        }
    }
}

/// Runs candidates in turn and prints the median nanoseconds of a call, what it adds to the first
/// candidate, the ratio of that to the second one's, and allocations of a call.
pub fn compare(title: &str, rounds: usize, mut candidates: Vec<Candidate<'_>>) -> Vec<f64> {
    let calls: Vec<u32> = candidates
        .iter_mut()
        .map(|candidate| {
            let start = Instant::now();
            let mut calls = 0_u32;
            while start.elapsed() < ROUND {
                for _ in 0..64 {
                    (candidate.work)();
                }
                calls += 64;
            }
            calls
        })
        .collect();
    let mut times = vec![Vec::with_capacity(rounds); candidates.len()];
    let mut allocated = vec![0.0; candidates.len()];
    for _ in 0..rounds {
        for (index, candidate) in candidates.iter_mut().enumerate() {
            let before = allocations();
            let start = Instant::now();
            for _ in 0..calls[index] {
                (candidate.work)();
            }
            let time = start.elapsed().as_nanos() as f64 / f64::from(calls[index]);
            times[index].push(time);
            allocated[index] = (allocations() - before) as f64 / f64::from(calls[index]);
        }
    }
    let added = |index: usize| {
        let each = times[index].iter().zip(&times[0]).map(|(a, b)| a - b);
        median(each.collect())
    };
    println!("\n{title}");
    let mut medians = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let ratios = times[index].iter().zip(&times[0]).zip(&times[1.min(times.len() - 1)]);
        let ratio = median(ratios.map(|((own, base), peer)| (own - base) / (peer - base)).collect());
        println!(
            "  {:<44} {:>8.1} ns  added {:>8.1}  ratio {:>6.2}  allocations {:>5.2}",
            candidate.name,
            median(times[index].clone()),
            added(index),
            if index == 0 { 0.0 } else { ratio },
            allocated[index] - if index == 0 { 0.0 } else { allocated[0] },
        );
        medians.push(median(times[index].clone()));
    }
    medians
}

/// The middle of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Pseudo-random numbers that cost a nanosecond.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        black_box(mixed ^ mixed >> 31)
    }
}

const ROUND: Duration = Duration::from_millis(15);
