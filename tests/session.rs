#![cfg(all(feature = "jwt", feature = "refresh-token", feature = "aws-lc-rs"))]
//! Sessions through the public API: what becomes of access tokens.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use portcullis::{
    Context, DenyList, Rejection,
    deny_list::{Denied, DenyKeys},
    event::{EventKind, SecurityEvent},
    jwt::{Algorithm, Issuer, KeySet, SigningKey, Verifier},
    refresh_token::{
        Device, EndReason, MemoryStore, RefreshError, RefreshTokenStore as _, RefreshTokens,
        SessionId,
    },
    secret::{Secret, Secrets},
    session::{Grants, SessionError, Sessions, SubjectStatus, TokenPair},
    time::{Clock, ManualClock, Monotonic, UnixMillis},
};

const TTL: Duration = Duration::from_secs(900);

struct Server {
    clock: ManualClock,
    context: Context,
    events: Arc<Mutex<Vec<EventKind>>>,
    secret: Secret,
    store: Arc<MemoryStore>,
}

impl Server {
    fn new() -> Self {
        let clock = ManualClock::new();
        let events = Arc::<Mutex<Vec<EventKind>>>::default();
        let sink = events.clone();
        Self {
            context: Context::new().with_clock(clock.clone()).with_events_inline(
                move |event: &SecurityEvent| sink.lock().unwrap().push(event.kind()),
            ),
            clock,
            events,
            secret: Secret::generate(),
            store: Arc::default(),
        }
    }

    fn issuer(&self) -> Issuer {
        let key = SigningKey::secret(Algorithm::HS256, &self.secret).unwrap();
        Issuer::new(key, "me", "api")
            .unwrap()
            .with_ttl(TTL)
            .unwrap()
    }

    /// One start of the server over the same store.
    fn start(&self) -> Sessions {
        let tokens = RefreshTokens::new(self.store.clone(), self.secret.clone())
            .with_context(self.context.clone());
        let deny_list = DenyList::pending(&self.context, TTL);
        Sessions::new(self.issuer(), tokens, deny_list)
    }

    async fn started(&self) -> Sessions {
        let sessions = self.start();
        sessions.recover().await.unwrap();
        sessions
    }

    /// What a JWT route does: proves the token, then asks the deny list.
    fn check(&self, sessions: &Sessions, pair: &TokenPair) -> Result<(), Denied> {
        let keys = KeySet::from_secrets(Algorithm::HS256, &Secrets::new(self.secret.clone()));
        let verifier = Verifier::new(keys.unwrap(), "me", "api").unwrap();
        let now = self.context.wall();
        let token = pair.access_token.as_str();
        let verified = verifier.verify(token, now).unwrap();
        let identity = verified.identity();
        assert_eq!(identity.session(), Some(&*pair.session.id.to_string()));
        let keys = DenyKeys::new(identity.subject()).with_session(identity.session().unwrap());
        let issued_at = pair.access_token.issued_at().as_secs();
        sessions.deny_list().check(&keys, issued_at)
    }
}

fn refresh_token(pair: &TokenPair) -> &str {
    pair.refresh_token.expose()
}

#[tokio::test]
async fn an_end_is_known_after_a_restart_for_as_long_as_an_access_token_lives() {
    let server = Server::new();
    let sessions = server.started().await;
    let pair = sessions.start("user-1", Device::new()).await.unwrap();
    sessions.end(refresh_token(&pair), None).await.unwrap();
    server.clock.advance(TTL - Duration::from_secs(1));
    let restarted = server.started().await;
    assert!(server.check(&restarted, &pair).is_err());
}

#[tokio::test]
async fn a_refresh_is_no_new_login() {
    let server = Server::new();
    let sessions = server.started().await;
    let begun = server.context.wall().as_secs();
    let mut pair = sessions.start("user-1", Device::new()).await.unwrap();
    for _ in 0..3 {
        server.clock.advance(TTL);
        pair = sessions.refresh(refresh_token(&pair), None).await.unwrap();
        let keys = KeySet::from_secrets(Algorithm::HS256, &Secrets::new(server.secret.clone()));
        let verifier = Verifier::new(keys.unwrap(), "me", "api").unwrap();
        let token = pair.access_token.as_str();
        let verified = verifier.verify(token, server.context.wall()).unwrap();
        let auth_time = verified.identity().auth_time().map(UnixMillis::as_secs);
        assert_eq!(auth_time, Some(begun));
    }
}

