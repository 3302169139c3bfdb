//! Access tokens that no longer count, although their signature and time still hold.
//!
//! An access token lives minutes and is checked without a store; the deny list is what makes a
//! logout felt at once. It holds sessions, single tokens and subjects, is bounded, and never opens:
//! when it is full it drops its oldest entries and refuses every token issued before them (whose
//! holders refresh and go on).
//!
//! Deployment caveat: it is one process's memory. After a restart it must be filled from the
//! session store before it answers ([`DenyList::pending`]); with sessions that do not outlive the
//! process, every token from before the start is refused ([`DenyList::since_start`]). Of several
//! instances each has its own, and a feed tells it what the others denied
//! ([`learn`](DenyList::learn)); a list that has not heard of them for too long says
//! [`Denied::NotReady`] ([`trust_for`](DenyList::trust_for)).
//!
//! ```
//! use portcullis::{Context, DenyList, deny_list::DenyKeys};
//! use std::time::Duration;
//!
//! let context = Context::new();
//! let deny_list = DenyList::since_start(&context, Duration::from_secs(900));
//! let token = DenyKeys::new("user-1").with_session("s1");
//! let issued_at = context.wall().as_secs() + 1;
//! assert!(deny_list.check(&token, issued_at).is_ok());
//! deny_list.deny_session("s1");
//! assert!(deny_list.check(&token, issued_at).is_err());
//! ```

use std::{
    collections::{HashMap, VecDeque},
    error, fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    context::Context,
    keyed::{Domain, digest},
    time::{Monotonic, UnixMillis},
};

/// A handle on a deny list; clones share it.
#[derive(Clone)]
pub struct DenyList {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    keep: Duration,
    capacity: usize,
    /// Until when the list answers, in nanoseconds of the clock that is never set.
    trusted_until: AtomicU64,
    /// Tokens issued before this second are refused, whoever holds them.
    minimum: AtomicI64,
    entries: AtomicUsize,
    table: RwLock<Table>,
    outbox: Outbox,
}

/// What was denied here and a feed has not taken yet; empty where no feed asked.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Option<VecDeque<Denial>>>,
    wake: Notify,
}

#[derive(Default)]
struct Table {
    /// For a session or token the value is not looked at; for a subject, tokens issued up to and
    /// including that second are refused.
    denied: HashMap<u128, Entry>,
    /// Oldest first. A key that was denied again has a later place, and the earlier is void.
    order: VecDeque<(Monotonic, u128)>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Entries age by the clock that is never set: one that is set forward and back again must not
    /// take a denial away from tokens that then live on.
    at: Monotonic,
    wall: UnixMillis,
    issued_until: i64,
}

/// What identifies a token to the deny list. Made once for a token and kept with it: a check is
/// then a few table look-ups.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct DenyKeys {
    subject: u128,
    session: Option<u128>,
    token: Option<u128>,
}

impl DenyKeys {
    /// A token of `subject`.
    pub fn new(subject: &str) -> Self {
        Self {
            subject: digest(Domain::Subject, subject.as_bytes()),
            session: None,
            token: None,
        }
    }

    /// Adds the token's session (`sid`).
    pub fn with_session(mut self, session: &str) -> Self {
        self.session = Some(digest(Domain::Session, session.as_bytes()));
        self
    }

    /// Adds the token's own id (`jti`).
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(digest(Domain::Token, token.as_bytes()));
        self
    }
}

/// What is denied: what the instances of a service tell one another.
///
/// Seconds are those of the clock of the instance that denied, against which other instances hold
/// the `iat` that their own clocks gave: keep clocks in step (NTP).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Denial {
    /// Every token of a session, by its id (`sid`).
    Session(String),
    /// One token (`jti`), or one API key, by its id.
    Token(String),
    /// Every token of a subject that was issued up to and in this second.
    Subject(String, i64),
    /// Every token that was issued before this second, whoever holds it.
    IssuedBefore(i64),
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Denied {
    /// Its session, its subject or itself was denied, or it is older than what is remembered: 401.
    Revoked,
    /// The list has not been filled yet, so nothing can be said: 503.
    NotReady,
}

/// Where a denial stands.
enum Place {
    /// In the table, for tokens issued up to and in that second.
    Entry(u128, i64),
    Minimum(i64),
}

impl Place {
    fn of(denial: &Denial) -> Self {
        match denial {
            Denial::Session(id) => Self::Entry(digest(Domain::Session, id.as_bytes()), i64::MAX),
            Denial::Token(id) => Self::Entry(digest(Domain::Token, id.as_bytes()), i64::MAX),
            Denial::Subject(id, until) => {
                Self::Entry(digest(Domain::Subject, id.as_bytes()), *until)
            }
            Denial::IssuedBefore(second) => Self::Minimum(*second),
        }
    }
}

