//! API keys, through the layer and without it.
#![cfg(feature = "api-key")]

mod support;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::Full;
use portcullis::{
    Context, DenyList, Identity, IdentityKind, Peer,
    api_key::{
        ApiKeyError, ApiKeyId, ApiKeyLayer, ApiKeyRecord, ApiKeyStore, ApiKeys, CreateOutcome,
        KeyRotation, MemoryKeys, MintedKey, NewApiKey, NotAKey, RotateOutcome, StoreError,
        StoreErrorKind, StoredKey, UsedKey,
    },
    deny_list::Denial,
    event::{EventKind, SecurityEvent},
    time::{ManualClock, UnixMillis},
};
use tokio::sync::oneshot;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(feature = "test-suite")]
mod conformance {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_store_in_memory() {
        portcullis::api_key::conformance::check(|| async { MemoryKeys::new() }).await;
    }

    #[cfg(feature = "postgres")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_store_in_postgresql() {
        use portcullis::api_key::postgres::PostgresKeys;

        let Some(server) = super::support::postgres::Postgres::start() else {
            return;
        };
        let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
        let keys = PostgresKeys::new(pool.clone()).await.unwrap();
        portcullis::api_key::conformance::check(|| async {
            sqlx::raw_sql("TRUNCATE portcullis_api_keys")
                .execute(&pool)
                .await
                .unwrap();
            keys.clone()
        })
        .await;
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test(flavor = "multi_thread")]
    async fn the_store_in_sqlite() {
        use portcullis::api_key::sqlite::SqliteKeys;
        use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

        let folder = tempfile::tempdir().unwrap();
        let count = AtomicUsize::new(0);
        portcullis::api_key::conformance::check(|| async {
            let name = count.fetch_add(1, Ordering::Relaxed).to_string();
            let options = SqliteConnectOptions::new()
                .filename(folder.path().join(name))
                .journal_mode(SqliteJournalMode::Wal)
                .create_if_missing(true);
            let pool = SqlitePoolOptions::new()
                .connect_with(options)
                .await
                .unwrap();
            SqliteKeys::new(pool).await.unwrap()
        })
        .await;
    }
}

#[tokio::test]
async fn a_key_works_until_its_end_and_no_longer() {
    let house = House::new();
    let key = house.mint("ada").await;
    assert_eq!(
        key.record().expires_at,
        house.now().saturating_add(DAY * 90)
    );
    house.clock.advance(DAY * 90 - Duration::from_millis(1));
    assert!(house.verify(&key).await.is_ok());
    house.clock.advance(Duration::from_millis(1));
    // Both from what is remembered and from the store.
    assert!(matches!(
        house.verify(&key).await,
        Err(ApiKeyError::Expired)
    ));
    house.clock.advance(HOUR);
    assert!(matches!(
        house.verify(&key).await,
        Err(ApiKeyError::Expired)
    ));
}

#[tokio::test]
async fn two_keys_work_during_an_overlap_and_one_after() {
    let house = House::new();
    let old = house.mint("ada").await;
    let ada = house.login("ada");
    let new = house
        .keys
        .rotate(&ada, old.record().id, HOUR)
        .await
        .unwrap();
    assert_eq!(new.record().replaces, Some(old.record().id));
    assert_eq!(new.record().name, old.record().name);
    assert!(house.verify(&old).await.is_ok());
    assert!(house.verify(&new).await.is_ok());
    assert_eq!(house.count(EventKind::ApiKeyUsedAfterRotation), 1);
    house.clock.advance(Duration::from_secs(60));
    assert!(house.verify(&old).await.is_ok());
    assert_eq!(house.count(EventKind::ApiKeyUsedAfterRotation), 1);

    house.clock.advance(HOUR);
    assert!(house.verify(&old).await.is_err());
    assert!(house.verify(&new).await.is_ok());
    // It was rotated once, and a second successor would be a second owner.
    let ada = house.login("ada");
    let again = house.keys.rotate(&ada, old.record().id, HOUR);
    assert!(matches!(again.await, Err(ApiKeyError::NotFound)));
}

