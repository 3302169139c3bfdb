//! Sessions in SQLite, through `sqlx`. Feature `sqlite`; needs Rust 1.94.
//!
//! [`SqliteStore::new`] takes the service's own pool and makes its two tables beside the service's;
//! [`SqliteStore::open`] opens a file with the settings that sessions need. All SQL is static, with
//! bound values.
//!
//! Deployment caveat: with `synchronous = NORMAL` a power cut can undo the last rotations, which
//! ends those sessions with an alarm; `open` sets `FULL`. Keep the file on a local disk: WAL does
//! not work over a network.
//!
//! ```
//! use portcullis::{refresh_token::{RefreshTokens, sqlite::SqliteStore}, secret::Secret};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("sessions.db");
//! let store = SqliteStore::open(&path).await?;
//! let tokens = RefreshTokens::new(store, Secret::generate());
//! tokens.health().await?;
//! # Ok(())
//! # }
//! ```

use std::{collections::BTreeSet, fmt, fs, io, path::Path, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, Error, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    CreateOutcome, EndReason, Ended, Lineage, NewSession, RefreshTokenStore, RevokeOutcome,
    RevokedSubject, RotateOutcome, Rotation, SessionId, SessionRecord, StoreError, StoreErrorKind,
    sql::{read, read_end, read_id, sweep_day},
};
use crate::{store_error::sql::failed, time::UnixMillis};

/// Sessions in the tables `portcullis_sessions` and `portcullis_subjects` of a SQLite database. A
/// cheap clone.
#[derive(Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    /// SQLite has one writer: those of this process wait here in order, instead of polling, for one
    /// connection, whose pages stay warm.
    writer: Arc<Mutex<Option<SqliteConnection>>>,
    /// A database in memory lives as long as a connection to it; the pool may close its own, as
    /// when a call is dropped in the middle.
    _keeper: Option<Arc<std::sync::Mutex<SqliteConnection>>>,
}

impl SqliteStore {
    /// Sessions in the database behind `pool`; makes the tables where they are missing.
    ///
    /// A database in memory is gone with its last connection, and a pool closes connections: for
    /// one, use [`in_memory`](Self::in_memory). The connection that writes is taken out of the pool
    /// at the first write, so the database has one connection more than the pool's most; and behind
    /// a bare `:memory:`, where each connection has a database of its own, reads would find no tables.
    ///
    /// # Errors
    /// [`StoreErrorKind::SchemaMismatch`] when the tables are of another version.
    pub async fn new(pool: SqlitePool) -> Result<Self, StoreError> {
        let store = Self {
            pool,
            writer: Arc::default(),
            _keeper: None,
        };
        store.prepare().await?;
        Ok(store)
    }

    /// Opens the database file at `path`, or makes it: mode 0600, WAL, `synchronous = FULL`, 5 s of
    /// patience for other processes.
    ///
    /// # Errors
    /// When the file cannot be opened, or its tables are of another version.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        keep_private(path)
            .map_err(|error| StoreError::new(StoreErrorKind::Unavailable).with_source(error))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await
            .map_err(failed)?;
        Self::new(pool).await
    }

    /// Sessions in a database of its own in memory.
    ///
    /// # Errors
    /// When SQLite cannot be started.
    pub async fn in_memory() -> Result<Self, StoreError> {
        // Parsing gives the database a name of its own, by which connections share it.
        let options: SqliteConnectOptions = "sqlite::memory:".parse().map_err(failed)?;
        let keeper = options.connect().await.map_err(failed)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await
            .map_err(failed)?;
        Ok(Self {
            _keeper: Some(Arc::new(keeper.into())),
            ..Self::new(pool).await?
        })
    }

    /// The pool, for the service's own tables.
    #[must_use]
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with(BEGIN).await.map_err(failed)?;
        for statement in TABLES {
            sqlx::query(statement)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        let version: i64 = sqlx::query_scalar(READ_VERSION)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        if version != VERSION {
            return Err(StoreErrorKind::SchemaMismatch.into());
        }
        transaction.commit().await.map_err(failed)
    }

    /// The connection to write on, which is the pool's no more.
    async fn writer(&self) -> Result<Writer<'_>, StoreError> {
        let mut place = self.writer.lock().await;
        if self.pool.is_closed() {
            return Err(failed(Error::PoolClosed));
        }
        let connection = match place.take() {
            Some(connection) => connection,
            None => self.pool.acquire().await.map_err(failed)?.detach(),
        };
        Ok(Writer { place, connection })
    }

    async fn row(&self, id: SessionId) -> Result<Option<(SessionRecord, Lineage)>, StoreError> {
        let row = sqlx::query(GET)
            .bind(&id.as_bytes()[..])
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        row.as_ref().map(read).transpose()
    }
}

