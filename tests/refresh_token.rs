#![cfg(feature = "refresh-token")]
//! Refresh tokens through the public API: what each token does at each age.

mod support;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use portcullis::{
    Context, Rejection,
    event::{EventKind, SecurityEvent},
    refresh_token::{
        Device, EndReason, Granted, MemoryStore, NotAToken, RefreshError, RefreshTokenStore as _,
        RefreshTokens, StoreErrorKind,
    },
    secret::{Secret, Secrets},
    time::{ManualClock, UnixMillis},
};
use support::store::ProbeStore;

type Events = Arc<Mutex<Vec<(EventKind, Option<&'static str>)>>>;

struct Fixture {
    clock: ManualClock,
    store: Arc<ProbeStore>,
    events: Events,
    context: Context,
    tokens: RefreshTokens,
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::new();
        let events = Events::default();
        let sink = events.clone();
        let context = Context::new().with_clock(clock.clone()).with_events_inline(
            move |event: &SecurityEvent| {
                sink.lock().unwrap().push((event.kind(), event.reason()));
            },
        );
        let store = Arc::new(ProbeStore::default());
        let tokens =
            RefreshTokens::new(store.clone(), Secret::generate()).with_context(context.clone());
        Self {
            clock,
            store,
            events,
            context,
            tokens,
        }
    }

    async fn login(&self) -> Granted {
        let login = self.tokens.begin("user-1").await.unwrap();
        self.tokens.start(login, Device::new()).await.unwrap()
    }

    fn saw(&self, kind: EventKind, reason: &str) -> bool {
        let events = self.events.lock().unwrap();
        events.contains(&(kind, Some(reason)))
    }
}

async fn refresh(tokens: &RefreshTokens, granted: &Granted) -> Result<Granted, RefreshError> {
    tokens.refresh(granted.token.expose(), None).await
}

const GRACE: Duration = Duration::from_secs(30);
const MILLI: Duration = Duration::from_millis(1);

#[tokio::test]
async fn the_parent_gets_the_same_successor_inside_the_window_and_ends_the_session_after() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let first = fixture.login().await;
    let second = refresh(tokens, &first).await.unwrap();
    assert_ne!(first.token, second.token);
    fixture.clock.advance(GRACE - MILLI);
    let again = refresh(tokens, &first).await.unwrap();
    assert!(again.replayed && !second.replayed);
    assert_eq!(again.token, second.token);
    assert!(fixture.saw(EventKind::RefreshReplayed, "replayed"));

    fixture.clock.advance(MILLI);
    let reused = refresh(tokens, &first).await.unwrap_err();
    assert!(matches!(reused, RefreshError::Reused(_)) && reused.is_over());
    assert!(fixture.saw(EventKind::AuthnTokenReuse, "reuse"));
    let ended = refresh(tokens, &second).await.unwrap_err();
    assert!(matches!(ended, RefreshError::Ended(_, EndReason::Reuse)));
    assert!(fixture.saw(EventKind::SessionUseAfterExpire, "ended"));
    assert_eq!(Rejection::from(ended).status(), 401);
}

#[tokio::test]
async fn an_older_token_is_late_inside_the_window_and_a_thief_after() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let first = fixture.login().await;
    let second = refresh(tokens, &first).await.unwrap();
    let third = refresh(tokens, &second).await.unwrap();
    fixture.clock.advance(GRACE - MILLI);
    let late = refresh(tokens, &first).await.unwrap_err();
    assert!(matches!(late, RefreshError::Late(_)) && !late.is_over());
    let fourth = refresh(tokens, &third).await.unwrap();
    fixture.clock.advance(GRACE);
    let reused = refresh(tokens, &first).await.unwrap_err();
    assert!(matches!(reused, RefreshError::Reused(_)));
    assert!(refresh(tokens, &fourth).await.is_err());
}

#[tokio::test]
async fn no_window_is_strict_single_use() {
    let fixture = Fixture::new();
    let tokens = fixture.tokens.clone().with_grace(Duration::ZERO).unwrap();
    let first = fixture.login().await;
    let second = refresh(&tokens, &first).await.unwrap();
    assert!(matches!(
        refresh(&tokens, &first).await,
        Err(RefreshError::Reused(_))
    ));
    assert!(refresh(&tokens, &second).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_get_one_successor() {
    let fixture = Fixture::new();
    let mut current = fixture.login().await;
    for _ in 0..20 {
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (tokens, current) = (fixture.tokens.clone(), current.clone());
                tokio::spawn(async move { refresh(&tokens, &current).await.unwrap() })
            })
            .collect();
        let mut granted = Vec::new();
        for caller in callers {
            granted.push(caller.await.unwrap());
        }
        assert!(granted.iter().all(|grant| grant.token == granted[0].token));
        assert_eq!(granted.iter().filter(|grant| !grant.replayed).count(), 1);
        current = granted.swap_remove(0);
    }
}