impl DenyList {
    /// A list for sessions that do not outlive the process: what was issued before now is refused.
    ///
    /// `keep` is the longest life that an access token may have, leeway included; at least a
    /// minute is added.
    #[must_use]
    pub fn since_start(context: &Context, keep: Duration) -> Self {
        let list = Self::pending(context, keep);
        list.inner
            .minimum
            .store(second_after(context.wall()), Ordering::Release);
        list.set_ready();
        list
    }

    /// A list that answers [`Denied::NotReady`] until it has been filled and
    /// [`set_ready`](Self::set_ready) is called.
    #[must_use]
    pub fn pending(context: &Context, keep: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                context: context.clone(),
                keep: keep.saturating_add(MARGIN),
                capacity: CAPACITY,
                trusted_until: AtomicU64::new(0),
                minimum: AtomicI64::new(i64::MIN),
                entries: AtomicUsize::new(0),
                table: RwLock::default(),
                outbox: Outbox::default(),
            }),
        }
    }

    /// From now on the list answers.
    pub fn set_ready(&self) {
        self.inner.trusted_until.store(u64::MAX, Ordering::Release);
    }

    /// From now on the list answers, for `span` and no longer unless this is called again: whoever
    /// tells it what others deny says so each time that nothing is left to tell.
    pub fn trust_for(&self, span: Duration) {
        let until = self.inner.context.monotonic().saturating_add(span);
        // Later than never is no time.
        let until = until.as_nanos().min(u64::MAX - 1);
        self.inner.trusted_until.store(until, Ordering::Release);
    }

    /// Whether the list answers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.inner.trusted_until.load(Ordering::Acquire) {
            u64::MAX => true,
            until => self.inner.context.monotonic().as_nanos() < until,
        }
    }

    /// Denies every token of a session. Session ids never come back, so no time is needed.
    pub fn deny_session(&self, session: &str) {
        self.tell(Denial::Session(session.to_owned()));
    }

    /// Denies one token by its id (`jti`).
    pub fn deny_token(&self, token: &str) {
        self.tell(Denial::Token(token.to_owned()));
    }

    /// Denies every token of a subject that was issued up to now.
    pub fn deny_subject(&self, subject: &str) {
        let now = self.inner.context.wall().as_secs();
        self.tell(Denial::Subject(subject.to_owned(), now));
    }

    /// Denies what another instance denied, and tells it no further. What is denied already stays
    /// as it is, so that one may be told the same any number of times.
    pub fn learn(&self, denial: &Denial) {
        if !self.holds(denial) {
            self.apply(denial);
        }
    }

    /// Whether something is denied, also while the list does not answer.
    #[must_use]
    pub fn holds(&self, denial: &Denial) -> bool {
        let inner = &*self.inner;
        match Place::of(denial) {
            Place::Minimum(second) => second <= inner.minimum.load(Ordering::Acquire),
            Place::Entry(key, until) => {
                let table = inner.table.read().unwrap_or_else(PoisonError::into_inner);
                let held = table.denied.get(&key);
                held.is_some_and(|held| until <= held.issued_until)
            }
        }
    }

    /// Whether a token issued at `issued_at` (seconds, its `iat`) still counts.
    ///
    /// # Errors
    /// [`Denied`], with how to answer.
    pub fn check(&self, token: &DenyKeys, issued_at: i64) -> Result<(), Denied> {
        let inner = &*self.inner;
        if !self.is_ready() {
            return Err(Denied::NotReady);
        }
        if issued_at < inner.minimum.load(Ordering::Acquire) {
            return Err(Denied::Revoked);
        }
        if inner.entries.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let table = inner.table.read().unwrap_or_else(PoisonError::into_inner);
        let keys = [token.session, token.token, Some(token.subject)];
        let denied = keys.into_iter().flatten().any(|key| {
            table
                .denied
                .get(&key)
                .is_some_and(|denial| issued_at <= denial.issued_until)
        });
        if denied { Err(Denied::Revoked) } else { Ok(()) }
    }

    /// The earliest `iat` that a new token of `subject` may carry and still count.
    ///
    /// A token made in the second of a denial must say that it came after.
    #[must_use]
    pub fn earliest_issue(&self, subject: &str) -> i64 {
        let inner = &*self.inner;
        let key = digest(Domain::Subject, subject.as_bytes());
        let table = inner.table.read().unwrap_or_else(PoisonError::into_inner);
        let after = table
            .denied
            .get(&key)
            .map_or(i64::MIN, |denial| denial.issued_until.saturating_add(1));
        after.max(inner.minimum.load(Ordering::Acquire))
    }

    /// How many entries the list holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.entries.load(Ordering::Acquire)
    }

    /// Whether the list holds no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn waiting(&self) -> MutexGuard<'_, Option<VecDeque<Denial>>> {
        let waiting = self.inner.outbox.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, denial: Denial) {
        self.apply(&denial);
        let mut waiting = self.waiting();
        let Some(queue) = waiting.as_mut() else {
            return;
        };
        if queue.len() >= WAITING {
            // Others cannot be told each of them: they are told to refuse all that is older.
            queue.clear();
            queue.push_back(Denial::IssuedBefore(second_after(
                self.inner.context.wall(),
            )));
        }
        queue.push_back(denial);
        drop(waiting);
        self.inner.outbox.wake.notify_one();
    }

    fn apply(&self, denial: &Denial) {
        match Place::of(denial) {
            Place::Minimum(second) => {
                self.inner.minimum.fetch_max(second, Ordering::AcqRel);
            }
            Place::Entry(key, issued_until) => self.deny(key, issued_until),
        }
    }

    fn deny(&self, key: u128, issued_until: i64) {
        let inner = &*self.inner;
        let now = inner.context.monotonic();
        let wall = inner.context.wall();
        let mut table = inner.table.write().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        let before = table.denied.get(&key).copied();
        let denial = Entry {
            at: now,
            wall: before.map_or(wall, |before| before.wall.max(wall)),
            issued_until: before
                .map_or(issued_until, |before| before.issued_until.max(issued_until)),
        };
        table.denied.insert(key, denial);
        if before.is_none_or(|before| before.at != now) {
            table.order.push_back((now, key));
        }
        while let Some(&(at, key)) = table.order.front() {
            let expired = now.saturating_since(at) > inner.keep;
            if !expired && table.denied.len() <= inner.capacity {
                break;
            }
            table.order.pop_front();
            if let Some(oldest) = table.denied.get(&key).filter(|denial| denial.at == at) {
                if !expired {
                    let minimum = second_after(oldest.wall);
                    inner.minimum.fetch_max(minimum, Ordering::AcqRel);
                }
                table.denied.remove(&key);
            }
        }
        if table.order.len() > 2 * inner.capacity {
            let Table { denied, order } = table;
            order.retain(|(at, key)| denied.get(key).is_some_and(|denial| denial.at == *at));
        }
        inner.entries.store(table.denied.len(), Ordering::Release);
    }
}

