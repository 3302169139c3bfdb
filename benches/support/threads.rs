//! Two threads that do the same at the same time.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// How long two threads took to do `calls` in all.
pub(crate) fn on_two<W: FnMut()>(calls: u64, work: impl Fn() -> W + Sync) -> Duration {
    let start = Barrier::new(3);
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut work = work();
                start.wait();
                for _ in 0..calls / 2 {
                    work();
                }
            })
        });
        start.wait();
        let begun = Instant::now();
        for thread in threads {
            thread.join().expect("no call panics");
        }
        begun.elapsed()
    })
}
