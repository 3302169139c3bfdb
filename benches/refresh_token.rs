//! Rotations per second in each store, with one caller and with 64, beside one bare autocommitted
//! `UPDATE … RETURNING` on the same database; and how long a flood of logins holds up the executor.
//!
//! PostgreSQL takes part where `PORTCULLIS_TEST_POSTGRES` names the folder of its programs, Redis
//! where `PORTCULLIS_TEST_REDIS` names its server; beside it stands one bare `HSET`.

#[path = "../tests/support/daemon.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod daemon;
#[path = "../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod postgres;
#[path = "../tests/support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod redis_server;

use std::{
    hint::black_box,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portcullis::{
    Context,
    event::SecurityEvent,
    password::PasswordHasher,
    refresh_token::{
        Device, MemoryStore, RefreshTokenStore, RefreshTokens, postgres::PostgresStore,
        redis::RedisStore, sqlite::SqliteStore,
    },
    secret::Secret,
};
use redis::aio::ConnectionManager;
use sqlx::{PgPool, SqlitePool};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinSet};

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3));
    targets = rotations
}

fn flood_and_budgets(_: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    login_flood(&runtime);
    beside_a_bare_update(&runtime);
}

criterion_group!(figures, flood_and_budgets);
criterion_main!(figures, benches);

/// A store, and the database that it is in.
struct Bench {
    name: &'static str,
    tokens: RefreshTokens,
    bare: Option<Bare>,
    /// Stopped and cleared away when this goes.
    _holds: Holds,
}

enum Holds {
    Nothing,
    Folder(#[allow(dead_code, reason = "held")] TempDir),
    Postgres(#[allow(dead_code, reason = "held")] postgres::Postgres),
    Redis(#[allow(dead_code, reason = "held")] redis_server::Redis),
}

#[derive(Clone)]
enum Bare {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    Redis(ConnectionManager),
}

async fn all() -> Vec<Bench> {
    let mut all = vec![Bench {
        name: "memory",
        tokens: tokens(MemoryStore::new()),
        bare: None,
        _holds: Holds::Nothing,
    }];
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("bench.db")).await;
    let store = store.unwrap();
    all.push(Bench {
        name: "sqlite",
        bare: Some(Bare::Sqlite(store.pool().clone())),
        tokens: tokens(store),
        _holds: Holds::Folder(folder),
    });
    if let Some(server) = postgres::Postgres::start() {
        let store = PostgresStore::connect(&server.url()).await.unwrap();
        all.push(Bench {
            name: "postgres",
            bare: Some(Bare::Postgres(store.pool().clone())),
            tokens: tokens(store),
            _holds: Holds::Postgres(server),
        });
    }
    if let Some(server) = redis_server::Redis::start() {
        let client = redis::Client::open(server.url()).unwrap();
        let connection = ConnectionManager::new(client).await.unwrap();
        let store = RedisStore::new(connection.clone()).await.unwrap();
        all.push(Bench {
            name: "redis",
            bare: Some(Bare::Redis(connection)),
            tokens: tokens(store),
            _holds: Holds::Redis(server),
        });
    }
    for bench in &all {
        if let Some(bare) = &bench.bare {
            bare.prepare().await;
        }
    }
    all
}

/// Without a sink: what is measured is the rotation, not the log.
fn tokens(store: impl RefreshTokenStore) -> RefreshTokens {
    let context = Context::new().with_events_inline(|_: &SecurityEvent| {});
    RefreshTokens::new(store, Secret::generate())
        .with_context(context)
        .with_max_sessions(1_000)
        .unwrap()
}

impl Bare {
    async fn prepare(&self) {
        match self {
            Self::Sqlite(pool) => {
                sqlx::query("CREATE TABLE bare (id INTEGER PRIMARY KEY, n INTEGER, seed BLOB)")
                    .execute(pool)
                    .await
                    .unwrap();
                for id in 0..MANY as i64 {
                    let insert = sqlx::query("INSERT INTO bare VALUES (?, 0, NULL)").bind(id);
                    insert.execute(pool).await.unwrap();
                }
            }
            Self::Postgres(pool) => {
                sqlx::query("CREATE TABLE bare (id BIGINT PRIMARY KEY, n BIGINT, seed BYTEA)")
                    .execute(pool)
                    .await
                    .unwrap();
                for id in 0..MANY as i64 {
                    let insert = sqlx::query("INSERT INTO bare VALUES ($1, 0, NULL)").bind(id);
                    insert.execute(pool).await.unwrap();
                }
            }
            Self::Redis(_) => {}
        }
    }

    async fn update(&self, id: i64, seed: &[u8]) -> i64 {
        match self {
            Self::Sqlite(pool) => {
                sqlx::query_scalar("UPDATE bare SET n = n + 1, seed = ? WHERE id = ? RETURNING n")
                    .bind(seed)
                    .bind(id)
                    .fetch_one(pool)
                    .await
            }
            Self::Postgres(pool) => {
                sqlx::query_scalar("UPDATE bare SET n = n + 1, seed = $1 WHERE id = $2 RETURNING n")
                    .bind(seed)
                    .bind(id)
                    .fetch_one(pool)
                    .await
            }
            Self::Redis(connection) => {
                let mut set = redis::cmd("HSET");
                set.arg("bare").arg(id).arg(seed);
                Ok(set.query_async(&mut connection.clone()).await.unwrap())
            }
        }
        .unwrap()
    }
}

/// One caller's session.
async fn login(tokens: &RefreshTokens) -> String {
    let login = tokens.begin("user-1").await.unwrap();
    let granted = tokens.start(login, Device::new()).await.unwrap();
    granted.token.expose().to_owned()
}

async fn logins(tokens: &RefreshTokens, callers: usize) -> Vec<String> {
    let mut sessions = Vec::new();
    for _ in 0..callers {
        sessions.push(login(tokens).await);
    }
    sessions
}

/// `each` rotations by every caller, side by side.
async fn rotate(tokens: &RefreshTokens, sessions: &mut Vec<String>, each: u64) -> Duration {
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for mut token in std::mem::take(sessions) {
        let tokens = tokens.clone();
        callers.spawn(async move {
            for _ in 0..each {
                let granted = tokens.refresh(&token, None).await.unwrap();
                granted.token.expose().clone_into(&mut token);
            }
            token
        });
    }
    *sessions = callers.join_all().await;
    start.elapsed()
}

async fn update(bare: &Bare, callers: usize, each: u64) -> Duration {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for id in 0..callers as i64 {
        let bare = bare.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                black_box(bare.update(id, &[7; 32]).await);
            }
        });
    }
    tasks.join_all().await;
    start.elapsed()
}