impl fmt::Debug for DenyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenyList")
            .field("entries", &self.len())
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "the token was revoked",
            Self::NotReady => "the deny list is not filled yet",
        })
    }
}

impl error::Error for Denied {}

/// What a feed asks.
#[cfg(all(feature = "jwt", feature = "refresh-token"))]
impl DenyList {
    pub(crate) fn context(&self) -> &Context {
        &self.inner.context
    }
}

/// What a feed asks that tells others.
#[cfg(all(feature = "jwt", feature = "redis", feature = "refresh-token"))]
impl DenyList {
    /// Keeps what is denied here from now on until [`take`](Self::take) is called.
    pub(crate) fn keep_for_others(&self) {
        self.waiting().get_or_insert_default();
    }

    /// What was denied here since the last time.
    pub(crate) fn take(&self) -> Vec<Denial> {
        self.waiting()
            .as_mut()
            .map(|waiting| waiting.drain(..).collect())
            .unwrap_or_default()
    }

    /// Waits until something is denied here.
    pub(crate) async fn denied_here(&self) {
        self.inner.outbox.wake.notified().await;
    }

    /// How long a denial is kept.
    pub(crate) fn keep(&self) -> Duration {
        self.inner.keep
    }
}

/// The first whole second that is certainly later than `at`: an `iat` has no finer grain.
fn second_after(at: UnixMillis) -> i64 {
    at.as_secs().saturating_add(1)
}