#[tokio::test]
async fn an_overlap_ends_no_later_than_the_old_key_and_zero_ends_it_now() {
    let house = House::new();
    let old = house.mint("ada").await;
    house.clock.advance(DAY * 89);
    let ada = house.login("ada");
    let too_long = house.keys.rotate(&ada, old.record().id, DAY * 7 + HOUR);
    assert!(matches!(too_long.await, Err(ApiKeyError::Unusable)));
    let new = house
        .keys
        .rotate(&ada, old.record().id, DAY * 7)
        .await
        .unwrap();
    house.clock.advance(DAY);
    assert!(house.verify(&old).await.is_err());
    assert!(house.verify(&new).await.is_ok());

    let ada = house.login("ada");
    let newest = house
        .keys
        .rotate(&ada, new.record().id, Duration::ZERO)
        .await;
    assert!(house.verify(&new).await.is_err());
    assert!(house.verify(&newest.unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once() {
    let house = House::new();
    let key = house.mint("ada").await;
    assert!(house.verify(&key).await.is_ok());
    let id = key.record().id;
    let stranger = house.keys.revoke(&house.login("bob"), id).await;
    assert!(matches!(stranger, Err(ApiKeyError::NotFound)));
    assert!(house.verify(&key).await.is_ok());
    house.keys.revoke(&house.login("ada"), id).await.unwrap();
    assert!(matches!(
        house.verify(&key).await,
        Err(ApiKeyError::Revoked)
    ));
    let again = house.keys.revoke(&house.login("ada"), id).await;
    assert!(matches!(again, Err(ApiKeyError::NotFound)));

    let keys = [house.mint("ada").await, house.mint("ada").await];
    for key in &keys {
        assert!(house.verify(key).await.is_ok());
    }
    assert_eq!(house.keys.revoke_all("ada").await.unwrap(), 2);
    for key in &keys {
        assert!(house.verify(key).await.is_err());
    }
}

#[tokio::test]
async fn an_answer_that_a_revocation_overtook_is_not_remembered() {
    let house = House::new();
    let key = house.mint("ada").await;
    // The store's answer is on its way while the key is revoked.
    let (reached, go_on) = house.store.get_hold.next();
    let verifying = tokio::spawn({
        let (keys, text) = (house.keys.clone(), key.key().expose().to_owned());
        async move { keys.verify(&text, None).await.is_ok() }
    });
    reached.await.unwrap();
    let ada = house.login("ada");
    house.keys.revoke(&ada, key.record().id).await.unwrap();
    go_on.send(()).unwrap();
    verifying.await.unwrap();
    assert!(matches!(
        house.verify(&key).await,
        Err(ApiKeyError::Revoked)
    ));
}

#[tokio::test]
async fn another_instance_feels_a_revocation_through_the_deny_list() {
    let house = House::new();
    let deny_list = DenyList::since_start(&house.context, HOUR);
    let here = house.keys.clone().with_deny_list(deny_list.clone());
    let key = house.mint("ada").await;
    let text = key.key().expose();
    assert!(here.verify(text, None).await.is_ok());
    // Revoked elsewhere: what is remembered here still admits, until the list says otherwise.
    let id = key.record().id;
    house.store.revoke(id, "ada", house.now()).await.unwrap();
    assert!(here.verify(text, None).await.is_ok());
    deny_list.deny_token(id.as_str());
    assert!(matches!(
        here.verify(text, None).await,
        Err(ApiKeyError::Revoked)
    ));
}

#[tokio::test]
async fn every_end_of_a_key_stands_in_the_deny_list_and_nothing_else_does() {
    let house = House::new();
    let deny_list = DenyList::since_start(&house.context, HOUR);
    let keys = house.keys.clone().with_deny_list(deny_list.clone());
    let denied = |id: ApiKeyId| deny_list.holds(&Denial::Token(id.as_str().to_owned()));
    let (ada, bob) = (house.login("ada"), house.login("bob"));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(house.mint("ada").await.record().id);
    }
    // Who ends keys that are not his, or that nobody has, fills no list.
    for id in [ids[0], ApiKeyId::generate()] {
        let refused = keys.revoke(&bob, id).await;
        assert!(matches!(refused, Err(ApiKeyError::NotFound)));
        let refused = keys.rotate(&bob, id, HOUR).await;
        assert!(matches!(refused, Err(ApiKeyError::NotFound)));
        assert!(!denied(id));
    }
    keys.revoke(&ada, ids[0]).await.unwrap();
    keys.rotate(&ada, ids[1], HOUR).await.unwrap();
    let held: Vec<bool> = ids.iter().copied().map(denied).collect();
    assert_eq!(held, [true, true, false]);
    keys.revoke_all("ada").await.unwrap();
    assert!(denied(ids[2]));
}

#[tokio::test]
async fn what_is_done_with_keys_is_told() {
    let house = House::new();
    let ada = house.login("ada");
    let old = house.mint("ada").await.record().id;
    assert_eq!(house.count(EventKind::ApiKeyCreated), 1);
    let new = house.keys.rotate(&ada, old, HOUR).await.unwrap();
    assert_eq!(house.count(EventKind::ApiKeyRotated), 1);
    house.keys.revoke(&ada, new.record().id).await.unwrap();
    assert_eq!(house.count(EventKind::ApiKeyRevoked), 1);
    house.keys.revoke_all("ada").await.unwrap();
    assert_eq!(house.count(EventKind::ApiKeyRevoked), 2);
}

#[tokio::test]
async fn settings_out_of_range_are_refused_and_others_hold() {
    let house = House::new();
    let keys = || house.keys.clone();
    for ttl in [Duration::from_secs(59), DAY * 366 + HOUR] {
        assert!(keys().with_ttl(ttl).is_err());
    }
    for most in [0, 1_001] {
        assert!(keys().with_max_keys(most).is_err());
    }
    assert!(keys().with_cache(Duration::from_millis(300_001)).is_err());
    for word in ["", "PK", "p_k", "abcdefghijklmnopq"] {
        assert!(keys().with_brand(word).is_err());
        assert!(ApiKeys::new(MemoryKeys::new(), word).is_err());
    }
    let own = keys().with_brand("acme").unwrap().with_fresh_login(HOUR);
    let ada = house.login("ada");
    house.clock.advance(HOUR);
    let key = own.create(&ada, NewApiKey::new("k")).await.unwrap();
    assert!(key.key().expose().starts_with("acme_dev_"));
    house.clock.advance(Duration::from_millis(1));
    let late = own.create(&ada, NewApiKey::new("k")).await;
    assert!(matches!(late, Err(ApiKeyError::LoginTooOld)));
}

#[tokio::test]
async fn the_layer_holds_a_key_to_its_networks_at_every_use() {
    let house = House::new();
    let gate = ApiKeyLayer::new(house.keys.clone()).with_context(house.context.clone());
    let status = async |key: &MintedKey| {
        let response = send(&gate, |request| {
            request.header("x-api-key", key.key().expose())
        });
        response.await.status()
    };
    for (network, expected) in [
        ("192.0.2.0/24", StatusCode::OK),
        ("198.51.100.0/24", StatusCode::UNAUTHORIZED),
    ] {
        let new = NewApiKey::new("k").from_networks([network.parse().unwrap()]);
        let key = house.keys.create(&house.login("ada"), new).await.unwrap();
        // From the store, then from what is remembered.
        assert_eq!(status(&key).await, expected);
        let near: IpAddr = network.replace(".0/24", ".1").parse().unwrap();
        let known = house.keys.verify(key.key().expose(), Some(near)).await;
        assert!(known.is_ok());
        assert_eq!(status(&key).await, expected);
    }
}

#[tokio::test]
async fn the_gate_looks_at_what_it_is_for() {
    let house = House::new();
    let gate = ApiKeyLayer::new(house.keys.clone());
    // A gate further out has proved who it is.
    let known = Identity::new(IdentityKind::AccessToken, "ada");
    let response = send(&gate, |request| request.extension(known)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let machines = gate.only_if(|head| head.uri.path().starts_with("/machines"));
    let status = async |path: &'static str| send(&machines, |request| request.uri(path)).await;
    assert_eq!(status("/people").await.status(), StatusCode::OK);
    let refused = status("/machines").await.status();
    assert_eq!(refused, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_store_is_not_asked_for_what_cannot_be_a_key_nor_twice_in_a_while() {
    let house = House::new();
    let key = house.mint("ada").await;
    let text = key.key().expose();
    let other = ApiKeys::new(MemoryKeys::new(), "prod").unwrap();
    let staging = other.with_context(house.context.clone());
    let staging = staging
        .create(&house.login("ada"), NewApiKey::new("k"))
        .await
        .unwrap();
    let reads = house.store.reads();
    for at in 0..text.len() {
        let mut changed = text.to_owned().into_bytes();
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        let changed = String::from_utf8(changed).unwrap();
        let refused = house.keys.verify(&changed, None).await;
        assert!(matches!(refused, Err(ApiKeyError::NotAKey(_))), "{at}");
    }
    for text in [
        "",
        "pk_",
        "pk_dev_",
        &"pk_dev_".repeat(1_500),
        &text[..text.len() - 1],
    ] {
        assert!(house.keys.verify(text, None).await.is_err());
    }
    let refused = house.keys.verify(staging.key().expose(), None).await;
    assert!(matches!(
        refused,
        Err(ApiKeyError::NotAKey(NotAKey::Environment))
    ));
    assert_eq!(house.store.reads(), reads);

    for _ in 0..10 {
        assert!(house.verify(&key).await.is_ok());
    }
    assert_eq!(house.store.reads(), reads + 1);
    house.clock.advance(Duration::from_secs(30));
    assert!(house.verify(&key).await.is_ok());
    assert_eq!(house.store.reads(), reads + 2);
}

#[tokio::test]
async fn a_guessed_secret_under_a_known_id_is_refused() {
    let house = House::new();
    let key = house.mint("ada").await;
    let text = key.key().expose();
    let (body, _) = text.split_at(text.len() - 6);
    let secret_at = body.rfind('_').unwrap() + 1;
    for from_memory in [false, true] {
        for at in secret_at..body.len() {
            let mut guess = body.to_owned().into_bytes();
            guess[at] = if guess[at] == b'x' { b'y' } else { b'x' };
            let guess = with_checksum(String::from_utf8(guess).unwrap());
            let refused = house.keys.verify(&guess, None).await;
            assert!(
                matches!(refused, Err(ApiKeyError::Unknown)),
                "{from_memory} {at}"
            );
        }
        // The checksum is right, so it is the secret that was refused.
        assert_eq!(with_checksum(body.to_owned()), text);
        assert!(house.verify(&key).await.is_ok());
    }
    let unknown = body.replace(key.record().id.as_str(), "0123456789");
    let refused = house.keys.verify(&with_checksum(unknown), None).await;
    assert!(matches!(refused, Err(ApiKeyError::Unknown)));
}

/// A key's text with the checksum that anybody can compute.
fn with_checksum(body: String) -> String {
    const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % 62];
        rest /= 62;
    }
    body + std::str::from_utf8(&digits).unwrap()
}

#[tokio::test]
async fn making_a_key_takes_a_fresh_login_of_a_person() {
    let house = House::new();
    let ada = house.login("ada");
    house.clock.advance(Duration::from_secs(900));
    assert!(house.keys.create(&ada, NewApiKey::new("k")).await.is_ok());
    house.clock.advance(Duration::from_millis(1));
    let refused = house.keys.create(&ada, NewApiKey::new("k")).await;
    assert!(matches!(refused, Err(ApiKeyError::LoginTooOld)));
    let refused = house.keys.rotate(&ada, ApiKeyId::generate(), HOUR).await;
    assert!(matches!(refused, Err(ApiKeyError::LoginTooOld)));
    let unknown = Identity::new(IdentityKind::AccessToken, "ada");
    let refused = house.keys.create(&unknown, NewApiKey::new("k")).await;
    assert!(matches!(refused, Err(ApiKeyError::LoginTooOld)));
    let program = Identity::new(IdentityKind::ApiKey, "ada").with_auth_time(house.now());
    let refused = house.keys.create(&program, NewApiKey::new("k")).await;
    assert!(matches!(refused, Err(ApiKeyError::LoginTooOld)));
}

#[tokio::test]
async fn a_key_allows_no_more_than_its_maker_and_what_cannot_be_used_is_refused() {
    let house = House::new();
    let ada = house.login("ada").with_scopes(["read", "write"]);
    let key = house.keys.create(&ada, NewApiKey::new("k")).await.unwrap();
    assert_eq!(key.record().scopes, ["read", "write"]);
    let less = NewApiKey::new("k").with_scopes(["read"]);
    let key = house.keys.create(&ada, less).await.unwrap();
    let used = house.verify(&key).await.unwrap();
    assert!(used.identity().has_scope("read") && !used.identity().has_scope("write"));
    let more = NewApiKey::new("k").with_scopes(["read", "admin"]);
    let refused = house.keys.create(&ada, more).await;
    assert!(matches!(refused, Err(ApiKeyError::Scope)));
    for unusable in [
        NewApiKey::new(""),
        NewApiKey::new("k".repeat(65)),
        NewApiKey::new("a\nb"),
        NewApiKey::new("k").with_scopes(["a b"]),
        NewApiKey::new("k").with_scopes(["s".repeat(65)]),
        NewApiKey::new("k").with_scopes(["read"; 65]),
        NewApiKey::new("k").from_networks(["192.0.2.0/24".parse().unwrap(); 33]),
        NewApiKey::new("k").with_ttl(DAY * 91),
        NewApiKey::new("k").with_ttl(Duration::from_secs(59)),
    ] {
        let refused = house.keys.create(&ada, unusable).await;
        assert!(matches!(refused, Err(ApiKeyError::Unusable)));
    }
}

#[tokio::test]
async fn a_user_has_at_most_25_live_keys() {
    let house = House::new();
    let mut keys = Vec::new();
    for _ in 0..25 {
        keys.push(house.mint("ada").await);
    }
    let ada = house.login("ada");
    let refused = house.keys.create(&ada, NewApiKey::new("k")).await;
    assert!(matches!(refused, Err(ApiKeyError::TooMany)));
    assert!(
        house
            .keys
            .create(&house.login("bob"), NewApiKey::new("k"))
            .await
            .is_ok()
    );
    // Rotation needs no place, and its overlaps are bounded too.
    for key in &keys {
        house
            .keys
            .rotate(&ada, key.record().id, HOUR)
            .await
            .unwrap();
    }
    assert_eq!(house.keys.list("ada").await.unwrap().len(), 50);
    let newest = house.keys.list("ada").await.unwrap()[0].id;
    let refused = house.keys.rotate(&ada, newest, HOUR).await;
    assert!(matches!(refused, Err(ApiKeyError::TooMany)));
}

#[tokio::test]
async fn a_key_comes_from_its_networks_alone() {
    let house = House::new();
    let office = NewApiKey::new("k").from_networks(["198.51.100.0/24".parse().unwrap()]);
    let key = house
        .keys
        .create(&house.login("ada"), office)
        .await
        .unwrap();
    let from = async |ip: Option<&str>| {
        let ip: Option<IpAddr> = ip.map(|ip| ip.parse().unwrap());
        house.keys.verify(key.key().expose(), ip).await
    };
    assert!(from(Some("198.51.100.9")).await.is_ok());
    assert!(from(Some("::ffff:198.51.100.9")).await.is_ok());
    for elsewhere in [Some("198.51.101.9"), Some("2001:db8::1"), None] {
        assert!(matches!(from(elsewhere).await, Err(ApiKeyError::Network)));
    }
}

#[tokio::test]
async fn the_last_use_is_shown_at_once_and_written_once_a_minute() {
    let house = House::new();
    let key = house.mint("ada").await;
    house.clock.advance(HOUR);
    for _ in 0..100 {
        house.clock.advance(Duration::from_millis(100));
        assert!(house.verify(&key).await.is_ok());
    }
    let listed = house.keys.list("ada").await.unwrap();
    assert_eq!(listed[0].last_used_at, Some(house.now()));
    tokio::task::yield_now().await;
    assert!(house.store.touches() <= 1, "{}", house.store.touches());
    house.keys.flush().await.unwrap();
    let stored = house.store.get(key.record().id).await.unwrap().unwrap();
    assert_eq!(stored.record.last_used_at, Some(house.now()));

    // What a store did not take is told later.
    house.clock.advance(Duration::from_secs(5));
    assert!(house.verify(&key).await.is_ok());
    house.store.down.store(true, Ordering::Relaxed);
    assert!(matches!(
        house.keys.flush().await,
        Err(ApiKeyError::Store(_))
    ));
    house.store.down.store(false, Ordering::Relaxed);
    house.keys.flush().await.unwrap();
    let stored = house.store.get(key.record().id).await.unwrap().unwrap();
    assert_eq!(stored.record.last_used_at, Some(house.now()));
}

/// A key is used again while the store is being told of an earlier use, which it then refuses.
#[tokio::test]
async fn a_write_that_failed_takes_no_later_use_back() {
    let house = House::new();
    let key = house.mint("ada").await;
    house.verify(&key).await.unwrap();
    let (reached, go_on) = house.store.touch_hold.next();
    let telling = tokio::spawn({
        let keys = house.keys.clone();
        async move { keys.flush().await.is_err() }
    });
    reached.await.unwrap();
    house.clock.advance(Duration::from_secs(5));
    house.verify(&key).await.unwrap();
    house.store.down.store(true, Ordering::Relaxed);
    go_on.send(()).unwrap();
    assert!(telling.await.unwrap());
    let listed = house.keys.list("ada").await.unwrap();
    assert_eq!(listed[0].last_used_at, Some(house.now()));
    house.store.down.store(false, Ordering::Relaxed);
    house.keys.flush().await.unwrap();
    let stored = house.store.get(key.record().id).await.unwrap().unwrap();
    assert_eq!(stored.record.last_used_at, Some(house.now()));
}

#[tokio::test]
async fn uses_of_many_keys_are_written_before_their_minute_is_over() {
    let house = House::new();
    let keys = house.mint_many(10_000).await;
    for (used, key) in (1..).zip(&keys) {
        house.verify(key).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(house.store.touches(), usize::from(used == 10_000), "{used}");
    }
}

#[tokio::test]
async fn at_most_10_000_keys_are_remembered_and_room_is_made_of_those_whose_time_is_over() {
    let house = House::new();
    let keys = house.mint_many(15_001).await;
    let (early, rest) = keys.split_at(5_000);
    let (late, rest) = rest.split_at(5_000);
    let (more, last) = rest.split_at(5_000);
    let reads = async |key: &MintedKey| {
        let before = house.store.reads();
        house.verify(key).await.unwrap();
        house.store.reads() - before
    };
    for key in early {
        assert_eq!(reads(key).await, 1);
    }
    house.clock.advance(Duration::from_secs(10));
    for key in late {
        assert_eq!(reads(key).await, 1);
    }
    // There is no room, and nobody is forgotten for a newcomer.
    for _ in 0..2 {
        assert_eq!(reads(&more[0]).await, 1);
    }
    for key in [&early[0], &late[0]] {
        assert_eq!(reads(key).await, 0);
    }

    house.clock.advance(Duration::from_secs(20));
    for key in more {
        assert_eq!([reads(key).await, reads(key).await], [1, 0]);
    }
    for key in late {
        assert_eq!(reads(key).await, 0);
    }
    for key in [&early[0], &last[0]] {
        assert_eq!([reads(key).await, reads(key).await], [1, 1]);
    }

    // One that has a place keeps it.
    house.clock.advance(Duration::from_secs(10));
    assert_eq!([reads(&late[0]).await, reads(&late[0]).await], [1, 0]);
}

#[tokio::test]
async fn what_ended_is_cleared_away_after_the_time_that_it_is_kept() {
    let house = House::new();
    let ada = house.login("ada");
    let live = house.mint("ada").await;
    for _ in 0..3 {
        let ended = house.mint("ada").await.record().id;
        house.keys.revoke(&ada, ended).await.unwrap();
    }
    let cleared = async |limit| house.keys.delete_expired(DAY * 30, limit).await.unwrap();
    house.clock.advance(DAY * 30);
    assert_eq!(cleared(10).await, 0);
    house.clock.advance(Duration::from_millis(1));
    assert_eq!([cleared(2).await, cleared(2).await], [2, 1]);
    // A key that nobody ended is kept as long behind the end of its time.
    house.clock.advance(DAY * 90 - Duration::from_millis(1));
    assert!(house.verify(&live).await.is_err());
    assert_eq!(cleared(10).await, 0);
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(cleared(10).await, 1);
}

#[tokio::test]
async fn health_is_that_of_the_store() {
    let house = House::new();
    assert!(house.keys.health().await.is_ok());
    house.store.down.store(true, Ordering::Relaxed);
    let health = house.keys.health().await;
    assert!(matches!(health, Err(ApiKeyError::Store(_))));
}

#[tokio::test]
async fn a_store_that_is_down_is_503_and_known_keys_go_on() {
    let house = House::new();
    let (known, other) = (house.mint("ada").await, house.mint("ada").await);
    assert!(house.verify(&known).await.is_ok());
    house.store.down.store(true, Ordering::Relaxed);
    assert!(house.verify(&known).await.is_ok());
    let gate = ApiKeyLayer::new(house.keys.clone()).with_context(house.context.clone());
    let response = send(&gate, |request| {
        request.header("x-api-key", other.key().expose())
    });
    let response = response.await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(house.count(EventKind::StoreUnavailable), 1);
}

#[tokio::test]
async fn the_layer_takes_a_key_from_its_two_places_and_no_other() {
    let house = House::new();
    let key = house.mint("ada").await;
    let text = key.key().expose();
    let gate = ApiKeyLayer::new(house.keys.clone()).with_context(house.context.clone());
    let status = async |headers: &[(&str, &str)]| {
        let response = send(&gate, |request| {
            headers.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            })
        })
        .await;
        let challenge = response.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), challenge.unwrap_or_default())
    };
    let bearer = format!("Bearer {text}");
    let (ok, missing) = ((200, String::new()), (401, "Bearer".to_owned()));
    let invalid = (401, "Bearer error=\"invalid_token\"".to_owned());
    let several = (400, "Bearer error=\"invalid_request\"".to_owned());
    // The first of them from the store, the rest from what is remembered.
    assert_eq!(status(&[("authorization", &bearer)]).await, ok);
    assert_eq!(
        status(&[("authorization", &format!("bEARER   {text}"))]).await,
        ok
    );
    assert_eq!(status(&[("x-api-key", text)]).await, ok);

    assert_eq!(status(&[]).await, missing);
    assert_eq!(status(&[("authorization", text)]).await, missing);
    assert_eq!(
        status(&[("authorization", "Bearer eyJ.e.s")]).await,
        missing
    );
    assert_eq!(status(&[("x-api-key", "")]).await, invalid);
    assert_eq!(status(&[("x-api-key", &text[1..])]).await, invalid);
    assert_eq!(
        status(&[("authorization", &bearer[..bearer.len() - 1])]).await,
        invalid
    );
    let pair = [("x-api-key", text), ("authorization", &*bearer)];
    assert_eq!(status(&pair).await, several);
    assert_eq!(status(&[pair[0], pair[0]]).await, several);
    assert_eq!(status(&[pair[1], pair[1]]).await, several);
    assert_eq!(
        status(&[pair[0], ("authorization", "Bearer eyJ.e.s")]).await,
        several
    );
    let reads = house.store.reads();
    let query = Request::get(format!("/?api_key={text}"))
        .body(Full::default())
        .unwrap();
    let response = gate.layer(service_fn(answer)).oneshot(query).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let long = "pk_dev_".repeat(1_500);
    assert_eq!(status(&[("x-api-key", &long)]).await, invalid);
    assert_eq!(house.store.reads(), reads);
    assert!(house.count(EventKind::ApiKeyRefused) >= 1);
}

