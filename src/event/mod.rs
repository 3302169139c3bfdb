//! Security events: what happened, in the names of the OWASP Logging Vocabulary.
//!
//! Every gate sends a [`SecurityEvent`] through its [`Context`](crate::Context) to an
//! [`EventSink`]. The sink [counts](EventSink::count) each one exactly; lines are
//! [recorded](EventSink::record) with repeats folded: refusals of one kind, rule and client within
//! 10 s become one line with a count, so that an attacker does not own the log. No event holds a
//! token, a digest, a password or a key.
//!
//! Three sinks: `tracing` lines ([`TracingSink`], the default), any closure, and a bounded queue
//! ([`QueueSink`]) whose other end is read elsewhere. A closure or any other sink of a program
//! runs on a thread of its own, behind a bounded queue: one that blocks or panics holds up no
//! request, and lines that it has no time for are dropped and counted.
//!
//! Deployment caveat: `tracing` lines are written on the request's thread, and a full pipe blocks.
//! Give the subscriber a writer that drops.
//!
//! ```
//! use portcullis::{Context, event::{EventKind, SecurityEvent}};
//!
//! let context = Context::new().with_events(|event: &SecurityEvent| {
//!     eprintln!("{} x{}", event.kind().as_str(), event.repeats());
//! });
//! context.emit(SecurityEvent::new(EventKind::AuthnLoginSuccess).with_subject("user-1"));
//! ```

mod fold;
mod kind;
pub mod metric;
mod queue;
mod sink;
mod text;

pub(crate) use self::fold::Events;
pub use self::{
    kind::{EventKind, Severity},
    queue::{EventReceiver, QueueSink},
    sink::{EventSink, SecurityEvent, TracingSink},
    text::Printable,
};