#[tokio::test]
async fn what_is_no_token_of_ours_never_reaches_the_store() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let granted = fixture.login().await;
    let theirs = Fixture::new().login().await;
    let calls = fixture.store.calls.load(Ordering::SeqCst);
    let text = granted.token.expose();
    let mut garbage: Vec<String> = ["", "pcrt_", "Bearer x", "ey.ey.ey", &text[1..], &text[5..]]
        .map(str::to_owned)
        .into();
    garbage.push("pcrt_".to_owned() + &"A".repeat(103));
    garbage.push("x".repeat(1 << 20));
    for at in 0..text.len() {
        for bit in 0..7 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            garbage.push(String::from_utf8(bytes).unwrap());
        }
    }
    for text in &garbage {
        let refused = tokens.refresh(text, None).await.unwrap_err();
        assert!(matches!(refused, RefreshError::NotAToken(_)) && !refused.is_over());
        assert!(tokens.end(text, None).await.unwrap().is_none());
    }
    let foreign = tokens
        .refresh(theirs.token.expose(), None)
        .await
        .unwrap_err();
    assert!(matches!(
        foreign,
        RefreshError::NotAToken(NotAToken::UnknownKey)
    ));
    let ended = tokens.end(theirs.token.expose(), None).await.unwrap();
    assert!(ended.is_none());
    assert_eq!(fixture.store.calls.load(Ordering::SeqCst), calls);
    assert!(refresh(tokens, &granted).await.is_ok());
}

#[tokio::test]
async fn an_outage_is_not_a_logout() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let first = fixture.login().await;
    assert!(tokens.health().await.is_ok());
    fixture.store.out.store(true, Ordering::SeqCst);
    for error in [
        tokens.health().await.unwrap_err(),
        tokens.begin("user-1").await.unwrap_err(),
        refresh(tokens, &first).await.unwrap_err(),
        tokens.end(first.token.expose(), None).await.unwrap_err(),
    ] {
        assert!(!error.is_over());
        let RefreshError::Store(store) = &error else {
            panic!("{error}");
        };
        assert!(store.is_retryable());
        let rejection = Rejection::from(&error);
        assert_eq!(rejection.status(), 503);
        assert!(rejection.headers().any(|(name, _)| name == "retry-after"));
    }
    assert!(fixture.saw(EventKind::StoreUnavailable, "rotate"));
    fixture.store.out.store(false, Ordering::SeqCst);

    // The step was done and its answer lost: the retry heals.
    fixture.store.mute.store(true, Ordering::SeqCst);
    assert!(refresh(tokens, &first).await.is_err());
    fixture.store.mute.store(false, Ordering::SeqCst);
    let second = refresh(tokens, &first).await.unwrap();
    assert!(second.replayed);
    assert!(refresh(tokens, &second).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_waited_for_as_long_as_it_says() {
    let fixture = Fixture::new();
    let first = fixture.login().await;
    fixture.store.hung.store(true, Ordering::SeqCst);
    let patient = fixture.tokens.clone();
    let hasty = patient.clone().with_store_timeout(Duration::from_secs(1));
    for (tokens, seconds) in [(patient, 5), (hasty, 1)] {
        let begun = tokio::time::Instant::now();
        let error = refresh(&tokens, &first).await.unwrap_err();
        assert!(matches!(&error, RefreshError::Store(e) if e.kind() == StoreErrorKind::Timeout));
        // Timers tick in milliseconds.
        let waited = begun.elapsed().saturating_sub(MILLI);
        assert_eq!(waited.as_secs_f64().round() as u64, seconds);
    }
}

#[tokio::test]
async fn any_token_of_a_session_ends_it_and_only_it() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let (first, other) = (fixture.login().await, fixture.login().await);
    let mut latest = first.clone();
    for _ in 0..5 {
        latest = refresh(tokens, &latest).await.unwrap();
        fixture.clock.advance(Duration::from_secs(900));
    }
    let ended = tokens
        .end(first.token.expose(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.id, latest.session.id);
    assert!(fixture.saw(EventKind::SessionLogout, "logout"));
    assert!(matches!(
        refresh(tokens, &latest).await,
        Err(RefreshError::Ended(_, EndReason::Logout))
    ));
    assert!(
        tokens
            .end(latest.token.expose(), None)
            .await
            .unwrap()
            .is_some()
    );
    assert!(refresh(tokens, &other).await.is_ok());
}

#[tokio::test]
async fn sessions_slide_up_to_their_absolute_end() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    const DAY: Duration = Duration::from_secs(86_400);
    let idle = fixture.login().await;
    let mut used = fixture.login().await;
    let end = used.session.absolute_end;
    for _ in 0..4 {
        fixture.clock.advance(7 * DAY - MILLI);
        used = refresh(tokens, &used).await.unwrap();
        assert_eq!(used.session.absolute_end, end);
        assert!(used.session.expires_at <= end);
    }
    assert_eq!(used.session.expires_at, end);
    assert!(matches!(
        refresh(tokens, &idle).await,
        Err(RefreshError::Expired(_))
    ));
    assert!(fixture.saw(EventKind::SessionUseAfterExpire, "expired"));
    fixture.clock.set_wall(UnixMillis::new(end.as_millis() - 1));
    used = refresh(tokens, &used).await.unwrap();
    fixture.clock.set_wall(end);
    let over = refresh(tokens, &used).await.unwrap_err();
    assert!(matches!(over, RefreshError::Expired(_)) && over.is_over());
    assert!(tokens.list("user-1").await.unwrap().is_empty());
    fixture.clock.advance(2 * DAY);
    assert_eq!(tokens.delete_expired(10).await.unwrap(), 2);
    assert!(matches!(
        refresh(tokens, &used).await,
        Err(RefreshError::Unknown(_))
    ));
}