#[tokio::test]
async fn every_end_is_felt_by_access_tokens_at_once_and_after_a_restart() {
    let server = Server::new();
    let sessions = server.started().await;
    let mut pairs = Vec::new();
    for _ in 0..6 {
        pairs.push(sessions.start("user-1", Device::new()).await.unwrap());
    }
    let other = sessions.start("user-2", Device::new()).await.unwrap();
    let [logout, one, reused, kept, rest, also] = &pairs[..] else {
        unreachable!()
    };
    sessions.end(refresh_token(logout), None).await.unwrap();
    let ended = sessions.end_one("user-1", one.session.id, EndReason::LogoutElsewhere);
    assert!(ended.await.unwrap());
    let next = sessions.refresh(refresh_token(reused), None).await.unwrap();
    server.clock.advance(Duration::from_secs(30));
    let error = sessions
        .refresh(refresh_token(reused), None)
        .await
        .unwrap_err();
    assert!(error.is_over());
    for pair in [rest, kept, also] {
        assert_eq!(server.check(&sessions, pair), Ok(()));
    }
    let reason = EndReason::LogoutElsewhere;
    let others = sessions
        .end_others("user-1", kept.session.id, reason)
        .await
        .unwrap();
    assert_eq!(others.len(), 2);

    let check_all = |sessions: &Sessions| {
        for pair in [logout, one, reused, &next, rest, also] {
            assert_eq!(server.check(sessions, pair), Err(Denied::Revoked));
        }
        for pair in [kept, &other] {
            assert_eq!(server.check(sessions, pair), Ok(()));
        }
    };
    check_all(&sessions);
    let restarted = server.start();
    assert_eq!(server.check(&restarted, kept), Err(Denied::NotReady));
    restarted.recover().await.unwrap();
    check_all(&restarted);
}

