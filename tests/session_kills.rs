//! `kill -9` of a service between the write of a rotation and its reply: no session is lost.
#![cfg(all(feature = "postgres", feature = "sqlite"))]

mod support;

use std::{
    future::pending,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use portcullis::{
    refresh_token::{
        CreateOutcome, Device, EndReason, Ended, NewSession, RefreshTokenStore, RefreshTokens,
        RevokeOutcome, RevokedSubject, RotateOutcome, Rotation, SessionId, SessionRecord,
        StoreError, postgres::PostgresStore, sqlite::SqliteStore,
    },
    secret::Secret,
    time::UnixMillis,
};
use support::postgres::Postgres;

const ROUNDS: u32 = 200;
const SESSIONS: usize = 8;

fn open(store: impl RefreshTokenStore) -> RefreshTokens {
    let secret = Secret::new(*b"3v9Kq0xZr7Lw2NfYpT8uHs5JdGcBmA1e").unwrap();
    // A round is short, but a machine can be slow.
    RefreshTokens::new(store, secret)
        .with_grace(Duration::from_secs(300))
        .unwrap()
}

/// A store that writes and does not come back.
struct Mute<S>(S);

impl<S: RefreshTokenStore> RefreshTokenStore for Mute<S> {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        self.0.epoch(subject).await
    }
    async fn create(&self, session: NewSession) -> Result<CreateOutcome, StoreError> {
        self.0.create(session).await
    }
    async fn rotate(&self, rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        let done = self.0.rotate(rotation).await?;
        assert!(matches!(done, RotateOutcome::Rotated(_)), "{done:?}");
        println!("written");
        pending().await
    }
    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        self.0.revoke(id, reason, now).await
    }
    async fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        self.0.revoke_subject(subject, except, reason, now).await
    }
    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.0.get(id).await
    }
    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.0.list_subject(subject, now, limit).await
    }
    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        self.0.revoked_since(since).await
    }
    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        self.0.delete_expired(before, limit).await
    }
    async fn health(&self) -> Result<(), StoreError> {
        self.0.health().await
    }
}

/// The service that is killed: it refreshes a token whose reply may have been lost, tells the
/// successor, and refreshes that one for a reply that never comes.
async fn serve<S: RefreshTokenStore + Clone>(store: S, token: &str) {
    let next = open(store.clone()).refresh(token, None).await;
    let next = next.unwrap();
    println!("token {}", next.token.expose());
    let mute = open(Mute(store));
    let _ = mute.refresh(next.token.expose(), None).await;
}

#[tokio::test]
#[ignore = "the program that the others kill"]
async fn service() {
    let var = |name| std::env::var(name).ok();
    let (Some(database), Some(token)) = (var("KILLED_DATABASE"), var("KILLED_TOKEN")) else {
        return;
    };
    if database.starts_with("postgres:") {
        serve(PostgresStore::connect(&database).await.unwrap(), &token).await;
    } else {
        serve(SqliteStore::open(&database).await.unwrap(), &token).await;
    }
}

/// One life of the service. It is killed right after its write, or at about that time.
fn live_and_die(database: &str, token: &str, round: u32) -> String {
    let mut service = Command::new(std::env::current_exe().unwrap())
        .args(["service", "--exact", "--ignored", "--nocapture"])
        .env("KILLED_DATABASE", database)
        .env("KILLED_TOKEN", token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let mut told = |what: &str| {
        lines
            .by_ref()
            .map(|line| line.unwrap())
            .find_map(|line| line.split_once(what).map(|(_, rest)| rest.to_owned()))
            .unwrap_or_else(|| panic!("the session ended in round {round}"))
    };
    let next = told("token ");
    match round % 4 {
        0 => thread::sleep(Duration::from_micros(u64::from(round) * 20)),
        _ => drop(told("written")),
    }
    // SIGKILL.
    service.kill().unwrap();
    service.wait().unwrap();
    next
}

async fn every_session_lives<S: RefreshTokenStore>(
    database: String,
    open_again: impl AsyncFn() -> S,
) {
    let begun = Instant::now();
    let tokens = open(open_again().await);
    let mut current = Vec::new();
    for session in 0..SESSIONS {
        let login = tokens.begin(&format!("user-{session}")).await.unwrap();
        let granted = tokens.start(login, Device::new()).await.unwrap();
        current.push(granted.token.expose().to_owned());
    }
    drop(tokens);
    for round in 0..ROUNDS {
        let token = &mut current[round as usize % SESSIONS];
        *token = live_and_die(&database, token, round);
    }
    let tokens = open(open_again().await);
    for token in &current {
        drop(tokens.refresh(token, None).await.unwrap());
    }
    println!(
        "{ROUNDS} kills in {:?}, every session lives",
        begun.elapsed()
    );
}

#[tokio::test]
async fn every_session_in_sqlite_outlives_200_kills() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("sessions.db");
    let database = path.to_str().unwrap().to_owned();
    every_session_lives(database, async || SqliteStore::open(&path).await.unwrap()).await;
}

#[tokio::test]
async fn every_session_in_postgresql_outlives_200_kills() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.url();
    every_session_lives(url.clone(), async || {
        PostgresStore::connect(&url).await.unwrap()
    })
    .await;
}