/// One row for each token would be 672.
#[tokio::test]
async fn a_week_of_a_session_is_one_row() {
    let fixture = Fixture::new();
    let mut current = fixture.login().await;
    for _ in 0..7 * 24 * 4 {
        fixture.clock.advance(Duration::from_secs(900));
        current = refresh(&fixture.tokens, &current).await.unwrap();
    }
    assert_eq!(fixture.store.store.len(), 1);
}

#[tokio::test]
async fn a_login_that_raced_the_end_of_all_sessions_is_never_one() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let kept = fixture.login().await;
    let gone = fixture.login().await;
    let racing = tokens.begin("user-1").await.unwrap();
    let other = tokens.begin("user-2").await.unwrap();
    let ended = tokens
        .end_subject("user-1", Some(kept.session.id), EndReason::PasswordChange)
        .await
        .unwrap();
    assert_eq!(ended, [gone.session.id]);
    let refused = tokens.start(racing, Device::new()).await.unwrap_err();
    assert!(matches!(refused, RefreshError::LoginOutdated));
    assert!(tokens.start(other, Device::new()).await.is_ok());
    assert!(refresh(tokens, &kept).await.is_ok());
    assert!(refresh(tokens, &gone).await.is_err());
    assert_eq!(tokens.list("user-1").await.unwrap().len(), 1);
    let _ = fixture.login().await;

    let slow = tokens.begin("user-1").await.unwrap();
    let slower = tokens.begin("user-1").await.unwrap();
    fixture.clock.advance(Duration::from_secs(3_600));
    assert!(tokens.start(slow, Device::new()).await.is_ok());
    fixture.clock.advance(MILLI);
    let refused = tokens.start(slower, Device::new()).await.unwrap_err();
    assert!(matches!(refused, RefreshError::LoginOutdated));
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_the_oldest_ends() {
    let fixture = Fixture::new();
    let tokens = fixture.tokens.clone().with_max_sessions(3).unwrap();
    let mut logins = Vec::new();
    for _ in 0..5 {
        let login = tokens.begin("user-1").await.unwrap();
        logins.push(tokens.start(login, Device::new()).await.unwrap());
        fixture.clock.advance(MILLI);
    }
    assert_eq!(logins[3].displaced, [logins[0].session.id]);
    assert_eq!(logins[4].displaced, [logins[1].session.id]);
    assert!(fixture.saw(EventKind::ExcessSessionsExceeded, "session_limit"));
    let live: Vec<_> = tokens.list("user-1").await.unwrap();
    let ids = |from: &[Granted]| {
        from.iter()
            .rev()
            .map(|grant| grant.session.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        live.iter().map(|record| record.id).collect::<Vec<_>>(),
        ids(&logins[2..])
    );
}

#[tokio::test]
async fn a_changed_secret_keeps_sessions_and_replays() {
    let fixture = Fixture::new();
    let (old, new) = (Secret::generate(), Secret::generate());
    let build = |secrets: Secrets| {
        RefreshTokens::new(fixture.store.clone(), secrets).with_context(fixture.context.clone())
    };
    let before = build(Secrets::new(old.clone()));
    let rolling = build(Secrets::new(old.clone()).with_previous([new.clone()]));
    let after = build(Secrets::new(new.clone()).with_previous([old]));
    let login = before.begin("user-1").await.unwrap();
    let first = before.start(login, Device::new()).await.unwrap();
    let second = after.refresh(first.token.expose(), None).await.unwrap();
    let replay = rolling.refresh(first.token.expose(), None).await.unwrap();
    assert_eq!(second.token, replay.token);
    // The row's key is not known to a server that was left behind: not for it to answer.
    let behind = before
        .refresh(first.token.expose(), None)
        .await
        .unwrap_err();
    assert!(matches!(&behind, RefreshError::Store(error) if error.is_retryable()));
    let alone = build(Secrets::new(new));
    assert!(alone.refresh(second.token.expose(), None).await.is_ok());
    // A secret that was withdrawn opens nothing and ends nothing.
    let withdrawn = alone.refresh(first.token.expose(), None).await.unwrap_err();
    assert!(matches!(
        withdrawn,
        RefreshError::NotAToken(NotAToken::UnknownKey)
    ));
    let ended = alone.end(first.token.expose(), None).await.unwrap();
    assert!(ended.is_none());
    assert_eq!(alone.list("user-1").await.unwrap().len(), 1);
}

#[tokio::test]
async fn lost_writes_are_an_alarm() {
    let fixture = Fixture::new();
    let secret = Secret::generate();
    let build = |store: &Arc<ProbeStore>| {
        RefreshTokens::new(store.clone(), secret.clone()).with_context(fixture.context.clone())
    };
    // One session in two stores, as after the restore of a backup.
    let (ahead, behind) = (
        Arc::new(ProbeStore::default()),
        Arc::new(ProbeStore::default()),
    );
    let login = build(&ahead).begin("user-1").await.unwrap();
    let first = build(&ahead).start(login, Device::new()).await.unwrap();
    let created = ahead.created.lock().unwrap().clone().unwrap();
    behind.create(created).await.unwrap();
    let second = refresh(&build(&ahead), &first).await.unwrap();

    let refused = refresh(&build(&behind), &second).await.unwrap_err();
    assert!(matches!(refused, RefreshError::RolledBack(_)) && refused.is_over());
    assert!(fixture.saw(EventKind::StoreRollbackDetected, "rollback"));
    let gone = refresh(&build(&behind), &first).await.unwrap_err();
    assert!(matches!(gone, RefreshError::Ended(_, EndReason::Rollback)));
}

#[tokio::test]
async fn a_forked_row_is_an_alarm() {
    let fixture = Fixture::new();
    let secret = Secret::generate();
    let build = |store: &Arc<ProbeStore>| {
        RefreshTokens::new(store.clone(), secret.clone()).with_context(fixture.context.clone())
    };
    let (ahead, behind) = (
        Arc::new(ProbeStore::default()),
        Arc::new(ProbeStore::default()),
    );
    let login = build(&ahead).begin("user-1").await.unwrap();
    let first = build(&ahead).start(login, Device::new()).await.unwrap();
    let created = ahead.created.lock().unwrap().clone().unwrap();
    behind.create(created).await.unwrap();
    let one = refresh(&build(&ahead), &first).await.unwrap();
    let two = refresh(&build(&behind), &first).await.unwrap();
    assert_ne!(one.token, two.token);
    let refused = refresh(&build(&behind), &one).await.unwrap_err();
    assert!(matches!(refused, RefreshError::RolledBack(_)));
}

#[tokio::test]
async fn replays_from_elsewhere_are_told_and_a_streak_is_an_alarm() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let home: Option<IpAddr> = "203.0.113.7".parse().ok();
    let near: Option<IpAddr> = "203.0.113.200".parse().ok();
    let away: Option<IpAddr> = "198.51.100.1".parse().ok();
    let mut current = fixture.login().await;
    for round in 0..3 {
        let alarmed = fixture.saw(EventKind::AuthnTokenReuse, "replay_streak");
        assert!(!alarmed, "{round}");
        let next = tokens.refresh(current.token.expose(), home).await.unwrap();
        assert_eq!(next.session.device.ip, home);
        let _ = tokens.refresh(current.token.expose(), near).await.unwrap();
        let told = fixture.saw(EventKind::RefreshReplayedElsewhere, "replayed");
        assert_eq!(told, round > 0);
        for _ in 0..3 {
            let _ = tokens.refresh(current.token.expose(), away).await.unwrap();
        }
        current = next;
    }
    assert!(fixture.saw(EventKind::AuthnTokenReuse, "replay_streak"));
    assert!(refresh(tokens, &current).await.is_ok());
}

