//! What every store of API keys must keep to, as cases that its author runs. Feature `test-suite`.
//!
//! ```
//! use portcullis::api_key::{MemoryKeys, conformance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // In a test; each case gets an empty store of its own.
//! conformance::check(|| async { MemoryKeys::new() }).await;
//! # }
//! ```

use std::{sync::Arc, time::Duration};

use super::{
    format::{ApiKeyDigest, ApiKeyId},
    record::{ApiKeyRecord, StoredKey},
    store::{ApiKeyStore, CreateOutcome, KeyRotation, RotateOutcome, StoreErrorKind},
};
use crate::time::UnixMillis;

/// Runs all cases. New ones may come in a minor version.
///
/// # Panics
/// With the promise that the store breaks. It needs a tokio runtime, best one of several threads.
pub async fn check<S, F>(fresh: impl Fn() -> F)
where
    S: ApiKeyStore,
    F: Future<Output = S>,
{
    macro_rules! cases {
        ($($case:ident: $promise:literal;)*) => {$(
            if let Err(seen) = $case(Arc::new(fresh().await)).await {
                panic!("the store breaks a promise: {} ({seen})", $promise);
            }
        )*};
    }
    cases! {
        what_was_added_is_there: "what `create` added is there, as it was given";
        ids_are_taken_once: "`create` and `rotate` refuse an id that is taken, and change nothing";
        users_are_capped: "`create` adds nothing where the subject has as many live keys as he may";
        replaced_keys_take_no_place: "a replaced key does not count where `create` counts";
        racing_makers_are_capped: "counting and adding are one step";
        lists_are_exact: "`list` shows the subject's live keys, the latest first";
        rotation_replaces: "`rotate` adds the new key and ends the old one no later than it would end";
        rotation_is_the_owners: "`rotate` takes a live key of the subject that was not replaced";
        one_rotation_succeeds: "of two rotations of a key, one succeeds";
        replaced_keys_are_capped: "`rotate` adds nothing where too many replaced keys are live";
        revocation_is_final: "`revoke` ends a live key of the subject, once";
        all_of_a_subject_are_revoked: "`revoke_subject` ends the subject's live keys and no others";
        ends_are_told: "`ended_since` tells every revocation and replacement at that time or later";
        uses_are_noted: "`touch` notes the latest use, and passes over what is gone";
        clearing_spares_the_live: "`delete_expired` clears what is over, boundedly, and nothing live";
        time_is_an_argument: "a store looks at no clock of its own";
    }
}

type Seen = Result<(), String>;

macro_rules! expect {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) if left == right => {}
            (left, right) => {
                return Err(format!("{}: {left:?} is not {right:?}", stringify!($left)))
            }
        }
    };
}

async fn what_was_added_is_there<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let mut key = key("ada", 0);
    key.record.name = "Ω — 'quoted' \"name\"; DROP TABLE".into();
    key.record.scopes = vec!["a".into(), "b:c".into()];
    key.record.networks = ["198.51.100.0/24", "2001:db8::/32"]
        .map(|network| network.parse().expect("it is a network"))
        .to_vec();
    key.record.limit = Some(u32::MAX);
    add(&*store, &key).await?;
    let bare = self::key("", 1);
    add(&*store, &bare).await?;
    expect!(get(&*store, key.record.id).await?, Some(key.clone()));
    expect!(get(&*store, bare.record.id).await?, Some(bare.clone()));
    expect!(get(&*store, ApiKeyId::generate()).await?, None);
    done(store.health().await)
}

async fn ids_are_taken_once<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let (first, other) = (key("ada", 0), key("bob", 1));
    add(&*store, &first).await?;
    add(&*store, &other).await?;
    let mut second = key("bob", 5);
    second.record.id = first.record.id;
    let refused = store.create(second.clone(), 10).await;
    expect!(
        refused.map_err(|error| error.kind()),
        Err(StoreErrorKind::Conflict)
    );
    let refused = store.rotate(rotation(&other, &second, 60)).await;
    expect!(
        refused.map_err(|error| error.kind()),
        Err(StoreErrorKind::Conflict)
    );
    expect!(get(&*store, first.record.id).await?, Some(first.clone()));
    expect!(get(&*store, other.record.id).await?, Some(other.clone()));
    Ok(())
}

