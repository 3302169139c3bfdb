//! What only SQLite shows.
#![cfg(feature = "sqlite")]

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use portcullis::refresh_token::{RefreshTokenStore as _, StoreErrorKind, sqlite::SqliteStore};
use sqlx::Connection as _;

#[tokio::test]
async fn a_file_that_is_opened_keeps_what_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("sessions.db"))
        .await
        .unwrap();
    // On every connection of the pool.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(store.pool().acquire().await.unwrap());
    }
    for connection in &mut held {
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&mut **connection)
            .await
            .unwrap();
        assert_eq!(mode, "wal");
        // 2 is FULL: each commit is on the disk before it is told.
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&mut **connection)
            .await
            .unwrap();
        assert_eq!(synchronous, 2);
        let patience: i64 = sqlx::query_scalar("PRAGMA busy_timeout")
            .fetch_one(&mut **connection)
            .await
            .unwrap();
        assert_eq!(patience, 5_000);
    }
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    // One that anybody could read before is not read by anybody after.
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    store.epoch("user-1").await.unwrap();
    let mut files = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log and the log's index");
}

#[tokio::test]
async fn a_writer_that_stays_and_tables_of_another_version_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut other = sqlx::SqliteConnection::connect(path.to_str().unwrap())
        .await
        .unwrap();
    sqlx::raw_sql("UPDATE portcullis_schema SET version = 99")
        .execute(&mut other)
        .await
        .unwrap();
    for error in [
        store.health().await.unwrap_err(),
        SqliteStore::open(&path).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::SchemaMismatch);
        assert!(!error.is_retryable());
    }
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let error = store
        .delete_expired(portcullis::time::UnixMillis::new(0), 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout);
    assert!(error.is_retryable());
    // Whoever reads does not wait for a writer.
    assert_eq!(store.epoch("user-1").await.unwrap(), 0);

    let unusable = SqliteStore::open(folder.path()).await.unwrap_err();
    assert_eq!(unusable.kind(), StoreErrorKind::Unavailable);
    let text = folder.path().join("text");
    std::fs::write(
        &text,
        "no database, but long enough to be read as one".repeat(100),
    )
    .unwrap();
    let corrupt = SqliteStore::open(&text).await.unwrap_err();
    assert_eq!(corrupt.kind(), StoreErrorKind::Corrupt);
}
