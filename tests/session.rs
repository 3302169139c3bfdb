#![cfg(all(feature = "jwt", feature = "refresh-token", feature = "aws-lc-rs"))]
//! Sessions through the public API: what becomes of access tokens.

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
    refresh_token::{Device, EndReason, MemoryStore, RefreshError, RefreshTokens, SessionId},
    secret::{Secret, Secrets},
    session::{Grants, SessionError, Sessions, SubjectStatus, TokenPair},
    time::ManualClock,
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
            context: Context::new()
                .with_clock(clock.clone())
                .with_events(move |event: &SecurityEvent| sink.lock().unwrap().push(event.kind())),
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
