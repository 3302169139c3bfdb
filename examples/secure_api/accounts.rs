//! The application's own table of users.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use portcullis::{
    audit::{self, Line, Verdict},
    time::UnixMillis,
};
use sqlx::{PgPool, SqlitePool};

/// A user.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) username: String,
    pub(crate) password_hash: String,
}

/// Where users are kept.
pub(crate) enum Accounts {
    Memory(Mutex<HashMap<String, Account>>),
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Why a user was not stored.
#[derive(Debug)]
pub(crate) enum CreateError {
    Taken,
    Store(sqlx::Error),
}

// The same statements on either database, whose pools are of different types.
macro_rules! insert {
    ($pool:expr, $account:expr, $now:expr) => {{
        let insert = sqlx::query(INSERT)
            .bind($account.id)
            .bind($account.username)
            .bind($account.password_hash)
            .bind($now.as_millis());
        match insert.execute($pool).await {
            Ok(_) => Ok(()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(CreateError::Taken)
            }
            Err(error) => Err(CreateError::Store(error)),
        }
    }};
}
macro_rules! find {
    ($pool:expr, $statement:expr, $key:expr) => {{
        let row = sqlx::query_as($statement).bind($key);
        let row: Option<(String, String, String)> = row.fetch_optional($pool).await?;
        Ok(row.map(|(id, username, password_hash)| Account {
            id,
            username,
            password_hash,
        }))
    }};
}
macro_rules! replace_hash {
    ($pool:expr, $id:expr, $old:expr, $new:expr) => {{
        let update = sqlx::query(REPLACE_HASH).bind($new).bind($id).bind($old);
        Ok(update.execute($pool).await?.rows_affected() == 1)
    }};
}

impl Accounts {
    pub(crate) fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    pub(crate) async fn sqlite(pool: SqlitePool) -> Result<Self, sqlx::Error> {
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS accounts (
                id TEXT PRIMARY KEY NOT NULL,
                username TEXT NOT NULL UNIQUE,
                password_hash TEXT NOT NULL,
                created_at INTEGER NOT NULL
            ) STRICT",
        )
        .execute(&pool)
        .await?;
        Ok(Self::Sqlite(pool))
    }

    pub(crate) async fn postgres(pool: PgPool) -> Result<Self, sqlx::Error> {
        // Of several instances that start at once, one makes the table.
        sqlx::raw_sql(
            "BEGIN;
            SELECT pg_advisory_xact_lock(4419527701963846712);
            CREATE TABLE IF NOT EXISTS accounts (
                id TEXT PRIMARY KEY,
                username TEXT NOT NULL UNIQUE,
                password_hash TEXT NOT NULL,
                created_at BIGINT NOT NULL
            );
            COMMIT",
        )
        .execute(&pool)
        .await?;
        Ok(Self::Postgres(pool))
    }

    pub(crate) async fn create(
        &self,
        account: Account,
        now: UnixMillis,
    ) -> Result<(), CreateError> {
        match self {
            Self::Memory(accounts) => {
                let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                if accounts.contains_key(&account.username) {
                    return Err(CreateError::Taken);
                }
                accounts.insert(account.username.clone(), account);
                Ok(())
            }
            Self::Sqlite(pool) => insert!(pool, account, now),
            Self::Postgres(pool) => insert!(pool, account, now),
        }
    }

    /// The checklist's line, by the live connection.
    pub(crate) async fn audited(&self) -> Line {
        match self {
            Self::Memory(_) => Line::new(
                "database",
                "sessions are stored securely in a database",
                Verdict::Operators,
                "the data are in memory and end with the process",
            )
            .set_by("DATABASE_URL")
            .to_do("name a file or a server"),
            Self::Sqlite(pool) => audit::sqlite(pool).await,
            Self::Postgres(pool) => audit::postgres(pool).await,
        }
    }

    pub(crate) async fn by_username(&self, username: &str) -> Result<Option<Account>, sqlx::Error> {
        match self {
            Self::Memory(accounts) => {
                let accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(accounts.get(username).cloned())
            }
            Self::Sqlite(pool) => find!(pool, BY_USERNAME, username),
            Self::Postgres(pool) => find!(pool, BY_USERNAME, username),
        }
    }

    pub(crate) async fn by_id(&self, id: &str) -> Result<Option<Account>, sqlx::Error> {
        match self {
            Self::Memory(accounts) => {
                let accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(accounts.values().find(|account| account.id == id).cloned())
            }
            Self::Sqlite(pool) => find!(pool, BY_ID, id),
            Self::Postgres(pool) => find!(pool, BY_ID, id),
        }
    }

    /// Stores a new hash if the old one is still there; `false` if it is not.
    pub(crate) async fn replace_hash(
        &self,
        id: &str,
        old: &str,
        new: &str,
    ) -> Result<bool, sqlx::Error> {
        match self {
            Self::Memory(accounts) => {
                let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                let account = accounts
                    .values_mut()
                    .find(|account| account.id == id && account.password_hash == old);
                Ok(match account {
                    Some(account) => {
                        new.clone_into(&mut account.password_hash);
                        true
                    }
                    None => false,
                })
            }
            Self::Sqlite(pool) => replace_hash!(pool, id, old, new),
            Self::Postgres(pool) => replace_hash!(pool, id, old, new),
        }
    }
}

const INSERT: &str = "INSERT INTO accounts (id, username, password_hash, created_at)
    VALUES ($1, $2, $3, $4)";
const BY_USERNAME: &str = "SELECT id, username, password_hash FROM accounts WHERE username = $1";
const BY_ID: &str = "SELECT id, username, password_hash FROM accounts WHERE id = $1";
const REPLACE_HASH: &str = "UPDATE accounts SET password_hash = $1
    WHERE id = $2 AND password_hash = $3";

/// A name as it is stored: lower case, 3 to 64 of `[a-z0-9._-]`; `None` for anything else.
pub(crate) fn canonical_username(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let legal = (3..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    legal.then_some(name)
}