/// A cookie's young token is not replaced, so its use from elsewhere is all that shows a thief.
#[tokio::test]
async fn a_kept_cookie_from_elsewhere_is_told_and_a_streak_is_an_alarm() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let home: Option<IpAddr> = "203.0.113.7".parse().ok();
    let away: Option<IpAddr> = "198.51.100.1".parse().ok();
    let mut current = fixture.login().await;
    for round in 0..3 {
        let token = current.token.expose();
        let next = tokens.refresh_by_cookie(token, home).await.unwrap();
        assert!(!next.kept && next.token != current.token);
        let token = next.token.expose();
        let kept = tokens.refresh_by_cookie(token, home).await.unwrap();
        assert!(kept.kept && !kept.replayed && kept.token == next.token);
        assert_eq!(kept.session, next.session);
        let told = fixture.saw(EventKind::RefreshReplayedElsewhere, "replayed");
        assert_eq!(told, round > 0);
        let alarmed = fixture.saw(EventKind::AuthnTokenReuse, "replay_streak");
        assert!(!alarmed, "{round}");
        assert!(tokens.refresh_by_cookie(token, away).await.unwrap().kept);
        fixture.clock.advance(GRACE);
        current = next;
    }
    assert!(fixture.saw(EventKind::AuthnTokenReuse, "replay_streak"));
}

