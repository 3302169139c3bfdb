//! A body and its check, in one allocation.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    cell::Cell,
    check::{BodyCheck, BoxError, Released},
    pace::Pacer,
};
use crate::rejection::Rejection;

/// A watched body without its types.
pub(super) trait Watch: Send {
    /// The next frame that passed the check. The cell is told of the end and of a verdict; after a
    /// verdict it stays pending.
    fn poll_checked(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cell: &Cell,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>;

    /// The next frame as it comes, for a drain.
    fn poll_raw(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>;

    fn is_end_stream(&self) -> bool;

    fn is_raw_end(&self) -> bool;

    fn size_hint(&self) -> SizeHint;
}

pub(super) type BoxWatch = Pin<Box<dyn Watch>>;

pin_project! {
    #[project = WatchedProjection]
    pub(super) struct Watched<A, C> {
        #[pin]
        inner: A,
        check: C,
        pacer: Pacer,
        released: Released,
        // What the body said, where that needs more than a glance. It lies here, and is not handed to
        // a function, so that a frame that needs no more can stay in registers.
        inbox: Option<Polled<BoxError>>,
        // Trailers, and frames of kinds not known, that came behind data which is not out yet.
        behind: VecDeque<Frame<Bytes>>,
        // The check saw the whole body and passed it.
        settled: bool,
        // The body said that there is no more; it is not asked again.
        exhausted: bool,
    }
}

impl<A, C> Watched<A, C> {
    pub(super) fn new(inner: A, check: C, pacer: Pacer) -> Self {
        Self {
            inner,
            check,
            pacer,
            released: Released::default(),
            inbox: None,
            behind: VecDeque::new(),
            settled: false,
            exhausted: false,
        }
    }
}

/// The same, taken apart and put together: what a call wrote to memory does not keep what needs no
/// call from staying in registers.
#[inline(always)]
pub(super) fn apart(polled: Polled<BoxError>) -> Polled<BoxError> {
    match polled {
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
        },
        Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
        Poll::Ready(None) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    }
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

impl<A, C> Watched<A, C>
where
    A: Body<Data = Bytes>,
    A::Error: Into<BoxError>,
    C: BodyCheck,
{
    /// Gives out what was released, and reads on until something is.
    #[inline(never)]
    fn poll_slowly(self: Pin<&mut Self>, cx: &mut Context<'_>, cell: &Cell) -> Polled<BoxError> {
        let mut this = self.project();
        loop {
            if this.check.has_work()
                && let Err(rejection) = ready!(this.check.poll_work(cx, this.released))
            {
                cell.refuse(rejection);
            }
            if cell.is_refused() {
                return Poll::Pending;
            }
            if this.has_more() {
                let data = this.released.pop().map(Frame::data);
                let frame = data.or_else(|| this.behind.pop_front());
                if *this.settled && !this.has_more() && !this.check.has_work() {
                    cell.end();
                }
                if let Some(frame) = frame {
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            if *this.settled {
                cell.end();
                return Poll::Ready(None);
            }
            let polled = match this.inbox.take() {
                Some(polled) => polled,
                None => this.inner.as_mut().poll_frame(cx).map_err(Into::into),
            };
            if let Some(failed) = this.take(polled, cx, cell) {
                return failed;
            }
        }
    }
}

impl<A, C> WatchedProjection<'_, A, C>
where
    A: Body<Data = Bytes>,
    A::Error: Into<BoxError>,
    C: BodyCheck,
{
    /// Whether something has to be given out or waited for before the body is asked for more.
    #[inline]
    fn waits(&self) -> bool {
        *self.settled || self.has_more() || self.check.has_work()
    }

    /// Whether there is something to give out.
    #[inline]
    fn has_more(&self) -> bool {
        !self.released.is_empty() || !self.behind.is_empty()
    }

    /// Shows the check what the body said. What comes of it is released, or the cell is told of the
    /// verdict; what the reader is told at once is returned.
    fn take(
        &mut self,
        polled: Polled<BoxError>,
        cx: &mut Context<'_>,
        cell: &Cell,
    ) -> Option<Polled<BoxError>> {
        let piece = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.pacer.progress(frame.data_ref().map_or(1, Bytes::len));
                self.inspect(frame)
            }
            Poll::Ready(None) => {
                *self.exhausted = true;
                self.settle(Ok(None))
            }
            Poll::Ready(Some(Err(error))) => {
                *self.exhausted = true;
                match self.check.cut() {
                    Some(rejection) => Err(rejection),
                    None => {
                        *self.settled = true;
                        cell.end();
                        return Some(Poll::Ready(Some(Err(error))));
                    }
                }
            }
            Poll::Pending => match self.pacer.poll_wait(cx) {
                Poll::Ready(rejection) => Err(rejection),
                Poll::Pending => return Some(Poll::Pending),
            },
        };
        match piece {
            Ok(piece) => self.released.push(piece.unwrap_or_default()),
            Err(rejection) => cell.refuse(rejection),
        }
        None
    }

    /// A reader that knows the length never asks for the end, so it is judged with the last frame.
    fn inspect(&mut self, frame: Frame<Bytes>) -> Result<Option<Bytes>, Rejection> {
        let last = self.inner.is_end_stream();
        let piece = match frame.into_data() {
            Ok(data) => self.check.data(data, self.released),
            // The data ends before its trailers; frames of a kind not known go through.
            Err(frame) => {
                let piece = match frame.is_trailers() {
                    true => self.settle(Ok(None)),
                    false => Ok(None),
                };
                self.behind.push_back(frame);
                piece
            }
        };
        match last {
            true => self.settle(piece),
            false => piece,
        }
    }

    /// Nothing comes after `piece`.
    fn settle(
        &mut self,
        piece: Result<Option<Bytes>, Rejection>,
    ) -> Result<Option<Bytes>, Rejection> {
        let piece = piece?;
        if *self.settled {
            return Ok(piece);
        }
        *self.settled = true;
        self.released.push(piece.unwrap_or_default());
        self.check.end(self.released)
    }
}

impl<A, C> Watch for Watched<A, C>
where
    A: Body<Data = Bytes> + Send,
    A::Error: Into<BoxError>,
    C: BodyCheck,
{
    // Where the types are known, a frame goes through without being moved.
    #[inline(always)]
    fn poll_checked(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cell: &Cell,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.as_mut().project();
        if !this.waits() {
            *this.inbox = Some(match this.inner.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if !(C::JUDGES_END && this.inner.is_end_stream())
                        && let Some(data) = frame.data_ref()
                        && this.check.glance(data)
                    {
                        this.pacer.progress(data.len());
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
        }
        apart(self.poll_slowly(cx, cell))
    }

    fn poll_raw(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if *this.exhausted {
            return Poll::Ready(None);
        }
        this.inner.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.settled || (!C::JUDGES_END && self.inner.is_end_stream());
        ended && self.released.is_empty() && self.behind.is_empty() && !self.check.has_work()
    }

    fn is_raw_end(&self) -> bool {
        self.exhausted || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.check.withheld() {
            Some(withheld) => self.released.before(&self.inner.size_hint(), withheld),
            None => SizeHint::new(),
        }
    }
}

/// The raw rest of a refused body.
pub(super) struct Rest(pub(super) BoxWatch);

impl Body for Rest {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.as_mut().poll_raw(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_raw_end()
    }
}
