//! What goes wrong in a store.

use std::{error, fmt, sync::Arc};

/// A store could not do its step, or cannot tell whether it did.
///
/// The source is the driver's error. `Display` shows the kind alone, since drivers may repeat
/// values.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Arc<dyn error::Error + Send + Sync>>,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached.
    Unavailable,
    /// It did not answer in time; the step may have been done.
    Timeout,
    /// It holds as much as it may.
    Full,
    /// The id of a new row is taken.
    Conflict,
    /// What it holds cannot be read.
    Corrupt,
    /// What it held is gone.
    Lost,
    /// Its tables are of another version.
    SchemaMismatch,
    /// It is set up so that it would lose sessions.
    Misconfigured,
    /// Something else.
    Other,
}

impl StoreError {
    /// A failure without a cause to show.
    #[must_use]
    pub const fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// A failure with the driver's error.
    #[must_use]
    pub fn with_source(
        self,
        source: impl Into<Box<dyn error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Self {
            source: Some(source.into().into()),
            ..self
        }
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Unavailable | StoreErrorKind::Timeout | StoreErrorKind::Full
        )
    }
}

impl From<StoreErrorKind> for StoreError {
    fn from(kind: StoreErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable => "the store cannot be reached",
            StoreErrorKind::Timeout => "the store did not answer in time",
            StoreErrorKind::Full => "the store is full",
            StoreErrorKind::Conflict => "the id is taken",
            StoreErrorKind::Corrupt => "the store holds what cannot be read",
            StoreErrorKind::Lost => "the store lost what it held",
            StoreErrorKind::SchemaMismatch => "the store's tables are of another version",
            StoreErrorKind::Misconfigured => "the store is set up to lose what it holds",
            StoreErrorKind::Other => "the store failed",
        })
    }
}

impl error::Error for StoreError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn error::Error + 'static))
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) mod sql {
    use sqlx::{Error, error::DatabaseError};

    use super::{StoreError, StoreErrorKind};

    /// The failure of a call to a SQL database.
    pub(crate) fn failed(error: Error) -> StoreError {
        let kind = match &error {
            Error::PoolTimedOut => StoreErrorKind::Timeout,
            Error::PoolClosed | Error::WorkerCrashed | Error::Io(_) | Error::Protocol(_) => {
                StoreErrorKind::Unavailable
            }
            Error::ColumnDecode { .. } | Error::Decode(_) => StoreErrorKind::Corrupt,
            Error::Database(database) if database.is_unique_violation() => StoreErrorKind::Conflict,
            Error::Database(database) => kind_of(&**database),
            _ => StoreErrorKind::Other,
        };
        StoreError::new(kind).with_source(error)
    }

    /// What the database's own code says.
    fn kind_of(error: &dyn DatabaseError) -> StoreErrorKind {
        #[cfg(feature = "postgres")]
        if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
            return postgres(error.code());
        }
        #[cfg(feature = "sqlite")]
        if let Some(code) = error.code().and_then(|code| code.parse().ok()) {
            return sqlite(code);
        }
        StoreErrorKind::Other
    }

    #[cfg(feature = "postgres")]
    fn postgres(code: &str) -> StoreErrorKind {
        match (code.get(..2).unwrap_or_default(), code) {
            // A statement that was cancelled, as by its time-out, or waited too long for a lock.
            (_, "57014" | "55P03") => StoreErrorKind::Timeout,
            // Connection lost, resources used up, shut down or starting; a serialization failure or
            // deadlock, of which nothing is left; a server that is read-only, as after a failover.
            ("08" | "53" | "57" | "58" | "40", _) | (_, "25006") => StoreErrorKind::Unavailable,
            // A table or column that is not there.
            (_, "42P01" | "42703") => StoreErrorKind::SchemaMismatch,
            // Access refused.
            ("28", _) | (_, "42501") => StoreErrorKind::Misconfigured,
            ("XX", _) => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Other,
        }
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(code: u32) -> StoreErrorKind {
        match code & 0xff {
            // SQLITE_BUSY, SQLITE_LOCKED
            5 | 6 => StoreErrorKind::Timeout,
            // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
            8 | 10 | 13 | 14 => StoreErrorKind::Unavailable,
            // SQLITE_CORRUPT, SQLITE_NOTADB
            11 | 26 => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Other,
        }
    }
}

#[cfg(all(feature = "redis", feature = "refresh-token"))]
pub(crate) mod redis {
    use redis::{ErrorKind, RedisError};

    use super::{StoreError, StoreErrorKind};

    /// The failure of a call to Redis.
    pub(crate) fn failed(error: RedisError) -> StoreError {
        let kind = match (error.kind(), code(&error)) {
            _ if error.is_timeout() => StoreErrorKind::Timeout,
            // What this crate's own scripts tell.
            (_, Some("LOST")) => StoreErrorKind::Lost,
            (_, Some("OOM")) => StoreErrorKind::Full,
            (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
            | (ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig, _) => {
                StoreErrorKind::Misconfigured
            }
            // A script that runs too long, a disk that takes no writes, replicas that are away; a
            // server that starts or became a replica, a cluster that moves its slots.
            (_, Some("BUSY" | "MISCONF" | "NOREPLICAS" | "LOADING" | READ_ONLY))
            | (_, Some("ASK" | "CLUSTERDOWN" | "MASTERDOWN" | "MOVED" | "TRYAGAIN"))
            | (ErrorKind::Io | ErrorKind::ClusterConnectionNotFound, _) => {
                StoreErrorKind::Unavailable
            }
            (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Other,
        };
        StoreError::new(kind).with_source(error)
    }

    /// The code of a server's error. Before Redis 7 that of a command in a script stands in the text
    /// of the script's own error.
    pub(crate) fn code(error: &RedisError) -> Option<&str> {
        let code = error.code()?;
        let text = error.detail().filter(|_| code == "ERR");
        let within = text.and_then(|text| text.split_once(": -")?.1.split(' ').next());
        Some(within.unwrap_or(code))
    }

    pub(crate) const READ_ONLY: &str = "READONLY";

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn an_error_within_a_script_is_told_by_every_version() {
            for (reply, kind) in [
                ("-OOM command not allowed", StoreErrorKind::Full),
                (
                    "-READONLY a replica script: f_1, on @user_script:1.",
                    StoreErrorKind::Unavailable,
                ),
                (
                    "-ERR Error running script (call to f_1): @user_script:1: @user_script: 1: \
                     -OOM command not allowed when used memory > 'maxmemory'.",
                    StoreErrorKind::Full,
                ),
                (
                    "-ERR Error running script (call to f_1): @user_script:1: @user_script: 1: \
                     -READONLY You can't write against a read only replica.",
                    StoreErrorKind::Unavailable,
                ),
                (
                    "-ERR Error running script: @user_script:1: oh",
                    StoreErrorKind::Other,
                ),
            ] {
                let reply = redis::parse_redis_value(format!("{reply}\r\n").as_bytes()).unwrap();
                let error = reply.extract_error().unwrap_err();
                assert_eq!(failed(error).kind(), kind);
            }
        }
    }
}
