//! Folding: one line for the repeats of one refusal by one client.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{Hash, Hasher},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    kind::{EventKind, Severity},
    metric,
    sink::{EventSink, SecurityEvent},
};
use crate::time::Monotonic;

/// What stands between the gates and a sink.
pub(crate) struct Events {
    sink: Arc<dyn EventSink>,
    folds: Mutex<Folds>,
}

/// Open folds, and their keys in the order in which they opened.
#[derive(Default)]
struct Folds {
    open: HashMap<FoldKey, Option<SecurityEvent>>,
    order: VecDeque<(Monotonic, FoldKey)>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct FoldKey {
    kind: EventKind,
    gate: Option<&'static str>,
    reason: Option<&'static str>,
    client: Option<IpAddr>,
}

/// Of what clients can choose, and of little else: hashing the names takes longer than comparing
/// them.
impl Hash for FoldKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let kind = self.kind as u64;
        match self.client {
            None => state.write_u64(kind),
            Some(IpAddr::V4(ip)) => state.write_u64(u64::from(ip.to_bits()) << 32 | kind),
            Some(IpAddr::V6(ip)) => {
                state.write_u64(kind);
                state.write_u128(ip.to_bits());
            }
        }
    }
}

impl Events {
    pub(crate) fn new(sink: Arc<dyn EventSink>) -> Self {
        Self {
            sink,
            folds: Mutex::default(),
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.sink.dropped()
    }

    pub(crate) fn emit(&self, event: SecurityEvent, now: Monotonic) {
        metric::event(&event);
        guarded(|| self.sink.count(&event));
        // What a user did is told line by line; only refusals can be had for nothing.
        if event.severity() != Severity::Warn {
            return guarded(|| self.sink.record(&event));
        }
        for line in self.fold(event, now) {
            guarded(|| self.sink.record(&line));
        }
    }

    /// The lines that are due: this event unless it is held, and a few holds whose time has come.
    fn fold(&self, mut event: SecurityEvent, now: Monotonic) -> Vec<SecurityEvent> {
        let mut guard = self.folds.lock().unwrap_or_else(PoisonError::into_inner);
        let folds = &mut *guard;
        let mut lines = folds.expire(now);
        let mut key = FoldKey {
            kind: event.kind(),
            gate: event.gate(),
            reason: event.reason(),
            client: event.client(),
        };
        let full = folds.open.len() >= MAX_FOLDS;
        let mut entry = folds.open.entry(key);
        if full && matches!(entry, Entry::Vacant(_)) {
            // More clients than the table holds: one line for all that are not in it. The kinds
            // and rules are fixed names, so these few keys are always let in.
            event = event.with_client(None);
            key.client = None;
            entry = folds.open.entry(key);
        }
        match entry {
            Entry::Occupied(held) => match held.into_mut() {
                Some(held) => held.repeats = held.repeats.saturating_add(1),
                held => *held = Some(event),
            },
            Entry::Vacant(entry) => {
                entry.insert(None);
                folds.order.push_back((now.saturating_add(FOLD_TIME), key));
                lines.push(event);
            }
        }
        lines
    }
}

impl Folds {
    /// Closes folds whose time is over, oldest first; a few a call, so that no request pays for
    /// many.
    fn expire(&mut self, now: Monotonic) -> Vec<SecurityEvent> {
        let mut lines = Vec::new();
        for _ in 0..EXPIRE_AT_ONCE {
            if self.order.front().is_none_or(|(until, _)| now < *until) {
                break;
            }
            if let Some((_, key)) = self.order.pop_front() {
                lines.extend(self.open.remove(&key).flatten());
            }
        }
        lines
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let folds = self.folds.get_mut().unwrap_or_else(PoisonError::into_inner);
        for held in folds.open.values_mut().filter_map(Option::take) {
            guarded(|| self.sink.record(&held));
        }
    }
}

/// A sink that panics costs its line, not the request.
pub(super) fn guarded(record: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(record));
}

const FOLD_TIME: Duration = Duration::from_secs(10);
const MAX_FOLDS: usize = 4_096;
const EXPIRE_AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    type Lines = Arc<Mutex<Vec<(EventKind, Option<IpAddr>, u32)>>>;

    fn recorder() -> (Lines, Events) {
        let lines = Lines::default();
        let sink = lines.clone();
        let events = Events::new(Arc::new(move |event: &SecurityEvent| {
            sink.lock()
                .unwrap()
                .push((event.kind(), event.client(), event.repeats()));
        }));
        (lines, events)
    }

    fn refusal(client: u32) -> SecurityEvent {
        SecurityEvent::new(EventKind::AuthzFail)
            .with_rule("jwt", "expired")
            .with_client(IpAddr::V4(Ipv4Addr::from_bits(client)))
    }

    #[test]
    fn repeats_become_one_line_and_none_is_lost() {
        let (lines, events) = recorder();
        for second in 0..10 {
            events.emit(refusal(1), Monotonic::from_nanos(second * 1_000_000_000));
        }
        assert_eq!(lines.lock().unwrap().len(), 1);
        events.emit(refusal(1), Monotonic::from_nanos(10_000_000_000));
        events.emit(refusal(1), Monotonic::from_nanos(11_000_000_000));
        drop(events);
        let counts: Vec<u32> = lines.lock().unwrap().iter().map(|line| line.2).collect();
        assert_eq!(counts, [1, 9, 1, 1]);
    }

    #[test]
    fn a_spray_of_clients_cannot_grow_the_log_or_the_table() {
        let (lines, events) = recorder();
        for client in 0..100_000 {
            events.emit(refusal(client), Monotonic::default());
        }
        assert!(events.folds.lock().unwrap().open.len() <= MAX_FOLDS + 1);
        drop(events);
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), MAX_FOLDS + 2);
        assert_eq!(lines.iter().map(|line| line.2).sum::<u32>(), 100_000);
    }

    #[test]
    fn what_users_do_and_what_is_grave_is_never_folded() {
        let (lines, events) = recorder();
        for _ in 0..3 {
            events.emit(
                SecurityEvent::new(EventKind::AuthnLoginSuccess),
                Monotonic::default(),
            );
            events.emit(
                SecurityEvent::new(EventKind::AuthnTokenReuse),
                Monotonic::default(),
            );
        }
        assert_eq!(lines.lock().unwrap().len(), 6);
    }

    #[test]
    fn a_sink_that_panics_hurts_nobody() {
        let events = Events::new(Arc::new(|_: &SecurityEvent| panic!("a broken sink")));
        events.emit(refusal(1), Monotonic::default());
        events.emit(refusal(2), Monotonic::default());
    }
}
