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

/// What a candidate took.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Nanoseconds of a call.
    pub time: f64,
    /// Nanoseconds beyond the first candidate's.
    pub added: f64,
    /// The same to what the second candidate adds, in each round.
    pub ratio: f64,
    /// Allocations of a call beyond the first candidate's.
    pub allocations: f64,
}

/// Measures candidates, and tells the median nanoseconds of a call.
pub fn compare(title: &str, rounds: usize, candidates: Vec<Candidate<'_>>) -> Vec<f64> {
    let measured = measure(title, rounds, candidates);
    measured.iter().map(|measured| measured.time).collect()
}

/// Runs candidates in turn, and shows on standard error what they took, by the median of rounds.
pub fn measure(title: &str, rounds: usize, mut candidates: Vec<Candidate<'_>>) -> Vec<Measured> {
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
    let peer = &times[1.min(times.len() - 1)];
    eprintln!("\n{title}");
    let measured = candidates.iter().enumerate().map(|(index, candidate)| {
        let own = &times[index];
        let pairs = own.iter().zip(&times[0]);
        let added = median(pairs.clone().map(|(own, base)| own - base).collect());
        let ratios = pairs
            .zip(peer)
            .map(|((own, base), peer)| (own - base) / (peer - base));
        let measured = Measured {
            time: median(own.clone()),
            added,
            ratio: if index == 0 {
                0.0
            } else {
                median(ratios.collect())
            },
            allocations: allocated[index] - if index == 0 { 0.0 } else { allocated[0] },
        };
        eprintln!(
            "  {:<48} {:>8.1} ns  added {:>8.1}  ratio {:>6.2}  allocations {:>5.2}",
            candidate.name, measured.time, measured.added, measured.ratio, measured.allocations,
        );
        measured
    });
    measured.collect()
}

/// Runs candidates in turn, a millisecond each, and tells the nanoseconds of a call in the round of
/// each that others on the host disturbed least. Shows them on standard error.
pub fn quietest(title: &str, rounds: usize, mut candidates: Vec<Candidate<'_>>) -> Vec<f64> {
    let mut least = vec![f64::INFINITY; candidates.len()];
    let mut calls = vec![8_u32; candidates.len()];
    for _ in 0..rounds {
        for (index, candidate) in candidates.iter_mut().enumerate() {
            let start = Instant::now();
            for _ in 0..calls[index] {
                (candidate.work)();
            }
            let time = start.elapsed().as_nanos() as f64 / f64::from(calls[index]);
            least[index] = least[index].min(time);
            calls[index] = ((1e6 / least[index]) as u32).max(8);
        }
    }
    eprintln!("\n{title}");
    for (candidate, least) in candidates.iter().zip(&least) {
        eprintln!("  {:<48} {least:>8.1} ns", candidate.name);
    }
    least
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

/// Prints one line of the table that `run.sh` makes: `name ours peer ratio budget ok|over`,
/// separated by tabs. `judged` is what the budget is about: the ratio to the peer, or, where there
/// is no peer, the figure itself.
pub fn row(name: &str, ours: f64, peer: Option<f64>, judged: f64, budget: Budget) {
    let (sign, bound, holds) = match budget {
        Budget::AtMost(bound) => ("<=", bound, judged <= bound),
        Budget::AtLeast(bound) => (">=", bound, judged >= bound),
    };
    let peer = peer.map_or("-".to_owned(), |peer| format!("{peer:.1}"));
    let verdict = if holds { "ok" } else { "over" };
    println!("{name}\t{ours:.1}\t{peer}\t{judged:.2}\t{sign}{bound}\t{verdict}");
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
