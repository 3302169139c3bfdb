//! A body and its check, in one allocation.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    check::{BodyCheck, BoxError, Released},
    pace::Pacer,
};
use crate::rejection::Rejection;

/// A watched body without its types.
pub(super) trait Watch: Send {
    /// The next frame that passed the check.
    fn poll_checked(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step>;

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

/// What comes of asking for a frame.
pub(super) enum Step {
    Frame {
        frame: Frame<Bytes>,
        /// Nothing comes after it, and all was checked.
        last: bool,
    },
    End,
    Refused(Rejection),
    Failed(BoxError),
}

pin_project! {
    pub(super) struct Watched<A, C> {
        #[pin]
        inner: A,
        check: C,
        pacer: Pacer,
        released: Released,
        // The check saw the whole body and passed it.
        settled: bool,
    }
}

impl<A, C> Watched<A, C> {
    pub(super) fn new(inner: A, check: C, pacer: Pacer) -> Self {
        Self {
            inner,
            check,
            pacer,
            released: Released::default(),
            settled: false,
        }
    }
}

impl<A, C> Watch for Watched<A, C>
where
    A: Body<Data = Bytes> + Send,
    A::Error: Into<BoxError>,
    C: BodyCheck,
{
    fn poll_checked(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step> {
        let mut this = self.project();
        loop {
            if let Some(frame) = this.released.pop() {
                let last = *this.settled && this.released.is_empty();
                return Poll::Ready(Step::Frame { frame, last });
            }
            if *this.settled {
                return Poll::Ready(Step::End);
            }
            let frame = match this.inner.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(match this.check.cut() {
                        Some(rejection) => Step::Refused(rejection),
                        None => Step::Failed(error.into()),
                    });
                }
                Poll::Pending => {
                    let rejection = ready!(this.pacer.poll_wait(cx));
                    return Poll::Ready(Step::Refused(rejection));
                }
            };
            this.pacer.progress();
            let (piece, after) = match frame.map(Frame::into_data) {
                Some(Ok(data)) => match this.check.data(data, this.released) {
                    // A reader that knows the length never asks for the end, so it is judged with
                    // the last frame.
                    Ok(piece) if this.inner.is_end_stream() => {
                        this.released.push(piece.unwrap_or_default());
                        *this.settled = true;
                        (this.check.end(this.released), None)
                    }
                    Ok(Some(piece)) if this.released.is_empty() => {
                        let frame = Frame::data(piece);
                        return Poll::Ready(Step::Frame { frame, last: false });
                    }
                    other => (other, None),
                },
                // The data ends before its trailers; frames of a kind not known go through.
                Some(Err(frame)) if !frame.is_trailers() => (Ok(None), Some(frame)),
                end => {
                    *this.settled = true;
                    (this.check.end(this.released), end.and_then(Result::err))
                }
            };
            match piece {
                Ok(piece) => this.released.push(piece.unwrap_or_default()),
                Err(rejection) => return Poll::Ready(Step::Refused(rejection)),
            }
            if let Some(frame) = after {
                this.released.push_frame(frame);
            }
        }
    }

    fn poll_raw(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().inner.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.settled && self.released.is_empty()
    }

    fn is_raw_end(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let withheld = self.check.withheld();
        self.released.before(&self.inner.size_hint(), withheld)
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