/// Whose turn it is to write. A connection that was not given back, since its step failed or was
/// dropped, is closed.
struct Writer<'a> {
    place: MutexGuard<'a, Option<SqliteConnection>>,
    connection: SqliteConnection,
}

impl Writer<'_> {
    fn give_back(mut self) {
        *self.place = Some(self.connection);
    }
}

impl RefreshTokenStore for SqliteStore {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        let epoch: Option<i64> = sqlx::query_scalar(EPOCH)
            .bind(subject)
            .fetch_optional(&self.pool)
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
        let mut writer = self.writer().await?;
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
            .execute(&mut writer.connection)
            .await
            .map_err(failed)?;
        writer.give_back();
        Ok(match done.rows_affected() {
            0 => CreateOutcome::EpochMoved,
            _ => CreateOutcome::Created,
        })
    }

    async fn rotate(&self, rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        let mut writer = self.writer().await?;
        let mut rotated = Vec::new();
        for statement in [ROTATE_WITHIN_DAY, ROTATE] {
            // All rows are fetched so that the statement, and with it its commit, runs to its end.
            rotated = sqlx::query(statement)
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
                .fetch_all(&mut writer.connection)
                .await
                .map_err(failed)?;
            if !rotated.is_empty() {
                break;
            }
        }
        writer.give_back();
        Ok(match rotated.first() {
            Some(row) => RotateOutcome::Rotated(read(row)?.0),
            None => RotateOutcome::refused(&rotation, self.row(rotation.id).await?),
        })
    }

    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        let mut writer = self.writer().await?;
        let ended = sqlx::query(REVOKE)
            .bind(&id.as_bytes()[..])
            .bind(now.as_millis())
            .bind(reason.as_str())
            .bind(sweep_day(now))
            .fetch_all(&mut writer.connection)
            .await
            .map_err(failed)?;
        writer.give_back();
        if let Some(row) = ended.first() {
            return Ok(RevokeOutcome::Ended(read(row)?.0));
        }
        Ok(match self.row(id).await? {
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
        let except = except.map_or([0; 16], |id| *id.as_bytes());
        let mut writer = self.writer().await?;
        let mut transaction = writer.connection.begin_with(BEGIN).await.map_err(failed)?;
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
        writer.give_back();
        let ended = rows
            .iter()
            .map(|row| read_id(row, 0))
            .collect::<Result<_, _>>()?;
        Ok(RevokedSubject {
            epoch: epoch as u64,
            ended,
        })
    }

    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        Ok(self.row(id).await?.map(|(record, _)| record))
    }

    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let rows = sqlx::query(LIST)
            .bind(subject)
            .bind(now.as_millis())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok(read(row)?.0)).collect()
    }

    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        let rows = sqlx::query(REVOKED_SINCE)
            .bind(since.as_millis())
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(read_end).collect()
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        let mut transaction = writer.connection.begin_with(BEGIN).await.map_err(failed)?;
        let subjects: Vec<String> = sqlx::query_scalar(DELETE_EXPIRED)
            .bind(before.as_millis())
            .bind(sweep_day(before))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let deleted = subjects.len() as u64;
        for subject in BTreeSet::from_iter(subjects) {
            sqlx::query(FORGET_SUBJECT)
                .bind(subject)
                .bind(before.as_millis())
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        writer.give_back();
        Ok(deleted)
    }

    async fn health(&self) -> Result<(), StoreError> {
        let version: i64 = sqlx::query_scalar(READ_VERSION)
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
        match version {
            VERSION => Ok(()),
            _ => Err(StoreErrorKind::SchemaMismatch.into()),
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

/// Makes the file, if it is missing, readable by its owner alone before anything is in it. The WAL
/// beside it takes its mode.
fn keep_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
        options.mode(0o600);
        let file = options.open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))
    }
    #[cfg(not(unix))]
    options.open(path).map(drop)
}

const PATIENCE: Duration = Duration::from_secs(5);
const VERSION: i64 = 1;