async fn users_are_capped<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let keys = [key("ada", 0), key("ada", 1), key("ada", 2)];
    for key in &keys {
        expect!(
            done(store.create(key.clone(), 3).await)?,
            CreateOutcome::Created
        );
    }
    expect!(
        done(store.create(key("ada", 3), 3).await)?,
        CreateOutcome::TooMany
    );
    expect!(
        done(store.create(key("bob", 3), 3).await)?,
        CreateOutcome::Created
    );
    // One that ended gives its place back.
    let revoked = store.revoke(keys[0].record.id, "ada", at(4)).await;
    expect!(done(revoked)?, true);
    expect!(
        done(store.create(key("ada", 5), 3).await)?,
        CreateOutcome::Created
    );
    expect!(
        done(store.create(key("ada", 6), 3).await)?,
        CreateOutcome::TooMany
    );
    expect!(
        done(store.create(key("ada", LIFE), 3).await)?,
        CreateOutcome::TooMany
    );
    expect!(
        done(store.create(key("ada", LIFE + 1), 3).await)?,
        CreateOutcome::Created
    );
    Ok(())
}

async fn replaced_keys_take_no_place<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let (old, new) = (key("ada", 0), key("ada", 1));
    add(&*store, &old).await?;
    done(store.rotate(rotation(&old, &new, LIFE)).await)?;
    let refused = done(store.create(key("ada", 2), 1).await)?;
    expect!(refused, CreateOutcome::TooMany);
    expect!(done(store.revoke(new.record.id, "ada", at(3)).await)?, true);
    let created = done(store.create(key("ada", 4), 1).await)?;
    expect!(created, CreateOutcome::Created);
    Ok(())
}

async fn racing_makers_are_capped<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let makers = (0..16).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.create(key("ada", 0), 5).await })
    });
    let mut made = 0;
    for maker in makers.collect::<Vec<_>>() {
        made += usize::from(done(join(maker.await)?)? == CreateOutcome::Created);
    }
    expect!(made, 5);
    Ok(())
}

async fn lists_are_exact<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let keys = [key("ada", 0), key("ada", 1), key("ada", 2), key("ada", 3)];
    for key in &keys {
        add(&*store, key).await?;
    }
    add(&*store, &key("bob", 4)).await?;
    done(store.revoke(keys[1].record.id, "ada", at(5)).await)?;
    let ids = async |now, limit| {
        let keys = done(store.list("ada", at(now), limit).await)?;
        Ok::<_, String>(keys.iter().map(|key| key.id).collect::<Vec<_>>())
    };
    let [first, _, third, fourth] = keys.each_ref().map(|key| key.record.id);
    expect!(ids(6, 10).await?, vec![fourth, third, first]);
    expect!(ids(6, 2).await?, vec![fourth, third]);
    expect!(ids(LIFE - 1, 10).await?, vec![fourth, third, first]);
    expect!(ids(LIFE, 10).await?, vec![fourth, third]);
    expect!(done(store.list("eve", at(6), 10).await)?, vec![]);
    Ok(())
}

async fn rotation_replaces<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    for (overlap, end) in [(60, 70), (LIFE, LIFE), (0, 10)] {
        let (old, mut new) = (key("ada", 0), key("ada", 10));
        new.record.replaces = Some(old.record.id);
        add(&*store, &old).await?;
        let rotated = store.rotate(rotation(&old, &new, overlap)).await;
        expect!(done(rotated)?, RotateOutcome::Rotated);
        expect!(get(&*store, new.record.id).await?, Some(new.clone()));
        let found = get(&*store, old.record.id)
            .await?
            .ok_or("the old key is gone")?;
        expect!(found.record.expires_at, at(end));
        expect!(found.record.is_replaced, true);
        expect!(found.digest, old.digest);
    }
    Ok(())
}

async fn rotation_is_the_owners<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let (old, gone) = (key("ada", 0), key("ada", 1));
    add(&*store, &old).await?;
    add(&*store, &gone).await?;
    done(store.revoke(gone.record.id, "ada", at(2)).await)?;
    let refused = async |old: &StoredKey, new: &StoredKey| {
        let outcome = done(store.rotate(rotation(old, new, 60)).await)?;
        expect!(outcome, RotateOutcome::NotFound);
        expect!(get(&*store, new.record.id).await?, None);
        Ok(())
    };
    refused(&old, &key("bob", 10)).await?;
    refused(&gone, &key("ada", 10)).await?;
    refused(&key("ada", 0), &key("ada", 10)).await?;
    refused(&old, &key("ada", LIFE)).await?;
    done(store.rotate(rotation(&old, &key("ada", 10), 60)).await)?;
    refused(&old, &key("ada", 11)).await
}