#[tokio::test]
async fn handlers_see_who_it_is_and_the_key_may_be_taken_away() {
    let house = House::new();
    let ada = house.login("ada").with_scopes(["read"]);
    let new = NewApiKey::new("k").with_limit(7);
    let key = house.keys.create(&ada, new).await.unwrap();
    for remove in [false, true] {
        let gate = ApiKeyLayer::new(house.keys.clone());
        let gate = if remove {
            gate.with_key_removed()
        } else {
            gate
        };
        let seen = Arc::new(Mutex::new(None));
        let handler = {
            let seen = seen.clone();
            service_fn(move |request: Request<Full<Bytes>>| {
                let identity = request.extensions().get::<Identity>().cloned().unwrap();
                let used = request.extensions().get::<UsedKey>().cloned().unwrap();
                let headers = request.headers();
                let has_key =
                    headers.contains_key("authorization") || headers.contains_key("x-api-key");
                *seen.lock().unwrap() = Some((identity, used, has_key));
                answer(request)
            })
        };
        let request = Request::get("/")
            .header("authorization", format!("Bearer {}", key.key().expose()))
            .body(Full::default());
        gate.layer(handler.clone())
            .oneshot(request.unwrap())
            .await
            .unwrap();
        let (identity, used, has_key) = seen.lock().unwrap().take().unwrap();
        assert_eq!(identity.kind(), IdentityKind::ApiKey);
        assert_eq!(identity.subject(), "ada");
        assert_eq!(identity.token(), Some(key.record().id.as_str()));
        assert!(identity.has_scope("read"));
        assert_eq!(identity.expires_at(), Some(key.record().expires_at));
        assert_eq!(used.limit, Some(7));
        assert_eq!(has_key, !remove);
        let request = Request::get("/").header("x-api-key", key.key().expose());
        let request = request.body(Full::default()).unwrap();
        gate.layer(handler).oneshot(request).await.unwrap();
        let (_, _, has_key) = seen.lock().unwrap().take().unwrap();
        assert_eq!(has_key, !remove);
    }
}

