//! The conformance suite on every store of this crate, on the example's, and on stores that each
//! make one mistake, which it must find.
#![cfg(feature = "test-suite")]

#[path = "broken_stores/mod.rs"]
mod broken_stores;
#[path = "../examples/custom_store.rs"]
#[allow(dead_code, reason = "a program of its own")]
mod custom_store;
mod support;

use broken_stores::{BrokenStore, Mistake};
use portcullis::refresh_token::{
    MemoryStore,
    conformance::{BrokenRules, Rule, Suite},
};

#[test]
fn the_store_in_memory() {
    Suite::new(|| async { MemoryStore::new() }).check();
}

#[test]
fn the_store_of_the_example() {
    Suite::new(|| async { custom_store::MapStore::default() }).check();
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::{
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use portcullis::refresh_token::sqlite::SqliteStore;

    use super::*;

    static COUNT: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn the_store_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let fresh = move || {
            let (path, count) = (path.clone(), COUNT.fetch_add(1, Ordering::Relaxed));
            async move {
                SqliteStore::open(path.join(format!("{count}.db")))
                    .await
                    .unwrap()
            }
        };
        let reopen = |store: Arc<SqliteStore>| async move {
            let options = store.pool().connect_options();
            let path: PathBuf = options.get_filename().to_owned();
            SqliteStore::open(path).await.unwrap()
        };
        Suite::new(fresh).with_reopen(reopen).check();
    }

    #[test]
    fn the_store_in_sqlites_memory() {
        Suite::new(|| async { SqliteStore::in_memory().await.unwrap() }).check();
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use portcullis::refresh_token::postgres::PostgresStore;
    use sqlx::{
        Connection as _, PgConnection,
        postgres::{PgConnectOptions, PgPoolOptions},
    };

    use super::{support::postgres::Postgres, *};

    async fn open(options: PgConnectOptions) -> PostgresStore {
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(options);
        PostgresStore::new(pool.await.unwrap()).await.unwrap()
    }

    /// An empty schema for each store; to open one again, the server crashes and comes back.
    #[test]
    fn the_store_in_postgresql() {
        let Some(server) = Postgres::start() else {
            return;
        };
        let url = server.url();
        let server = Arc::new(Mutex::new(server));
        let schemas = AtomicUsize::new(0);
        let fresh = move || {
            let schema = format!("s{}", schemas.fetch_add(1, Ordering::Relaxed));
            let options: PgConnectOptions = url.parse().unwrap();
            async move {
                let mut connection = PgConnection::connect_with(&options).await.unwrap();
                let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
                sqlx::query(create).execute(&mut connection).await.unwrap();
                open(options.options([("search_path", &schema)])).await
            }
        };
        let reopen = move |store: Arc<PostgresStore>| {
            let mut server = server.lock().unwrap();
            server.crash();
            server.start_again();
            async move { open((*store.pool().connect_options()).clone()).await }
        };
        Suite::new(fresh).with_reopen(reopen).check();
    }
}

#[cfg(feature = "redis")]
mod redis {
    use std::{
        cell::Cell,
        rc::Rc,
        sync::{Arc, Mutex},
    };

    use portcullis::refresh_token::redis::RedisStore;

    use super::{
        support::redis::{Redis, RedisCluster},
        *,
    };

    /// An empty database for each store; to open one again, the server is killed and comes back.
    #[test]
    fn the_store_in_redis() {
        let durable = [
            "--databases",
            "100",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        let Some(server) = Redis::start_with(&durable) else {
            return;
        };
        let server = Arc::new(Mutex::new(server));
        let database = Rc::new(Cell::new(0));
        let open = |server: &Redis, database| {
            let url = format!("{}?db={database}", server.url());
            async move { RedisStore::connect(&url).await.unwrap() }
        };
        let (again, current) = (server.clone(), database.clone());
        let fresh = move || {
            database.set(database.get() + 1);
            open(&server.lock().unwrap(), database.get())
        };
        let reopen = move |store: Arc<RedisStore>| {
            let mut server = again.lock().unwrap();
            // The other handle's connection would tell that it was cut.
            if Arc::strong_count(&store) == 1 {
                server.kill();
                server.start_again();
            }
            open(&server, current.get())
        };
        Suite::new(fresh).with_reopen(reopen).check();
    }

    #[test]
    fn the_store_in_a_redis_cluster() {
        let Some(cluster) = RedisCluster::start() else {
            return;
        };
        let urls = cluster.urls();
        let open = |urls: Vec<String>| async move {
            let urls = urls.iter().map(String::as_str);
            RedisStore::connect_cluster(urls).await.unwrap()
        };
        let again = urls.clone();
        let fresh = move || {
            cluster.flush();
            open(urls.clone())
        };
        Suite::new(fresh)
            .with_reopen(move |_| open(again.clone()))
            .check();
    }
}

fn broken(mistake: Mistake) -> BrokenRules {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let suite = Suite::new(move || async move { BrokenStore::new(mistake) });
    let broken = runtime.block_on(suite.run()).unwrap_err();
    println!("{mistake:?} {broken}");
    broken
}

#[test]
fn each_mistake_is_found_and_its_rule_named() {
    for (mistake, rule) in [
        (Mistake::ReadThenWrite, Rule::RotateIsAtomic),
        (Mistake::StaleSnapshot, Rule::StaleShowsTheWinner),
        (Mistake::DeleteOnConsume, Rule::ReplacedTokensAreStale),
        (Mistake::TtlAsValidity, Rule::TimeIsAnArgument),
        (Mistake::DoubleHash, Rule::DigestsAreKeptAsGiven),
        (Mistake::RevokeByTime, Rule::RevokeGoesByEpoch),
        (Mistake::NoAge, Rule::YoungTokensStay),
    ] {
        let broken = broken(mistake);
        let first = broken.iter().next().map(|broken| broken.rule);
        assert_eq!(first, Some(rule), "{mistake:?} {broken}");
        let shown = broken.to_string();
        assert!(shown.contains(&rule.to_string()) && shown.contains(rule.promise()));
    }
}
