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

#[cfg(feature = "sqlite")]
pub(crate) mod sqlite {
    use super::{StoreError, StoreErrorKind};

    /// The failure that SQLite reports.
    pub(crate) fn failed(error: sqlx::Error) -> StoreError {
        use sqlx::Error;
        let kind = match &error {
            Error::PoolTimedOut => StoreErrorKind::Timeout,
            Error::PoolClosed | Error::WorkerCrashed | Error::Io(_) => StoreErrorKind::Unavailable,
            Error::ColumnDecode { .. } | Error::Decode(_) => StoreErrorKind::Corrupt,
            Error::Database(database) if database.is_unique_violation() => StoreErrorKind::Conflict,
            Error::Database(database) => {
                let code = database.code();
                match code
                    .and_then(|code| code.parse::<u32>().ok())
                    .map(|code| code & 0xff)
                {
                    // SQLITE_BUSY, SQLITE_LOCKED
                    Some(5 | 6) => StoreErrorKind::Timeout,
                    // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
                    Some(8 | 10 | 13 | 14) => StoreErrorKind::Unavailable,
                    // SQLITE_CORRUPT, SQLITE_NOTADB
                    Some(11 | 26) => StoreErrorKind::Corrupt,
                    _ => StoreErrorKind::Other,
                }
            }
            _ => StoreErrorKind::Other,
        };
        StoreError::new(kind).with_source(error)
    }
}
