//! What only Redis shows. Runs where `PORTCULLIS_TEST_REDIS` names a `redis-server` (or Valkey's),
//! and is skipped elsewhere.
#![cfg(all(feature = "redis", feature = "refresh-token"))]

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use portcullis::{
    Rejection,
    refresh_token::{
        Device, EndReason, RefreshError, RefreshTokenStore as _, RefreshTokens, RotateOutcome,
        SessionId, StoreErrorKind, redis::RedisStore,
    },
    secret::Secret,
};
use support::{
    forwarder::Forwarder,
    load::{Load, until_refreshed},
    redis::{Redis, RedisCluster},
    sessions::{DAY, NOW, create, rotation},
};

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

async fn refused(url: &str) -> StoreErrorKind {
    let error = RedisStore::connect(url).await.unwrap_err();
    assert_eq!(
        error.is_retryable(),
        error.kind() == StoreErrorKind::Unavailable
    );
    error.kind()
}

/// What the store's calls are told while it is out; none of them is a logout.
async fn told(tokens: &RefreshTokens, token: &str) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for refused in [
        tokens.refresh(token, None).await.map(drop).unwrap_err(),
        tokens.end(token, None).await.map(drop).unwrap_err(),
        tokens.begin("user-1").await.map(drop).unwrap_err(),
        tokens.revoked_since(NOW).await.map(drop).unwrap_err(),
        tokens.delete_expired(10).await.map(drop).unwrap_err(),
        tokens.health().await.unwrap_err(),
    ] {
        let RefreshError::Store(error) = &refused else {
            panic!("{refused:?}");
        };
        assert!(!refused.is_over());
        assert_eq!(Rejection::from(&refused).status(), 503);
        told.insert(format!("{:?}", error.kind()));
    }
    told
}

