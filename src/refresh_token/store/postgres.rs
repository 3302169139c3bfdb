//! Sessions in PostgreSQL, through `sqlx`. Feature `postgres`; needs Rust 1.94.
//!
//! [`PostgresStore::new`] takes the service's own pool and makes its tables beside the service's,
//! in the first schema of the connection's `search_path`; several instances may start at once.
//! Where the service's role may not make tables, its migrations run [`SCHEMA`]. All SQL is static,
//! with bound values.
//!
//! Deployment caveat: with `synchronous_commit = off`, and after a failover to a replica that lags,
//! the last rotations can be gone, which ends those sessions with an alarm. Behind a pooler that
//! gives each transaction another connection, switch off the pool's cache of statements. And with
//! sqlx 0.9.0, a future that is dropped while `Pool::begin` runs gives its connection back with the
//! transaction open: where the service's own code may do that, give the store a pool of its own
//! ([`PostgresStore::connect`]), or rotations are told as done that are never committed.
//!
//! ```no_run
//! use portcullis::{refresh_token::{RefreshTokens, postgres::PostgresStore}, secret::Secret};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::connect("postgres://service@db.internal/service").await?;
//! let tokens = RefreshTokens::new(store, Secret::generate());
//! tokens.health().await?;
//! # Ok(())
//! # }
//! ```

use std::{fmt, time::Duration};

use sqlx::{
    PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    CreateOutcome, EndReason, Ended, NewSession, RefreshTokenStore, RevokeOutcome, RevokedSubject,
    RotateOutcome, Rotation, SessionId, SessionRecord, StoreError, StoreErrorKind,
    sql::{read, read_end, read_id, sweep_day},
};
use crate::{refresh_token::Lineage, store_error::sql::failed, time::UnixMillis};

/// Sessions in the tables `portcullis_sessions` and `portcullis_subjects` of a PostgreSQL database.
/// A cheap clone.
///
/// A rotation is one autocommitted statement, one round trip. A call waits at most 2 s for a
/// connection of the pool, whatever the pool's own patience is.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
}

impl PostgresStore {
    /// Sessions in the database behind `pool`; makes the tables where they are missing.
    ///
    /// # Errors
    /// [`StoreErrorKind::SchemaMismatch`] when the tables are of another version,
    /// [`StoreErrorKind::Misconfigured`] when connections do not start their transactions at READ
    /// COMMITTED: above it, callers that come second get errors instead of the row.
    pub async fn new(pool: PgPool) -> Result<Self, StoreError> {
        let store = Self { pool };
        store.prepare().await?;
        Ok(store)
    }

    /// Connects to the database at `url` with a pool of its own: 8 connections, 2 s of patience for
    /// one, 5 s for a statement.
    ///
    /// # Errors
    /// [`StoreErrorKind::Misconfigured`] when the URL cannot be read, and those of
    /// [`new`](Self::new).
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            StoreError::new(StoreErrorKind::Misconfigured).with_source(error)
        })?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(PATIENCE)
            .connect_with(options.options([("statement_timeout", "5s")]))
            .await
            .map_err(failed)?;
        Self::new(pool).await
    }

    /// The pool, for the service's own tables.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let isolation: String = sqlx::query_scalar(ISOLATION)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        if isolation != "read committed" {
            let text = "the pool's connections must start transactions at READ COMMITTED";
            return Err(StoreError::new(StoreErrorKind::Misconfigured).with_source(text));
        }
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
        self.health().await
    }

    async fn connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        match tokio::time::timeout(PATIENCE, self.pool.acquire()).await {
            Ok(connection) => connection.map_err(failed),
            Err(_) => Err(StoreErrorKind::Timeout.into()),
        }
    }

    async fn revoke_all(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        let except = except.map_or([0; 16], |id| *id.as_bytes());
        let connection = self.connection().await?;
        let mut transaction = sqlx::Transaction::begin(connection, None)
            .await
            .map_err(failed)?;
        // The subject's row is locked from here on, and the second statement sees every session
        // whose `create` held that lock before.
        let epoch: i64 = sqlx::query_scalar(RAISE_EPOCH)
            .bind(subject)
            .bind(RevokedSubject::raised(0, now) as i64)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let rows = sqlx::query(REVOKE_SUBJECT)
            .bind(subject)
            .bind(&except[..])
            .bind(now.as_millis())
            .bind(reason.as_str())
            .bind(sweep_day(now))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let ended = rows.iter().map(|row| read_id(row, 0));
        Ok(RevokedSubject {
            epoch: epoch as u64,
            ended: ended.collect::<Result<_, _>>()?,
        })
    }

    async fn row(
        &self,
        connection: &mut PoolConnection<Postgres>,
        id: SessionId,
    ) -> Result<Option<(SessionRecord, Lineage)>, StoreError> {
        let row = sqlx::query(GET)
            .bind(&id.as_bytes()[..])
            .fetch_optional(&mut **connection)
            .await
            .map_err(failed)?;
        row.as_ref().map(read).transpose()
    }
}