async fn one_rotation_succeeds<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let old = key("ada", 0);
    add(&*store, &old).await?;
    let callers = (0..8).map(|_| {
        let (store, rotation) = (store.clone(), rotation(&old, &key("ada", 10), 60));
        tokio::spawn(async move { store.rotate(rotation).await })
    });
    let mut rotated = 0;
    for caller in callers.collect::<Vec<_>>() {
        rotated += usize::from(done(join(caller.await)?)? == RotateOutcome::Rotated);
    }
    expect!(rotated, 1);
    expect!(done(store.list("ada", at(11), 20).await)?.len(), 2);
    Ok(())
}

async fn replaced_keys_are_capped<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let mut old = key("ada", 0);
    add(&*store, &old).await?;
    for second in 1..=3 {
        let new = key("ada", second);
        let outcome = done(store.rotate(rotation(&old, &new, 60)).await)?;
        expect!(outcome, RotateOutcome::Rotated);
        old = new;
    }
    let refused = key("ada", 4);
    let outcome = done(store.rotate(rotation(&old, &refused, 60)).await)?;
    expect!(outcome, RotateOutcome::TooMany);
    expect!(get(&*store, refused.record.id).await?, None);
    expect!(get(&*store, old.record.id).await?, Some(old.clone()));
    let later = done(store.rotate(rotation(&old, &key("ada", 62), 60)).await)?;
    expect!(later, RotateOutcome::Rotated);
    Ok(())
}

async fn revocation_is_final<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let key = key("ada", 0);
    let id = key.record.id;
    add(&*store, &key).await?;
    expect!(done(store.revoke(id, "bob", at(1)).await)?, false);
    expect!(get(&*store, id).await?, Some(key.clone()));
    expect!(done(store.revoke(id, "ada", at(2)).await)?, true);
    expect!(done(store.revoke(id, "ada", at(3)).await)?, false);
    let found = get(&*store, id).await?.ok_or("the key is gone")?;
    expect!(found.record.revoked_at, Some(at(2)));
    expect!(
        done(store.revoke(ApiKeyId::generate(), "ada", at(2)).await)?,
        false
    );
    Ok(())
}

async fn all_of_a_subject_are_revoked<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let keys = [key("ada", 0), key("ada", 1), key("ada", 2), key("bob", 3)];
    for key in &keys {
        add(&*store, key).await?;
    }
    let [first, second, third, bobs] = keys.each_ref().map(|key| key.record.id);
    done(store.revoke(first, "ada", at(4)).await)?;
    let mut revoked = done(store.revoke_subject("ada", at(5)).await)?;
    revoked.sort();
    let mut expected = vec![second, third];
    expected.sort();
    expect!(revoked, expected);
    for (id, at) in [(first, Some(at(4))), (third, Some(at(5))), (bobs, None)] {
        let found = get(&*store, id).await?.ok_or("a key is gone")?;
        expect!(found.record.revoked_at, at);
    }
    expect!(done(store.revoke_subject("ada", at(6)).await)?, vec![]);
    Ok(())
}

async fn ends_are_told<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let keys = [key("ada", 0), key("ada", 1), key("ada", 2), key("bob", 3)];
    for key in &keys {
        add(&*store, key).await?;
    }
    let [first, second, third, bobs] = keys.each_ref().map(|key| key.record.id);
    expect!(done(store.ended_since(at(0)).await)?, vec![]);
    done(store.revoke(first, "ada", at(4)).await)?;
    done(store.revoke_subject("bob", at(5)).await)?;
    let mut new = key("ada", 6);
    new.record.replaces = Some(second);
    done(store.rotate(rotation(&keys[1], &new, 60)).await)?;
    for (since, mut wanted) in [
        (at(0), vec![first, bobs, second]),
        (at(5), vec![bobs, second]),
        (at(6), vec![second]),
        (at(7), vec![]),
    ] {
        let mut told = done(store.ended_since(since).await)?;
        told.sort();
        wanted.sort();
        expect!(told, wanted);
    }
    expect!(get(&*store, third).await?, Some(keys[2].clone()));
    Ok(())
}