#[tokio::test]
async fn every_way_to_end_a_session_is_felt_by_its_access_tokens() {
    let server = Server::new();
    let mood = Arc::new(AtomicU8::new(0));
    let seen = mood.clone();
    let tokens = RefreshTokens::new(server.store.clone(), server.secret.clone())
        .with_context(server.context.clone())
        .with_max_sessions(2)
        .unwrap();
    let deny_list = DenyList::since_start(&server.context, TTL);
    let subjects = move |_: String| {
        let active = seen.load(Ordering::SeqCst) == 0;
        async move {
            Ok(match active {
                true => SubjectStatus::Active(Grants::new()),
                false => SubjectStatus::Disabled,
            })
        }
    };
    let sessions = &Sessions::new(server.issuer(), tokens, deny_list).with_subjects(subjects);
    server.clock.advance(Duration::from_secs(1));
    let begin = async |subject: &str| sessions.start(subject, Device::new()).await.unwrap();
    let is_over = |pair: &TokenPair, how: &str| {
        assert_eq!(server.check(sessions, pair), Err(Denied::Revoked), "{how}");
    };
    let admin = EndReason::Administrator;
    let bystander = begin("bystander").await;

    let pair = begin("a").await;
    sessions.end(refresh_token(&pair), None).await.unwrap();
    is_over(&pair, "logout");

    let pair = begin("b").await;
    sessions.replace(refresh_token(&pair), None).await.unwrap();
    is_over(&pair, "another login from the browser");

    let pair = begin("c").await;
    assert!(sessions.end_one("c", pair.session.id, admin).await.unwrap());
    is_over(&pair, "by its user");

    let pair = begin("d").await;
    let ended = sessions.end_session(pair.session.id, admin).await.unwrap();
    let ended = ended.unwrap();
    assert_eq!(ended.subject, "d");
    assert_eq!(ended.ended.unwrap().reason, admin);
    is_over(&pair, "by its id");
    let again = sessions.end_session(pair.session.id, EndReason::Logout);
    assert_eq!(again.await.unwrap(), Some(ended));
    let unknown = sessions.end_session(SessionId::generate("d"), admin).await;
    assert_eq!(unknown.unwrap(), None);

    let (kept, pair) = (begin("e").await, begin("e").await);
    sessions
        .end_others("e", kept.session.id, admin)
        .await
        .unwrap();
    is_over(&pair, "all others");
    assert_eq!(server.check(sessions, &kept), Ok(()));

    let both = [begin("f").await, begin("f").await];
    assert_eq!(sessions.end_all("f", admin).await.unwrap().len(), 2);
    both.iter().for_each(|pair| is_over(pair, "all of a user"));

    let pair = begin("g").await;
    sessions.password_changed("g", None).await.unwrap();
    is_over(&pair, "a changed password");

    let first = begin("h").await;
    server.clock.advance(Duration::from_millis(1));
    let (_, latest) = (begin("h").await, begin("h").await);
    is_over(&first, "too many");
    assert_eq!(server.check(sessions, &latest), Ok(()));

    let first = begin("i").await;
    let pair = sessions.refresh(refresh_token(&first), None).await.unwrap();
    server.clock.advance(Duration::from_secs(30));
    assert!(sessions.refresh(refresh_token(&first), None).await.is_err());
    is_over(&pair, "a token used again");

    let pair = begin("j").await;
    mood.store(1, Ordering::SeqCst);
    assert!(sessions.refresh(refresh_token(&pair), None).await.is_err());
    mood.store(0, Ordering::SeqCst);
    is_over(&pair, "a user who may not go on");

    // Ended by another server, whose news has not come yet.
    let pair = begin("k").await;
    let other = server.started().await;
    other.end(refresh_token(&pair), None).await.unwrap();
    assert_eq!(server.check(sessions, &pair), Ok(()));
    assert!(sessions.refresh(refresh_token(&pair), None).await.is_err());
    is_over(&pair, "elsewhere");

    // A store that lost a rotation.
    let lost = Server::new();
    let probe = Arc::new(support::store::ProbeStore::default());
    let over = |store: Arc<support::store::ProbeStore>| {
        let tokens = RefreshTokens::new(store, lost.secret.clone());
        let tokens = tokens.with_context(lost.context.clone());
        Sessions::new(
            lost.issuer(),
            tokens,
            DenyList::since_start(&lost.context, TTL),
        )
    };
    let before = over(probe.clone());
    lost.clock.advance(Duration::from_secs(1));
    let first = before.start("l", Device::new()).await.unwrap();
    let backup = probe.created.lock().unwrap().clone().unwrap();
    let pair = before.refresh(refresh_token(&first), None).await.unwrap();
    let restored = Arc::new(support::store::ProbeStore::default());
    restored.create(backup).await.unwrap();
    let after = over(restored);
    lost.clock.advance(Duration::from_secs(1));
    let pair = before.refresh(refresh_token(&pair), None).await.unwrap();
    assert_eq!(lost.check(&after, &pair), Ok(()));
    let alarm = after.refresh(refresh_token(&pair), None).await.unwrap_err();
    assert!(matches!(
        alarm,
        SessionError::Refresh(RefreshError::RolledBack(_))
    ));
    assert_eq!(lost.check(&after, &pair), Err(Denied::Revoked));

    assert_eq!(server.check(sessions, &bystander), Ok(()));
}

#[tokio::test]
async fn servers_that_share_a_store_learn_what_the_others_ended() {
    let server = Server::new();
    let (one, two) = (server.started().await, server.started().await);
    let pair = one.start("user-1", Device::new()).await.unwrap();
    server.clock.advance(Duration::from_secs(5));
    one.end(refresh_token(&pair), None).await.unwrap();
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(server.check(&two, &pair), Ok(()));
    two.recover().await.unwrap();
    assert_eq!(server.check(&two, &pair), Err(Denied::Revoked));
    // Told over and over, one end must not push others out of the bounded list.
    let live = two.start("user-2", Device::new()).await.unwrap();
    for _ in 0..100_001 {
        two.recover().await.unwrap();
    }
    assert!(two.refresh(refresh_token(&pair), None).await.is_err());
    assert_eq!(two.deny_list().len(), 1);
    assert_eq!(server.check(&two, &live), Ok(()));
}