const MARGIN: Duration = Duration::from_secs(60);
const CAPACITY: usize = 100_000;
/// What may wait for a feed.
const WAITING: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Clock as _, ManualClock};

    const QUARTER: Duration = Duration::from_secs(900);

    fn list(capacity: usize) -> (ManualClock, DenyList) {
        let clock = ManualClock::new();
        let context = Context::new().with_clock(clock.clone());
        let mut list = DenyList::pending(&context, QUARTER);
        Arc::get_mut(&mut list.inner).unwrap().capacity = capacity;
        list.set_ready();
        (clock, list)
    }

    #[test]
    fn an_unfilled_list_says_so() {
        let list = DenyList::pending(&Context::new(), QUARTER);
        assert_eq!(list.check(&DenyKeys::new("u"), 0), Err(Denied::NotReady));
    }

    #[test]
    fn what_is_older_than_the_process_is_refused() {
        let clock = ManualClock::new();
        let context = Context::new().with_clock(clock.clone());
        let list = DenyList::since_start(&context, QUARTER);
        let (keys, now) = (DenyKeys::new("u"), clock.wall().as_secs());
        assert_eq!(list.check(&keys, now), Err(Denied::Revoked));
        assert_eq!(list.check(&keys, now + 1), Ok(()));
        assert_eq!(list.earliest_issue("u"), now + 1);
    }

    #[test]
    fn a_session_that_is_denied_again_stays_denied_from_then_on() {
        let (clock, list) = list(10);
        let keys = DenyKeys::new("u").with_session("s");
        list.deny_session("s");
        clock.advance(QUARTER);
        list.deny_session("s");
        clock.advance(MARGIN + Duration::from_secs(1));
        list.deny_session("other");
        assert_eq!(list.check(&keys, i64::MAX), Err(Denied::Revoked));
    }

    #[test]
    fn a_full_list_goes_by_the_latest_time_that_its_entries_saw() {
        let (clock, list) = list(1);
        let ahead = clock.wall().saturating_add(QUARTER);
        let behind = clock.wall();
        clock.set_wall(ahead);
        list.deny_session("s");
        clock.set_wall(behind);
        clock.advance(Duration::from_secs(1));
        list.deny_session("s");
        list.deny_session("drives the other out");
        // A token of the session that was made while the clock was ahead.
        let keys = DenyKeys::new("u").with_session("s");
        assert_eq!(list.check(&keys, ahead.as_secs()), Err(Denied::Revoked));
    }

    #[test]
    fn a_subject_is_denied_up_to_the_second_and_not_after() {
        let (clock, list) = list(10);
        let now = clock.wall().as_secs();
        list.deny_subject("u");
        let keys = DenyKeys::new("u").with_session("s").with_token("t");
        assert_eq!(list.check(&keys, now), Err(Denied::Revoked));
        assert_eq!(list.earliest_issue("u"), now + 1);
        assert_eq!(list.check(&keys, now + 1), Ok(()));
        assert_eq!(list.check(&DenyKeys::new("v"), now), Ok(()));
    }

    #[test]
    fn entries_leave_when_no_token_can_need_them() {
        let (clock, list) = list(10);
        let keys = DenyKeys::new("u").with_session("s");
        list.deny_session("s");
        clock.advance(QUARTER + MARGIN);
        list.deny_token("t");
        assert!(list.check(&keys, i64::MAX).is_err());
        clock.advance(Duration::from_secs(1));
        list.deny_token("t2");
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn a_full_list_refuses_more_and_never_less() {
        let (clock, list) = list(3);
        for session in ["a", "b", "c", "d", "e"] {
            list.deny_session(session);
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(list.len(), 3);
        let start = clock.wall().as_secs() - 5;
        for session in ["a", "b", "c", "d", "e"] {
            let keys = DenyKeys::new("u").with_session(session);
            assert_eq!(list.check(&keys, start), Err(Denied::Revoked), "{session}");
        }
        let other = DenyKeys::new("u").with_session("f");
        assert_eq!(list.check(&other, start), Err(Denied::Revoked));
        assert_eq!(list.check(&other, start + 2), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_takes_no_denial_away() {
        let (clock, list) = list(10);
        let start = clock.wall();
        list.deny_session("s");
        list.deny_subject("u");
        clock.set_wall(start.saturating_add(QUARTER * 10));
        list.deny_token("t");
        clock.set_wall(UnixMillis::from_secs(start.as_secs() - 60));
        list.deny_subject("u");
        let now = start.as_secs();
        for keys in [
            DenyKeys::new("v").with_session("s"),
            DenyKeys::new("u"),
            DenyKeys::new("v").with_token("t"),
        ] {
            assert_eq!(list.check(&keys, now), Err(Denied::Revoked));
        }
    }

    #[test]
    fn what_is_denied_time_after_time_drives_nothing_out() {
        let (clock, list) = list(3);
        let issued_at = clock.wall().as_secs() + 1;
        list.deny_session("a");
        for _ in 0..100 {
            clock.advance(Duration::from_millis(1));
            list.deny_session("b");
            list.deny_session("b");
        }
        assert_eq!(list.len(), 2);
        assert!(list.inner.table.read().unwrap().order.len() <= 7);
        let other = DenyKeys::new("u").with_session("c");
        assert_eq!(list.check(&other, issued_at - 10), Ok(()));
        let keys = DenyKeys::new("u").with_session("a");
        assert_eq!(list.check(&keys, issued_at), Err(Denied::Revoked));
    }
}