#[tokio::test]
async fn every_use_of_a_token_is_told() {
    let fixture = Fixture::new();
    let tokens = &fixture.tokens;
    let told = || std::mem::take(&mut *fixture.events.lock().unwrap());
    let home: Option<IpAddr> = "203.0.113.7".parse().ok();
    let away: Option<IpAddr> = "198.51.100.1".parse().ok();
    let first = fixture.login().await;
    assert_eq!(told(), [(EventKind::SessionCreated, Some("login"))]);
    let token = first.token.expose();
    let second = tokens.refresh_by_cookie(token, home).await.unwrap();
    assert_eq!(told(), [(EventKind::SessionRenewed, Some("rotated"))]);
    let token = second.token.expose();
    assert!(tokens.refresh_by_cookie(token, home).await.unwrap().kept);
    assert_eq!(told(), [(EventKind::SessionRenewed, Some("kept"))]);
    assert!(tokens.refresh_by_cookie(token, away).await.unwrap().kept);
    let elsewhere = (EventKind::RefreshReplayedElsewhere, Some("replayed"));
    assert_eq!(told(), [elsewhere]);
    assert!(refresh(tokens, &first).await.unwrap().replayed);
    assert_eq!(told(), [(EventKind::RefreshReplayed, Some("replayed"))]);
    let third = refresh(tokens, &second).await.unwrap();
    told();
    assert!(refresh(tokens, &first).await.is_err());
    assert_eq!(told(), [(EventKind::RefreshReplayed, Some("late"))]);

    tokens.end(third.token.expose(), None).await.unwrap();
    assert_eq!(told(), [(EventKind::SessionLogout, Some("logout"))]);
    assert!(refresh(tokens, &third).await.is_err());
    let after = |reason| (EventKind::SessionUseAfterExpire, Some(reason));
    assert_eq!(told(), [after("ended")]);
    let forgotten = fixture.login().await;
    fixture.clock.advance(Duration::from_secs(7 * 86_400));
    told();
    assert!(refresh(tokens, &forgotten).await.is_err());
    assert_eq!(told(), [after("expired")]);
    fixture.clock.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(tokens.delete_expired(10).await.unwrap(), 2);
    let unknown = refresh(tokens, &forgotten).await.unwrap_err();
    assert!(matches!(unknown, RefreshError::Unknown(_)));
    assert_eq!(told(), [after("unknown_session")]);
    tokens
        .end_subject("user-1", None, EndReason::PasswordChange)
        .await
        .unwrap();
    let revoked = (EventKind::AuthnTokenRevoked, Some("password_change"));
    assert_eq!(told(), [revoked]);
}

