//! The application's own table of users.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use portcullis::{
    audit::{self, Line, Verdict},
    time::UnixMillis,
};
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

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
}

/// Why a user was not stored.
#[derive(Debug)]
pub(crate) enum CreateError {
    Taken,
    Store(sqlx::Error),
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
            Self::Sqlite(pool) => {
                let insert = sqlx::query(
                    "INSERT INTO accounts (id, username, password_hash, created_at)
                     VALUES (?, ?, ?, ?)",
                )
                .bind(account.id)
                .bind(account.username)
                .bind(account.password_hash)
                .bind(now.as_millis());
                match insert.execute(pool).await {
                    Ok(_) => Ok(()),
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                        Err(CreateError::Taken)
                    }
                    Err(error) => Err(CreateError::Store(error)),
                }
            }
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
        }
    }

    pub(crate) async fn by_username(&self, username: &str) -> Result<Option<Account>, sqlx::Error> {
        match self {
            Self::Memory(accounts) => {
                let accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(accounts.get(username).cloned())
            }
            Self::Sqlite(pool) => {
                let row = sqlx::query(
                    "SELECT id, username, password_hash FROM accounts WHERE username = ?",
                )
                .bind(username)
                .fetch_optional(pool)
                .await?;
                row.map(account).transpose()
            }
        }
    }

    pub(crate) async fn by_id(&self, id: &str) -> Result<Option<Account>, sqlx::Error> {
        match self {
            Self::Memory(accounts) => {
                let accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(accounts.values().find(|account| account.id == id).cloned())
            }
            Self::Sqlite(pool) => {
                let row =
                    sqlx::query("SELECT id, username, password_hash FROM accounts WHERE id = ?")
                        .bind(id)
                        .fetch_optional(pool)
                        .await?;
                row.map(account).transpose()
            }
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
            Self::Sqlite(pool) => sqlx::query(
                "UPDATE accounts SET password_hash = ? WHERE id = ? AND password_hash = ?",
            )
            .bind(new)
            .bind(id)
            .bind(old)
            .execute(pool)
            .await
            .map(|done| done.rows_affected() == 1),
        }
    }
}

fn account(row: SqliteRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        id: row.try_get("id")?,
        username: row.try_get("username")?,
        password_hash: row.try_get("password_hash")?,
    })
}

/// A name as it is stored: lower case, 3 to 64 of `[a-z0-9._-]`; `None` for anything else.
pub(crate) fn canonical_username(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let legal = (3..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    legal.then_some(name)
}