/// Clocks differ, and an end takes its time from its hour to its row.
#[tokio::test]
async fn an_end_of_a_minute_before_the_last_recovery_is_learned_by_the_next() {
    let slow = Server::new();
    let mut fast = Server::new();
    (fast.secret, fast.store) = (slow.secret.clone(), slow.store.clone());
    fast.clock.advance(Duration::from_secs(60));
    let behind = slow.started().await;
    let pair = behind.start("user-1", Device::new()).await.unwrap();
    let ahead = fast.started().await;
    behind.end(refresh_token(&pair), None).await.unwrap();
    assert!(ahead.deny_list().is_empty());
    ahead.recover().await.unwrap();
    assert_eq!(ahead.deny_list().len(), 1);
    assert_eq!(fast.check(&ahead, &pair), Err(Denied::Revoked));
}

/// Whoever presents an ended token again and again keeps its denial no longer than the rest.
#[tokio::test]
async fn an_end_is_denied_once() {
    let server = Server::new();
    let sessions = server.started().await;
    let pair = sessions.start("user-1", Device::new()).await.unwrap();
    sessions.end(refresh_token(&pair), None).await.unwrap();
    // What is denied stands as long as an access token may live, and a minute.
    server.clock.advance(TTL + Duration::from_secs(59));
    assert!(sessions.refresh(refresh_token(&pair), None).await.is_err());
    server.clock.advance(Duration::from_secs(2));
    let other = sessions.start("user-2", Device::new()).await.unwrap();
    sessions.end(refresh_token(&other), None).await.unwrap();
    assert_eq!(sessions.deny_list().len(), 1);
    assert_eq!(server.check(&sessions, &other), Err(Denied::Revoked));
}

/// The clock of one server is 5 s ahead; both share the store and the secrets.
#[tokio::test]
async fn servers_whose_clocks_differ_by_five_seconds_are_one_to_their_clients() {
    let slow = Server::new();
    let mut fast = Server::new();
    (fast.secret, fast.store) = (slow.secret.clone(), slow.store.clone());
    fast.clock.advance(Duration::from_secs(5));
    let (behind, ahead) = (slow.started().await, fast.started().await);
    let mut pair = ahead.start("user-1", Device::new()).await.unwrap();
    for round in 0..10 {
        for (server, sessions) in [(&slow, &behind), (&fast, &ahead)] {
            assert_eq!(server.check(sessions, &pair), Ok(()), "{round}");
        }
        let (one, other) = match round % 2 {
            0 => (&behind, &ahead),
            _ => (&ahead, &behind),
        };
        let next = one.refresh(refresh_token(&pair), None).await.unwrap();
        let again = other.refresh(refresh_token(&pair), None).await.unwrap();
        assert_eq!(next.refresh_token, again.refresh_token);
        assert!(again.replayed && !next.replayed);
        pair = next;
        for server in [&slow, &fast] {
            server.clock.advance(Duration::from_secs(840));
        }
    }
    let left = ahead.start("user-1", Device::new()).await.unwrap();
    behind.end(refresh_token(&pair), None).await.unwrap();
    ahead.recover().await.unwrap();
    assert_eq!(fast.check(&ahead, &pair), Err(Denied::Revoked));
    ahead.end(refresh_token(&left), None).await.unwrap();
    behind.recover().await.unwrap();
    assert_eq!(slow.check(&behind, &left), Err(Denied::Revoked));
}

#[tokio::test]
async fn an_access_token_ends_with_its_session_and_counts_after_a_denial() {
    let server = Server::new();
    let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate())
        .with_context(server.context.clone())
        .with_lifetimes(Duration::from_secs(600), Duration::from_secs(1_000))
        .unwrap();
    let deny_list = DenyList::since_start(&server.context, TTL);
    let sessions = Sessions::new(server.issuer(), tokens, deny_list.clone());
    let pair = sessions.start("user-1", Device::new()).await.unwrap();
    assert_eq!(pair.expires_in, Duration::from_secs(600));
    assert_eq!(pair.refresh_expires_in, Duration::from_secs(600));
    server.clock.advance(Duration::from_secs(500));
    let next = sessions.refresh(refresh_token(&pair), None).await.unwrap();
    assert_eq!(next.expires_in, Duration::from_secs(500));
    server.clock.advance(Duration::from_millis(499_500));
    let last = sessions.refresh(refresh_token(&next), None).await.unwrap();
    assert_eq!(last.expires_in, Duration::from_millis(500));
    server.clock.advance(Duration::from_millis(500));
    let over = sessions
        .refresh(refresh_token(&last), None)
        .await
        .unwrap_err();
    assert!(matches!(
        over,
        SessionError::Refresh(RefreshError::Expired(_))
    ));

    deny_list.deny_subject("user-1");
    let fresh = sessions.start("user-1", Device::new()).await.unwrap();
    assert_eq!(server.check(&sessions, &fresh), Ok(()));
}