impl RefreshTokenStore for PostgresStore {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let epoch: Option<i64> = sqlx::query_scalar(EPOCH)
            .bind(subject)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        Ok(epoch.unwrap_or(0) as u64)
    }

    async fn create(&self, session: NewSession) -> Result<CreateOutcome, StoreError> {
        let NewSession {
            record,
            epoch,
            token,
            key,
        } = session;
        let mut connection = self.connection().await?;
        let done = sqlx::query(CREATE)
            .bind(&record.id.as_bytes()[..])
            .bind(&record.subject)
            .bind(record.created_at.as_millis())
            .bind(record.expires_at.as_millis())
            .bind(record.absolute_end.as_millis())
            .bind(record.device.label)
            .bind(record.device.user_agent)
            .bind(record.device.ip.map(|ip| ip.to_string()))
            .bind(&token.as_bytes()[..])
            .bind(i64::from(key.get()))
            .bind(sweep_day(record.expires_at))
            .bind(epoch as i64)
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        Ok(match done.rows_affected() {
            0 => CreateOutcome::EpochMoved,
            _ => CreateOutcome::Created,
        })
    }

    async fn rotate(&self, rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        let mut connection = self.connection().await?;
        let rotated = sqlx::query(ROTATE)
            .bind(&rotation.id.as_bytes()[..])
            .bind(rotation.generation as i64)
            .bind(&rotation.presented.as_bytes()[..])
            .bind(rotation.now.as_millis())
            .bind(rotation.generation.wrapping_add(1) as i64)
            .bind(&rotation.next.as_bytes()[..])
            .bind(&rotation.seed.as_bytes()[..])
            .bind(i64::from(rotation.key.get()))
            .bind(rotation.idle_end.as_millis())
            .bind(rotation.client.map(|ip| ip.to_string()))
            .bind(rotation.not_made_after.as_millis())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        Ok(match rotated {
            Some(row) => RotateOutcome::Rotated(read(&row)?.0),
            // A statement of its own, whose snapshot is younger than the wait for the winner.
            None => {
                RotateOutcome::refused(&rotation, self.row(&mut connection, rotation.id).await?)
            }
        })
    }

    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        let mut connection = self.connection().await?;
        let ended = sqlx::query(REVOKE)
            .bind(&id.as_bytes()[..])
            .bind(now.as_millis())
            .bind(reason.as_str())
            .bind(sweep_day(now))
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        if let Some(row) = ended {
            return Ok(RevokeOutcome::Ended(read(&row)?.0));
        }
        Ok(match self.row(&mut connection, id).await? {
            Some((record, _)) => RevokeOutcome::AlreadyEnded(record),
            None => RevokeOutcome::NotFound,
        })
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        let (store, subject) = (self.clone(), subject.to_owned());
        // A task, so that a caller who goes away does not drop the transaction while it begins:
        // sqlx 0.9.0 gives such a connection back to the pool with the transaction open.
        tokio::spawn(async move { store.revoke_all(&subject, except, reason, now).await })
            .await
            .map_err(|error| StoreError::new(StoreErrorKind::Other).with_source(error))?
    }

    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let mut connection = self.connection().await?;
        let row = self.row(&mut connection, id).await?;
        Ok(row.map(|(record, _)| record))
    }

    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let mut connection = self.connection().await?;
        let rows = sqlx::query(LIST)
            .bind(subject)
            .bind(now.as_millis())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok(read(row)?.0)).collect()
    }

    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        let mut connection = self.connection().await?;
        let rows = sqlx::query(REVOKED_SINCE)
            .bind(since.as_millis())
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        rows.iter().map(read_end).collect()
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let subjects: Vec<String> = sqlx::query_scalar(DELETE_EXPIRED)
            .bind(before.as_millis())
            .bind(sweep_day(before))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        if !subjects.is_empty() {
            sqlx::query(FORGET_SUBJECTS)
                .bind(&subjects)
                .bind(before.as_millis())
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        Ok(subjects.len() as u64)
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

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

/// What makes the tables where they are missing. It may run any number of times, also at once.
pub const SCHEMA: &str = "BEGIN;
SELECT pg_advisory_xact_lock(8102099357864587376);
CREATE TABLE IF NOT EXISTS portcullis_schema (version BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS portcullis_subjects (
    subject TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL
) WITH (fillfactor = 80);
CREATE TABLE IF NOT EXISTS portcullis_sessions (
    id BYTEA NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    absolute_end BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT,
    label TEXT,
    user_agent TEXT,
    ip TEXT,
    generation BIGINT NOT NULL,
    current BYTEA NOT NULL,
    previous BYTEA,
    seed BYTEA,
    key_id BIGINT NOT NULL,
    sweep_day BIGINT NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS portcullis_sessions_by_subject
    ON portcullis_sessions (subject, created_at);
CREATE INDEX IF NOT EXISTS portcullis_sessions_by_sweep_day
    ON portcullis_sessions (sweep_day);
CREATE INDEX IF NOT EXISTS portcullis_sessions_by_end
    ON portcullis_sessions (ended_at) WHERE ended_at IS NOT NULL;
INSERT INTO portcullis_schema (version)
    SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM portcullis_schema);
COMMIT;";

const PATIENCE: Duration = Duration::from_secs(2);
const VERSION: i64 = 1;

const ISOLATION: &str = "SELECT current_setting('transaction_isolation')";
const IS_THERE: &str = "SELECT to_regclass('portcullis_schema') IS NOT NULL";
const READ_VERSION: &str = "SELECT version FROM portcullis_schema";
const EPOCH: &str = "SELECT epoch FROM portcullis_subjects WHERE subject = $1";
// The subject's row is written even where nothing changes: that locks it, and gives the epoch as it
// is once the lock is had, not as it was when the statement began.
const CREATE: &str = "WITH subject AS (
        INSERT INTO portcullis_subjects (subject, epoch) VALUES ($2, 0)
        ON CONFLICT (subject) DO UPDATE SET epoch = portcullis_subjects.epoch
        RETURNING epoch)
    INSERT INTO portcullis_sessions
        (id, subject, created_at, last_used_at, expires_at, absolute_end, label, user_agent, ip,
            generation, current, key_id, sweep_day)
    SELECT $1, $2, $3, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11 FROM subject WHERE epoch = $12";
const ROTATE: &str = "UPDATE portcullis_sessions
    SET generation = $5, previous = current, current = $6, seed = $7, key_id = $8,
        last_used_at = $4, expires_at = LEAST($9, absolute_end), ip = COALESCE($10, ip),
        sweep_day = LEAST($9, absolute_end) / 86400000
    WHERE id = $1 AND generation = $2 AND current = $3 AND ended_at IS NULL AND expires_at > $4
        AND last_used_at <= $11
    RETURNING id, subject, created_at, last_used_at, expires_at, absolute_end, ended_at,
        end_reason, label, user_agent, ip, generation, current, previous, seed, key_id";
const GET: &str = "SELECT id, subject, created_at, last_used_at, expires_at, absolute_end,
        ended_at, end_reason, label, user_agent, ip, generation, current, previous, seed, key_id
    FROM portcullis_sessions WHERE id = $1";
const REVOKE: &str = "UPDATE portcullis_sessions
    SET ended_at = $2, end_reason = $3, sweep_day = LEAST(sweep_day, $4)
    WHERE id = $1 AND ended_at IS NULL
    RETURNING id, subject, created_at, last_used_at, expires_at, absolute_end, ended_at,
        end_reason, label, user_agent, ip, generation, current, previous, seed, key_id";
const RAISE_EPOCH: &str = "INSERT INTO portcullis_subjects (subject, epoch) VALUES ($1, $2)
    ON CONFLICT (subject) DO UPDATE SET epoch = GREATEST(portcullis_subjects.epoch + 1, $2)
    RETURNING epoch";
const REVOKE_SUBJECT: &str = "UPDATE portcullis_sessions
    SET ended_at = $3, end_reason = $4, sweep_day = LEAST(sweep_day, $5)
    WHERE subject = $1 AND id <> $2 AND ended_at IS NULL
    RETURNING id";
const LIST: &str = "SELECT id, subject, created_at, last_used_at, expires_at, absolute_end,
        ended_at, end_reason, label, user_agent, ip, generation, current, previous, seed, key_id
    FROM portcullis_sessions
    WHERE subject = $1 AND ended_at IS NULL AND expires_at > $2
    ORDER BY created_at DESC, id DESC LIMIT $3";
const REVOKED_SINCE: &str = "SELECT id, ended_at, end_reason FROM portcullis_sessions
    WHERE ended_at >= $1";
// Rows that another sweep or a rotation holds are left for the next one; those that are locked here
// are looked at again as they are then.
const DELETE_EXPIRED: &str = "DELETE FROM portcullis_sessions WHERE id = ANY(ARRAY(
        SELECT id FROM portcullis_sessions
        WHERE sweep_day <= $2 AND (expires_at < $1 OR ended_at < $1)
        LIMIT $3 FOR UPDATE SKIP LOCKED))
    RETURNING subject";
const FORGET_SUBJECTS: &str = "DELETE FROM portcullis_subjects WHERE subject = ANY(ARRAY(
        SELECT subject FROM portcullis_subjects AS known
        WHERE subject = ANY($1) AND epoch < $2 AND NOT EXISTS (
            SELECT 1 FROM portcullis_sessions AS session WHERE session.subject = known.subject)
        FOR UPDATE SKIP LOCKED))";
