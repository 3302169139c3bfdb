//! The body that a handler behind a watching gate reads.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    cell::Cell,
    check::BoxError,
    watch::{BoxWatch, Step},
};

pin_project! {
    /// A request body that a gate watches.
    ///
    /// Length, end, trailers and frames of unknown kinds are the inner body's. Its error is the
    /// inner body's, boxed; a reader that outlives the response of a refused request gets a
    /// [`Rejection`](crate::Rejection) as the error.
    pub struct GuardedBody<A> {
        #[pin]
        kind: Kind<A>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<A> {
        Open { #[pin] inner: A },
        Watched { reader: Reader },
    }
}

impl<A> GuardedBody<A> {
    /// A body that nobody watches, passed through.
    pub(crate) fn open(inner: A) -> Self {
        Self {
            kind: Kind::Open { inner },
        }
    }

    pub(super) fn watched(watch: BoxWatch, cell: Arc<Cell>) -> Self {
        Self {
            kind: Kind::Watched {
                reader: Reader {
                    watch: Some(watch),
                    cell,
                    refused: false,
                },
            },
        }
    }
}

impl<A> fmt::Debug for GuardedBody<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedBody").finish_non_exhaustive()
    }
}

impl<A> Body for GuardedBody<A>
where
    A: Body<Data = Bytes>,
    A::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProjection::Open { inner } => inner.poll_frame(cx).map_err(Into::into),
            KindProjection::Watched { reader } => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Open { inner } => inner.is_end_stream(),
            Kind::Watched { reader } => match &reader.watch {
                Some(watch) => watch.is_end_stream(),
                None => !reader.refused,
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Open { inner } => inner.size_hint(),
            Kind::Watched { reader } => match &reader.watch {
                Some(watch) => watch.size_hint(),
                None if reader.refused => SizeHint::new(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

/// The reading end. It gives the watched body back when it is dropped before the end.
struct Reader {
    watch: Option<BoxWatch>,
    cell: Arc<Cell>,
    /// The verdict waits to be told to a reader that outlives the response.
    refused: bool,
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Somebody else may have refused: the future, when the time was up.
        if self.cell.is_refused() {
            self.give_back();
        }
        if let Some(watch) = &mut self.watch {
            match ready!(watch.as_mut().poll_checked(cx)) {
                Step::Frame { frame, last } => {
                    if last {
                        self.cell.end();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Step::End => {
                    self.cell.end();
                    return Poll::Ready(None);
                }
                Step::Failed(error) => {
                    self.watch = None;
                    self.cell.end();
                    return Poll::Ready(Some(Err(error)));
                }
                Step::Refused(rejection) => {
                    self.cell.refuse(rejection);
                    self.give_back();
                }
            }
        }
        if !self.refused {
            return Poll::Ready(None);
        }
        let verdict = ready!(self.cell.poll_verdict(cx));
        self.refused = false;
        Poll::Ready(verdict.map(|rejection| Err(rejection.into())))
    }

    fn give_back(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.refused = true;
            self.cell.leave(watch);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take()
            && !watch.is_end_stream()
        {
            self.cell.leave(watch);
        }
    }
}