#[tokio::test]
async fn an_optional_gate_leaves_other_requests_to_the_next() {
    let house = House::new();
    let key = house.mint("ada").await;
    let gate = ApiKeyLayer::new(house.keys.clone()).optional();
    let token = send(&gate, |request| {
        request.header("authorization", "Bearer eyJ.e.s")
    });
    assert_eq!(token.await.status(), StatusCode::OK);
    assert_eq!(
        send(&gate, |request| request).await.status(),
        StatusCode::OK
    );
    let text = key.key().expose();
    let cut = send(&gate, |request| request.header("x-api-key", &text[..40]));
    assert_eq!(cut.await.status(), StatusCode::UNAUTHORIZED);
}

#[cfg(all(feature = "jwt", feature = "aws-lc-rs"))]
#[tokio::test]
async fn a_route_takes_a_key_or_a_token() {
    use portcullis::jwt::{AccessToken, Algorithm, Issuer, JwtLayer, KeySet, SigningKey, Verifier};

    let house = House::new();
    let key = house.mint("ada").await;
    let secret = portcullis::Secret::generate();
    let signing = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
    let issuer = Issuer::new(signing, "iss", "aud").unwrap();
    let token = issuer
        .issue(&AccessToken::new("bob"), Context::new().wall())
        .unwrap();
    let keys = KeySet::from_secrets(Algorithm::HS256, &secret.into()).unwrap();
    let jwt = JwtLayer::new(Verifier::new(keys, "iss", "aud").unwrap());
    let gate = ApiKeyLayer::new(house.keys.clone()).optional();
    let service = gate.layer(jwt.layer(service_fn(answer)));
    let status = async |credential: &str| {
        let request = Request::get("/").header("authorization", format!("Bearer {credential}"));
        let request = request.body(Full::default()).unwrap();
        service.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(status(key.key().expose()).await, StatusCode::OK);
    assert_eq!(status(token.as_str()).await, StatusCode::OK);
    assert_eq!(status("eyJ.e.s").await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        status(&key.key().expose()[..40]).await,
        StatusCode::UNAUTHORIZED
    );
}

#[cfg(feature = "rate-limit")]
#[tokio::test]
async fn each_key_has_the_limit_it_was_given() {
    use portcullis::rate_limit::{Key, Policy, RateLimitLayer};

    let house = House::new();
    let ada = house.login("ada");
    let small = NewApiKey::new("k").with_limit(2);
    let small = house.keys.create(&ada, small).await.unwrap();
    let large = house.keys.create(&ada, NewApiKey::new("k")).await.unwrap();
    let policy = Policy::strict("key", 5, HOUR)
        .unwrap()
        .by(|head| Some(Key::of(head.extensions.get::<Identity>()?.token()?)))
        .with_quota(|head| head.extensions.get::<UsedKey>()?.limit);
    let limits = RateLimitLayer::new([policy]);
    let service = ApiKeyLayer::new(house.keys.clone()).layer(limits.layer(service_fn(answer)));
    for (key, admitted) in [(small, 2), (large, 5)] {
        for call in 0..7 {
            let request = Request::get("/").header("x-api-key", key.key().expose());
            let response = service
                .clone()
                .oneshot(request.body(Full::default()).unwrap());
            let expected = if call < admitted { 200 } else { 429 };
            assert_eq!(response.await.unwrap().status(), expected, "{call}");
        }
    }
}

#[test]
fn nothing_shows_a_key() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let house = House::new();
        let key = house.mint("ada").await;
        let secret = &key.key().expose()[20..];
        let used = house.verify(&key).await.unwrap();
        let stored = house.store.get(key.record().id).await.unwrap();
        let shown = format!(
            "{key:?} {:?} {used:?} {stored:?} {:?}",
            key.key(),
            house.keys
        );
        assert!(!shown.contains(secret));
    });
}

