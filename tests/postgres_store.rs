//! What only PostgreSQL shows. Runs where `PORTCULLIS_TEST_POSTGRES` names the folder of its
//! programs, and is skipped elsewhere.
#![cfg(feature = "postgres")]

mod support;

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use portcullis::{
    Rejection,
    refresh_token::{
        Device, EndReason, RefreshError, RefreshTokenStore as _, RefreshTokens, RotateOutcome,
        StoreErrorKind,
        postgres::{PostgresStore, SCHEMA},
    },
    secret::Secret,
};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use support::{
    load::Load,
    postgres::Postgres,
    sessions::{DAY, NOW, create, rotation},
};

async fn pool(url: &str, connections: u32) -> PgPool {
    let options = PgPoolOptions::new().max_connections(connections);
    options.connect(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_instances_start_at_once_on_an_empty_database() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let starts: Vec<_> = (0..16)
        .map(|_| {
            let url = server.url();
            tokio::spawn(async move { PostgresStore::new(pool(&url, 1).await).await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap().health().await.unwrap();
    }
    let versions: Vec<i64> = sqlx::query_scalar("SELECT version FROM portcullis_schema")
        .fetch_all(&pool(&server.url(), 1).await)
        .await
        .unwrap();
    assert_eq!(versions, [1]);
}

#[tokio::test]
async fn every_statement_goes_by_an_index() {
    let Some(server) = Postgres::start_with(&[
        "session_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_analyze=on",
        "auto_explain.log_timing=off",
    ]) else {
        return;
    };
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    // 20,000 sessions of 10,000 subjects over two weeks; some were ended.
    sqlx::raw_sql(
        "INSERT INTO portcullis_sessions (id, subject, created_at, last_used_at, expires_at,
            absolute_end, ended_at, end_reason, generation, current, key_id, sweep_day)
        SELECT substr(sha256(n::text::bytea), 1, 16), 'user-' || n / 2, t, t, t + 604800000, t + 2592000000,
            CASE WHEN n % 50 = 0 THEN t END, CASE WHEN n % 50 = 0 THEN 'logout' END, 0,
            sha256('t'), 1, (t + 604800000) / 86400000
        FROM (SELECT n, 1800000000000 - n * 60000::bigint AS t FROM generate_series(1, 20000) n) s;
        INSERT INTO portcullis_subjects SELECT 'user-' || n, 0 FROM generate_series(1, 10000) n;
        ANALYZE",
    )
    .execute(store.pool())
    .await
    .unwrap();
    let filled = server.log().len();

    let id = create(&store, "user-1").await;
    let rotated = store.rotate(rotation(id, 0)).await.unwrap();
    assert!(matches!(rotated, RotateOutcome::Rotated(_)));
    let stale = store.rotate(rotation(id, 0)).await.unwrap();
    assert!(matches!(stale, RotateOutcome::Stale(..)));
    store.get(id).await.unwrap();
    assert!(store.list_subject("user-1", NOW, 50).await.unwrap().len() > 1);
    store.revoke(id, EndReason::Logout, NOW).await.unwrap();
    let reason = EndReason::Administrator;
    let revoked = store
        .revoke_subject("user-1", None, reason, NOW)
        .await
        .unwrap();
    assert!(!revoked.ended.is_empty());
    assert!(store.revoked_since(NOW).await.unwrap().len() > 1);
    let before = NOW.saturating_sub(6 * DAY);
    assert_eq!(store.delete_expired(before, 10).await.unwrap(), 10);
    store.health().await.unwrap();

    let log = server.log().split_off(filled);
    let scans = |of: &str| log.lines().filter(|line| line.contains(of)).count();
    assert_eq!(
        scans("Seq Scan on portcullis_s"),
        scans("Seq Scan on portcullis_schema"),
        "{log}"
    );
    for index in [
        "portcullis_sessions_pkey",
        "portcullis_sessions_by_subject",
        "portcullis_sessions_by_sweep_day",
        "portcullis_sessions_by_end",
        "portcullis_subjects_pkey",
    ] {
        assert!(scans(index) > 0, "{index} is not used: {log}");
    }
    // A rotation changes no index, so the row's new version can stay on its page.
    drop(store);
    let counted = pool(&server.url(), 1).await;
    let hot: i64 = sqlx::query_scalar(
        "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'portcullis_sessions'",
    )
    .fetch_one(&counted)
    .await
    .unwrap();
    assert!(hot > 0);
}

#[tokio::test]
async fn what_is_set_up_wrongly_is_refused_and_a_role_needs_no_right_to_make_tables() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let options: PgConnectOptions = server.url().parse().unwrap();
    for level in ["serializable", "repeatable read"] {
        let options = options
            .clone()
            .options([("default_transaction_isolation", level)]);
        let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
        let refused = PostgresStore::new(pool).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Misconfigured);
        assert!(!refused.is_retryable());
    }
    let refused = PostgresStore::connect("not a url").await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Misconfigured);

    let owner = pool(&server.url(), 1).await;
    sqlx::raw_sql("CREATE ROLE service LOGIN")
        .execute(&owner)
        .await
        .unwrap();
    let url = server.url().replace("postgres@", "service@");
    let refused = PostgresStore::connect(&url).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Misconfigured, "{refused:?}");
    sqlx::raw_sql(SCHEMA).execute(&owner).await.unwrap();
    sqlx::raw_sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO service")
        .execute(&owner)
        .await
        .unwrap();
    let store = PostgresStore::connect(&url).await.unwrap();
    let id = create(&store, "user-1").await;
    assert!(store.get(id).await.unwrap().is_some());

    sqlx::raw_sql("UPDATE portcullis_schema SET version = 99")
        .execute(&owner)
        .await
        .unwrap();
    for error in [
        store.health().await.unwrap_err(),
        PostgresStore::connect(&url).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::SchemaMismatch);
        assert!(!error.is_retryable());
    }
    sqlx::raw_sql("DROP TABLE portcullis_sessions")
        .execute(&owner)
        .await
        .unwrap();
    let error = store.get(id).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::SchemaMismatch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_is_503_and_no_logout() {
    let Some(mut server) = Postgres::start() else {
        return;
    };
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let tokens = RefreshTokens::new(store, Secret::generate());
    let login = tokens.begin("user-1").await.unwrap();
    let mut current = tokens.start(login.clone(), Device::new()).await.unwrap();
    for round in 0..2 {
        let (flying, other) = (tokens.clone(), current.clone());
        let flying = tokio::spawn(async move { flying.refresh(other.token.expose(), None).await });
        if round == 0 {
            server.stop();
        } else {
            server.crash();
        }
        let token = current.token.expose();
        for refused in [
            tokens.refresh(token, None).await.map(drop).unwrap_err(),
            tokens.end(token, None).await.map(drop).unwrap_err(),
            tokens.begin("user-1").await.map(drop).unwrap_err(),
            tokens
                .start(login.clone(), Device::new())
                .await
                .map(drop)
                .unwrap_err(),
            tokens.health().await.unwrap_err(),
        ] {
            let RefreshError::Store(error) = &refused else {
                panic!("{refused:?}");
            };
            assert!(error.is_retryable() && !refused.is_over(), "{error:?}");
            assert!(
                std::error::Error::source(error).is_some()
                    || error.kind() == StoreErrorKind::Timeout
            );
            assert_eq!(Rejection::from(&refused).status(), 503);
        }
        let flown = flying.await.unwrap();
        assert!(!flown.is_err_and(|error| error.is_over()));
        server.start_again();
        current = tokens.refresh(token, None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_under_load_logs_nobody_out() {
    let Some(mut server) = Postgres::start() else {
        return;
    };
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let tokens = RefreshTokens::new(store, Secret::generate());
    let load = Load::start(&tokens, 64).await;
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        match round {
            0 => server.stop(),
            1 => server.crash(),
            _ => server.kill(),
        }
        let refused = tokens.health().await.unwrap_err();
        assert_eq!(Rejection::from(&refused).status(), 503);
        server.start_again();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (refreshed, refused) = load.end().await;
    assert!(refreshed > 64 && refused > 0, "{refreshed} {refused}");
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_told_in_time() {
    let Some(server) = Postgres::start() else {
        return;
    };
    // The pool's own patience is sqlx's default, half a minute.
    let pool = pool(&server.url(), 1).await;
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    let id = create(&store, "user-1").await;
    let held = pool.acquire().await.unwrap();
    let begun = std::time::Instant::now();
    let error = store.rotate(rotation(id, 0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    assert!(error.is_retryable() && begun.elapsed() < Duration::from_secs(15));
    drop(held);
    let rotated = store.rotate(rotation(id, 0)).await.unwrap();
    assert!(matches!(rotated, RotateOutcome::Rotated(_)));
}

/// Drops the future after so many polls.
async fn drop_after<T>(future: impl Future<Output = T>, polls: usize) {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        future.as_mut().poll(cx).map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_go_away_leave_no_transaction_open() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let pool = pool(&server.url(), 4).await;
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    for round in 0..120 {
        let polls = round % 12;
        let subject = format!("user-{round}");
        let id = create(&store, &subject).await;
        let reason = EndReason::PasswordChange;
        drop_after(store.rotate(rotation(id, 0)), polls).await;
        drop_after(store.revoke_subject(&subject, None, reason, NOW), polls).await;
        drop_after(store.delete_expired(NOW, 10), polls).await;
        drop_after(store.revoke(id, reason, NOW), polls).await;
        drop_after(store.health(), polls).await;
    }
    // All four connections come back, and none of them is in a transaction.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.acquire().await.unwrap());
    }
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
    )
    .fetch_one(&mut *held[0])
    .await
    .unwrap();
    assert_eq!(open, 0);
}