#[tokio::test]
async fn the_service_says_who_may_go_on() {
    let server = Server::new();
    let mood = Arc::new(AtomicU8::new(0));
    let seen = mood.clone();
    let sessions = server
        .started()
        .await
        .with_subjects(move |subject: String| {
            let mood = seen.load(Ordering::SeqCst);
            async move {
                match mood {
                    0 => Ok(SubjectStatus::Active(
                        Grants::new()
                            .with_scopes(["model"])
                            .with_roles(["admin"])
                            .with_claim("preferred_username", subject.to_uppercase())?,
                    )),
                    1 => Ok(SubjectStatus::Disabled),
                    _ => Err("the accounts are away".into()),
                }
            }
        });
    let pair = sessions.start("user-1", Device::new()).await.unwrap();
    let claims = pair.access_token.as_str().split('.').nth(1).unwrap();
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["sub"], "user-1");
    assert_eq!(claims["preferred_username"], "USER-1");
    assert_eq!(claims["scope"], "model");
    assert_eq!(claims["roles"], serde_json::json!(["admin"]));
    assert_eq!(claims["auth_time"], pair.session.created_at.as_secs());

    mood.store(2, Ordering::SeqCst);
    let away = sessions
        .refresh(refresh_token(&pair), None)
        .await
        .unwrap_err();
    assert!(away.is_unavailable() && !away.is_over());
    assert_eq!(Rejection::from(away).status(), 503);
    mood.store(0, Ordering::SeqCst);
    let next = sessions.refresh(refresh_token(&pair), None).await.unwrap();
    assert!(next.replayed);
    mood.store(1, Ordering::SeqCst);
    let disabled = sessions
        .refresh(refresh_token(&next), None)
        .await
        .unwrap_err();
    assert!(matches!(disabled, SessionError::Disabled) && disabled.is_over());
    assert_eq!(server.check(&sessions, &next), Err(Denied::Revoked));
    assert!(sessions.start("user-1", Device::new()).await.is_err());
    mood.store(0, Ordering::SeqCst);
    assert!(sessions.refresh(refresh_token(&next), None).await.is_err());
}