async fn send(
    gate: &ApiKeyLayer,
    build: impl FnOnce(http::request::Builder) -> http::request::Builder,
) -> Response<Full<Bytes>> {
    let peer = Peer::new("192.0.2.1:4711".parse().unwrap());
    let request = build(Request::get("/").extension(peer));
    let request = request.body(Full::default()).unwrap();
    let mut service = gate.layer(service_fn(answer));
    service.ready().await.unwrap().call(request).await.unwrap()
}

async fn answer(
    _: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    Ok(Response::new(Full::default()))
}

struct House {
    keys: ApiKeys,
    store: Arc<Watched>,
    clock: ManualClock,
    context: Context,
    events: Arc<Mutex<Vec<EventKind>>>,
}

impl House {
    fn new() -> Self {
        let clock = ManualClock::new();
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let context = Context::new().with_clock(clock.clone()).with_events_inline(
            move |event: &SecurityEvent| sink.lock().unwrap().push(event.kind()),
        );
        let store = Arc::new(Watched::default());
        let keys = ApiKeys::new(store.clone(), "dev").unwrap();
        Self {
            keys: keys.with_context(context.clone()),
            store,
            clock,
            context,
            events,
        }
    }

    fn now(&self) -> UnixMillis {
        self.context.wall()
    }

