//! API keys in PostgreSQL, through `sqlx`. Feature `postgres`; needs Rust 1.94.
//!
//! [`PostgresKeys::new`] takes the service's own pool and makes its tables beside the service's;
//! where the service's role may not, its migrations run [`SCHEMA`]. All SQL is static, with bound
//! values. The caveats of [`refresh_token::postgres`](crate::refresh_token::postgres) hold here too.

use std::{fmt, time::Duration};

use sqlx::{PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};

use super::{
    ApiKeyId, ApiKeyRecord, ApiKeyStore, CreateOutcome, KeyRotation, RotateOutcome, StoreError,
    StoreErrorKind, StoredKey,
    sql::{id_of, read},
};
use crate::{client::Prefix, store_error::sql::failed, time::UnixMillis};

/// API keys in the table `portcullis_api_keys` of a PostgreSQL database. A cheap clone.
///
/// A call waits at most 2 s for a connection of the pool.
#[derive(Clone)]
pub struct PostgresKeys {
    pool: PgPool,
}

impl PostgresKeys {
    /// Keys in the database behind `pool`; makes the tables where they are missing.
    ///
    /// # Errors
    /// [`StoreErrorKind::SchemaMismatch`] when the tables are of another version.
    pub async fn new(pool: PgPool) -> Result<Self, StoreError> {
        let keys = Self { pool };
        let mut connection = keys.connection().await?;
        let there: bool = sqlx::query_scalar(IS_THERE)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        if !there {
            sqlx::raw_sql(SCHEMA)
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        drop(connection);
        keys.health().await?;
        Ok(keys)
    }

    async fn connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        match tokio::time::timeout(PATIENCE, self.pool.acquire()).await {
            Ok(connection) => connection.map_err(failed),
            Err(_) => Err(StoreErrorKind::Timeout.into()),
        }
    }

    /// A transaction that holds the subject's lock: a statement in it sees what those before did.
    async fn begin(&self, subject: &str) -> Result<Transaction<'static, Postgres>, StoreError> {
        let connection = self.connection().await?;
        let mut transaction = Transaction::begin(connection, None).await.map_err(failed)?;
        sqlx::query(LOCK)
            .bind(subject)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        Ok(transaction)
    }

    async fn add(&self, key: StoredKey, most: usize) -> Result<CreateOutcome, StoreError> {
        let mut transaction = self.begin(&key.record.subject).await?;
        let is_added = insert(&mut transaction, key, most).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(match is_added {
            true => CreateOutcome::Created,
            false => CreateOutcome::TooMany,
        })
    }

    async fn replace(&self, rotation: KeyRotation) -> Result<RotateOutcome, StoreError> {
        let KeyRotation { new, .. } = &rotation;
        let now = new.record.created_at.as_millis();
        let mut transaction = self.begin(&new.record.subject).await?;
        let replaced: i64 = sqlx::query_scalar(COUNT_REPLACED)
            .bind(&new.record.subject)
            .bind(now)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let done = sqlx::query(REPLACE)
            .bind(rotation.old.as_str())
            .bind(&new.record.subject)
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
        insert(&mut transaction, rotation.new, usize::MAX).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(RotateOutcome::Rotated)
    }
}

/// Runs what holds a transaction to its end, also when its caller goes away: sqlx 0.9.0 gives a
/// connection whose transaction is just beginning back to the pool with the transaction open.
async fn to_its_end<T: Send + 'static>(
    step: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(step)
        .await
        .map_err(|error| StoreError::new(StoreErrorKind::Other).with_source(error))?
}

impl ApiKeyStore for PostgresKeys {
    async fn create(&self, key: StoredKey, most: usize) -> Result<CreateOutcome, StoreError> {
        let keys = self.clone();
        to_its_end(async move { keys.add(key, most).await }).await
    }

    async fn get(&self, id: ApiKeyId) -> Result<Option<StoredKey>, StoreError> {
        let mut connection = self.connection().await?;
        let row = sqlx::query(GET)
            .bind(id.as_str())
            .fetch_optional(&mut *connection)
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
        let mut connection = self.connection().await?;
        let rows = sqlx::query(LIST)
            .bind(subject)
            .bind(now.as_millis())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok(read(row)?.record)).collect()
    }

    async fn rotate(&self, rotation: KeyRotation) -> Result<RotateOutcome, StoreError> {
        let keys = self.clone();
        to_its_end(async move { keys.replace(rotation).await }).await
    }

    async fn revoke(
        &self,
        id: ApiKeyId,
        subject: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        let done = sqlx::query(REVOKE)
            .bind(id.as_str())
            .bind(subject)
            .bind(now.as_millis())
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        Ok(done.rows_affected() > 0)
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        now: UnixMillis,
    ) -> Result<Vec<ApiKeyId>, StoreError> {
        let (keys, subject) = (self.clone(), subject.to_owned());
        to_its_end(async move {
            // No key is made meanwhile that this would miss.
            let mut transaction = keys.begin(&subject).await?;
            let rows = sqlx::query(REVOKE_SUBJECT)
                .bind(&subject)
                .bind(now.as_millis())
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            rows.iter().map(|row| id_of(row, 0)).collect()
        })
        .await
    }

    async fn ended_since(&self, since: UnixMillis) -> Result<Vec<ApiKeyId>, StoreError> {
        let mut connection = self.connection().await?;
        let rows = sqlx::query(ENDED_SINCE)
            .bind(since.as_millis())
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| id_of(row, 0)).collect()
    }

    async fn touch(&self, used: &[(ApiKeyId, UnixMillis)]) -> Result<(), StoreError> {
        let ids: Vec<&str> = used.iter().map(|(id, _)| id.as_str()).collect();
        let times: Vec<i64> = used.iter().map(|(_, at)| at.as_millis()).collect();
        let mut connection = self.connection().await?;
        sqlx::query(TOUCH)
            .bind(&ids)
            .bind(&times)
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let done = sqlx::query(DELETE_EXPIRED)
            .bind(before.as_millis())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        Ok(done.rows_affected())
    }

    async fn health(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let version: i64 = sqlx::query_scalar(READ_VERSION)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        match version {
            VERSION => Ok(()),
            _ => Err(StoreErrorKind::SchemaMismatch.into()),
        }
    }
}

