//! The handle that services hold.

use std::{
    error, fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{
    error::SessionError,
    subjects::{ErasedSubjects, Grants, SubjectStatus, Subjects},
};
use crate::{
    context::Context,
    deny_list::{Denial, DenyList},
    event::{EventKind, SecurityEvent},
    jwt::{IssueError, IssuedToken, Issuer},
    refresh_token::{
        Device, EndReason, Granted, Login, RefreshError, RefreshToken, RefreshTokens, SessionId,
        SessionRecord,
    },
    time::UnixMillis,
};

/// Begins, refreshes and ends sessions. A cheap clone.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    issuer: Issuer,
    tokens: RefreshTokens,
    deny_list: DenyList,
    subjects: Option<Arc<dyn ErasedSubjects>>,
    /// Up to when ends are known to the deny list, in Unix milliseconds; 0 before the first time.
    recovered: Arc<AtomicI64>,
}

/// What a client gets: RFC 6749 section 5.1, with the lives of both tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "the tokens are shown once"]
pub struct TokenPair {
    /// The access token.
    pub access_token: IssuedToken,
    /// How long it lives.
    pub expires_in: Duration,
    /// The refresh token.
    pub refresh_token: RefreshToken,
    /// How long it lives unless it is used.
    pub refresh_expires_in: Duration,
    /// The session.
    pub session: SessionRecord,
    /// Whether the presented refresh token had been replaced before, and the same successor is
    /// granted again, inside the grace window.
    pub replayed: bool,
    /// Whether it is the presented refresh token itself, so that its cookie must not be set again.
    pub kept: bool,
}

impl Sessions {
    /// Sessions whose access tokens `issuer` makes and whose ends `deny_list` is told.
    ///
    /// Time and events come from the context of `tokens`.
    #[must_use]
    pub fn new(issuer: Issuer, tokens: RefreshTokens, deny_list: DenyList) -> Self {
        Self {
            inner: Arc::new(Inner {
                issuer,
                tokens,
                deny_list,
                subjects: None,
                recovered: Arc::default(),
            }),
        }
    }

    /// Asks `subjects` at every login and refresh.
    #[must_use]
    pub fn with_subjects(mut self, subjects: impl Subjects) -> Self {
        Arc::make_mut(&mut self.inner).subjects = Some(Arc::new(subjects));
        self
    }

    /// The deny list that is told of ends.
    #[must_use]
    pub fn deny_list(&self) -> &DenyList {
        &self.inner.deny_list
    }

    /// Begins a login, **before** the proof that it goes by (the stored password's hash) is read.
    ///
    /// # Errors
    /// When the store does not answer, or the subject cannot be used.
    pub async fn begin(&self, subject: &str) -> Result<Login, SessionError> {
        Ok(self.inner.tokens.begin(subject).await?)
    }

    /// Starts the session of a login whose proof held.
    ///
    /// # Errors
    /// When the user's sessions were all ended since the login began, when he may not have any, or
    /// when a store does not answer.
    pub async fn start_login(
        &self,
        login: Login,
        device: Device,
    ) -> Result<TokenPair, SessionError> {
        let Some(grants) = self.grants(login.subject()).await? else {
            return Err(SessionError::Disabled);
        };
        let granted = self.inner.tokens.start(login, device).await?;
        granted.displaced.iter().for_each(|id| self.deny(*id));
        self.pair(granted, grants)
    }

    /// Starts a session where no proof stands that a change of the password could undo, as after a
    /// registration. A login uses [`begin`](Self::begin).
    ///
    /// # Errors
    /// As [`start_login`](Self::start_login).
    pub async fn start(&self, subject: &str, device: Device) -> Result<TokenPair, SessionError> {
        let login = self.begin(subject).await?;
        self.start_login(login, device).await
    }

    /// Trades a refresh token for a new pair, for `client`.
    ///
    /// # Errors
    /// [`SessionError`]; [`is_over`](SessionError::is_over) says whether the client should forget
    /// its token.
    pub async fn refresh(
        &self,
        token: &str,
        client: Option<IpAddr>,
    ) -> Result<TokenPair, SessionError> {
        self.refreshed(self.inner.tokens.refresh(token, client).await)
            .await
    }

