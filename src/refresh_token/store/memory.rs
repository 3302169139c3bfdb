//! Sessions in this process's memory.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;

use super::{
    CreateOutcome, EndReason, Ended, Lineage, NewSession, RefreshTokenStore, RevokeOutcome,
    RevokedSubject, RotateOutcome, Rotation, SessionId, SessionRecord, StoreError, StoreErrorKind,
};
use crate::time::UnixMillis;

/// Sessions in memory: for tests, and for services whose users may log in again after a restart.
///
/// It is bounded. When it is full it clears away what is over for two hours and else refuses new
/// logins ([`StoreErrorKind::Full`]); it never forgets a live session, nor an end while an access
/// token of that session could still be valid.
///
/// With it, use [`DenyList::since_start`](crate::DenyList::since_start): the access tokens of a
/// process's forebear belong to no session here.
pub struct MemoryStore {
    /// All sessions of a subject share a tag, so one entry's lock makes each step atomic.
    buckets: DashMap<[u8; 4], Bucket>,
    /// When each session may be over, or earlier: looked at again when that time has come.
    due: Mutex<BTreeSet<(UnixMillis, Due)>>,
    sessions: AtomicUsize,
    capacity: usize,
}

#[derive(Default)]
struct Bucket {
    subjects: HashMap<String, Subject>,
    rows: HashMap<SessionId, Row>,
}

#[derive(Default)]
struct Subject {
    epoch: u64,
    raised_at: UnixMillis,
    sessions: Vec<SessionId>,
}

struct Row {
    record: SessionRecord,
    lineage: Lineage,
}

#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
enum Due {
    Session(SessionId),
    Epoch(String),
}

impl MemoryStore {
    /// A store of at most 250,000 sessions, about half a KiB each.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// A store of at most `sessions` sessions.
    #[must_use]
    pub fn with_capacity(sessions: usize) -> Self {
        Self {
            buckets: DashMap::new(),
            due: Mutex::default(),
            sessions: AtomicUsize::new(0),
            capacity: sessions,
        }
    }

    /// How many sessions it holds, those that are over included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Whether it holds no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place for a session, clearing away what is over if there is none.
    fn reserve(&self, now: UnixMillis) -> Result<(), StoreError> {
        let take = || {
            self.sessions
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |sessions| {
                    (sessions < self.capacity).then_some(sessions + 1)
                })
                .is_ok()
        };
        let found = take() || {
            self.clear(now.saturating_sub(IN_FORCE), CLEAR_AT_ONCE);
            take()
        };
        found.then_some(()).ok_or(StoreErrorKind::Full.into())
    }

    fn release(&self) {
        self.sessions.fetch_sub(1, Ordering::AcqRel);
    }

    fn clear(&self, before: UnixMillis, limit: usize) -> u64 {
        let mut cleared = 0;
        let mut due = self.due();
        // What is looked at and stays moves behind `before`, so this ends; the bound is for
        // callers that wait for the lock.
        for _ in 0..limit.saturating_add(LOOK_AT_MOST) {
            if cleared >= limit as u64 || due.first().is_none_or(|(at, _)| *at >= before) {
                break;
            }
            let Some((_, what)) = due.pop_first() else {
                break;
            };
            match self.clear_one(&what, before) {
                Cleared::Session => cleared += 1,
                Cleared::Nothing => {}
                Cleared::NotYet(at) => {
                    due.insert((at, what));
                }
            }
        }
        cleared
    }

    fn clear_one(&self, what: &Due, before: UnixMillis) -> Cleared {
        let tag = match what {
            Due::Session(id) => id.tag(),
            Due::Epoch(subject) => SessionId::tag_of(subject),
        };
        let Some(mut entry) = self.buckets.get_mut(&tag) else {
            return Cleared::Nothing;
        };
        let bucket = &mut *entry;
        let cleared = match what {
            Due::Session(id) => match bucket.rows.get(id).map(|row| row.over_at()) {
                Some(at) if at >= before => return Cleared::NotYet(at),
                Some(_) => {
                    bucket.remove(*id);
                    self.release();
                    Cleared::Session
                }
                None => Cleared::Nothing,
            },
            Due::Epoch(name) => match bucket.subjects.get_mut(name) {
                Some(subject) => {
                    let at = subject.raised_at.saturating_add(EPOCH_KEPT);
                    if at >= before || !subject.sessions.is_empty() {
                        return Cleared::NotYet(at.max(before));
                    }
                    bucket.subjects.remove(name);
                    Cleared::Nothing
                }
                None => Cleared::Nothing,
            },
        };
        let empty = bucket.rows.is_empty() && bucket.subjects.is_empty();
        drop(entry);
        if empty {
            let still =
                |_: &_, bucket: &Bucket| bucket.rows.is_empty() && bucket.subjects.is_empty();
            self.buckets.remove_if(&tag, still);
        }
        cleared
    }

    fn due(&self) -> MutexGuard<'_, BTreeSet<(UnixMillis, Due)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Cleared {
    Session,
    Nothing,
    NotYet(UnixMillis),
}