fn rotations(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for bench in runtime.block_on(all()) {
        let mut group = criterion.benchmark_group("refresh_token");
        for callers in [1, MANY] {
            group.throughput(Throughput::Elements(callers as u64));
            let mut sessions = runtime.block_on(logins(&bench.tokens, callers));
            group.bench_function(format!("{}, {callers} callers", bench.name), |bencher| {
                bencher.iter_custom(|each| {
                    runtime.block_on(rotate(&bench.tokens, &mut sessions, each))
                });
            });
        }
        group.finish();
    }
}

/// Both in turns, so that what else the machine does hits both.
fn beside_a_bare_update(runtime: &Runtime) {
    for bench in runtime.block_on(all()) {
        let Some(bare) = &bench.bare else { continue };
        for (callers, each) in [(1, 100), (MANY, 20)] {
            let mut rounds: Vec<(f64, f64)> = runtime.block_on(async {
                let mut sessions = logins(&bench.tokens, callers).await;
                let mut rounds = Vec::new();
                for _ in 0..ROUNDS {
                    let bare = update(bare, callers, each).await;
                    let rotation = rotate(&bench.tokens, &mut sessions, each).await;
                    let all = (callers as u64 * each) as f64;
                    rounds.push((all / rotation.as_secs_f64(), all / bare.as_secs_f64()));
                }
                rounds
            });
            rounds.sort_unstable_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
            let (rotations, updates) = rounds[ROUNDS / 2];
            println!(
                "{}, {callers} callers: {rotations:.0} rotations/s, {updates:.0} bare updates/s: \
                 {:.2} x (budget 0.80 in SQL)",
                bench.name,
                rotations / updates,
            );
        }
    }
}

/// A task that wakes every millisecond tells how long the executor left it waiting.
fn login_flood(runtime: &Runtime) {
    let hasher = PasswordHasher::new();
    let quiet = runtime.block_on(longest_stall(FLOOD, async || {
        tokio::time::sleep(FLOOD).await;
    }));
    let hashed = runtime.block_on(longest_stall(FLOOD, async || {
        flood(|| {
            let hasher = hasher.clone();
            async move { hasher.verify("correct horse", None).await.is_ok() }
        })
        .await;
    }));
    let busy = runtime.block_on(longest_stall(FLOOD, async || {
        let over = Arc::new(AtomicBool::new(false));
        // As many threads as the hasher keeps busy.
        for _ in 0..(available_parallelism().map_or(1, NonZeroUsize::get) / 2).max(1) {
            let over = over.clone();
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        tokio::time::sleep(FLOOD).await;
        over.store(true, Ordering::Relaxed);
    }));
    println!(
        "login flood, 64 callers: longest stall {:.1} ms (budget 5 ms); without logins {:.1} ms, \
         beside as many threads that only spin {:.1} ms",
        hashed.as_secs_f64() * 1e3,
        quiet.as_secs_f64() * 1e3,
        busy.as_secs_f64() * 1e3,
    );
}

async fn flood<F: Future<Output = bool> + Send + 'static>(login: impl Fn() -> F) {
    let end = Instant::now() + FLOOD;
    let mut logins = JoinSet::new();
    for _ in 0..MANY {
        logins.spawn(login());
    }
    while let Some(done) = logins.join_next().await {
        let served = done.unwrap();
        if Instant::now() < end {
            // Whoever is told to come back later waits a moment.
            let next = login();
            logins.spawn(async move {
                if !served {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                next.await
            });
        }
    }
}

async fn longest_stall(atleast: Duration, load: impl AsyncFnOnce()) -> Duration {
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let heartbeat = tokio::spawn(async move {
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        while !seen.load(Ordering::Relaxed) || start.elapsed() < atleast {
            let before = Instant::now();
            tokio::task::yield_now().await;
            longest = longest.max(before.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        longest
    });
    load().await;
    over.store(true, Ordering::Relaxed);
    heartbeat.await.unwrap()
}

const MANY: usize = 64;
const ROUNDS: usize = 21;
const FLOOD: Duration = Duration::from_secs(5);