#[tokio::test]
async fn a_changed_password_ends_the_others_and_the_logins_under_way() {
    let server = Server::new();
    let sessions = server.started().await;
    let current = sessions.start("user-1", Device::new()).await.unwrap();
    let other = sessions
        .start("user-1", Device::new().with_label("tablet"))
        .await
        .unwrap();
    let login = sessions.begin("user-1").await.unwrap();
    let keep = Some(current.session.id);
    let ended = sessions.password_changed("user-1", keep).await.unwrap();
    assert_eq!(ended, [other.session.id]);
    assert!(
        server
            .events
            .lock()
            .unwrap()
            .contains(&EventKind::AuthnPasswordChange)
    );
    let raced = sessions
        .start_login(login, Device::new())
        .await
        .unwrap_err();
    assert_eq!(Rejection::from(raced).status(), 401);
    assert_eq!(server.check(&sessions, &other), Err(Denied::Revoked));
    assert_eq!(server.check(&sessions, &current), Ok(()));
    let live = sessions.list("user-1").await.unwrap();
    assert_eq!(
        live.iter().map(|record| record.id).collect::<Vec<_>>(),
        [current.session.id]
    );
    assert_eq!(
        sessions
            .end_all("user-1", EndReason::Administrator)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(server.check(&sessions, &current), Err(Denied::Revoked));
}

#[tokio::test]
async fn nobody_ends_a_session_that_is_not_his() {
    let server = Server::new();
    let sessions = server.started().await;
    let pair = sessions.start("user-1", Device::new()).await.unwrap();
    let reason = EndReason::LogoutElsewhere;
    let (id, foreign) = (pair.session.id, SessionId::generate("user-1"));
    assert!(!sessions.end_one("user-2", id, reason).await.unwrap());
    assert!(!sessions.end_one("user-1", foreign, reason).await.unwrap());
    assert_eq!(server.check(&sessions, &pair), Ok(()));
    assert!(sessions.end_one("user-1", id, reason).await.unwrap());
    assert!(!sessions.end_one("user-1", id, reason).await.unwrap());
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let server = Server::new();
    let sessions = server.started().await;
    let pair = sessions.start("user-1", Device::new()).await.unwrap();
    let shown = format!("{sessions:?} {pair:?}");
    assert!(!shown.contains(refresh_token(&pair)));
    assert!(!shown.contains(pair.access_token.as_str()));
}

#[tokio::test]
async fn logins_clear_away_what_is_long_over_a_bounded_number_at_a_time() {
    let server = Server::new();
    let sessions = server.started().await;
    for user in 0..300 {
        let _ = sessions
            .start(&format!("user-{user}"), Device::new())
            .await
            .unwrap();
    }
    assert_eq!(server.store.len(), 300);
    server.clock.advance(Duration::from_secs(9 * 86_400));
    let mut left = 300;
    let mut most = 0;
    for login in 0..64 {
        let _ = sessions.start("late", Device::new()).await.unwrap();
        let old = server.store.len() - (login + 1);
        most = most.max(left - old);
        left = old;
    }
    assert_eq!((left, most), (0, 128));
}

#[tokio::test]
async fn what_is_long_over_is_cleared_away_on_demand() {
    let server = Server::new();
    let sessions = server.started().await;
    for user in ["user-1", "user-2", "user-3"] {
        let _ = sessions.start(user, Device::new()).await.unwrap();
    }
    assert_eq!(sessions.delete_expired(10).await.unwrap(), 0);
    server.clock.advance(Duration::from_secs(9 * 86_400));
    assert_eq!(sessions.delete_expired(2).await.unwrap(), 2);
    assert_eq!(sessions.delete_expired(10).await.unwrap(), 1);
    assert!(server.store.is_empty());
}

/// Else whoever has one could keep the deny list full.
#[tokio::test]
async fn an_ended_token_that_comes_again_is_denied_no_longer_for_it() {
    let server = Server::new();
    let sessions = server.started().await;
    let ended = sessions.start("user-1", Device::new()).await.unwrap();
    let other = sessions.start("user-2", Device::new()).await.unwrap();
    sessions.end(refresh_token(&ended), None).await.unwrap();
    server.clock.advance(TTL / 2);
    assert!(sessions.refresh(refresh_token(&ended), None).await.is_err());
    server.clock.advance(TTL);
    sessions.end(refresh_token(&other), None).await.unwrap();
    assert_eq!(sessions.deny_list().len(), 1);
}

#[cfg(feature = "password")]
mod password {
    use portcullis::{
        password::PasswordHasher,
        session::{PasswordChange, PasswordChangeError},
    };

    use super::*;

    const OLD: &str = "correct horse";
    const NEW: &str = "battery staple";

    fn hasher() -> PasswordHasher {
        PasswordHasher::new().with_cost(4).unwrap()
    }

    /// A login with the old password, one step at a time.
    struct RacingLogin<'a> {
        sessions: &'a Sessions,
        stored: &'a Mutex<String>,
        login: Option<portcullis::refresh_token::Login>,
        proved: bool,
        pair: Option<TokenPair>,
    }

    impl RacingLogin<'_> {
        async fn step(&mut self, step: usize) {
            match step {
                0 => self.login = Some(self.sessions.begin("user-1").await.unwrap()),
                1 => {
                    let stored = self.stored.lock().unwrap().clone();
                    let verified = hasher().verify(OLD, Some(&stored)).await.unwrap();
                    self.proved = verified.is_correct();
                }
                _ if self.proved => {
                    let login = self.login.take().unwrap();
                    self.pair = self.sessions.start_login(login, Device::new()).await.ok();
                }
                _ => {}
            }
        }
    }

    /// Each step of the login comes before the change, between its two steps, or after it: in every
    /// order the old password ends with no session.
    #[tokio::test]
    async fn a_login_with_the_old_password_that_races_its_change_is_no_session_in_any_order() {
        for (begin, prove, start) in [
            (0, 0, 0),
            (0, 0, 1),
            (0, 0, 2),
            (0, 1, 1),
            (0, 1, 2),
            (0, 2, 2),
            (1, 1, 1),
            (1, 1, 2),
            (1, 2, 2),
            (2, 2, 2),
        ] {
            let server = Server::new();
            let sessions = server.started().await;
            let kept = sessions.start("user-1", Device::new()).await.unwrap();
            let stored = Mutex::new(hasher().hash(OLD).await.unwrap());
            let mut login = RacingLogin {
                sessions: &sessions,
                stored: &stored,
                login: None,
                proved: false,
                pair: None,
            };
            let when = [begin, prove, start];
            for step in (0..3).filter(|step| when[*step] == 0) {
                login.step(step).await;
            }
            let old = stored.lock().unwrap().clone();
            let change = PasswordChange::new("user-1", OLD, NEW, Some(&old));
            let hasher = hasher();
            let changed = sessions.change_password(
                &hasher,
                change.keep(Some(kept.session.id)),
                async |hash| {
                    *stored.lock().unwrap() = hash;
                    for step in (0..3).filter(|step| when[*step] == 1) {
                        login.step(step).await;
                    }
                    Ok::<_, std::convert::Infallible>(true)
                },
            );
            changed.await.unwrap();
            for step in (0..3).filter(|step| when[*step] == 2) {
                login.step(step).await;
            }
            let live = sessions.list("user-1").await.unwrap();
            let live: Vec<_> = live.iter().map(|record| record.id).collect();
            assert_eq!(live, [kept.session.id], "{when:?}");
            if let Some(pair) = &login.pair {
                assert_eq!(server.check(&sessions, pair), Err(Denied::Revoked));
                assert!(sessions.refresh(refresh_token(pair), None).await.is_err());
            }
            assert_eq!(server.check(&sessions, &kept), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_password_is_changed_by_who_knows_it_and_nobody_elses_change_is_undone() {
        let server = Server::new();
        let sessions = server.started().await;
        let other = sessions.start("user-1", Device::new()).await.unwrap();
        let stored = hasher().hash(OLD).await.unwrap();
        let saw = |kind| server.events.lock().unwrap().contains(&kind);
        let attempt = async |current: &str, new: &str, stored: Option<&str>, kept: bool| {
            let change = PasswordChange::new("user-1", current, new, stored);
            let store = async |hash: String| {
                assert!(hash.starts_with("$2b$"));
                Ok::<_, std::fmt::Error>(kept)
            };
            sessions.change_password(&hasher(), change, store).await
        };
        let refused = attempt("wrong password", NEW, Some(&stored), true).await;
        assert!(matches!(refused, Err(PasswordChangeError::Wrong)));
        assert_eq!(Rejection::from(refused.unwrap_err()).status(), 403);
        assert!(saw(EventKind::AuthnPasswordChangeFail));
        let nobody = attempt(OLD, NEW, None, true).await;
        assert!(matches!(nobody, Err(PasswordChangeError::Wrong)));
        let unusable = attempt(OLD, "short", Some(&stored), true).await;
        assert_eq!(Rejection::from(unusable.unwrap_err()).status(), 422);
        let raced = attempt(OLD, NEW, Some(&stored), false).await;
        assert!(matches!(raced, Err(PasswordChangeError::Raced)));
        assert_eq!(Rejection::from(raced.unwrap_err()).status(), 409);
        let hasher = hasher();
        let broken = sessions.change_password(
            &hasher,
            PasswordChange::new("user-1", OLD, NEW, Some(&stored)),
            async |_| Err(std::fmt::Error),
        );
        let broken = broken.await.unwrap_err();
        assert!(std::error::Error::source(&broken).is_some());
        assert_eq!(Rejection::from(broken).status(), 503);
        assert!(!saw(EventKind::AuthnPasswordChange));
        assert_eq!(server.check(&sessions, &other), Ok(()));

        let ended = attempt(OLD, NEW, Some(&stored), true).await.unwrap();
        assert_eq!(ended, [other.session.id]);
        assert!(saw(EventKind::AuthnPasswordChange));
        let shown = format!("{:?}", PasswordChange::new("user-1", OLD, NEW, None));
        assert!(!shown.contains(OLD) && !shown.contains(NEW));
    }

    #[tokio::test]
    async fn a_guess_is_told_with_its_client_and_no_other_failure_is_one() {
        let told = Arc::<Mutex<Vec<_>>>::default();
        let sink = told.clone();
        let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
            sink.lock().unwrap().push((event.kind(), event.client()));
        });
        let server = Server::new();
        let tokens = RefreshTokens::new(server.store.clone(), server.secret.clone())
            .with_context(context.clone());
        let deny_list = DenyList::since_start(&context, TTL);
        let sessions = Sessions::new(server.issuer(), tokens, deny_list);
        let hasher = hasher();
        let stored = hasher.hash(OLD).await.unwrap();
        let client = "203.0.113.7".parse().ok();
        let attempt = async |current: &str| {
            let change = PasswordChange::new("user-1", current, NEW, Some(&stored));
            let raced = async |_: String| Ok::<_, std::convert::Infallible>(false);
            let change = change.with_client(client);
            sessions.change_password(&hasher, change, raced).await
        };
        assert!(attempt(OLD).await.is_err());
        assert!(told.lock().unwrap().is_empty());
        assert!(attempt("wrong password").await.is_err());
        let guess = (EventKind::AuthnPasswordChangeFail, client);
        assert_eq!(*told.lock().unwrap(), [guess]);
    }

    /// A clock on which no two events are close enough to be told as one.
    #[derive(Debug)]
    struct Leaping(ManualClock);

    impl Clock for Leaping {
        fn monotonic(&self) -> Monotonic {
            self.0.advance(Duration::from_secs(3_600));
            self.0.monotonic()
        }

        fn wall(&self) -> UnixMillis {
            self.0.wall()
        }
    }

    /// Both passwords are compared in one job: a wrong guess that then found no place for a second
    /// would be told as "busy", and count for nothing in a throttle.
    #[tokio::test]
    async fn a_guess_at_the_change_of_a_password_is_one_job() {
        let server = Server::new();
        let sessions = server.started().await;
        let jobs = Arc::<Mutex<usize>>::default();
        let seen = jobs.clone();
        let context = Context::new()
            .with_clock(Leaping(ManualClock::new()))
            .with_events_inline(move |event: &SecurityEvent| {
                assert_eq!(event.kind(), EventKind::Misconfigured);
                *seen.lock().unwrap() += 1;
            });
        let hasher = hasher().with_queue(1, 0).with_context(context);
        for guess in 1..4 {
            // Of what is no hash, every job tells.
            let change = PasswordChange::new("user-1", OLD, NEW, Some("no hash"));
            let store = async |_: String| Ok::<_, std::convert::Infallible>(true);
            let changed = sessions.change_password(&hasher, change, store).await;
            assert!(matches!(changed, Err(PasswordChangeError::Wrong)));
            assert_eq!(*jobs.lock().unwrap(), guess);
        }
    }

    #[tokio::test]
    async fn a_change_that_broke_off_is_healed_by_the_same_call() {
        let server = Server::new();
        let store = Arc::new(support::store::ProbeStore::default());
        let tokens = RefreshTokens::new(store.clone(), server.secret.clone())
            .with_context(server.context.clone());
        let deny_list = DenyList::since_start(&server.context, TTL);
        let sessions = Sessions::new(server.issuer(), tokens, deny_list);
        let other = sessions.start("user-1", Device::new()).await.unwrap();
        let stored = Mutex::new(hasher().hash(OLD).await.unwrap());
        let change = async || {
            let known = stored.lock().unwrap().clone();
            let change = PasswordChange::new("user-1", OLD, NEW, Some(&known));
            let keep = async |hash| {
                *stored.lock().unwrap() = hash;
                store.out.store(true, Ordering::SeqCst);
                Ok::<_, std::convert::Infallible>(true)
            };
            sessions.change_password(&hasher(), change, keep).await
        };
        let broken = change().await.unwrap_err();
        assert!(matches!(broken, PasswordChangeError::Sessions(_)));
        assert_eq!(Rejection::from(broken).status(), 503);
        let after = stored.lock().unwrap().clone();
        store.out.store(false, Ordering::SeqCst);
        assert_eq!(change().await.unwrap(), [other.session.id]);
        assert_eq!(*stored.lock().unwrap(), after);
    }
}
