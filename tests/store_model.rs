//! Random operations on every store beside a reference map: each answer is the same.
#![cfg(feature = "test-suite")]

#[path = "../examples/custom_store.rs"]
#[allow(dead_code, reason = "a program of its own")]
mod custom_store;
mod support;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use custom_store::MapStore;
use portcullis::{
    refresh_token::{
        CreateOutcome, Device, EndReason, KeyId, Lineage, MemoryStore, NewSession,
        RefreshTokenStore, RotateOutcome, Rotation, Seed, SessionId, SessionRecord, TokenDigest,
    },
    time::UnixMillis,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

const SUBJECTS: [&str; 3] = ["user-1", "user-1\u{1}", "użytkownik"];
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug)]
enum Op {
    Create {
        subject: usize,
        epoch: Epoch,
    },
    /// The id of a session that is there.
    CreateAgain(usize),
    Rotate {
        session: usize,
        token: Token,
        idle: Duration,
        age: Duration,
        client: bool,
    },
    Revoke(usize, EndReason),
    RevokeSubject {
        subject: usize,
        except: Option<usize>,
        reason: EndReason,
    },
    Get(usize),
    List(usize, usize),
    RevokedSince(Duration),
    DeleteExpired(Duration),
    Pass(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Epoch {
    Held,
    Before,
    Next,
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Current,
    Previous,
    OfAnother,
    FromTheFuture,
}

fn op() -> impl Strategy<Value = Op> {
    let subject = 0..SUBJECTS.len();
    let session = 0..8_usize;
    let reason = prop::sample::select(EndReason::ALL);
    let epoch = prop::sample::select(vec![Epoch::Held, Epoch::Held, Epoch::Before, Epoch::Next]);
    let token = prop::sample::select(vec![
        Token::Current,
        Token::Current,
        Token::Previous,
        Token::OfAnother,
        Token::FromTheFuture,
    ]);
    let span = prop::sample::select(vec![
        Duration::ZERO,
        Duration::from_millis(1),
        HOUR,
        DAY,
        6 * DAY,
    ]);
    prop_oneof![
        4 => (subject.clone(), epoch).prop_map(|(subject, epoch)| Op::Create { subject, epoch }),
        1 => session.clone().prop_map(Op::CreateAgain),
        10 => (session.clone(), token, prop::sample::select(vec![HOUR, 7 * DAY, 40 * DAY]), prop::sample::select(vec![Duration::ZERO, HOUR]), any::<bool>())
            .prop_map(|(session, token, idle, age, client)| Op::Rotate { session, token, idle, age, client }),
        2 => (session.clone(), reason.clone()).prop_map(|(session, reason)| Op::Revoke(session, reason)),
        1 => (subject.clone(), prop::option::of(session.clone()), reason)
            .prop_map(|(subject, except, reason)| Op::RevokeSubject { subject, except, reason }),
        2 => session.prop_map(Op::Get),
        2 => (subject, 0..6_usize).prop_map(|(subject, limit)| Op::List(subject, limit)),
        1 => span.clone().prop_map(Op::RevokedSince),
        2 => span.clone().prop_map(Op::DeleteExpired),
        4 => span.prop_map(Op::Pass),
    ]
}

/// What was given to both, and the time that both are told.
struct Run<'a, S> {
    store: &'a S,
    map: MapStore,
    now: UnixMillis,
    ids: Vec<SessionId>,
    /// The state of the tokens of a session that was rotated or refused.
    seen: BTreeMap<SessionId, (u64, TokenDigest)>,
    count: u64,
}

impl<S: RefreshTokenStore> Run<'_, S> {
    fn bytes(&mut self) -> [u8; 32] {
        self.count += 1;
        // Any byte may be in a digest.
        let mut bytes = [(self.count * 37) as u8; 32];
        bytes[..8].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    fn id(&self, index: usize) -> SessionId {
        let unknown = SessionId::from_bytes([7; 16]);
        let count = self.ids.len().max(1);
        self.ids.get(index % count).copied().unwrap_or(unknown)
    }

    fn session(&mut self, id: SessionId, subject: &str, epoch: u64) -> NewSession {
        let token = TokenDigest::from_bytes(self.bytes());
        NewSession {
            record: SessionRecord {
                id,
                subject: subject.into(),
                created_at: self.now,
                last_used_at: self.now,
                expires_at: self.now.saturating_add(7 * DAY),
                absolute_end: self.now.saturating_add(30 * DAY),
                device: Device::new().with_label("łódź"),
                ended: None,
            },
            epoch,
            token,
            key: KeyId::new(u32::MAX - self.count as u32),
        }
    }

    /// The end of a subject's epoch may be forgotten sooner or later, but not too soon.
    async fn settle_epochs(&self, before: UnixMillis) {
        for subject in SUBJECTS {
            let told = self.store.epoch(subject).await.unwrap();
            let mut state = self.map.state();
            let held = state.epochs.get(subject).copied().unwrap_or(0);
            if told != held {
                let mut records = state.sessions.values();
                assert!(told == 0 && (held as i64) < before.as_millis());
                assert!(records.all(|(record, _)| record.subject != subject));
                state.epochs.remove(subject);
            }
        }
    }

    async fn step(&mut self, op: Op) {
        let (store, now) = (self.store, self.now);
        match op {
            Op::Pass(span) => self.now = now.saturating_add(span),
            Op::Create { subject, epoch } => {
                // How two that began at one time are listed is not promised.
                self.now = now.saturating_add(Duration::from_millis(1));
                let subject = SUBJECTS[subject];
                let held = store.epoch(subject).await.unwrap();
                assert_eq!(held, self.map.epoch(subject).await.unwrap());
                let epoch = match epoch {
                    Epoch::Held => held,
                    Epoch::Before => held.saturating_sub(1),
                    Epoch::Next => held + 1,
                };
                let id = SessionId::generate(subject);
                let session = self.session(id, subject, epoch);
                self.seen.insert(id, (0, session.token));
                let told = store.create(session.clone()).await.unwrap();
                assert_eq!(told, self.map.create(session).await.unwrap());
                if told == CreateOutcome::Created {
                    self.ids.push(id);
                }
            }
            Op::CreateAgain(index) => {
                let id = self.id(index);
                let kept = self.map.get(id).await.unwrap();
                let Some(kept) = kept else { return };
                let epoch = store.epoch(&kept.subject).await.unwrap();
                let session = self.session(id, &kept.subject, epoch);
                let told = store.create(session.clone()).await.unwrap_err();
                let wanted = self.map.create(session).await.unwrap_err();
                assert_eq!(told.kind(), wanted.kind());
            }
            Op::Rotate {
                session,
                token,
                idle,
                age,
                client,
            } => {
                let id = self.id(session);
                let other = TokenDigest::from_bytes(self.bytes());
                let (generation, current) = self.seen.get(&id).copied().unwrap_or((0, other));
                let (generation, presented) = match token {
                    Token::Current => (generation, current),
                    Token::Previous => (generation.saturating_sub(1), other),
                    Token::OfAnother => (generation, other),
                    Token::FromTheFuture => (u64::MAX, current),
                };
                let rotation = Rotation {
                    id,
                    generation,
                    presented,
                    next: TokenDigest::from_bytes(self.bytes()),
                    seed: Seed::from_bytes(self.bytes()),
                    key: KeyId::new(self.count as u32),
                    now,
                    not_made_after: now.saturating_sub(age),
                    idle_end: now.saturating_add(idle),
                    client: client.then(|| IpAddr::from([203, 0, 113, self.count as u8])),
                };
                let told = store.rotate(rotation.clone()).await.unwrap();
                let wanted = self.map.rotate(rotation.clone()).await.unwrap();
                assert_eq!(told, wanted, "{rotation:?}");
                match told {
                    RotateOutcome::Rotated(_) => {
                        self.seen.insert(id, (generation + 1, rotation.next));
                    }
                    RotateOutcome::Stale(
                        _,
                        Lineage {
                            generation,
                            current,
                            ..
                        },
                    ) => {
                        self.seen.insert(id, (generation, current));
                    }
                    _ => {}
                }
            }
            Op::Revoke(session, reason) => {
                let id = self.id(session);
                let told = store.revoke(id, reason, now).await.unwrap();
                assert_eq!(told, self.map.revoke(id, reason, now).await.unwrap());
            }
            Op::RevokeSubject {
                subject,
                except,
                reason,
            } => {
                let (subject, except) = (SUBJECTS[subject], except.map(|index| self.id(index)));
                let told = store.revoke_subject(subject, except, reason, now);
                let mut told = told.await.unwrap();
                let wanted = self.map.revoke_subject(subject, except, reason, now);
                let mut wanted = wanted.await.unwrap();
                told.ended.sort();
                wanted.ended.sort();
                assert_eq!(told, wanted);
            }
            Op::Get(session) => {
                let id = self.id(session);
                let told = store.get(id).await.unwrap();
                assert_eq!(told, self.map.get(id).await.unwrap());
            }
            Op::List(subject, limit) => {
                let told = store.list_subject(SUBJECTS[subject], now, limit).await;
                let wanted = self.map.list_subject(SUBJECTS[subject], now, limit);
                assert_eq!(told.unwrap(), wanted.await.unwrap());
            }
            Op::RevokedSince(span) => {
                let since = now.saturating_sub(span);
                let mut told = store.revoked_since(since).await.unwrap();
                let mut wanted = self.map.revoked_since(since).await.unwrap();
                told.sort_by_key(|(id, _)| *id);
                wanted.sort_by_key(|(id, _)| *id);
                assert_eq!(told, wanted);
            }
            Op::DeleteExpired(span) => {
                let before = now.saturating_sub(span);
                let told = store.delete_expired(before, 1_000).await.unwrap();
                assert_eq!(told, self.map.delete_expired(before, 1_000).await.unwrap());
                self.settle_epochs(before).await;
            }
        }
    }

    /// At the end, all that is left is the same.
    async fn compare(&self) {
        for id in &self.ids {
            let told = self.store.get(*id).await.unwrap();
            assert_eq!(told, self.map.get(*id).await.unwrap());
        }
        for subject in SUBJECTS {
            let told = self.store.list_subject(subject, self.now, 100).await;
            let wanted = self.map.list_subject(subject, self.now, 100);
            assert_eq!(told.unwrap(), wanted.await.unwrap());
        }
    }
}

fn check<S: RefreshTokenStore>(cases: u32, fresh: impl AsyncFn() -> S) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::with_cases(cases)
    });
    let ops = prop::collection::vec(op(), 1..60);
    let judged = runner.run(&ops, |ops| {
        runtime.block_on(async {
            let mut run = Run {
                store: &fresh().await,
                map: MapStore::default(),
                now: UnixMillis::from_secs(1_800_000_000),
                ids: Vec::new(),
                seen: BTreeMap::new(),
                count: 0,
            };
            for op in ops {
                run.step(op).await;
            }
            run.compare().await;
        });
        Ok(())
    });
    if let Err(error) = judged {
        panic!("{error}");
    }
}

