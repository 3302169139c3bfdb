//! The bounded way from the async executor to the threads that hash.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking};

use super::hasher::PasswordError;
use crate::{client::Prefix, context::Context, event::metric};

/// What a hash is for. Each purpose has its own share of the places to wait, so that a flood of
/// one cannot shut out the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Verify,
    New,
}

/// At most so many jobs run, and at most so many wait.
#[derive(Debug)]
pub(super) struct Queue {
    running: Arc<Semaphore>,
    concurrency: usize,
    places: [usize; 2],
    waiting: Mutex<Waiting>,
    /// The mean time of a job in nanoseconds, the latest weighted most.
    pace: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    counts: [usize; 2],
    sites: HashSet<Prefix>,
}

impl Queue {
    /// A queue of `concurrency` running jobs and `places` waiting ones, a quarter of them for new
    /// passwords.
    pub(super) fn new(concurrency: usize, places: usize) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let new = places.div_ceil(4);
        Self {
            running: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            places: [places - new, new],
            waiting: Mutex::default(),
            pace: AtomicU64::new(FIRST_PACE),
        }
    }

    /// Runs `job` on a blocking thread when there is room.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        context: &Context,
        purpose: Purpose,
        site: Option<Prefix>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let permit = match self.running.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let place = self.wait(purpose, site)?;
                let permit = self.running.clone().acquire_owned().await;
                drop(place);
                permit.map_err(|_| PasswordError::Failed)?
            }
        };
        let clock = context.clock().clone();
        let task = spawn_blocking(move || {
            // A caller that goes away does not stop the thread, so the permit stays with the work.
            let _permit = permit;
            let start = clock.monotonic();
            let result = job();
            (result, clock.monotonic().saturating_since(start))
        });
        let (result, took) = task.await.map_err(|_| PasswordError::Failed)?;
        metric::password_hashed(took);
        self.learn(took);
        Ok(result)
    }

    fn wait(&self, purpose: Purpose, site: Option<Prefix>) -> Result<Place<'_>, PasswordError> {
        let mut waiting = self.lock();
        let full = waiting.counts[purpose as usize] >= self.places[purpose as usize];
        if full || site.is_some_and(|site| waiting.sites.contains(&site)) {
            let ahead = waiting.counts.iter().sum::<usize>() + 1;
            return Err(PasswordError::Busy {
                retry_after: self.time_for(ahead),
            });
        }
        waiting.counts[purpose as usize] += 1;
        waiting.sites.extend(site);
        Ok(Place {
            queue: self,
            purpose,
            site,
        })
    }

    fn time_for(&self, jobs: usize) -> Duration {
        let rounds = jobs.div_ceil(self.concurrency) as u64;
        let nanos = self.pace.load(Ordering::Relaxed).saturating_mul(rounds);
        Duration::from_nanos(nanos).max(Duration::from_secs(1))
    }

    fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let old = self.pace.load(Ordering::Relaxed);
        self.pace.store(old / 4 * 3 + took / 4, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, given back when its job starts or its caller goes away.
struct Place<'a> {
    queue: &'a Queue,
    purpose: Purpose,
    site: Option<Prefix>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.counts[self.purpose as usize] -= 1;
        if let Some(site) = &self.site {
            waiting.sites.remove(site);
        }
    }
}

const FIRST_PACE: u64 = 250_000_000;

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::{Pin, pin},
        sync::mpsc,
        task::{Context as Task, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Task::from_waker(Waker::noop()))
    }

    fn site(last: u8) -> Option<Prefix> {
        Some(Prefix::of_site([203, 0, last, 7].into()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_was_abandoned_keeps_its_permit() {
        let (queue, context) = (Queue::new(1, 4), Context::new());
        let (release, held) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        {
            let job = move || {
                begin.send(()).unwrap();
                held.recv().unwrap();
            };
            let mut abandoned = pin!(queue.run(&context, Purpose::Verify, None, job));
            assert!(poll(abandoned.as_mut()).is_pending());
        }
        begun.recv().unwrap();
        assert_eq!(queue.running.available_permits(), 0);
        let mut next = pin!(queue.run(&context, Purpose::Verify, None, || 7));
        assert!(poll(next.as_mut()).is_pending());
        release.send(()).unwrap();
        assert_eq!(next.await.unwrap(), 7);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn waiting_is_bounded_by_site_and_by_purpose() {
        let (queue, context) = (Queue::new(1, 4), Context::new());
        let (release, held) = mpsc::channel::<()>();
        let job = move || assert!(held.recv().is_ok());
        let mut first = pin!(queue.run(&context, Purpose::Verify, site(1), job));
        assert!(poll(first.as_mut()).is_pending());
        let ask = |purpose, site| Box::pin(queue.run(&context, purpose, site, || ()));
        let is_busy = |result: Poll<Result<(), PasswordError>>| {
            matches!(result, Poll::Ready(Err(PasswordError::Busy { retry_after }))
                if retry_after >= Duration::from_secs(1))
        };

        let mut waits = ask(Purpose::Verify, site(1));
        assert!(poll(waits.as_mut()).is_pending());
        assert!(is_busy(poll(ask(Purpose::Verify, site(1)).as_mut())));
        assert!(is_busy(poll(ask(Purpose::New, site(1)).as_mut())));
        let mut others = [ask(Purpose::Verify, site(2)), ask(Purpose::Verify, site(3))];
        for other in &mut others {
            assert!(poll(other.as_mut()).is_pending());
        }
        assert!(is_busy(poll(ask(Purpose::Verify, site(4)).as_mut())));
        let mut new = ask(Purpose::New, site(4));
        assert!(poll(new.as_mut()).is_pending());
        assert!(is_busy(poll(ask(Purpose::New, site(5)).as_mut())));

        drop(others);
        let mut again = ask(Purpose::Verify, site(2));
        assert!(poll(again.as_mut()).is_pending());
        release.send(()).unwrap();
        first.await.unwrap();
        waits.await.unwrap();
        new.await.unwrap();
        again.await.unwrap();
        assert!(queue.lock().sites.is_empty());
        assert_eq!(queue.lock().counts, [0, 0]);
    }
}
