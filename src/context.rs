//! What every gate of a service shares: a clock, a place for events, a look for refusals.

use std::{fmt, sync::Arc};

use http::{Request, Response};

use crate::{
    body::RejectionBody,
    client::Client,
    event::{EventSink, Events, QueueSink, SecurityEvent, TracingSink, metric},
    head::Head,
    identity::Identity,
    rejection::{ProblemDetails, Rejection, Render, WireForm},
    time::{Clock, Monotonic, SystemClock, UnixMillis},
};

/// The clock, the event sinks and the renderer of refusals. Cheap to clone; one for a service.
///
/// By default: the host's clocks, events as `tracing` lines of target `portcullis::security`, and
/// refusals as RFC 9457 problem details. Every layer takes one by `with_context`.
///
/// ```
/// use portcullis::{Context, time::ManualClock};
///
/// let clock = ManualClock::new();
/// let context = Context::new().with_clock(clock.clone());
/// assert_eq!(context.wall(), portcullis::time::Clock::wall(&clock));
/// ```
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    clock: Arc<dyn Clock>,
    /// The same clock while it is the host's: read without a detour.
    host: Option<SystemClock>,
    events: Arc<Events>,
    render: Arc<dyn Render>,
}

impl Context {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        let clock = SystemClock::new();
        Self {
            inner: Arc::new(Inner {
                clock: Arc::new(clock.clone()),
                host: Some(clock),
                events: Arc::new(Events::new(Arc::new(TracingSink))),
                render: Arc::new(ProblemDetails),
            }),
        }
    }

    /// Reads time from `clock`.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        self.with(|inner| {
            inner.clock = Arc::new(clock);
            inner.host = None;
        })
    }

    /// Sends events to `sink` alone, on a thread of its own: a sink that blocks or panics holds up
    /// no request. At most 1,024 lines wait for it; what comes then is dropped and
    /// [counted](Self::events_dropped). [`QueueSink::to`] takes another number.
    ///
    /// Deployment caveat: lines that wait when the program ends are lost.
    #[must_use]
    pub fn with_events(self, sink: impl EventSink) -> Self {
        let queue = QueueSink::to(sink, EVENTS_WAITING).unwrap_or_else(|error| {
            tracing::error!(%error, "no thread for security events: all are dropped and counted");
            QueueSink::new(EVENTS_WAITING).0
        });
        self.with_events_inline(queue)
    }

    /// Sends events to `sink` alone, on the thread of the request that they are of, which waits for
    /// it: for what returns at once, such as a counter or a queue, and for tests, which see at once
    /// what was told.
    #[must_use]
    pub fn with_events_inline(self, sink: impl EventSink) -> Self {
        self.with(|inner| inner.events = Arc::new(Events::new(Arc::new(sink))))
    }

    /// Renders refusals by `render`.
    #[must_use]
    pub fn with_render(self, render: impl Render) -> Self {
        self.with(|inner| inner.render = Arc::new(render))
    }

    /// Time that only moves forward.
    #[inline]
    #[must_use]
    pub fn monotonic(&self) -> Monotonic {
        match &self.inner.host {
            Some(clock) => clock.monotonic(),
            None => self.inner.clock.monotonic(),
        }
    }

    /// Unix time.
    #[must_use]
    pub fn wall(&self) -> UnixMillis {
        self.inner.clock.wall()
    }

    /// The clock itself.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Counts and sends an event; repeats of one refusal and client within 10 s become one line.
    pub fn emit(&self, event: SecurityEvent) {
        self.inner.events.emit(event, self.monotonic());
    }

    /// How many event lines found the queue before their sink full, or the sink gone.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.inner.events.dropped()
    }

    /// The answer to a refused request, with the event sent.
    #[must_use]
    pub fn refuse<A, B: RejectionBody>(
        &self,
        request: &Request<A>,
        rejection: Rejection,
    ) -> Response<B> {
        self.report(Head::of(request), &rejection);
        self.render(rejection, WireForm::of(Head::of(request)))
    }

    /// The same where the request is of no more use: what it was given by outer layers is dropped,
    /// and the room for that holds the rejection.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn refuse_last<A, B: RejectionBody>(
        &self,
        request: &mut Request<A>,
        rejection: Rejection,
    ) -> Response<B> {
        self.report(Head::of(request), &rejection);
        let form = WireForm::of(Head::of(request));
        let mut extensions = std::mem::take(request.extensions_mut());
        extensions.clear();
        rejection
            .respond_in(&*self.inner.render, form, extensions)
            .map(B::from_bytes)
    }

    /// Sends the event of a refusal without answering it.
    pub(crate) fn report(&self, head: Head<'_>, rejection: &Rejection) {
        let identity = head.extensions.get::<Identity>();
        self.report_of(Client::of(head), identity, rejection);
    }

    /// Sends the event of a refusal whose request was given away.
    pub(crate) fn report_of(
        &self,
        client: Option<Client>,
        identity: Option<&Identity>,
        rejection: &Rejection,
    ) {
        metric::rejected(rejection.gate(), rejection.reason());
        let mut event =
            SecurityEvent::new(rejection.event()).with_rule(rejection.gate(), rejection.reason());
        if let Some(client) = client {
            event = event.with_client(client.ip());
        }
        if let Some(identity) = identity {
            event = event.with_subject(identity.subject());
        }
        self.emit(event);
    }

    /// The answer alone, for a gate that reported the refusal when it still had the request.
    pub(crate) fn render<B: RejectionBody>(
        &self,
        rejection: Rejection,
        form: WireForm,
    ) -> Response<B> {
        rejection
            .respond(&*self.inner.render, form)
            .map(B::from_bytes)
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("clock", &self.inner.clock)
            .finish_non_exhaustive()
    }
}

/// How many event lines may wait for a sink.
const EVENTS_WAITING: usize = 1_024;