    fn login(&self, subject: &str) -> Identity {
        Identity::new(IdentityKind::AccessToken, subject).with_auth_time(self.now())
    }

    async fn mint(&self, subject: &str) -> MintedKey {
        let new = NewApiKey::new("a key");
        self.keys.create(&self.login(subject), new).await.unwrap()
    }

    /// Of as many users as it takes.
    async fn mint_many(&self, count: usize) -> Vec<MintedKey> {
        let mut keys = Vec::with_capacity(count);
        for number in 0..count {
            keys.push(self.mint(&format!("user-{}", number / 25)).await);
        }
        keys
    }

    async fn verify(&self, key: &MintedKey) -> Result<UsedKey, ApiKeyError> {
        self.keys.verify(key.key().expose(), None).await
    }

    fn count(&self, kind: EventKind) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| **event == kind).count()
    }
}

/// A store that counts, can be away, and can hold an answer back.
#[derive(Default)]
struct Watched {
    inner: MemoryKeys,
    down: AtomicBool,
    reads: AtomicUsize,
    touches: AtomicUsize,
    get_hold: Hold,
    touch_hold: Hold,
}

type Ends = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// Where a call of the store waits, once, until it is let go on.
#[derive(Default)]
struct Hold(Mutex<Option<Ends>>);