async fn uses_are_noted<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let (one, two) = (key("ada", 0), key("ada", 1));
    add(&*store, &one).await?;
    add(&*store, &two).await?;
    let gone = ApiKeyId::generate();
    for (used, last) in [(7, 7), (9, 9), (8, 9)] {
        done(
            store
                .touch(&[(one.record.id, at(used)), (gone, at(used))])
                .await,
        )?;
        let found = get(&*store, one.record.id)
            .await?
            .ok_or("the key is gone")?;
        expect!(found.record.last_used_at, Some(at(last)));
    }
    done(store.touch(&[]).await)?;
    expect!(get(&*store, two.record.id).await?, Some(two.clone()));
    expect!(get(&*store, gone).await?, None);
    Ok(())
}

async fn clearing_spares_the_live<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    let keys = [
        key("ada", 0),
        key("ada", 1),
        key("ada", 2),
        key("bob", LIFE),
    ];
    for key in &keys {
        add(&*store, key).await?;
    }
    done(store.revoke(keys[2].record.id, "ada", at(5)).await)?;
    expect!(done(store.delete_expired(at(5), 10).await)?, 0);
    expect!(done(store.delete_expired(at(6), 10).await)?, 1);
    expect!(get(&*store, keys[2].record.id).await?, None);
    expect!(done(store.delete_expired(at(LIFE), 10).await)?, 0);
    expect!(done(store.delete_expired(at(2 * LIFE), 1).await)?, 1);
    expect!(done(store.delete_expired(at(2 * LIFE), 10).await)?, 1);
    expect!(
        get(&*store, keys[3].record.id).await?,
        Some(keys[3].clone())
    );
    Ok(())
}

async fn time_is_an_argument<S: ApiKeyStore>(store: Arc<S>) -> Seen {
    // Long over by any clock of today, and live at the time of the calls.
    let mut old = key("ada", 0);
    old.record.created_at = UnixMillis::from_secs(1_000);
    old.record.expires_at = UnixMillis::from_secs(2_000);
    add(&*store, &old).await?;
    let now = UnixMillis::from_secs(1_500);
    expect!(get(&*store, old.record.id).await?, Some(old.clone()));
    expect!(
        done(store.list("ada", now, 10).await)?,
        vec![old.record.clone()]
    );
    expect!(done(store.revoke(old.record.id, "ada", now).await)?, true);
    Ok(())
}

async fn add<S: ApiKeyStore>(store: &S, key: &StoredKey) -> Seen {
    match done(store.create(key.clone(), usize::MAX).await)? {
        CreateOutcome::Created => Ok(()),
        outcome => Err(format!("`create` answers {outcome:?}")),
    }
}

async fn get<S: ApiKeyStore>(store: &S, id: ApiKeyId) -> Result<Option<StoredKey>, String> {
    done(store.get(id).await)
}

fn done<T, E: std::fmt::Debug>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("it fails: {error:?}"))
}

fn join<T>(joined: Result<T, tokio::task::JoinError>) -> Result<T, String> {
    joined.map_err(|_| "it panics".into())
}

/// A key that is made at that second, and lives for [`LIFE`] seconds.
fn key(subject: &str, second: u64) -> StoredKey {
    let id = ApiKeyId::generate();
    StoredKey {
        record: ApiKeyRecord {
            id,
            subject: subject.into(),
            name: "a key".into(),
            scopes: Vec::new(),
            networks: Vec::new(),
            limit: None,
            created_at: at(second),
            expires_at: at(second + LIFE),
            last_used_at: None,
            replaces: None,
            is_replaced: false,
            revoked_at: None,
        },
        digest: ApiKeyDigest::from_bytes(crate::secret::random()),
    }
}

fn rotation(old: &StoredKey, new: &StoredKey, overlap: u64) -> KeyRotation {
    KeyRotation {
        old: old.record.id,
        old_end: new
            .record
            .created_at
            .saturating_add(Duration::from_secs(overlap)),
        new: new.clone(),
        most: 3,
    }
}

fn at(second: u64) -> UnixMillis {
    UnixMillis::from_secs(2_000_000_000).saturating_add(Duration::from_secs(second))
}

const LIFE: u64 = 1_000;