const BEGIN: &str = "BEGIN IMMEDIATE";
const TABLES: [&str; 7] = [
    "CREATE TABLE IF NOT EXISTS portcullis_schema (version INTEGER NOT NULL)",
    "INSERT INTO portcullis_schema (version)
        SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM portcullis_schema)",
    "CREATE TABLE IF NOT EXISTS portcullis_subjects (
        subject TEXT NOT NULL PRIMARY KEY,
        epoch INTEGER NOT NULL
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS portcullis_sessions (
        id BLOB NOT NULL PRIMARY KEY,
        subject TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        last_used_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        absolute_end INTEGER NOT NULL,
        ended_at INTEGER,
        end_reason TEXT,
        label TEXT,
        user_agent TEXT,
        ip TEXT,
        generation INTEGER NOT NULL,
        current BLOB NOT NULL,
        previous BLOB,
        seed BLOB,
        key_id INTEGER NOT NULL,
        sweep_day INTEGER NOT NULL
    )",
    "CREATE INDEX IF NOT EXISTS portcullis_sessions_by_subject
        ON portcullis_sessions (subject, created_at)",
    "CREATE INDEX IF NOT EXISTS portcullis_sessions_by_sweep_day
        ON portcullis_sessions (sweep_day)",
    "CREATE INDEX IF NOT EXISTS portcullis_sessions_by_end
        ON portcullis_sessions (ended_at) WHERE ended_at IS NOT NULL",
];
const READ_VERSION: &str = "SELECT version FROM portcullis_schema";
const EPOCH: &str = "SELECT epoch FROM portcullis_subjects WHERE subject = ?1";
const CREATE: &str = "INSERT INTO portcullis_sessions
    (id, subject, created_at, last_used_at, expires_at, absolute_end, label, user_agent, ip,
        generation, current, key_id, sweep_day)
    SELECT ?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11
    WHERE COALESCE((SELECT epoch FROM portcullis_subjects WHERE subject = ?2), 0) = ?12";
macro_rules! rotate {
    ($set:literal, $only:literal) => {
        concat!(
            "UPDATE portcullis_sessions
    SET generation = ?5, previous = current, current = ?6, seed = ?7, key_id = ?8,
        last_used_at = ?4, expires_at = MIN(?9, absolute_end), ip = COALESCE(?10, ip)",
            $set,
            "
    WHERE id = ?1 AND generation = ?2 AND current = ?3 AND ended_at IS NULL AND expires_at > ?4
        AND last_used_at <= ?11",
            $only,
            "
    RETURNING id, subject, created_at, last_used_at, expires_at, absolute_end, ended_at,
        end_reason, label, user_agent, ip, generation, current, previous, seed, key_id"
        )
    };
}
// SQLite writes an index whenever its column is set, so most rotations do without.
const ROTATE_WITHIN_DAY: &str = rotate!("", " AND sweep_day = MIN(?9, absolute_end) / 86400000");
const ROTATE: &str = rotate!(", sweep_day = MIN(?9, absolute_end) / 86400000", "");
const GET: &str = "SELECT id, subject, created_at, last_used_at, expires_at, absolute_end,
        ended_at, end_reason, label, user_agent, ip, generation, current, previous, seed, key_id
    FROM portcullis_sessions WHERE id = ?1";
const REVOKE: &str = "UPDATE portcullis_sessions
    SET ended_at = ?2, end_reason = ?3, sweep_day = MIN(sweep_day, ?4)
    WHERE id = ?1 AND ended_at IS NULL
    RETURNING id, subject, created_at, last_used_at, expires_at, absolute_end, ended_at,
        end_reason, label, user_agent, ip, generation, current, previous, seed, key_id";
const RAISE_EPOCH: &str = "INSERT INTO portcullis_subjects (subject, epoch) VALUES (?1, ?2)
    ON CONFLICT (subject) DO UPDATE SET epoch = MAX(epoch + 1, ?2)
    RETURNING epoch";
const REVOKE_SUBJECT: &str = "UPDATE portcullis_sessions
    SET ended_at = ?3, end_reason = ?4, sweep_day = MIN(sweep_day, ?5)
    WHERE subject = ?1 AND id <> ?2 AND ended_at IS NULL
    RETURNING id";
const LIST: &str = "SELECT id, subject, created_at, last_used_at, expires_at, absolute_end,
        ended_at, end_reason, label, user_agent, ip, generation, current, previous, seed, key_id
    FROM portcullis_sessions
    WHERE subject = ?1 AND ended_at IS NULL AND expires_at > ?2
    ORDER BY created_at DESC, id DESC LIMIT ?3";
const REVOKED_SINCE: &str = "SELECT id, ended_at, end_reason FROM portcullis_sessions
    WHERE ended_at >= ?1";
const DELETE_EXPIRED: &str = "DELETE FROM portcullis_sessions WHERE id IN (
    SELECT id FROM portcullis_sessions
    WHERE sweep_day <= ?2 AND (expires_at < ?1 OR ended_at < ?1)
    LIMIT ?3)
    RETURNING subject";
const FORGET_SUBJECT: &str = "DELETE FROM portcullis_subjects
    WHERE subject = ?1 AND epoch < ?2
    AND NOT EXISTS (SELECT 1 FROM portcullis_sessions WHERE subject = ?1)";
