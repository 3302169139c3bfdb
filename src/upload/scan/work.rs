//! The scans of one body.

use std::{
    collections::VecDeque,
    fmt,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::scanner::{AnyScanner, Pipe, ScanFuture, ScanVerdict};
use crate::{guarded::Timer, upload::fault::Fault};

/// The scans that are under way: the last one may still be fed, the others have seen their file.
pub(in crate::upload) struct Scans {
    scanner: Option<AnyScanner>,
    patience: Duration,
    running: VecDeque<Scan>,
    waiting_since: Option<Instant>,
    timer: Timer,
}

struct Scan {
    future: ScanFuture,
    pipe: Pipe,
    /// The whole file was fed.
    fed: bool,
    /// The scanner did not need the rest.
    decided: bool,
}

impl Scans {
    pub(in crate::upload) fn new(scanner: Option<AnyScanner>, patience: Duration) -> Self {
        Self {
            scanner,
            patience,
            running: VecDeque::new(),
            waiting_since: None,
            timer: Timer::default(),
        }
    }

    /// A file begins.
    pub(in crate::upload) fn begin(&mut self) {
        if let Some(scanner) = &self.scanner {
            let pipe = Pipe::default();
            self.running.push_back(Scan {
                future: scanner.begin(pipe.stream()),
                pipe,
                fed: false,
                decided: false,
            });
        }
    }

    /// The next bytes of the file that was begun last.
    pub(in crate::upload) fn feed(&mut self, data: &Bytes) {
        if let Some(scan) = self.running.back_mut()
            && !scan.fed
            && !scan.decided
            && !data.is_empty()
        {
            scan.pipe.push(data.clone());
        }
    }

    /// The file that was begun last has ended.
    pub(in crate::upload) fn end(&mut self) {
        if let Some(scan) = self.running.back_mut() {
            scan.fed = true;
            scan.pipe.end();
        }
    }

    pub(in crate::upload) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Ready once the scanner has taken all that it was fed, and judged every file that has ended.
    pub(in crate::upload) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut at = 0;
        let mut waits = false;
        while let Some(scan) = self.running.get_mut(at) {
            if !scan.decided {
                match scan.future.as_mut().poll(cx) {
                    Poll::Ready(Ok(ScanVerdict::Clean)) => scan.decided = true,
                    Poll::Ready(Ok(ScanVerdict::Infected { name })) => {
                        let name = crate::event::Printable(&name);
                        tracing::warn!(target: TARGET, found = %name, "a scanner refused a file");
                        return Poll::Ready(Err(Fault::Infected));
                    }
                    Poll::Ready(Ok(ScanVerdict::TooLarge)) => {
                        return Poll::Ready(Err(Fault::ScanSize));
                    }
                    Poll::Ready(Err(error)) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        let cause = cause.unwrap_or_default();
                        let cause = crate::event::Printable(&cause);
                        tracing::error!(target: TARGET, error = %cause, "a scanner failed");
                        return Poll::Ready(Err(Fault::ScannerAway));
                    }
                    Poll::Pending => waits |= scan.fed || scan.pipe.poll_empty(cx).is_pending(),
                }
            }
            if scan.decided && scan.fed {
                self.running.remove(at);
            } else {
                at += 1;
            }
        }
        if !waits {
            self.waiting_since = None;
            return Poll::Ready(Ok(()));
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        if let Some(due) = since.checked_add(self.patience) {
            ready!(self.timer.poll_until(due, cx));
            tracing::error!(target: TARGET, "a scanner did not answer in time");
            return Poll::Ready(Err(Fault::ScannerAway));
        }
        Poll::Pending
    }
}

impl fmt::Debug for Scans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scans")
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}

const TARGET: &str = "portcullis::security";