/// A row of a server whose clock is ahead is younger than any window, even one of zero.
#[tokio::test]
async fn no_window_keeps_no_cookie_whatever_the_clocks_say() {
    let secret = Secret::generate();
    let store = Arc::new(ProbeStore::default());
    let (early, late) = (ManualClock::new(), ManualClock::new());
    late.advance(Duration::from_secs(5));
    let build = |clock: &ManualClock| {
        let context = Context::new().with_clock(clock.clone());
        RefreshTokens::new(store.clone(), secret.clone())
            .with_context(context)
            .with_grace(Duration::ZERO)
            .unwrap()
    };
    let (slow, fast) = (build(&early), build(&late));
    let login = slow.begin("user-1").await.unwrap();
    let first = slow.start(login, Device::new()).await.unwrap();
    let second = refresh(&fast, &first).await.unwrap();
    let token = second.token.expose();
    let third = slow.refresh_by_cookie(token, None).await.unwrap();
    assert!(!third.kept && third.token != second.token);
}

#[tokio::test]
async fn clocks_that_differ_by_five_seconds_behave_as_one() {
    let secret = Secret::generate();
    let store = Arc::new(ProbeStore::default());
    let (early, late) = (ManualClock::new(), ManualClock::new());
    late.advance(Duration::from_secs(5));
    let build = |clock: &ManualClock| {
        let context = Context::new()
            .with_clock(clock.clone())
            .with_events_inline(|_: &SecurityEvent| {});
        RefreshTokens::new(store.clone(), secret.clone()).with_context(context)
    };
    let (slow, fast) = (build(&early), build(&late));
    let login = slow.begin("user-1").await.unwrap();
    let mut current = fast.start(login, Device::new()).await.unwrap();
    for _ in 0..10 {
        let next = refresh(&fast, &current).await.unwrap();
        let replay = refresh(&slow, &current).await.unwrap();
        assert_eq!(replay.token, next.token);
        let after = refresh(&slow, &next).await.unwrap();
        assert_eq!(refresh(&fast, &next).await.unwrap().token, after.token);
        current = after;
        for clock in [&early, &late] {
            clock.advance(Duration::from_secs(840));
        }
    }
    // All sessions end by the fast clock; a login on the slow one stands.
    fast.end_subject("user-1", None, EndReason::Administrator)
        .await
        .unwrap();
    assert!(refresh(&slow, &current).await.is_err());
    let login = slow.begin("user-1").await.unwrap();
    let fresh = slow.start(login, Device::new()).await.unwrap();
    assert!(refresh(&fast, &fresh).await.is_ok());
}

#[tokio::test]
async fn a_full_memory_store_refuses_logins_and_forgets_nothing_in_force() {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let store = Arc::new(MemoryStore::with_capacity(3));
    let tokens =
        RefreshTokens::new(store.clone(), Secret::generate()).with_context(context.clone());
    let login = async |subject: &str| {
        let login = tokens.begin(subject).await.unwrap();
        tokens.start(login, Device::new()).await
    };
    let (one, two) = (login("a").await.unwrap(), login("b").await.unwrap());
    let _ = login("c").await.unwrap();
    let full = login("d").await.unwrap_err();
    assert!(matches!(&full, RefreshError::Store(e) if e.kind() == StoreErrorKind::Full));
    tokens.end(one.token.expose(), None).await.unwrap();
    clock.advance(Duration::from_secs(2 * 3_600));
    assert!(login("d").await.is_err(), "an end in force was forgotten");
    clock.advance(MILLI);
    assert!(login("d").await.is_ok());
    assert!(login("e").await.is_err());
    assert!(refresh(&tokens, &two).await.is_ok());
    assert_eq!(store.len(), 3);
}

#[tokio::test]
async fn subjects_and_settings_that_cannot_be_used_are_refused() {
    let tokens = &Fixture::new().tokens;
    for subject in ["", "a\0b", "a\nb", &"x".repeat(256)] {
        let refused = tokens.begin(subject).await.unwrap_err();
        assert!(matches!(refused, RefreshError::UnusableSubject));
    }
    let seconds = Duration::from_secs;
    assert!(tokens.clone().with_grace(seconds(301)).is_err());
    assert!(tokens.clone().with_max_sessions(0).is_err());
    assert!(
        tokens
            .clone()
            .with_lifetimes(seconds(0), seconds(1))
            .is_err()
    );
    assert!(
        tokens
            .clone()
            .with_lifetimes(seconds(2), seconds(1))
            .is_err()
    );
    assert!(!format!("{tokens:?}").contains("secret"));
    // What stands at a limit is taken.
    let taken = tokens.clone().with_grace(seconds(300)).unwrap();
    let taken = taken.with_max_sessions(1_000).unwrap();
    assert!(taken.clone().with_max_sessions(1_001).is_err());
    let taken = taken.with_lifetimes(seconds(1), seconds(1)).unwrap();
    assert_eq!(taken.idle_lifetime(), seconds(1));
}