#[test]
fn the_store_in_memory_is_the_map() {
    check(400, async || MemoryStore::new());
}

#[cfg(feature = "sqlite")]
#[test]
fn the_store_in_sqlite_is_the_map() {
    use portcullis::refresh_token::sqlite::SqliteStore;

    check(60, async || SqliteStore::in_memory().await.unwrap());
}

#[cfg(feature = "postgres")]
#[test]
fn the_store_in_postgresql_is_the_map() {
    use portcullis::refresh_token::postgres::PostgresStore;

    let Some(server) = support::postgres::Postgres::start_with(&["fsync=off"]) else {
        return;
    };
    let url = server.url();
    check(30, async || {
        let store = PostgresStore::connect(&url).await.unwrap();
        sqlx::raw_sql("TRUNCATE portcullis_sessions, portcullis_subjects")
            .execute(store.pool())
            .await
            .unwrap();
        store
    });
}

#[cfg(feature = "redis")]
#[test]
fn the_store_in_redis_is_the_map() {
    use portcullis::refresh_token::redis::RedisStore;

    let Some(server) = support::redis::Redis::start() else {
        return;
    };
    let url = server.url();
    check(60, async || {
        server.ask("FLUSHALL");
        RedisStore::connect(&url).await.unwrap()
    });
}
