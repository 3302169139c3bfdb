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
    counter::Counter,
    watch::{BoxWatch, Watch, Watched, apart},
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
        Watched { reader: Reader<dyn Watch> },
        // Nothing but a count: without a call through a table for each frame.
        Counted { reader: Reader<Watched<A, Counter>> },
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
                reader: Reader::new(watch, cell, |watch| watch),
            },
        }
    }

    pub(super) fn counted(watch: Watched<A, Counter>, cell: Arc<Cell>) -> Self
    where
        A: Body<Data = Bytes> + Send + 'static,
        A::Error: Into<BoxError>,
    {
        Self {
            kind: Kind::Counted {
                reader: Reader::new(Box::pin(watch), cell, |watch| watch),
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
    A: Body<Data = Bytes> + Send,
    A::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProjection::Open { inner } => inner.poll_frame(cx).map_err(Into::into),
            KindProjection::Watched { reader } => apart(reader.poll_frame(cx)),
            KindProjection::Counted { reader } => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Open { inner } => inner.is_end_stream(),
            Kind::Watched { reader } => reader.is_end_stream(),
            Kind::Counted { reader } => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Open { inner } => inner.size_hint(),
            Kind::Watched { reader } => reader.size_hint(),
            Kind::Counted { reader } => reader.size_hint(),
        }
    }
}

/// The reading end. It gives the watched body back when it is dropped before the end.
struct Reader<W: ?Sized> {
    watch: Option<Pin<Box<W>>>,
    cell: Arc<Cell>,
    /// Forgets the type of what is given back.
    erase: fn(Pin<Box<W>>) -> BoxWatch,
    /// The verdict waits to be told to a reader that outlives the response.
    refused: bool,
}

impl<W: ?Sized> Reader<W> {
    fn new(watch: Pin<Box<W>>, cell: Arc<Cell>, erase: fn(Pin<Box<W>>) -> BoxWatch) -> Self {
        Self {
            watch: Some(watch),
            cell,
            erase,
            refused: false,
        }
    }

    /// There is a verdict.
    #[cold]
    fn poll_refused(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(watch) = self.watch.take() {
            self.refused = true;
            self.cell.leave((self.erase)(watch));
        }
        if !self.refused {
            return Poll::Ready(None);
        }
        let verdict = ready!(self.cell.poll_verdict(cx));
        self.refused = false;
        Poll::Ready(verdict.map(|rejection| Err(rejection.into())))
    }
}

impl<W: Watch + ?Sized> Reader<W> {
    #[inline]
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Somebody else may have refused: the future, when the time was up.
        if self.cell.is_refused() {
            return apart(self.poll_refused(cx));
        }
        let Some(watch) = &mut self.watch else {
            return Poll::Ready(None);
        };
        let polled = watch.as_mut().poll_checked(cx, &self.cell);
        if polled.is_pending() && self.cell.is_refused() {
            return apart(self.poll_refused(cx));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.watch {
            Some(watch) => watch.is_end_stream(),
            None => !self.refused,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.watch {
            Some(watch) => watch.size_hint(),
            None if self.refused => SizeHint::new(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<W: ?Sized> Drop for Reader<W> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            let watch = (self.erase)(watch);
            if !watch.is_end_stream() {
                self.cell.leave(watch);
            }
        }
    }
}
