//! API keys in SQLite, through `sqlx`. Feature `sqlite`; needs Rust 1.94.
//!
//! [`SqliteKeys::new`] takes the service's own pool and makes its tables beside the service's. All
//! SQL is static, with bound values.

use std::{fmt, sync::Arc};

use sqlx::{SqliteExecutor, SqlitePool};
use tokio::sync::Mutex;

use super::{
    ApiKeyId, ApiKeyRecord, ApiKeyStore, CreateOutcome, KeyRotation, RotateOutcome, StoreError,
    StoreErrorKind, StoredKey,
    sql::{id_of, read},
};
use crate::{client::Prefix, store_error::sql::failed, time::UnixMillis};

/// API keys in the table `portcullis_api_keys` of a SQLite database. A cheap clone.
#[derive(Clone)]
pub struct SqliteKeys {
    pool: SqlitePool,
    /// SQLite has one writer; those of this process wait here in order, instead of polling.
    writer: Arc<Mutex<()>>,
}

impl SqliteKeys {
    /// Keys in the database behind `pool`; makes the tables where they are missing.
    ///
    /// # Errors
    /// [`StoreErrorKind::SchemaMismatch`] when the tables are of another version.
    pub async fn new(pool: SqlitePool) -> Result<Self, StoreError> {
        let mut transaction = pool.begin_with(BEGIN).await.map_err(failed)?;
        for statement in TABLES {
            sqlx::query(statement)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        check_version(&mut *transaction).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(Self {
            pool,
            writer: Arc::default(),
        })
    }
}

impl ApiKeyStore for SqliteKeys {
    async fn create(&self, key: StoredKey, most: usize) -> Result<CreateOutcome, StoreError> {
        let _writer = self.writer.lock().await;
        Ok(match insert(&self.pool, key, most).await? {
            true => CreateOutcome::Created,
            false => CreateOutcome::TooMany,
        })
    }

    async fn get(&self, id: ApiKeyId) -> Result<Option<StoredKey>, StoreError> {
        let row = sqlx::query(GET)
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        row.as_ref().map(read).transpose()
    }

    async fn list(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let rows = sqlx::query(LIST)
            .bind(subject)
            .bind(now.as_millis())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok(read(row)?.record)).collect()
    }

    async fn rotate(&self, rotation: KeyRotation) -> Result<RotateOutcome, StoreError> {
        let now = rotation.new.record.created_at.as_millis();
        let _writer = self.writer.lock().await;
        let mut transaction = self.pool.begin_with(BEGIN).await.map_err(failed)?;
        let replaced: i64 = sqlx::query_scalar(COUNT_REPLACED)
            .bind(&rotation.new.record.subject)
            .bind(now)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let done = sqlx::query(REPLACE)
            .bind(rotation.old.as_str())
            .bind(&rotation.new.record.subject)
            .bind(now)
            .bind(rotation.old_end.as_millis())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        if done.rows_affected() == 0 {
            return Ok(RotateOutcome::NotFound);
        }
        if replaced >= i64::try_from(rotation.most).unwrap_or(i64::MAX) {
            return Ok(RotateOutcome::TooMany);
        }
        insert(&mut *transaction, rotation.new, usize::MAX).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(RotateOutcome::Rotated)
    }

    async fn revoke(
        &self,
        id: ApiKeyId,
        subject: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let _writer = self.writer.lock().await;
        let done = sqlx::query(REVOKE)
            .bind(id.as_str())
            .bind(subject)
            .bind(now.as_millis())
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(done.rows_affected() > 0)
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        now: UnixMillis,
    ) -> Result<Vec<ApiKeyId>, StoreError> {
        let _writer = self.writer.lock().await;
        let rows = sqlx::query(REVOKE_SUBJECT)
            .bind(subject)
            .bind(now.as_millis())
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| id_of(row, 0)).collect()
    }

    async fn ended_since(&self, since: UnixMillis) -> Result<Vec<ApiKeyId>, StoreError> {
        let rows = sqlx::query(ENDED_SINCE)
            .bind(since.as_millis())
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| id_of(row, 0)).collect()
    }

    async fn touch(&self, used: &[(ApiKeyId, UnixMillis)]) -> Result<(), StoreError> {
        let _writer = self.writer.lock().await;
        let mut transaction = self.pool.begin_with(BEGIN).await.map_err(failed)?;
        for (id, at) in used {
            sqlx::query(TOUCH)
                .bind(id.as_str())
                .bind(at.as_millis())
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let _writer = self.writer.lock().await;
        let done = sqlx::query(DELETE_EXPIRED)
            .bind(before.as_millis())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(done.rows_affected())
    }

    async fn health(&self) -> Result<(), StoreError> {
        check_version(&self.pool).await
    }
}

impl fmt::Debug for SqliteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteKeys").finish_non_exhaustive()
    }
}

