//! The handle that services hold.

use std::{
    fmt,
    future::poll_fn,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use super::{
    error::RefreshError,
    record::{Device, EndReason, Ended, Seed, SessionId, SessionRecord},
    rotation::{Streaks, Verdict, judge},
    store::{
        CreateOutcome, Erased, Lineage, NewSession, RefreshTokenStore, RevokeOutcome,
        RotateOutcome, Rotation, StoreError, StoreErrorKind,
    },
    token::{Keys, RefreshToken, Token},
};
use crate::{
    client::Prefix,
    context::Context,
    error::ConfigError,
    event::{EventKind, SecurityEvent, metric},
    secret::{Secrets, random},
    time::UnixMillis,
};

/// Sessions and their refresh tokens, over a store. A cheap clone.
#[derive(Clone)]
pub struct RefreshTokens {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    settings: Settings,
    streaks: Arc<Mutex<Streaks>>,
    logins: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Settings {
    store: Arc<dyn Erased>,
    keys: Keys,
    context: Context,
    idle: Duration,
    absolute: Duration,
    grace: Duration,
    max_sessions: usize,
    patience: Duration,
}

/// A login whose proof is not checked yet: who, and how many times his sessions had all been ended
/// when it began.
#[derive(Clone, Debug)]
#[must_use = "a login that is not started is no session"]
pub struct Login {
    subject: String,
    epoch: u64,
    begun_at: UnixMillis,
}

impl Login {
    /// Who logs in.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// A token for the client, and the session that it belongs to.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "the token is shown once"]
pub struct Granted {
    /// The token.
    pub token: RefreshToken,
    /// The session.
    pub session: SessionRecord,
    /// Whether the presented token had been replaced before, and the same successor is granted
    /// again, inside the grace window.
    pub replayed: bool,
    /// Whether it is the presented token itself, as [`RefreshTokens::refresh_by_cookie`] may grant
    /// it. Then the cookie must not be set again.
    pub kept: bool,
    /// The sessions that were ended to make room for this one.
    pub displaced: Vec<SessionId>,
}

/// What a token comes in.
#[derive(Clone, Copy)]
enum Carrier {
    /// What the client keeps by itself: it knows which answer is the latest.
    Client,
    /// A cookie, of which the browser keeps the one that arrived last.
    Cookie,
}

impl RefreshTokens {
    /// Tokens over `store`, made with the current secret and proved with all of them.
    ///
    /// A session ends 7 days after its last use and 30 days after its login, the grace window is
    /// 30 s, and a user has at most 50 sessions.
    pub fn new(store: impl RefreshTokenStore, secrets: impl Into<Secrets>) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings: Settings {
                    store: Arc::new(store),
                    keys: Keys::new(&secrets.into()),
                    context: Context::new(),
                    idle: 7 * DAY,
                    absolute: 30 * DAY,
                    grace: Duration::from_secs(30),
                    max_sessions: 50,
                    patience: Duration::from_secs(5),
                },
                streaks: Arc::default(),
                logins: Arc::default(),
            }),
        }
    }

    /// Reads time from `context` and sends events through it.
    #[must_use]
    pub fn with_context(self, context: Context) -> Self {
        self.with(|settings| settings.context = context)
    }

    /// Sets how long a session lives from its last use, and from its login.
    ///
    /// # Errors
    /// When either is shorter than a second, or the absolute one shorter than the other.
    pub fn with_lifetimes(self, idle: Duration, absolute: Duration) -> Result<Self, ConfigError> {
        if idle < Duration::from_secs(1) {
            return Err(ConfigError::new(
                "refresh lifetime",
                "must be at least 1 second",
            ));
        }
        if absolute < idle {
            let problem = "must not be shorter than the sliding lifetime";
            return Err(ConfigError::new("absolute refresh lifetime", problem));
        }
        Ok(self.with(|settings| (settings.idle, settings.absolute) = (idle, absolute)))
    }

    /// Sets the grace window; zero is strict single use.
    ///
    /// # Errors
    /// Above 5 minutes: a stolen token is not noticed inside the window.
    pub fn with_grace(self, grace: Duration) -> Result<Self, ConfigError> {
        if grace > MAX_GRACE {
            return Err(ConfigError::new(
                "refresh grace",
                "must be at most 300 seconds",
            ));
        }
        Ok(self.with(|settings| settings.grace = grace))
    }

    /// Sets how many sessions a user may have; a login beyond that ends the oldest.
    ///
    /// # Errors
    /// Zero, and more than 1000.
    pub fn with_max_sessions(self, sessions: usize) -> Result<Self, ConfigError> {
        if !(1..=1_000).contains(&sessions) {
            return Err(ConfigError::new("sessions per user", "must be 1 to 1000"));
        }
        Ok(self.with(|settings| settings.max_sessions = sessions))
    }

    /// Sets how long a call of the store may take before it counts as failed (5 s).
    #[must_use]
    pub fn with_store_timeout(self, patience: Duration) -> Self {
        self.with(|settings| settings.patience = patience)
    }

    /// How long a session lives from its last use.
    #[must_use]
    pub fn idle_lifetime(&self) -> Duration {
        self.inner.settings.idle
    }

    /// Begins a login, **before** the proof that it goes by (the stored password's hash) is read.
    ///
    /// What [`end_subject`](Self::end_subject) does in between makes [`start`](Self::start) fail,
    /// so a login with the old password that raced its change is never a session.
    ///
    /// # Errors
    /// [`RefreshError::UnusableSubject`], [`RefreshError::Store`].
    pub async fn begin(&self, subject: &str) -> Result<Login, RefreshError> {
        let usable = (1..=MAX_SUBJECT).contains(&subject.len());
        if !usable || subject.contains(char::is_control) {
            return Err(RefreshError::UnusableSubject);
        }
        let epoch = self.call("epoch", self.store().epoch_(subject)).await?;
        Ok(Login {
            subject: subject.to_owned(),
            epoch,
            begun_at: self.now(),
        })
    }

    /// Starts the session of a login whose proof held.
    ///
    /// # Errors
    /// [`RefreshError::LoginOutdated`], [`RefreshError::Store`].
    pub async fn start(&self, login: Login, device: Device) -> Result<Granted, RefreshError> {
        let now = self.now();
        if now.saturating_since(login.begun_at) > MAX_LOGIN {
            return Err(RefreshError::LoginOutdated);
        }
        let Settings {
            keys,
            idle,
            absolute,
            ..
        } = self.settings();
        let id = SessionId::generate(&login.subject);
        let first = keys.first(id);
        let token = keys.encode(&first).ok_or(StoreErrorKind::Other)?;
        let absolute_end = now.saturating_add(*absolute);
        let record = SessionRecord {
            id,
            subject: login.subject,
            created_at: now,
            last_used_at: now,
            expires_at: now.saturating_add(*idle).min(absolute_end),
            absolute_end,
            device,
            ended: None,
        };
        let session = NewSession {
            record: record.clone(),
            epoch: login.epoch,
            token: first.digest(),
            key: first.key(),
        };
        match self.call("create", self.store().create_(session)).await? {
            CreateOutcome::Created => {}
            CreateOutcome::EpochMoved => return Err(RefreshError::LoginOutdated),
        }
        self.emit(
            EventKind::SessionCreated,
            "login",
            &record,
            record.device.ip,
        );
        let displaced = self.keep_to_the_limit(&record, now).await;
        self.clear_now_and_then().await;
        Ok(Granted {
            token,
            session: record,
            replayed: false,
            kept: false,
            displaced,
        })
    }

    /// Replaces a token by its successor, for `client`.
    ///
    /// # Errors
    /// [`RefreshError`], with what became of the session.
    pub async fn refresh(
        &self,
        token: &str,
        client: Option<IpAddr>,
    ) -> Result<Granted, RefreshError> {
        self.count(self.trade(token, client, Carrier::Client).await)
    }

    /// [`refresh`](Self::refresh) for a token that comes in a cookie, where it need not be replaced
    /// at each use.
    ///
    /// The requests of several tabs share a cookie, and on several connections their answers
    /// overtake each other: one that sets an older token after a newer one would leave the older
    /// one in the browser, which is a logout at its next use. So a token that is younger than the
    /// grace window is not replaced but granted again ([`Granted::kept`]): until the window is
    /// over, there is one token that an answer can set. The first token of a session is replaced
    /// at any age, since one answer alone has ever set it.
    ///
    /// # Errors
    /// [`RefreshError`], with what became of the session.
    pub async fn refresh_by_cookie(
        &self,
        token: &str,
        client: Option<IpAddr>,
    ) -> Result<Granted, RefreshError> {
        self.count(self.trade(token, client, Carrier::Cookie).await)
    }

    fn count(&self, result: Result<Granted, RefreshError>) -> Result<Granted, RefreshError> {
        metric::refreshed(match &result {
            Ok(granted) if granted.replayed => "replayed",
            Ok(_) => "success",
            Err(RefreshError::Reused(_) | RefreshError::RolledBack(_)) => "reused",
            Err(RefreshError::Ended(..) | RefreshError::Expired(_)) => "ended",
            Err(RefreshError::Store(_)) => "error",
            Err(_) => "refused",
        });
        result
    }

    async fn trade(
        &self,
        token: &str,
        client: Option<IpAddr>,
        carrier: Carrier,
    ) -> Result<Granted, RefreshError> {
        let Settings {
            keys, idle, grace, ..
        } = self.settings();
        let presented = self.decode(token, client)?;
        let id = presented.session;
        let now = self.now();
        let seed = Seed::from_bytes(random());
        let next = keys.successor(&presented, &seed, keys.current());
        let next = next.ok_or(RefreshError::Unknown(id))?;
        let rotation = Rotation {
            id,
            generation: presented.generation,
            presented: presented.digest(),
            next: next.digest(),
            seed,
            key: next.key(),
            now,
            not_made_after: match carrier {
                Carrier::Cookie if presented.generation > 0 && !grace.is_zero() => {
                    now.saturating_sub(*grace)
                }
                _ => UnixMillis::MAX,
            },
            idle_end: now.saturating_add(*idle),
            client,
        };
        match self.call("rotate", self.store().rotate_(rotation)).await? {
            RotateOutcome::Rotated(record) => {
                self.emit(EventKind::SessionRenewed, "rotated", &record, client);
                self.grant(&next, record)
            }
            RotateOutcome::TooYoung(record) => {
                if !self.note_elsewhere(&record, presented.generation, client) {
                    self.emit(EventKind::SessionRenewed, "kept", &record, client);
                }
                Ok(Granted {
                    kept: true,
                    ..self.grant(&presented, record)?
                })
            }
            RotateOutcome::Stale(record, row) => {
                self.stale(&presented, record, &row, now, client).await
            }
            RotateOutcome::Ended(record) => {
                let reason = record.ended.map_or(EndReason::Other, |ended| ended.reason);
                self.emit(EventKind::SessionUseAfterExpire, "ended", &record, client);
                Err(RefreshError::Ended(id, reason))
            }
            RotateOutcome::Expired(record) => {
                self.emit(EventKind::SessionUseAfterExpire, "expired", &record, client);
                Err(RefreshError::Expired(id))
            }
            RotateOutcome::NotFound => {
                let event = self.event(EventKind::SessionUseAfterExpire, "unknown_session", client);
                self.context().emit(event.with_session(id.to_string()));
                Err(RefreshError::Unknown(id))
            }
        }
    }

    /// Ends the session of a token: a logout. Any authentic token of the session does, of any age.
    /// `None` when it is no token of this server, or its session is not known any more.
    ///
    /// # Errors
    /// [`RefreshError::Store`]: the session may go on, and the client should ask again.
    pub async fn end(
        &self,
        token: &str,
        client: Option<IpAddr>,
    ) -> Result<Option<SessionRecord>, RefreshError> {
        self.end_for(EndReason::Logout, token, client).await
    }

    /// [`end`](Self::end) for another reason than a logout.
    pub(crate) async fn end_for(
        &self,
        reason: EndReason,
        token: &str,
        client: Option<IpAddr>,
    ) -> Result<Option<SessionRecord>, RefreshError> {
        let Ok(token) = self.decode(token, client) else {
            return Ok(None);
        };
        self.end_session(token.session, reason).await
    }

    /// Ends a session by its id. `None` when it is not known.
    ///
    /// # Errors
    /// [`RefreshError::Store`].
    pub async fn end_session(
        &self,
        id: SessionId,
        reason: EndReason,
    ) -> Result<Option<SessionRecord>, RefreshError> {
        let now = self.now();
        let outcome = self
            .call("revoke", self.store().revoke_(id, reason, now))
            .await?;
        Ok(match outcome {
            RevokeOutcome::Ended(record) => {
                let kind = match reason {
                    EndReason::Logout | EndReason::LogoutElsewhere => EventKind::SessionLogout,
                    EndReason::SessionLimit => EventKind::ExcessSessionsExceeded,
                    EndReason::Reuse => EventKind::AuthnTokenReuse,
                    EndReason::Rollback => EventKind::StoreRollbackDetected,
                    _ => EventKind::AuthnTokenRevoked,
                };
                self.emit(kind, reason.as_str(), &record, None);
                Some(record)
            }
            RevokeOutcome::AlreadyEnded(record) => Some(record),
            RevokeOutcome::NotFound => None,
        })
    }

    /// Ends all sessions of a subject but `except`, and every login of his that has begun and not
    /// started. The ids are those that ended.
    ///
    /// # Errors
    /// [`RefreshError::Store`].
    pub async fn end_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
    ) -> Result<Vec<SessionId>, RefreshError> {
        let now = self.now();
        let revoke = self.store().revoke_subject_(subject, except, reason, now);
        let revoked = self.call("revoke_subject", revoke).await?;
        let event = self.event(EventKind::AuthnTokenRevoked, reason.as_str(), None);
        self.context().emit(event.with_subject(subject));
        Ok(revoked.ended)
    }

    /// The live sessions of a subject, the latest begun first.
    ///
    /// # Errors
    /// [`RefreshError::Store`].
    pub async fn list(&self, subject: &str) -> Result<Vec<SessionRecord>, RefreshError> {
        let limit = self.settings().max_sessions.saturating_add(EXTRA);
        let list = self.store().list_subject_(subject, self.now(), limit);
        self.call("list_subject", list).await
    }

    /// One session, live or not.
    ///
    /// # Errors
    /// [`RefreshError::Store`].
    pub async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, RefreshError> {
        self.call("get", self.store().get_(id)).await
    }

    /// The sessions that were ended at `since` or later.
    ///
    /// # Errors
    /// [`RefreshError::Store`].
    pub async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, RefreshError> {
        self.call("revoked_since", self.store().revoked_since_(since))
            .await
    }

    /// Clears away at most `limit` sessions that are over for a day, and says how many. Logins do
    /// so now and then by themselves; a service with few logins schedules it.
    ///
    /// # Errors
    /// [`RefreshError::Store`].
    pub async fn delete_expired(&self, limit: usize) -> Result<u64, RefreshError> {
        let before = self.now().saturating_sub(DAY);
        let delete = self.store().delete_expired_(before, limit);
        self.call("delete_expired", delete).await
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`RefreshError::Store`].
    pub async fn health(&self) -> Result<(), RefreshError> {
        self.call("health", self.store().health_()).await
    }

    /// A token of a live session that is not its current one.
    async fn stale(
        &self,
        presented: &Token,
        record: SessionRecord,
        row: &Lineage,
        now: UnixMillis,
        client: Option<IpAddr>,
    ) -> Result<Granted, RefreshError> {
        let id = record.id;
        let grace = self.settings().grace;
        match judge(presented.generation, &presented.digest(), row, now, grace) {
            Verdict::Replay => {
                let next = self.replayed(presented, row)?;
                if !self.note_elsewhere(&record, row.generation, client) {
                    self.emit(EventKind::RefreshReplayed, "replayed", &record, client);
                }
                Ok(Granted {
                    replayed: true,
                    ..self.grant(&next, record)?
                })
            }
            Verdict::Late => {
                self.emit(EventKind::RefreshReplayed, "late", &record, client);
                Err(RefreshError::Late(id))
            }
            Verdict::Reuse => {
                self.end_session(id, EndReason::Reuse).await?;
                Err(RefreshError::Reused(id))
            }
            Verdict::Rollback => {
                self.end_session(id, EndReason::Rollback).await?;
                Err(RefreshError::RolledBack(id))
            }
            Verdict::Contradiction => Err(StoreErrorKind::Corrupt.into()),
        }
    }

    /// The successor that the winner was given. A row of a key that is not known here is for
    /// another server to answer.
    fn replayed(&self, presented: &Token, row: &Lineage) -> Result<Token, RefreshError> {
        let seed = row.seed.as_ref().ok_or(StoreErrorKind::Corrupt)?;
        let next = self.settings().keys.successor(presented, seed, row.key);
        let next = next.ok_or_else(|| {
            let event = self.event(EventKind::Misconfigured, "row_of_unknown_key", None);
            self.context().emit(event);
            StoreErrorKind::Unavailable
        })?;
        if next.digest() == row.current {
            Ok(next)
        } else {
            Err(StoreErrorKind::Corrupt.into())
        }
    }

    /// Tells of a use inside the grace window from another network than the last rotation's.
    fn note_elsewhere(
        &self,
        record: &SessionRecord,
        generation: u64,
        client: Option<IpAddr>,
    ) -> bool {
        let elsewhere = match (client, record.device.ip) {
            (Some(client), Some(winner)) => Prefix::of_site(client) != Prefix::of_site(winner),
            _ => false,
        };
        if !elsewhere {
            return false;
        }
        self.emit(
            EventKind::RefreshReplayedElsewhere,
            "replayed",
            record,
            client,
        );
        let mut streaks = self
            .inner
            .streaks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if streaks.note(record.id, generation) {
            drop(streaks);
            self.emit(EventKind::AuthnTokenReuse, "replay_streak", record, client);
        }
        true
    }

    fn grant(&self, token: &Token, session: SessionRecord) -> Result<Granted, RefreshError> {
        let token = self.settings().keys.encode(token);
        Ok(Granted {
            token: token.ok_or(StoreErrorKind::Other)?,
            session,
            replayed: false,
            kept: false,
            displaced: Vec::new(),
        })
    }

    fn decode(&self, token: &str, client: Option<IpAddr>) -> Result<Token, RefreshError> {
        self.settings().keys.decode(token).map_err(|why| {
            let event = self.event(EventKind::InputValidationFail, why.as_str(), client);
            self.context().emit(event);
            RefreshError::NotAToken(why)
        })
    }

    /// Ends the oldest sessions beyond the limit. The login stands even if the store fails here:
    /// the next one makes up for it.
    async fn keep_to_the_limit(&self, record: &SessionRecord, now: UnixMillis) -> Vec<SessionId> {
        let max = self.settings().max_sessions;
        let list = self
            .store()
            .list_subject_(&record.subject, now, max.saturating_add(EXTRA));
        let sessions = self.call("list_subject", list).await.unwrap_or_default();
        let mut displaced = Vec::new();
        for old in sessions.iter().skip(max).filter(|old| old.id != record.id) {
            if let Ok(Some(_)) = self.end_session(old.id, EndReason::SessionLimit).await {
                displaced.push(old.id);
            }
        }
        displaced
    }

    async fn clear_now_and_then(&self) {
        let logins = self.inner.logins.fetch_add(1, Ordering::Relaxed);
        if logins.is_multiple_of(CLEAR_EVERY) {
            // Its failure is an event already, and no reason to refuse a login.
            let _ = self.delete_expired(CLEAR_AT_ONCE).await;
        }
    }

    /// One call of the store, in time.
    async fn call<T>(
        &self,
        op: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, RefreshError> {
        let mut call = pin!(call);
        // A store in memory answers at once and needs no timer.
        let result = match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            Poll::Ready(result) => result,
            Poll::Pending => tokio::time::timeout(self.settings().patience, call)
                .await
                .unwrap_or(Err(StoreErrorKind::Timeout.into())),
        };
        result.map_err(|error| {
            self.context()
                .emit(self.event(EventKind::StoreUnavailable, op, None));
            let source = std::error::Error::source(&error);
            tracing::debug!(op, %error, source, "a call of the session store failed");
            RefreshError::Store(error)
        })
    }

    fn emit(
        &self,
        kind: EventKind,
        reason: &'static str,
        record: &SessionRecord,
        client: Option<IpAddr>,
    ) {
        let event = self
            .event(kind, reason, client)
            .with_subject(record.subject.as_str())
            .with_session(record.id.to_string());
        self.context().emit(event);
    }

    fn event(
        &self,
        kind: EventKind,
        reason: &'static str,
        client: Option<IpAddr>,
    ) -> SecurityEvent {
        SecurityEvent::new(kind)
            .with_rule("refresh_token", reason)
            .with_client(client)
    }

    fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    fn store(&self) -> &dyn Erased {
        &*self.inner.settings.store
    }

    pub(crate) fn context(&self) -> &Context {
        &self.inner.settings.context
    }

    fn now(&self) -> UnixMillis {
        self.context().wall()
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut Arc::make_mut(&mut self.inner).settings);
        self
    }
}

impl fmt::Debug for RefreshTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings();
        f.debug_struct("RefreshTokens")
            .field("idle", &settings.idle)
            .field("absolute", &settings.absolute)
            .field("grace", &settings.grace)
            .field("max_sessions", &settings.max_sessions)
            .finish_non_exhaustive()
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_GRACE: Duration = Duration::from_secs(300);
/// Stores keep a subject's epoch for a day after it was raised.
const MAX_LOGIN: Duration = Duration::from_secs(60 * 60);
const MAX_SUBJECT: usize = 255;
/// How many sessions past the limit one login clears away.
const EXTRA: usize = 16;
const CLEAR_EVERY: u64 = 16;
const CLEAR_AT_ONCE: usize = 128;