    /// [`refresh`](Self::refresh) for a token that comes in a cookie and need not be replaced at
    /// each use, as [`RefreshTokens::refresh_by_cookie`] says.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub async fn refresh_by_cookie(
        &self,
        token: &str,
        client: Option<IpAddr>,
    ) -> Result<TokenPair, SessionError> {
        self.refreshed(self.inner.tokens.refresh_by_cookie(token, client).await)
            .await
    }

    async fn refreshed(
        &self,
        granted: Result<Granted, RefreshError>,
    ) -> Result<TokenPair, SessionError> {
        let granted = match granted {
            Ok(granted) => granted,
            Err(error) => {
                if let RefreshError::Reused(id)
                | RefreshError::RolledBack(id)
                | RefreshError::Ended(id, _) = error
                {
                    self.deny(id);
                }
                return Err(error.into());
            }
        };
        let Some(grants) = self.grants(&granted.session.subject).await? else {
            self.end_session(granted.session.id, EndReason::SubjectDisabled)
                .await?;
            return Err(SessionError::Disabled);
        };
        self.pair(granted, grants)
    }

    /// Ends the session of a refresh token, of any age: a logout. `None` when it is no token of
    /// this server or its session is not known any more, which a client need not be told.
    ///
    /// # Errors
    /// When the store does not answer: the session may go on, and the client keeps its token.
    pub async fn end(
        &self,
        token: &str,
        client: Option<IpAddr>,
    ) -> Result<Option<SessionRecord>, SessionError> {
        let ended = self.inner.tokens.end(token, client).await?;
        if let Some(record) = &ended {
            self.deny(record.id);
        }
        Ok(ended)
    }

    /// Ends the session of a refresh token because a login from the same browser takes its place.
    /// A token that is not known is no fault.
    ///
    /// Called once the login's proof held, and before the new session starts.
    ///
    /// # Errors
    /// When the store does not answer: the session may go on, so none should take its place.
    pub async fn replace(&self, token: &str, client: Option<IpAddr>) -> Result<(), SessionError> {
        let tokens = &self.inner.tokens;
        let ended = tokens.end_for(EndReason::Replaced, token, client).await?;
        if let Some(record) = ended {
            self.deny(record.id);
        }
        Ok(())
    }

    /// Ends any session by its id: an administrator's. `None` when it is not known.
    ///
    /// Deployment caveat: nobody asks whose it is; [`end_one`](Self::end_one) does.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_session(
        &self,
        id: SessionId,
        reason: EndReason,
    ) -> Result<Option<SessionRecord>, SessionError> {
        let ended = self.inner.tokens.end_session(id, reason).await?;
        if let Some(record) = &ended {
            self.deny(record.id);
        }
        Ok(ended)
    }

    /// Ends one session of `subject`; `false` when he has no such live session.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_one(
        &self,
        subject: &str,
        id: SessionId,
        reason: EndReason,
    ) -> Result<bool, SessionError> {
        let record = self.inner.tokens.get(id).await?;
        let live = |record: &SessionRecord| record.subject == subject && record.is_live(self.now());
        if !record.as_ref().is_some_and(live) {
            return Ok(false);
        }
        self.end_session(id, reason).await?;
        Ok(true)
    }

    /// Ends all sessions of `subject` but `keep`, and every login of his that is not started.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_others(
        &self,
        subject: &str,
        keep: SessionId,
        reason: EndReason,
    ) -> Result<Vec<SessionId>, SessionError> {
        self.end_subject(subject, Some(keep), reason).await
    }

    /// Ends all sessions of `subject`, and every login of his that is not started.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_all(
        &self,
        subject: &str,
        reason: EndReason,
    ) -> Result<Vec<SessionId>, SessionError> {
        self.end_subject(subject, None, reason).await
    }

    /// Ends the other sessions of a user whose password was changed, once the new hash is stored,
    /// and sends the event. A login with the old password that is under way fails.
    ///
    /// # Errors
    /// When the store does not answer: the password is changed, and this must be called again.
    pub async fn password_changed(
        &self,
        subject: &str,
        keep: Option<SessionId>,
    ) -> Result<Vec<SessionId>, SessionError> {
        let ended = self
            .end_subject(subject, keep, EndReason::PasswordChange)
            .await?;
        let event = SecurityEvent::new(EventKind::AuthnPasswordChange).with_subject(subject);
        self.context().emit(event);
        Ok(ended)
    }

    /// The live sessions of `subject`, the latest begun first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, subject: &str) -> Result<Vec<SessionRecord>, SessionError> {
        Ok(self.inner.tokens.list(subject).await?)
    }

    /// Tells the deny list what the store knows of ended sessions, and lets it answer from then on.
    /// After a start, called until it succeeds; called again, it adds what other servers ended
    /// since, as [`DenyFeed`](crate::deny_feed::DenyFeed) does by itself.
    ///
    /// # Errors
    /// When the store does not answer; the deny list is then as ready as it was.
    pub async fn recover(&self) -> Result<(), SessionError> {
        self.learn_ends().await?;
        self.inner.deny_list.set_ready();
        Ok(())
    }

    /// Tells the deny list what was ended since the last time, by whomever. Each time reaches back
    /// into what the last one saw, since clocks differ and steps take time.
    pub(crate) async fn learn_ends(&self) -> Result<(), SessionError> {
        let now = self.now();
        let known = self.inner.recovered.load(Ordering::Acquire);
        let since = match known {
            0 => now.saturating_sub(LONGEST),
            known => UnixMillis::new(known).saturating_sub(SKEW),
        };
        for (id, _) in self.inner.tokens.revoked_since(since).await? {
            let denial = Denial::Session(id.to_string());
            self.inner.deny_list.learn(&denial);
        }
        self.inner
            .recovered
            .fetch_max(now.as_millis(), Ordering::AcqRel);
        Ok(())
    }

    /// Clears away at most `limit` sessions that are over for a day, and says how many.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn delete_expired(&self, limit: usize) -> Result<u64, SessionError> {
        Ok(self.inner.tokens.delete_expired(limit).await?)
    }

    /// Whether the session store answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn health(&self) -> Result<(), SessionError> {
        Ok(self.inner.tokens.health().await?)
    }

    pub(super) fn context(&self) -> &Context {
        self.inner.tokens.context()
    }

    async fn end_subject(
        &self,
        subject: &str,
        keep: Option<SessionId>,
        reason: EndReason,
    ) -> Result<Vec<SessionId>, SessionError> {
        let ended = self.inner.tokens.end_subject(subject, keep, reason).await?;
        ended.iter().for_each(|id| self.deny(*id));
        Ok(ended)
    }

    /// What the user's access token says; `None` when he may not have one.
    async fn grants(&self, subject: &str) -> Result<Option<Grants>, SessionError> {
        let Some(subjects) = &self.inner.subjects else {
            return Ok(Some(Grants::new()));
        };
        match subjects.status_(subject.to_owned()).await {
            Ok(SubjectStatus::Active(grants)) => Ok(Some(grants)),
            Ok(SubjectStatus::Disabled) => Ok(None),
            Err(error) => Err(SessionError::Subjects(shared(error))),
        }
    }

    fn pair(&self, granted: Granted, grants: Grants) -> Result<TokenPair, SessionError> {
        let Granted {
            token,
            session,
            replayed,
            kept,
            ..
        } = granted;
        let now = self.now();
        let access = grants
            .into_token(&session.subject)
            .with_session(session.id.to_string())
            .with_auth_time(session.created_at)
            .ending_by(session.expires_at)
            .issued_after(self.inner.deny_list.earliest_issue(&session.subject));
        let access_token = match self.inner.issuer.issue(&access, now) {
            Ok(token) => token,
            Err(IssueError::Ended) => return Err(RefreshError::Expired(session.id).into()),
            Err(error) => return Err(SessionError::Issue(error)),
        };
        Ok(TokenPair {
            expires_in: access_token.expires_at().saturating_since(now),
            access_token,
            refresh_token: token,
            refresh_expires_in: session.expires_at.saturating_since(now),
            session,
            replayed,
            kept,
        })
    }

    /// Tells the deny list once: one who presents an ended token over and over must not fill it.
    fn deny(&self, id: SessionId) {
        let deny_list = &self.inner.deny_list;
        let id = id.to_string();
        if !deny_list.holds(&Denial::Session(id.clone())) {
            deny_list.deny_session(&id);
        }
    }

    fn now(&self) -> UnixMillis {
        self.context().wall()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("issuer", &self.inner.issuer)
            .field("tokens", &self.inner.tokens)
            .field("deny_list", &self.inner.deny_list)
            .finish_non_exhaustive()
    }
}

fn shared(error: Box<dyn error::Error + Send + Sync>) -> Arc<dyn error::Error + Send + Sync> {
    error.into()
}

/// The longest that an access token may live, its leeway and a margin.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);
/// How far the clocks of servers may differ, and how long a step of theirs may take.
const SKEW: Duration = Duration::from_secs(60);