/// Whether there was room.
async fn insert(
    executor: impl SqliteExecutor<'_>,
    key: StoredKey,
    most: usize,
) -> Result<bool, StoreError> {
    let StoredKey { record, digest } = key;
    let networks: Vec<String> = record.networks.iter().map(Prefix::to_string).collect();
    let done = sqlx::query(CREATE)
        .bind(record.id.as_str())
        .bind(&record.subject)
        .bind(&record.name)
        .bind(record.scopes.join(" "))
        .bind(networks.join(" "))
        .bind(record.limit.map(i64::from))
        .bind(record.created_at.as_millis())
        .bind(record.expires_at.as_millis())
        .bind(record.last_used_at.map(UnixMillis::as_millis))
        .bind(record.replaces.as_ref().map(ApiKeyId::as_str))
        .bind(record.is_replaced)
        .bind(record.revoked_at.map(UnixMillis::as_millis))
        .bind(&digest.as_bytes()[..])
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .execute(executor)
        .await
        .map_err(failed)?;
    Ok(done.rows_affected() > 0)
}

async fn check_version(executor: impl SqliteExecutor<'_>) -> Result<(), StoreError> {
    let version: i64 = sqlx::query_scalar(READ_VERSION)
        .fetch_one(executor)
        .await
        .map_err(failed)?;
    match version {
        VERSION => Ok(()),
        _ => Err(StoreErrorKind::SchemaMismatch.into()),
    }
}

const VERSION: i64 = 1;
const BEGIN: &str = "BEGIN IMMEDIATE";
const TABLES: [&str; 7] = [
    "CREATE TABLE IF NOT EXISTS portcullis_api_key_schema (version INTEGER NOT NULL)",
    "INSERT INTO portcullis_api_key_schema (version)
        SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM portcullis_api_key_schema)",
    "CREATE TABLE IF NOT EXISTS portcullis_api_keys (
        id TEXT NOT NULL PRIMARY KEY,
        subject TEXT NOT NULL,
        name TEXT NOT NULL,
        scopes TEXT NOT NULL,
        networks TEXT NOT NULL,
        request_limit INTEGER,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        last_used_at INTEGER,
        replaces TEXT,
        is_replaced INTEGER NOT NULL,
        revoked_at INTEGER,
        digest BLOB NOT NULL
    )",
    "CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_subject
        ON portcullis_api_keys (subject, created_at)",
    "CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_end
        ON portcullis_api_keys (MIN(expires_at, COALESCE(revoked_at, expires_at)))",
    "CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_revocation
        ON portcullis_api_keys (revoked_at) WHERE revoked_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_replacement
        ON portcullis_api_keys (created_at) WHERE replaces IS NOT NULL",
];
const READ_VERSION: &str = "SELECT version FROM portcullis_api_key_schema";
const CREATE: &str = "INSERT INTO portcullis_api_keys
    (id, subject, name, scopes, networks, request_limit, created_at, expires_at, last_used_at,
        replaces, is_replaced, revoked_at, digest)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
    WHERE (SELECT COUNT(*) FROM portcullis_api_keys
        WHERE subject = ?2 AND revoked_at IS NULL AND expires_at > ?7 AND NOT is_replaced) < ?14";
const GET: &str = "SELECT id, subject, name, scopes, networks, request_limit, created_at,
        expires_at, last_used_at, replaces, is_replaced, revoked_at, digest
    FROM portcullis_api_keys WHERE id = ?1";
const LIST: &str = "SELECT id, subject, name, scopes, networks, request_limit, created_at,
        expires_at, last_used_at, replaces, is_replaced, revoked_at, digest
    FROM portcullis_api_keys
    WHERE subject = ?1 AND revoked_at IS NULL AND expires_at > ?2
    ORDER BY created_at DESC, rowid DESC LIMIT ?3";
const COUNT_REPLACED: &str = "SELECT COUNT(*) FROM portcullis_api_keys
    WHERE subject = ?1 AND revoked_at IS NULL AND expires_at > ?2 AND is_replaced";
const REPLACE: &str = "UPDATE portcullis_api_keys
    SET is_replaced = 1, expires_at = MIN(expires_at, ?4)
    WHERE id = ?1 AND subject = ?2 AND revoked_at IS NULL AND expires_at > ?3 AND NOT is_replaced";
const REVOKE: &str = "UPDATE portcullis_api_keys SET revoked_at = ?3
    WHERE id = ?1 AND subject = ?2 AND revoked_at IS NULL AND expires_at > ?3";
const REVOKE_SUBJECT: &str = "UPDATE portcullis_api_keys SET revoked_at = ?2
    WHERE subject = ?1 AND revoked_at IS NULL AND expires_at > ?2
    RETURNING id";
const ENDED_SINCE: &str = "SELECT id FROM portcullis_api_keys WHERE revoked_at >= ?1
    UNION SELECT replaces FROM portcullis_api_keys WHERE replaces IS NOT NULL AND created_at >= ?1";
const TOUCH: &str = "UPDATE portcullis_api_keys
    SET last_used_at = MAX(?2, COALESCE(last_used_at, ?2)) WHERE id = ?1";
const DELETE_EXPIRED: &str = "DELETE FROM portcullis_api_keys WHERE id IN (
    SELECT id FROM portcullis_api_keys
    WHERE MIN(expires_at, COALESCE(revoked_at, expires_at)) < ?1
    LIMIT ?2)";