mod model {
    //! Random operations beside a map that says what must come of them.

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Login,
        /// Presents the token so many generations before the current one.
        Present(usize, u64),
        Logout(usize, u64),
        EndAll,
        Pass(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => Just(Op::Login),
            12 => (0..4usize, 0..4u64).prop_map(|(session, age)| Op::Present(session, age)),
            1 => (0..4usize, 0..4u64).prop_map(|(session, age)| Op::Logout(session, age)),
            1 => Just(Op::EndAll),
            6 => prop_oneof![Just(1), Just(10_000), Just(30_000), Just(900_000), Just(300_000_000)]
                .prop_map(Op::Pass),
        ]
    }

    struct Session {
        tokens: Vec<Granted>,
        rotated_at: u64,
        expires_at: u64,
        absolute_end: u64,
        over: bool,
    }

    const IDLE: u64 = 7 * 86_400_000;
    const GRACE: u64 = 30_000;

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(400)
        })]

        #[test]
        fn random_operations_do_what_the_rules_say(ops in prop::collection::vec(op(), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let fixture = Fixture::new();
                let tokens = &fixture.tokens;
                let mut sessions: Vec<Session> = Vec::new();
                let mut now = 0;
                for op in ops {
                    match op {
                        Op::Pass(millis) => {
                            now += millis;
                            fixture.clock.advance(Duration::from_millis(millis));
                        }
                        Op::Login if sessions.len() < 4 => {
                            sessions.push(Session {
                                tokens: vec![fixture.login().await],
                                rotated_at: now,
                                expires_at: now + IDLE,
                                absolute_end: now + 30 * 86_400_000,
                                over: false,
                            });
                        }
                        Op::Login => {}
                        Op::EndAll => {
                            let reason = EndReason::Administrator;
                            tokens.end_subject("user-1", None, reason).await.unwrap();
                            sessions.iter_mut().for_each(|session| session.over = true);
                        }
                        Op::Logout(index, age) => {
                            let Some(session) = sessions.get_mut(index) else { continue };
                            let at = session.tokens.len().saturating_sub(1 + age as usize);
                            tokens.end(session.tokens[at].token.expose(), None).await.unwrap();
                            session.over = true;
                        }
                        Op::Present(index, age) => {
                            let Some(session) = sessions.get_mut(index) else { continue };
                            let current = session.tokens.len() - 1;
                            let at = current.saturating_sub(age as usize);
                            let result = refresh(tokens, &session.tokens[at]).await;
                            let fresh = now - session.rotated_at < GRACE;
                            if session.over {
                                prop_assert!(matches!(result, Err(RefreshError::Ended(..))));
                            } else if now >= session.expires_at {
                                prop_assert!(matches!(result, Err(RefreshError::Expired(_))));
                            } else if at == current {
                                let granted = result.unwrap();
                                prop_assert!(!granted.replayed);
                                session.rotated_at = now;
                                session.expires_at = (now + IDLE).min(session.absolute_end);
                                session.tokens.push(granted);
                            } else if at + 1 == current && fresh {
                                let granted = result.unwrap();
                                prop_assert!(granted.replayed);
                                prop_assert_eq!(&granted.token, &session.tokens[current].token);
                            } else if fresh {
                                prop_assert!(matches!(result, Err(RefreshError::Late(_))));
                            } else {
                                prop_assert!(matches!(result, Err(RefreshError::Reused(_))));
                                session.over = true;
                            }
                        }
                    }
                    let live = sessions.iter().filter(|s| !s.over && now < s.expires_at).count();
                    prop_assert_eq!(tokens.list("user-1").await.unwrap().len(), live);
                }
                Ok(())
            })?;
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    //! The same through a file.

    use portcullis::refresh_token::sqlite::SqliteStore;

    use super::*;

    #[tokio::test]
    async fn sessions_outlive_the_process_and_the_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.db");
        let secret = Secret::generate();
        let open = async || {
            let store = SqliteStore::open(&path).await.unwrap();
            RefreshTokens::new(store, secret.clone())
        };
        let (kept, ended) = {
            let tokens = open().await;
            let login = tokens.begin("user-1").await.unwrap();
            let kept = tokens
                .start(login.clone(), Device::new().with_label("a"))
                .await
                .unwrap();
            let ended = tokens.start(login, Device::new()).await.unwrap();
            tokens.end(ended.token.expose(), None).await.unwrap();
            (refresh(&tokens, &kept).await.unwrap(), ended)
        };
        #[cfg(unix)]
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            use std::os::unix::fs::PermissionsExt as _;
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{entry:?}");
        }
        let tokens = open().await;
        let next = refresh(&tokens, &kept).await.unwrap();
        assert_eq!(next.session.device.label.as_deref(), Some("a"));
        assert!(matches!(
            refresh(&tokens, &ended).await,
            Err(RefreshError::Ended(_, EndReason::Logout))
        ));
        let revoked = tokens.revoked_since(UnixMillis::new(0)).await.unwrap();
        assert_eq!(revoked.len(), 1);
        assert_eq!(revoked[0].0, ended.session.id);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sixty_four_callers_on_two_handles_get_one_successor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.db");
        let secret = Secret::generate();
        let mut handles = Vec::new();
        for _ in 0..2 {
            let store = SqliteStore::open(&path).await.unwrap();
            handles.push(RefreshTokens::new(store, secret.clone()));
        }
        let login = handles[0].begin("user-1").await.unwrap();
        let first = handles[0].start(login, Device::new()).await.unwrap();
        let callers: Vec<_> = (0..64)
            .map(|caller| {
                let (tokens, first) = (handles[caller % 2].clone(), first.clone());
                tokio::spawn(async move { refresh(&tokens, &first).await.unwrap() })
            })
            .collect();
        let mut granted = Vec::new();
        for caller in callers {
            granted.push(caller.await.unwrap());
        }
        assert!(granted.iter().all(|grant| grant.token == granted[0].token));
        assert_eq!(granted.iter().filter(|grant| !grant.replayed).count(), 1);
    }

    #[tokio::test]
    async fn a_week_of_a_session_is_one_row() {
        let clock = ManualClock::new();
        let context = Context::new().with_clock(clock.clone());
        let store = SqliteStore::in_memory().await.unwrap();
        let tokens = RefreshTokens::new(store.clone(), Secret::generate()).with_context(context);
        let login = tokens.begin("user-1").await.unwrap();
        let mut current = tokens.start(login, Device::new()).await.unwrap();
        for _ in 0..7 * 24 * 4 {
            clock.advance(Duration::from_secs(900));
            current = refresh(&tokens, &current).await.unwrap();
        }
        let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM portcullis_sessions");
        assert_eq!(rows.fetch_one(store.pool()).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn the_life_of_sessions_in_sql() {
        let clock = ManualClock::new();
        let context = Context::new().with_clock(clock.clone());
        let store = SqliteStore::in_memory().await.unwrap();
        let tokens = RefreshTokens::new(store.clone(), Secret::generate()).with_context(context);
        let start = async |login| tokens.start(login, Device::new()).await;
        let begin = async || tokens.begin("O'Brien \"--").await.unwrap();
        let (kept, gone, racing) = (
            start(begin().await).await.unwrap(),
            start(begin().await).await.unwrap(),
            begin().await,
        );
        let reason = EndReason::PasswordChange;
        let keep = Some(kept.session.id);
        let ended = tokens
            .end_subject("O'Brien \"--", keep, reason)
            .await
            .unwrap();
        assert_eq!(ended, [gone.session.id]);
        assert!(matches!(
            start(racing).await,
            Err(RefreshError::LoginOutdated)
        ));
        assert!(start(begin().await).await.is_ok());
        assert!(matches!(
            refresh(&tokens, &gone).await,
            Err(RefreshError::Ended(_, EndReason::PasswordChange))
        ));
        assert_eq!(tokens.list("O'Brien \"--").await.unwrap().len(), 2);
        let got = tokens.get(kept.session.id).await.unwrap().unwrap();
        assert_eq!(got, kept.session);

        let next = refresh(&tokens, &kept).await.unwrap();
        clock.advance(GRACE);
        assert!(matches!(
            refresh(&tokens, &kept).await,
            Err(RefreshError::Reused(_))
        ));
        assert!(refresh(&tokens, &next).await.is_err());
        clock.advance(Duration::from_secs(10 * 86_400));
        assert_eq!(tokens.delete_expired(2).await.unwrap(), 2);
        assert_eq!(tokens.delete_expired(100).await.unwrap(), 1);
        sqlx::query("UPDATE portcullis_schema SET version = 99")
            .execute(store.pool())
            .await
            .unwrap();
        let error = store.health().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::SchemaMismatch);
    }
}
