//! The response future of a gate that watches the body.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    body::GuardedBody,
    cell::Cell,
    check::{BodyCheck, BoxError},
    counter::Counter,
    pace::{Pace, Pacer, Timer},
    watch::{BoxWatch, Rest, Watched},
};
use crate::{body::RejectionBody, context::Context as GateContext, future::Refusal, head::Head};

/// How a gate watches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) pace: Pace,
    /// Whether a success of the handler waits for the body's end.
    pub(crate) hold: bool,
}

/// Puts `check` between the body and its reader. The racer goes to [`GuardedFuture::watched`].
pub(crate) fn watch<A, C>(
    request: Request<A>,
    check: C,
    terms: Terms,
    context: &GateContext,
) -> (Request<GuardedBody<A>>, Racer)
where
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    C: BodyCheck,
{
    let (racer, pacer) = Racer::start(Head::of(&request), terms, context);
    let cell = Arc::clone(&racer.cell);
    let request = request
        .map(|inner| GuardedBody::watched(Box::pin(Watched::new(inner, check, pacer)), cell));
    (request, racer)
}

/// [`watch`] for a check that only counts: a frame costs next to nothing.
pub(crate) fn count<A>(
    request: Request<A>,
    counter: Counter,
    terms: Terms,
    context: &GateContext,
) -> (Request<GuardedBody<A>>, Racer)
where
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
{
    let (racer, pacer) = Racer::start(Head::of(&request), terms, context);
    let cell = Arc::clone(&racer.cell);
    let request =
        request.map(|inner| GuardedBody::counted(Watched::new(inner, counter, pacer), cell));
    (request, racer)
}

pin_project! {
    /// The answer of a gate that watches the body: the handler's, unless the body is refused first.
    ///
    /// A refusal drains what is left of the body like
    /// [`ResponseFuture`](crate::ResponseFuture) does.
    pub struct GuardedFuture<F, B> {
        #[pin]
        state: State<F, B>,
        racer: Option<Racer>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        Running { #[pin] inner: F },
        Held { response: Option<Response<B>> },
        Refused { refusal: Refusal<B> },
        Done,
    }
}

impl<F, B> GuardedFuture<F, B> {
    /// The handler answers; nobody watches.
    pub(crate) fn open(inner: F) -> Self {
        Self {
            state: State::Running { inner },
            racer: None,
        }
    }

    /// The handler answers unless the verdict comes first.
    pub(crate) fn watched(inner: F, racer: Racer) -> Self {
        Self {
            state: State::Running { inner },
            racer: Some(racer),
        }
    }

    /// The gate answers `response` to `request`.
    pub(crate) fn refused<A>(request: Request<A>, response: Response<B>) -> Self
    where
        A: Body + Send + 'static,
    {
        Self {
            state: State::Refused {
                refusal: Refusal::new(request, response),
            },
            racer: None,
        }
    }
}

impl<F, B, E> Future for GuardedFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: RejectionBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(racer) = this.racer else {
            return match this.state.project() {
                StateProjection::Running { inner } => inner.poll(cx),
                StateProjection::Refused { refusal } => refusal.poll(cx).map(Ok),
                StateProjection::Held { .. } | StateProjection::Done => {
                    unreachable!("polled after completion")
                }
            };
        };
        racer.cell.wait(cx);
        if let StateProjection::Running { inner } = this.state.as_mut().project()
            // A verdict drops the handler unpolled.
            && !racer.cell.is_refused()
            && let Poll::Ready(answer) = inner.poll(cx)
            // What the handler answered after a verdict, an error of the service too, is void.
            && !racer.cell.is_refused()
        {
            match answer {
                Ok(response) if racer.holds(&response) => {
                    racer.cell.hold();
                    let response = Some(response);
                    this.state.set(State::Held { response });
                }
                answer => {
                    this.state.set(State::Done);
                    *this.racer = None;
                    return Poll::Ready(answer);
                }
            }
        }
        let ended = racer.poll_end(cx);
        if racer.cell.is_refused() {
            // Dropping the handler gives back the body that it held.
            this.state.set(State::Done);
            let rest = racer.rest().map(Rest);
            let Some(response) = racer.cell.response() else {
                unreachable!("a refusal has a verdict")
            };
            *this.racer = None;
            let refusal = Refusal::late(rest, response);
            this.state.set(State::Refused { refusal });
        }
        match this.state.as_mut().project() {
            StateProjection::Held { response } if ended => {
                let response = response.take().expect("held until now");
                this.state.set(State::Done);
                *this.racer = None;
                Poll::Ready(Ok(response))
            }
            StateProjection::Refused { refusal } => refusal.poll(cx).map(Ok),
            _ => Poll::Pending,
        }
    }
}

impl<F, B> fmt::Debug for GuardedFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedFuture").finish_non_exhaustive()
    }
}

/// The future's end of the race. Dropping it tells the reader that the response is out.
pub(crate) struct Racer {
    cell: Arc<Cell>,
    terms: Terms,
    deadline: Option<Instant>,
    timer: Timer,
    /// The body that its reader let go of, read on here.
    reading: Option<BoxWatch>,
}

impl Racer {
    fn start(head: Head<'_>, terms: Terms, context: &GateContext) -> (Self, Pacer) {
        let start = Instant::now();
        let racer = Self {
            cell: Arc::new(Cell::new(context, head, terms.hold)),
            terms,
            deadline: terms.pace.deadline(start),
            timer: Timer::default(),
            reading: None,
        };
        (racer, Pacer::new(terms.pace, start))
    }

    /// Whether `response` waits for the body's end.
    fn holds<B>(&self, response: &Response<B>) -> bool {
        let status = response.status();
        let success = status.is_success() || status.is_redirection();
        self.terms.hold && success && !self.cell.has_ended()
    }

    /// Reads on what the handler left, and says whether the body has ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.terms.hold || self.cell.is_refused() {
            return false;
        }
        if self.reading.is_none() {
            self.reading = self.cell.take_leftover();
        }
        while let Some(watch) = &mut self.reading {
            match watch.as_mut().poll_checked(cx, &self.cell) {
                Poll::Ready(Some(Ok(_))) if !self.cell.has_ended() => {}
                Poll::Ready(_) => self.reading = None,
                Poll::Pending if self.cell.is_refused() => return false,
                Poll::Pending => break,
            }
        }
        if self.cell.has_ended() {
            return true;
        }
        if let Some(deadline) = self.deadline
            && self.timer.poll_until(deadline, cx).is_ready()
        {
            self.cell.refuse(self.terms.pace.too_slow());
        }
        false
    }

    /// What is left of a refused body, where it is worth a drain.
    fn rest(&mut self) -> Option<BoxWatch> {
        if let Some(watch) = self.reading.take() {
            self.cell.leave(watch);
        }
        self.cell.worth_draining()
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.cell.over();
    }
}