impl Bucket {
    fn remove(&mut self, id: SessionId) {
        let Some(row) = self.rows.remove(&id) else {
            return;
        };
        let name = &row.record.subject;
        if let Some(subject) = self.subjects.get_mut(name) {
            subject.sessions.retain(|other| *other != id);
            if subject.sessions.is_empty() && subject.epoch == 0 {
                self.subjects.remove(name);
            }
        }
    }
}

impl Row {
    /// When the session was or will be over.
    fn over_at(&self) -> UnixMillis {
        let expires_at = self.record.expires_at;
        self.record
            .ended
            .map_or(expires_at, |ended| ended.at.min(expires_at))
    }
}

impl RefreshTokenStore for MemoryStore {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        let bucket = self.buckets.get(&SessionId::tag_of(subject));
        Ok(bucket
            .and_then(|bucket| bucket.subjects.get(subject).map(|subject| subject.epoch))
            .unwrap_or(0))
    }

    async fn create(&self, session: NewSession) -> Result<CreateOutcome, StoreError> {
        let NewSession { record, .. } = &session;
        let (id, expires_at) = (record.id, record.expires_at);
        if id.tag() != SessionId::tag_of(&record.subject) {
            return Err(StoreErrorKind::Conflict.into());
        }
        self.reserve(record.created_at)?;
        let mut entry = self.buckets.entry(id.tag()).or_default();
        let bucket = &mut *entry;
        let known = bucket.subjects.get(&record.subject);
        if known.map_or(0, |subject| subject.epoch) != session.epoch {
            self.release();
            return Ok(CreateOutcome::EpochMoved);
        }
        if bucket.rows.contains_key(&id) {
            self.release();
            return Err(StoreErrorKind::Conflict.into());
        }
        let subject = bucket.subjects.entry(record.subject.clone());
        subject.or_default().sessions.push(id);
        let lineage = Lineage {
            generation: 0,
            current: session.token,
            previous: None,
            seed: None,
            key: session.key,
            rotated_at: session.record.created_at,
        };
        let record = session.record;
        bucket.rows.insert(id, Row { record, lineage });
        drop(entry);
        self.due().insert((expires_at, Due::Session(id)));
        Ok(CreateOutcome::Created)
    }

    async fn rotate(&self, rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        let Some(mut bucket) = self.buckets.get_mut(&rotation.id.tag()) else {
            return Ok(RotateOutcome::NotFound);
        };
        let Some(Row { record, lineage }) = bucket.rows.get_mut(&rotation.id) else {
            return Ok(RotateOutcome::NotFound);
        };
        if record.ended.is_some() {
            return Ok(RotateOutcome::Ended(record.clone()));
        }
        if !record.is_live(rotation.now) {
            return Ok(RotateOutcome::Expired(record.clone()));
        }
        if lineage.generation != rotation.generation || lineage.current != rotation.presented {
            return Ok(RotateOutcome::Stale(record.clone(), *lineage));
        }
        if lineage.is_too_young(&rotation) {
            return Ok(RotateOutcome::TooYoung(record.clone()));
        }
        *lineage = Lineage {
            generation: rotation.generation + 1,
            current: rotation.next,
            previous: Some(rotation.presented),
            seed: Some(rotation.seed),
            key: rotation.key,
            rotated_at: rotation.now,
        };
        record.last_used_at = rotation.now;
        let expires_at = rotation.idle_end.min(record.absolute_end);
        // One that ends later is found in its old place and put off.
        let is_sooner = expires_at < record.expires_at;
        record.expires_at = expires_at;
        record.device.ip = rotation.client.or(record.device.ip);
        let record = record.clone();
        drop(bucket);
        if is_sooner {
            self.due().insert((expires_at, Due::Session(rotation.id)));
        }
        Ok(RotateOutcome::Rotated(record))
    }

    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        let Some(mut bucket) = self.buckets.get_mut(&id.tag()) else {
            return Ok(RevokeOutcome::NotFound);
        };
        let Some(Row { record, .. }) = bucket.rows.get_mut(&id) else {
            return Ok(RevokeOutcome::NotFound);
        };
        if record.ended.is_some() {
            return Ok(RevokeOutcome::AlreadyEnded(record.clone()));
        }
        record.ended = Some(Ended { at: now, reason });
        let record = record.clone();
        drop(bucket);
        self.due().insert((now, Due::Session(id)));
        Ok(RevokeOutcome::Ended(record))
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        let mut entry = self.buckets.entry(SessionId::tag_of(subject)).or_default();
        let Bucket { subjects, rows } = &mut *entry;
        let known = subjects.entry(subject.to_owned()).or_default();
        let first = known.epoch == 0;
        known.epoch = RevokedSubject::raised(known.epoch, now);
        known.raised_at = now;
        let mut ended = Vec::new();
        for id in known.sessions.iter().filter(|id| Some(**id) != except) {
            if let Some(row) = rows.get_mut(id).filter(|row| row.record.ended.is_none()) {
                row.record.ended = Some(Ended { at: now, reason });
                ended.push(*id);
            }
        }
        let epoch = known.epoch;
        drop(entry);
        let mut due = self.due();
        due.extend(ended.iter().map(|id| (now, Due::Session(*id))));
        if first {
            due.insert((now, Due::Epoch(subject.to_owned())));
        }
        Ok(RevokedSubject { epoch, ended })
    }

    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let bucket = self.buckets.get(&id.tag());
        Ok(bucket.and_then(|bucket| bucket.rows.get(&id).map(|row| row.record.clone())))
    }

    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let Some(bucket) = self.buckets.get(&SessionId::tag_of(subject)) else {
            return Ok(Vec::new());
        };
        let ids = bucket.subjects.get(subject).map(|known| &known.sessions);
        let mut records: Vec<SessionRecord> = ids
            .into_iter()
            .flatten()
            .filter_map(|id| bucket.rows.get(id))
            .filter(|row| row.record.is_live(now))
            .map(|row| row.record.clone())
            .collect();
        drop(bucket);
        records.sort_unstable_by_key(|record| std::cmp::Reverse((record.created_at, record.id)));
        records.truncate(limit);
        Ok(records)
    }

    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        let mut revoked = Vec::new();
        for bucket in &self.buckets {
            revoked.extend(bucket.rows.iter().filter_map(|(id, row)| {
                let ended = row.record.ended.filter(|ended| ended.at >= since)?;
                Some((*id, ended))
            }));
        }
        Ok(revoked)
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        Ok(self.clear(before, limit))
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("sessions", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

const CAPACITY: usize = 250_000;
/// Longer than an access token may live (an hour), its leeway and the deny list's margin.
const IN_FORCE: Duration = Duration::from_secs(2 * 60 * 60);
/// Longer than a login may take from its beginning to its end.
const EPOCH_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const CLEAR_AT_ONCE: usize = 64;
const LOOK_AT_MOST: usize = 4_096;