impl fmt::Debug for PostgresKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresKeys").finish_non_exhaustive()
    }
}

/// Whether there was room.
async fn insert(
    connection: &mut PgConnection,
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
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(done.rows_affected() > 0)
}

/// What makes the tables where they are missing. It may run any number of times, also at once.
pub const SCHEMA: &str = "BEGIN;
SELECT pg_advisory_xact_lock(6309128044871295534);
CREATE TABLE IF NOT EXISTS portcullis_api_key_schema (version BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS portcullis_api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    networks TEXT NOT NULL,
    request_limit BIGINT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used_at BIGINT,
    replaces TEXT,
    is_replaced BOOLEAN NOT NULL,
    revoked_at BIGINT,
    digest BYTEA NOT NULL,
    made BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_subject
    ON portcullis_api_keys (subject, created_at);
CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_end
    ON portcullis_api_keys (LEAST(expires_at, revoked_at));
CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_revocation
    ON portcullis_api_keys (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS portcullis_api_keys_by_replacement
    ON portcullis_api_keys (created_at) WHERE replaces IS NOT NULL;
INSERT INTO portcullis_api_key_schema (version)
    SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM portcullis_api_key_schema);
COMMIT;";

const PATIENCE: Duration = Duration::from_secs(2);
const VERSION: i64 = 1;

const IS_THERE: &str = "SELECT to_regclass('portcullis_api_key_schema') IS NOT NULL";
const READ_VERSION: &str = "SELECT version FROM portcullis_api_key_schema";
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 6309128044871295534))";
const CREATE: &str = "INSERT INTO portcullis_api_keys
    (id, subject, name, scopes, networks, request_limit, created_at, expires_at, last_used_at,
        replaces, is_replaced, revoked_at, digest)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
    WHERE (SELECT COUNT(*) FROM portcullis_api_keys
        WHERE subject = $2 AND revoked_at IS NULL AND expires_at > $7 AND NOT is_replaced) < $14";
const GET: &str = "SELECT id, subject, name, scopes, networks, request_limit, created_at,
        expires_at, last_used_at, replaces, is_replaced, revoked_at, digest
    FROM portcullis_api_keys WHERE id = $1";
const LIST: &str = "SELECT id, subject, name, scopes, networks, request_limit, created_at,
        expires_at, last_used_at, replaces, is_replaced, revoked_at, digest
    FROM portcullis_api_keys
    WHERE subject = $1 AND revoked_at IS NULL AND expires_at > $2
    ORDER BY created_at DESC, made DESC LIMIT $3";
const COUNT_REPLACED: &str = "SELECT COUNT(*) FROM portcullis_api_keys
    WHERE subject = $1 AND revoked_at IS NULL AND expires_at > $2 AND is_replaced";
const REPLACE: &str = "UPDATE portcullis_api_keys
    SET is_replaced = TRUE, expires_at = LEAST(expires_at, $4)
    WHERE id = $1 AND subject = $2 AND revoked_at IS NULL AND expires_at > $3 AND NOT is_replaced";
const REVOKE: &str = "UPDATE portcullis_api_keys SET revoked_at = $3
    WHERE id = $1 AND subject = $2 AND revoked_at IS NULL AND expires_at > $3";
const REVOKE_SUBJECT: &str = "UPDATE portcullis_api_keys SET revoked_at = $2
    WHERE subject = $1 AND revoked_at IS NULL AND expires_at > $2
    RETURNING id";
const ENDED_SINCE: &str = "SELECT id FROM portcullis_api_keys WHERE revoked_at >= $1
    UNION SELECT replaces FROM portcullis_api_keys WHERE replaces IS NOT NULL AND created_at >= $1";
// In the order of the ids, so that two of these wait for one another and never both.
const TOUCH: &str = "UPDATE portcullis_api_keys AS key
    SET last_used_at = GREATEST(key.last_used_at, used.at)
    FROM (SELECT locked.id, MAX(touched.at) AS at
        FROM UNNEST($1::text[], $2::bigint[]) AS touched (id, at)
        JOIN (SELECT id FROM portcullis_api_keys WHERE id = ANY($1) ORDER BY id FOR UPDATE) AS locked
            ON locked.id = touched.id
        GROUP BY locked.id) AS used
    WHERE key.id = used.id";
const DELETE_EXPIRED: &str = "DELETE FROM portcullis_api_keys WHERE id = ANY(ARRAY(
    SELECT id FROM portcullis_api_keys
    WHERE LEAST(expires_at, revoked_at) < $1
    LIMIT $2 FOR UPDATE SKIP LOCKED))";