#[tokio::test]
async fn a_server_that_evicts_or_refuses_is_refused() {
    let Some(server) = Redis::start_with(&["--maxmemory-policy", "volatile-ttl"]) else {
        return;
    };
    let url = server.url();
    for policy in ["volatile-ttl", "allkeys-lru"] {
        server.ask(&format!("CONFIG SET maxmemory-policy {policy}"));
        assert_eq!(refused(&url).await, StoreErrorKind::Misconfigured);
    }
    server.ask("CONFIG SET maxmemory-policy noeviction");
    let store = RedisStore::connect(&url).await.unwrap();
    store.health().await.unwrap();
    // One that is set later is told by the probe.
    server.ask("CONFIG SET maxmemory-policy allkeys-random");
    let error = store.health().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    server.ask("CONFIG SET maxmemory-policy noeviction");

    server.ask("CONFIG SET requirepass correct-horse");
    assert_eq!(refused(&url).await, StoreErrorKind::Misconfigured);
    assert_eq!(refused("not a url").await, StoreErrorKind::Misconfigured);
    let nobody = "redis+unix:///nowhere/redis.sock";
    assert_eq!(refused(nobody).await, StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_full_server_takes_no_login_and_keeps_what_it_has() {
    let Some(server) = Redis::start() else {
        return;
    };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let id = create(&store, "user-1").await;
    server.ask("CONFIG SET maxmemory 1");
    let error = store.rotate(rotation(id, 0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Full);
    assert!(error.is_retryable());
    server.ask("CONFIG SET maxmemory 0");
    let rotated = store.rotate(rotation(id, 0)).await.unwrap();
    assert!(matches!(rotated, RotateOutcome::Rotated(_)));
}

#[tokio::test]
async fn what_was_lost_lets_nobody_in_and_logs_nobody_out() {
    let Some(server) = Redis::start() else {
        return;
    };
    let url = server.url();
    let secret = Secret::generate();
    let open = async || {
        let store = RedisStore::connect(&url).await.unwrap();
        RefreshTokens::new(store, secret.clone())
    };
    let tokens = open().await;
    let login = tokens.begin("user-1").await.unwrap();
    let session = tokens.start(login.clone(), Device::new()).await.unwrap();
    let token = session.token.expose();
    let lost = BTreeSet::from(["Lost".to_owned()]);

    server.ask("FLUSHALL");
    assert_eq!(told(&tokens, token).await, lost);
    assert!(tokens.start(login, Device::new()).await.is_err());
    // An instance that starts now finds an empty server: the session is unknown, and that is final.
    let anew = open().await;
    assert!(anew.refresh(token, None).await.unwrap_err().is_over());
    let login = anew.begin("user-1").await.unwrap();
    let session = anew.start(login, Device::new()).await.unwrap();
    // The one before does not take the new mark for its own.
    assert_eq!(told(&tokens, session.token.expose()).await, lost);

    // A part of it: the others go on, and an instance that starts tells what is wrong.
    let tag = SessionId::tag_of("user-1")[0];
    server.ask(&format!("DEL {{portcullis:{tag:02x}}}:mark"));
    let refused = anew.refresh(session.token.expose(), None).await;
    assert!(!refused.unwrap_err().is_over());
    assert_eq!(self::refused(&url).await, StoreErrorKind::Lost);
    let other = (0..).map(|n| format!("user-{n}"));
    let mut other = other.filter(|name| SessionId::tag_of(name)[0] != tag);
    let login = anew.begin(&other.next().unwrap()).await.unwrap();
    let kept = anew.start(login, Device::new()).await.unwrap();
    // An operator goes on with what is left.
    server.ask("DEL {portcullis:00}:store");
    let last = open().await;
    let _ = last.refresh(kept.token.expose(), None).await.unwrap();
    let _ = last.refresh(session.token.expose(), None).await.unwrap();

    server.ask("SET {portcullis:00}:store later");
    assert_eq!(self::refused(&url).await, StoreErrorKind::SchemaMismatch);
}

#[tokio::test]
async fn several_instances_start_at_once_on_an_empty_server() {
    let Some(server) = Redis::start() else {
        return;
    };
    let starts: Vec<_> = (0..16)
        .map(|_| {
            let url = server.url();
            tokio::spawn(async move { RedisStore::connect(&url).await.unwrap() })
        })
        .collect();
    let mut last = None;
    for start in starts {
        let store = start.await.unwrap();
        create(&store, "user-1").await;
        last = Some(store);
    }
    let list = last.unwrap().list_subject("user-1", NOW, 50).await.unwrap();
    assert_eq!(list.len(), 16);
}

#[tokio::test]
async fn a_stalled_server_is_503_in_time_and_no_logout() {
    let Some(server) = Redis::start() else {
        return;
    };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let tokens = RefreshTokens::new(store, Secret::generate());
    let login = tokens.begin("user-1").await.unwrap();
    let session = tokens.start(login, Device::new()).await.unwrap();
    let token = session.token.expose();
    server.stall();
    let begun = Instant::now();
    let calls = (0..64).map(|_| {
        let (tokens, token) = (tokens.clone(), token.to_owned());
        tokio::spawn(async move { tokens.refresh(&token, None).await })
    });
    for call in calls.collect::<Vec<_>>() {
        let refused = call.await.unwrap().unwrap_err();
        assert_eq!(Rejection::from(&refused).status(), 503);
        let RefreshError::Store(error) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(error.kind(), StoreErrorKind::Timeout);
        assert!(error.is_retryable());
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.go_on();
    // The rotation may have been done or not: the same token goes on.
    until_refreshed(&tokens, token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_logs_nobody_out() {
    let Some(mut server) = Redis::start_with(&DURABLE) else {
        return;
    };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let tokens = RefreshTokens::new(store, Secret::generate());
    let load = Load::start(&tokens, 64).await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.kill();
        let refused = tokens.health().await.unwrap_err();
        assert_eq!(Rejection::from(&refused).status(), 503);
        server.start_again();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (refreshed, refused) = load.end().await;
    assert!(refreshed > 64 && refused > 0, "{refreshed} {refused}");
}

#[tokio::test]
async fn a_rotation_is_one_round_trip_and_a_lost_script_is_loaded_again() {
    let Some(server) = Redis::start() else {
        return;
    };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (one, two) = (
        create(&store, "user-1").await,
        create(&store, "user-2").await,
    );
    server.ask("CONFIG RESETSTAT");
    store.rotate(rotation(one, 0)).await.unwrap();
    assert_eq!(calls(&server, "evalsha"), 1);
    server.ask("SCRIPT FLUSH");
    server.ask("CONFIG RESETSTAT");
    let rotated = store.rotate(rotation(two, 0)).await.unwrap();
    assert!(matches!(rotated, RotateOutcome::Rotated(_)));
    // Before Redis 7 the commands about scripts are counted as one.
    let loaded = calls(&server, "script|load") + calls(&server, "script");
    assert_eq!((calls(&server, "evalsha"), loaded), (2, 1));
}

/// How often a command came.
fn calls(server: &Redis, command: &str) -> u32 {
    let stats = server.answer("INFO commandstats");
    let mut lines = stats.lines();
    let line = lines.find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn no_key_has_a_time_to_live_and_little_is_left_of_what_was_cleared() {
    let Some(server) = Redis::start() else {
        return;
    };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let empty = server.ask("DBSIZE");
    for user in 0..40 {
        let name = format!("user-{user}");
        let id = create(&store, &name).await;
        create(&store, &name).await;
        store.rotate(rotation(id, 0)).await.unwrap();
        store.revoke(id, EndReason::Logout, NOW).await.unwrap();
        let reason = EndReason::PasswordChange;
        store
            .revoke_subject(&name, None, reason, NOW)
            .await
            .unwrap();
    }
    let keys = server.answer("KEYS *");
    let keys: Vec<&str> = keys.lines().filter(|line| line.starts_with('{')).collect();
    assert!(keys.len() > 256 + 40);
    for key in keys {
        assert_eq!(server.ask(&format!("TTL {key}")), ":-1", "{key}");
    }
    let later = NOW.saturating_add(3 * DAY);
    assert_eq!(store.delete_expired(later, 1_000).await.unwrap(), 80);
    // Epochs too: nothing is left but the marks.
    assert_eq!(server.ask("DBSIZE"), empty);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_spreads_sessions_and_bears_the_loss_of_a_node() {
    let Some(mut cluster) = RedisCluster::start() else {
        return;
    };
    let urls = cluster.urls();
    let urls = urls.iter().map(String::as_str);
    let store = RedisStore::connect_cluster(urls).await.unwrap();
    let marks = cluster.sizes();
    let mut ids = Vec::new();
    for user in 0..100 {
        let name = format!("user-{user}");
        let id = create(&store, &name).await;
        if user % 2 == 0 {
            store.revoke(id, EndReason::Logout, NOW).await.unwrap();
        } else {
            store.rotate(rotation(id, 0)).await.unwrap();
        }
        ids.push(id);
    }
    // Every node has a share, near a third.
    for (now, before) in cluster.sizes().iter().zip(&marks) {
        assert!(*before > 256 / 5 && now - before > 30, "{marks:?}");
    }
    let revoked = store.revoked_since(NOW).await.unwrap();
    let revoked: BTreeSet<_> = revoked.into_iter().map(|(id, _)| id).collect();
    assert_eq!(revoked, ids.iter().copied().step_by(2).collect());
    cluster.kill(2);
    let (mut there, mut away) = (0, 0);
    for id in ids {
        match store.get(id).await {
            Ok(record) => {
                assert!(record.is_some());
                there += 1;
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                away += 1;
            }
        }
    }
    assert!(there > 10 && away > 10, "{there} {away}");
    assert!(store.revoked_since(NOW).await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_for_the_new_one() {
    let Some([(old, old_port), (new, port)]) = Redis::start_with_replica() else {
        return;
    };
    let forwarder = Forwarder::to(old.socket());
    let store = RedisStore::connect(&forwarder.url()).await.unwrap();
    let id = create(&store, "user-1").await;
    new.follow(old_port);
    new.promote();
    old.follow(port);
    forwarder.lead_to(new.socket());
    let refused = store.rotate(rotation(id, 0)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    let outcome = store.rotate(rotation(id, 0)).await.unwrap();
    assert!(matches!(outcome, RotateOutcome::Rotated(_)), "{outcome:?}");
}
