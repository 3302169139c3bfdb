//! How long a body may take.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::rejection::{Rejection, RejectionKind};

/// The times that a body is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The gate that answers.
    pub(crate) gate: &'static str,
    /// The longest wait for the next frame while somebody reads.
    pub(crate) idle: Duration,
    /// The fewest bytes for each second in which somebody waited; 0 for none.
    pub(crate) min_rate: u64,
    /// The longest time from the request's head to the body's end.
    pub(crate) total: Duration,
}

impl Pace {
    pub(super) fn deadline(&self, start: Instant) -> Option<Instant> {
        start.checked_add(self.total)
    }

    pub(super) fn stalled(&self) -> Rejection {
        Rejection::new(RejectionKind::Timeout, self.gate, "body_stalled")
            .with_detail("The body stopped arriving.")
    }

    fn trickled(&self) -> Rejection {
        Rejection::new(RejectionKind::Timeout, self.gate, "body_trickled")
            .with_detail("The body arrived too slowly.")
    }

    /// How long a reader may have waited for `bytes` in all: as long as for one frame at least.
    fn patience(&self, bytes: u64) -> Option<Duration> {
        let seconds = bytes.checked_div(self.min_rate)?;
        Some(Duration::from_secs(seconds).max(self.idle))
    }

    pub(super) fn too_slow(&self) -> Rejection {
        Rejection::new(RejectionKind::Timeout, self.gate, "body_deadline")
            .with_detail("The body took too long to arrive.")
    }
}

/// Measures one body. Costs nothing while frames are ready: the clock is read only when the reader
/// has to wait, and the timer is moved only when it fires too early.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    deadline: Option<Instant>,
    waiting_since: Option<Instant>,
    /// How long the reader has waited in all, before `waiting_since`.
    waited: Duration,
    bytes: u64,
    timer: Timer,
}

impl Pacer {
    pub(super) fn new(pace: Pace, start: Instant) -> Self {
        Self {
            deadline: pace.deadline(start),
            pace,
            waiting_since: None,
            waited: Duration::ZERO,
            bytes: 0,
            timer: Timer::default(),
        }
    }

    /// That many bytes came. An empty frame is no progress.
    #[inline]
    pub(super) fn progress(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.waiting_since.is_some() && bytes > 0 {
            self.arrived();
        }
    }

    #[cold]
    fn arrived(&mut self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
    }

    /// No frame is ready: pending while there is time, ready with the refusal when there is none.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Rejection> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let trickle = self.pace.patience(self.bytes);
        let dues = [
            (self.deadline, Pace::too_slow as fn(&Pace) -> Rejection),
            (since.checked_add(self.pace.idle), Pace::stalled),
            (
                trickle.and_then(|all| since.checked_add(all.saturating_sub(self.waited))),
                Pace::trickled,
            ),
        ];
        let dues = dues.into_iter().filter_map(|(due, why)| Some((due?, why)));
        let Some((due, why)) = dues.min_by_key(|(due, _)| *due) else {
            return Poll::Pending;
        };
        self.timer.poll_until(due, cx).map(|()| why(&self.pace))
    }
}

/// A timer made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes, once that is so.
    waker: Option<Waker>,
}

impl Timer {
    pub(crate) fn poll_until(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => sleep,
            // Without a runtime there is no timer, and nobody who waits.
            None if tokio::runtime::Handle::try_current().is_err() => return Poll::Pending,
            None => self.sleep.insert(Box::pin(sleep_until(due))),
        };
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
            self.waker = None;
        }
        // It is not asked again whom it wakes already.
        let known = self.waker.as_ref();
        if known.is_some_and(|known| known.will_wake(cx.waker())) && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.waker = None;
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