impl Hold {
    /// The next call is held: what tells that it is here, and what lets it go on.
    fn next(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (reached, wait) = oneshot::channel();
        let (go_on, held) = oneshot::channel();
        *self.0.lock().unwrap() = Some((reached, held));
        (wait, go_on)
    }

    async fn pass(&self) {
        let held = self.0.lock().unwrap().take();
        if let Some((reached, held)) = held {
            reached.send(()).unwrap();
            held.await.unwrap();
        }
    }
}

impl Watched {
    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn touches(&self) -> usize {
        self.touches.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(StoreErrorKind::Unavailable.into()),
            false => Ok(()),
        }
    }
}

impl ApiKeyStore for Watched {
    async fn create(&self, key: StoredKey, most: usize) -> Result<CreateOutcome, StoreError> {
        self.check()?;
        self.inner.create(key, most).await
    }

    async fn get(&self, id: ApiKeyId) -> Result<Option<StoredKey>, StoreError> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.inner.get(id).await;
        self.get_hold.pass().await;
        found
    }

    async fn list(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        self.inner.list(subject, now, limit).await
    }

    async fn rotate(&self, rotation: KeyRotation) -> Result<RotateOutcome, StoreError> {
        self.inner.rotate(rotation).await
    }

    async fn revoke(
        &self,
        id: ApiKeyId,
        subject: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        self.inner.revoke(id, subject, now).await
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        now: UnixMillis,
    ) -> Result<Vec<ApiKeyId>, StoreError> {
        self.inner.revoke_subject(subject, now).await
    }

    async fn ended_since(&self, since: UnixMillis) -> Result<Vec<ApiKeyId>, StoreError> {
        self.inner.ended_since(since).await
    }

    async fn touch(&self, used: &[(ApiKeyId, UnixMillis)]) -> Result<(), StoreError> {
        self.touch_hold.pass().await;
        self.check()?;
        self.touches.fetch_add(1, Ordering::Relaxed);
        self.inner.touch(used).await
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        self.inner.delete_expired(before, limit).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.check()?;
        self.inner.health().await
    }
}
