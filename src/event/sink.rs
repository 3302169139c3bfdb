//! An event, and where it goes.

use std::{net::IpAddr, sync::Arc};

use super::{
    kind::{EventKind, Severity},
    text::Printable,
};

/// One thing that happened, with what is known of it. It never holds a credential.
#[derive(Clone, Debug)]
#[must_use]
pub struct SecurityEvent {
    kind: EventKind,
    gate: Option<&'static str>,
    reason: Option<&'static str>,
    client: Option<IpAddr>,
    subject: Option<Arc<str>>,
    session: Option<Arc<str>>,
    pub(super) repeats: u32,
}

impl SecurityEvent {
    /// An event of which only the kind is known.
    pub const fn new(kind: EventKind) -> Self {
        Self {
            kind,
            gate: None,
            reason: None,
            client: None,
            subject: None,
            session: None,
            repeats: 1,
        }
    }

    /// Adds the gate and the rule that it comes from; both are short fixed names.
    pub const fn with_rule(mut self, gate: &'static str, reason: &'static str) -> Self {
        self.gate = Some(gate);
        self.reason = Some(reason);
        self
    }

    /// Adds the client's address.
    pub fn with_client(mut self, client: impl Into<Option<IpAddr>>) -> Self {
        self.client = client.into();
        self
    }

    /// Adds the user's id. Not what somebody typed as a name: people type passwords there.
    pub fn with_subject(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds the session's id.
    pub fn with_session(mut self, session: impl Into<Arc<str>>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// What happened.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// How grave it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.kind.severity()
    }

    /// The gate that it comes from.
    #[must_use]
    pub const fn gate(&self) -> Option<&'static str> {
        self.gate
    }

    /// The rule that it comes from.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// The client's address.
    #[must_use]
    pub const fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// The user's id.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// How many events this line stands for.
    #[must_use]
    pub const fn repeats(&self) -> u32 {
        self.repeats
    }
}

/// Where events go. Implemented for closures `Fn(&SecurityEvent)`, which record.
///
/// A sink that panics loses its line and nothing else.
/// [`with_events`](crate::Context::with_events) runs it on a thread of its own, where it may wait
/// for a disk, a pipe or a service; the thread is none of an async runtime's.
/// [`with_events_inline`](crate::Context::with_events_inline) runs it on the thread of the request,
/// where it must return at once. So runs the default, [`TracingSink`], which waits if the program's
/// subscriber does: give that a writer that drops, such as `tracing_appender::non_blocking`.
pub trait EventSink: Send + Sync + 'static {
    /// Takes one line; repeats are folded into [`SecurityEvent::repeats`].
    fn record(&self, event: &SecurityEvent);

    /// Takes note of every single event, folded or not; behind a queue when the line is taken that
    /// stands for it. Nothing by default.
    fn count(&self, event: &SecurityEvent) {
        let _ = event;
    }

    /// How many lines it did not take. None by default.
    fn dropped(&self) -> u64 {
        0
    }
}

impl<F: Fn(&SecurityEvent) + Send + Sync + 'static> EventSink for F {
    fn record(&self, event: &SecurityEvent) {
        self(event);
    }
}

/// Writes each event as one `tracing` line of target `portcullis::security`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

impl EventSink for TracingSink {
    fn record(&self, event: &SecurityEvent) {
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    target: "portcullis::security",
                    tracing::Level::$level,
                    event = event.kind().as_str(),
                    gate = event.gate(),
                    reason = event.reason(),
                    client = event.client().map(tracing::field::display),
                    subject = event.subject().map(|text| tracing::field::display(Printable(text))),
                    session = event.session().map(|text| tracing::field::display(Printable(text))),
                    repeats = event.repeats(),
                )
            };
        }
        match event.severity() {
            Severity::Info => line!(INFO),
            Severity::Warn => line!(WARN),
            Severity::Critical => line!(ERROR),
        }
    }
}
