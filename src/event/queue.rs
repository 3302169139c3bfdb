//! A bounded queue between the gates and whatever takes its time.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::sync::mpsc;

use super::{
    fold::guarded,
    metric,
    sink::{EventSink, SecurityEvent},
};

/// A sink that puts each line into a bounded queue and never waits: a line that finds the queue
/// full is dropped, and counted in [`EventReceiver::dropped`] and in
/// [`EVENTS_DROPPED`](metric::EVENTS_DROPPED).
///
/// ```
/// use portcullis::{Context, event::{EventKind, QueueSink, SecurityEvent}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (sink, mut events) = QueueSink::new(1_024);
/// let context = Context::new().with_events_inline(sink);
/// context.emit(SecurityEvent::new(EventKind::SysStartup));
/// let event = events.recv().await.unwrap();
/// assert_eq!(event.kind(), EventKind::SysStartup);
/// # }
/// ```
#[derive(Clone)]
pub struct QueueSink {
    sender: mpsc::Sender<SecurityEvent>,
    dropped: Arc<AtomicU64>,
}

impl QueueSink {
    /// A queue of at most `places` lines (at least one), and its other end.
    #[must_use]
    pub fn new(places: usize) -> (Self, EventReceiver) {
        let (sender, receiver) = mpsc::channel(places.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        let other = EventReceiver {
            receiver,
            dropped: Arc::clone(&dropped),
        };
        (Self { sender, dropped }, other)
    }

    /// Gives every line to `sink` on a thread of its own, with at most `places` of them waiting, as
    /// [`Context::with_events`](crate::Context::with_events) does with 1,024. The thread ends when
    /// the last clone of this is gone and the queue is empty.
    ///
    /// ```
    /// use portcullis::{Context, event::{QueueSink, SecurityEvent}};
    ///
    /// let slow = |event: &SecurityEvent| eprintln!("{}", event.kind().as_str());
    /// let context = Context::new().with_events_inline(QueueSink::to(slow, 16_384)?);
    /// # drop(context);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn to(sink: impl EventSink, places: usize) -> std::io::Result<Self> {
        let (queue, mut events) = Self::new(places);
        thread::Builder::new()
            .name("security-events".into())
            .spawn(move || {
                while let Some(event) = events.receiver.blocking_recv() {
                    guarded(|| (0..event.repeats()).for_each(|_| sink.count(&event)));
                    guarded(|| sink.record(&event));
                }
            })?;
        Ok(queue)
    }

    /// How many lines found the queue full or its other end gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl EventSink for QueueSink {
    fn record(&self, event: &SecurityEvent) {
        if self.sender.try_send(event.clone()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metric::dropped();
        }
    }

    fn dropped(&self) -> u64 {
        self.dropped()
    }
}

impl fmt::Debug for QueueSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSink")
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

/// The end of a [`QueueSink`] that lines are taken from.
pub struct EventReceiver {
    receiver: mpsc::Receiver<SecurityEvent>,
    dropped: Arc<AtomicU64>,
}

impl EventReceiver {
    /// The next line; `None` once every sink is gone and the queue is empty. Cancel safe.
    pub async fn recv(&mut self) -> Option<SecurityEvent> {
        self.receiver.recv().await
    }

    /// The next line, if one is there.
    pub fn try_recv(&mut self) -> Option<SecurityEvent> {
        self.receiver.try_recv().ok()
    }

    /// How many lines found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for EventReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReceiver")
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}
